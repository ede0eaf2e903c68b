"""What to label next: cases that stand for many others which no demonstration is near yet.

Vote-k of Su et al. 2022 (arXiv:2209.01975), its graph and its first stage: every text points at its nearest ones, and each next
case is the one that most others point at, where a text counts a tenth for every neighbour that is labelled already. This needs no
model and answers at once. Their second stage, which asks a model how sure it is, hands its groups to the same votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .fewshot import features, normalised

NEIGHBOURS = 150  # theirs, for three thousand texts; of fewer a tenth
FADES = 10.0  # theirs: rho
WIDTH = 4096  # grams are counted modulo this; our choice
MOST_TEXTS = 4000  # of which each is compared with every other; our choice


class Vote(NamedTuple):
    place: int  # in the texts that were given
    score: float
    stands_for: int  # texts that point at it and at nothing labelled


def vote_k(texts: Sequence[str], count: int, labelled: Sequence[int] = ()) -> list[Vote]:
    """The next ``count`` places to label, best first; ``labelled`` are places that are labelled already and are not named again.

    Between equals the earlier text comes first. Nothing is random.
    """
    open_ones = len(texts) - len(set(labelled))
    return vote_in_groups(texts, [range(len(texts))] * min(count, open_ones), labelled)


def vote_in_groups(texts: Sequence[str], groups: Sequence[Sequence[int]], labelled: Sequence[int] = ()) -> list[Vote]:
    """Of each group of places, one after the other, the one with the most votes that was not taken before it. A group needs a
    place that is not taken yet."""
    near = _neighbours(texts)  # (N, k)
    covered = np.zeros(len(texts), dtype=np.int64)  # labelled ones among the nearest of each
    is_open = np.ones(len(texts), dtype=bool)
    points_at: list[list[int]] = [[] for _ in texts]
    for place, others in enumerate(near):
        for other in others:
            points_at[other].append(place)
    taken: list[Vote] = []

    def take(place: int) -> None:
        is_open[place] = False
        covered[points_at[place]] += 1

    for place in labelled:
        take(place)
    for group in groups:
        weights = np.where(is_open, FADES ** -covered.astype(np.float64), 0.0)
        scores = np.bincount(near.ravel(), np.repeat(weights, near.shape[1]), len(texts))
        places = np.asarray(group)
        best = int(places[np.where(is_open[places], scores[places], -1.0).argmax()])
        stands_for = sum(1 for place in points_at[best] if is_open[place] and not covered[place])
        taken.append(Vote(best, float(scores[best]), stands_for))
        take(best)
    return taken


def _neighbours(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Each text's nearest others by cosine of TF-IDF over character grams, (N, k)."""
    grams = np.zeros((len(texts), WIDTH), dtype=np.float32)
    for row, text in enumerate(texts):
        for gram, times in features(normalised(text)).items():
            grams[row, _place(gram)] += times
    known = (grams > 0).sum(0)
    grams *= np.log((1 + len(texts)) / (1 + known)).astype(np.float32) + 1
    grams /= np.maximum(np.linalg.norm(grams, axis=1, keepdims=True), 1e-9)
    alike = np.round(grams @ grams.T, 5)
    np.fill_diagonal(alike, -1)
    k = max(1, min(NEIGHBOURS, len(texts) // 10))
    return np.asarray(np.argsort(-alike, axis=1, kind="stable")[:, : min(k, len(texts) - 1)])


def _place(gram: str) -> int:
    """The same in every process, as ``hash`` is not."""
    value = 0
    for letter in gram:
        value = (value * 1_000_003 + ord(letter)) & 0xFFFFFFFF
    return value % WIDTH
