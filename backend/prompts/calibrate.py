"""What a model's opinion of label words is worth: shares, priors that are divided out, how far confidence is from being right.

Every function takes rows of cases and columns of labels. A label's score is the mean log-probability of its tokens, so that a
label of three tokens is not thought less of than one of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from random import Random

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONTENT_FREE = ("N/A", "", "[MASK]")  # Zhao et al. 2021 (arXiv:2102.09690), section 5
BAGS = 20  # texts of random words; our choice
MOST_ORDERS = 24  # all orders of four; of more demonstrations so many are drawn
BINS = 10
LEAST = 1e-12  # a share is never less, so that a label nobody believes in can be divided by


def shares(logps: Sequence[Sequence[float]] | Floats) -> Floats:
    """Probabilities over the labels from their scores in nats, (N, L) -> (N, L)."""
    scores = np.asarray(logps, dtype=np.float64).reshape(len(logps), -1)
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True))


def prior(of: Floats) -> Floats:
    """What the model says on the average of these texts, (N, L) -> (L,). Of content-free texts it is contextual calibration
    (Zhao et al. 2021), of random words of the domain domain-context calibration (Fei et al. 2023, arXiv:2305.19148), of the
    cases themselves batch calibration (Zhou et al. 2023, arXiv:2309.17249)."""
    return np.asarray(of.mean(0))


def divided(given: Floats, by: Floats) -> Floats:
    """The shares with a prior (L,) divided out, in proportion. A prior that is the same for all labels changes nothing."""
    raised = given / np.maximum(by, LEAST)
    return np.asarray(raised / raised.sum(1, keepdims=True))


def beyond(logps: Sequence[Sequence[float]], stub: Sequence[float]) -> Floats:
    """Shares by what the prompt adds to a label's score over the answer stub alone: pointwise mutual information given the domain
    (Holtzman et al. 2021, arXiv:2104.08315). logps (N, L) and stub (L,) in nats."""
    return shares(np.asarray(logps, dtype=np.float64) - np.asarray(stub, dtype=np.float64))


def chosen(given: Floats) -> list[int]:
    """The likeliest label of each case; between equals the first."""
    return [int(at) for at in given.argmax(1)]


def calibration_error(given: Floats, right: Sequence[int]) -> float:
    """Expected calibration error: how far confidence in the likeliest label is from how often it is right, over ten bins of equal
    width, each counted by its cases (Guo et al. 2017, arXiv:1706.04599, eq. 3). NaN of no cases."""
    if not len(given):
        return math.nan
    sure, hit = given.max(1), given.argmax(1) == np.asarray(right)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs(sure[bins == b].sum() - hit[bins == b].sum()) for b in range(BINS)) / len(given))


def label_entropy(given: Floats) -> float:
    """Nats of the histogram of likeliest labels: an order that makes a model always say one label has none. Needs no right
    answers (Lu et al. 2022, arXiv:2104.08786, GlobalE)."""
    counts = np.bincount(given.argmax(1), minlength=given.shape[1]) / len(given)
    said = counts[counts > 0]
    return float(-(said * np.log(said)).sum()) + 0.0


def orders(count: int, seed: int, most: int = MOST_ORDERS) -> list[tuple[int, ...]]:
    """Orders of so many places, the given one first: all of them where there are no more than ``most``, else ``most`` different
    ones by the seed."""
    if math.factorial(count) <= most:
        return list(permutations(range(count)))
    drawn, rng = [tuple(range(count))], Random(f"orders {seed}")
    seen = set(drawn)
    while len(drawn) < most:
        one = tuple(rng.sample(range(count), count))
        if one not in seen:
            seen.add(one)
            drawn.append(one)
    return drawn


def bags(texts: Sequence[str], *, is_chinese: bool, seed: int, count: int = BAGS) -> list[str]:
    """Texts of mean length made of random words of these texts; of Chinese ones of pairs of neighbouring characters."""
    words = [_pairs(text) if is_chinese else text.split() for text in texts]
    pool = [word for text in words for word in text]
    if not pool:
        return []
    length = max(1, round(len(pool) / len(words)) // (2 if is_chinese else 1))
    rng = Random(f"bags {seed}")
    return [("" if is_chinese else " ").join(rng.choices(pool, k=length)) for _ in range(count)]


def _pairs(text: str) -> list[str]:
    return [text[at : at + 2] for at in range(len(text) - 1) if not text[at : at + 2].isspace()]
