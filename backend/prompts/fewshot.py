"""Which demonstrations a prompt carries, and in which order."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from random import Random
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from backend.problem import Problem
from feedback_db.types import Demonstration

Choose = Literal["fixed", "seeded", "nearest", "bm25", "varied", "embedded", "embedded_varied", "balanced"]
EMBEDDED: tuple[Choose, ...] = ("embedded", "embedded_varied")  # near is what a base's embeddings say
CASE_WISE: tuple[Choose, ...] = ("nearest", "bm25", "varied", *EMBEDDED)  # what is chosen depends on the case
Order = Literal["listed", "nearest_last", "seeded"]
Shape = Literal["turns", "text"]

MOST_DEMONSTRATIONS = 32
LEAK_GRAM = 5
LEAK_JACCARD = 0.8  # our choice
BM25_K1, BM25_B = 1.2, 0.75  # the values in common use
Matrix = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str], str], Matrix]  # texts, fingerprint of a base -> (N, D), each of length 1
T = TypeVar("T")
NEAR = 0.5  # how much nearness counts against difference from what was taken, for ``varied``; our choice


class FewShotProblem(Problem, ValueError):
    """A few-shot setting, or a bank of demonstrations, that cannot be used; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """The few-shot part of a template version. It changes the bytes of a prompt, so it belongs to the version.

    ``order`` listed keeps the chooser's own order: the ids as given, the draws, nearest last, the most telling last, or the rounds
    over labels.
    """

    k: int = 0
    choose: Choose = "fixed"
    ids: tuple[int, ...] = ()
    seed: int = 0
    order: Order = "listed"
    shape: Shape = "turns"
    base: str = (
        ""  # fingerprint of the base whose embeddings choose, in hexadecimal; a template gets it when it is saved
    )

    def __post_init__(self) -> None:
        if type(self.k) is not int or not 0 <= self.k <= MOST_DEMONSTRATIONS:
            raise FewShotProblem(
                f"k is {self.k!r}; it must be a whole number from 0 to {MOST_DEMONSTRATIONS}.", "few_shot_k",
                value=self.k, most=MOST_DEMONSTRATIONS,
            )  # fmt: skip
        if type(self.seed) is not int:
            raise FewShotProblem(f"seed is {self.seed!r}; it must be a whole number.", "few_shot_seed", value=self.seed)
        if any(type(id) is not int for id in self.ids) or len(set(self.ids)) != len(self.ids):
            raise FewShotProblem("ids must be whole numbers, each of them once.", "few_shot_ids")
        if not isinstance(self.base, str) or not re.fullmatch("([0-9a-f]{64})?", self.base):
            raise FewShotProblem(
                f"base is {self.base!r}; it must be 64 hexadecimal digits, or empty.", "few_shot_base", value=self.base
            )
        for name, known in (("choose", Choose), ("order", Order), ("shape", Shape)):
            if getattr(self, name) not in get_args(known):
                value, listed = getattr(self, name), ", ".join(get_args(known))
                raise FewShotProblem(
                    f"{name} is {value!r}; it must be one of {listed}.",
                    "few_shot_choice",
                    name=name,
                    value=value,
                    known=listed,
                )

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> "FewShot":
        """From the ``few_shot`` of a template row. A key that is not known is an error, not a silent default."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(row) - set(known))
        if unknown:
            names, listed = ", ".join(unknown), ", ".join(known)
            raise FewShotProblem(
                f"few_shot has no setting {names}. It knows {listed}.", "few_shot_unknown", names=names, known=listed
            )
        settings = dict(row)
        if "ids" in settings:
            if not isinstance(settings["ids"], list | tuple):
                raise FewShotProblem("ids must be a list of whole numbers.", "few_shot_ids")
            settings["ids"] = tuple(settings["ids"])
        return cls(**settings)

    def as_row(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"ids": list(self.ids)}


class Near(NamedTuple):
    """How near the demonstrations of a pool are to a case, and to each other."""

    to_query: list[float]
    to: Callable[[int], list[float]]


def choose(
    pool: Sequence[Demonstration], query: str, few_shot: FewShot, embed: Embed | None = None
) -> list[Demonstration]:
    """At most k demonstrations for the case whose input is ``query``, in the order in which they are shown.

    A demonstration that is (nearly) the case itself would give its answer away and is never taken. ``embed`` is asked where
    embeddings choose, and only there; it may raise what an engine raises.
    """
    if few_shot.k == 0:
        return []
    listed = _named(pool, few_shot.ids) if few_shot.choose == "fixed" and few_shot.ids else list(pool)
    fit = whole = [demonstration for demonstration in listed if not leaks(demonstration.input, query)]

    def near(some: Sequence[Demonstration]) -> Near:
        return (
            _near_embedded(some, whole, query, few_shot, embed) if few_shot.choose in EMBEDDED else _near(some, query)
        )

    if few_shot.choose == "seeded":
        fit = _drawn(fit, few_shot.seed)
    elif few_shot.choose == "balanced":
        fit = _in_rounds(fit, few_shot.seed)
    elif few_shot.choose in ("nearest", "embedded"):
        fit = _by_similarity(fit, near(fit))[::-1]
    elif few_shot.choose == "bm25":
        fit = _by_bm25(fit, query)
    elif few_shot.choose in ("varied", "embedded_varied"):
        fit = _varied(fit, near(fit), few_shot.k)
    taken = fit[: few_shot.k]
    if few_shot.order == "seeded":
        taken = shuffled(taken, few_shot.seed)
    elif few_shot.order == "nearest_last":
        taken = _by_similarity(taken, near(taken))
    elif few_shot.choose in CASE_WISE:
        taken.reverse()
    return taken


def shuffled(chosen: Sequence[T], seed: int) -> list[T]:
    """What ``order`` seeded makes of what was chosen, first choice first."""
    own = list(chosen)
    Random(f"order {seed}").shuffle(own)
    return own


def closeness(few_shot: FewShot, count: int) -> list[float] | None:
    """How near each of so many shown ones is to the case, where their places do not say it: shuffled, those chosen first are nearest."""
    if few_shot.order != "seeded" or few_shot.choose not in CASE_WISE:
        return None
    return [-float(place) for place in shuffled(range(count), few_shot.seed)]


def leaks(input: str, asked: str) -> bool:
    """Whether a demonstration's input is the case asked, or differs from it in next to nothing."""
    ours, theirs = normalised(input), normalised(asked)
    if ours == theirs:
        return True
    if min(len(ours), len(theirs)) < LEAK_JACCARD * max(len(ours), len(theirs)) / 2:
        return False
    a, b = _grams(ours, LEAK_GRAM), _grams(theirs, LEAK_GRAM)
    shared = len(a & b)
    return bool(shared) and shared >= LEAK_JACCARD * (len(a) + len(b) - shared)


def similarities(pool: Sequence[Demonstration], query: str) -> list[float]:
    """Cosine of TF-IDF over character 2- and 3-grams: needs no model and no word segmenter, so it serves Chinese too."""
    return _near(pool, query).to_query


def _near(pool: Sequence[Demonstration], query: str) -> Near:
    texts = [features(normalised(demonstration.input)) for demonstration in pool]
    rarity = _rarity(texts)
    return Near(
        _cosines(texts, features(normalised(query)), rarity), lambda place: _cosines(texts, texts[place], rarity)
    )


def _near_embedded(
    some: Sequence[Demonstration], whole: Sequence[Demonstration], query: str, few_shot: FewShot, embed: Embed | None
) -> Near:
    """Cosine of embeddings, after the mean of the whole pool was taken off: the states of a language model lie in a narrow cone
    (Mu & Viswanath 2018, arXiv:1702.01417, of which this is the first step)."""
    if embed is None or not few_shot.base:
        raise FewShotProblem(
            "This template chooses by embeddings and names no base that makes them. Save it on the Build page, which names it.",
            "no_base_named",
        )
    if not some:
        return Near([], lambda place: [])
    asked, *read = embed([query, *(one.input for one in whole)], few_shot.base)
    by_id = {one.id: vector for one, vector in zip(whole, read, strict=True)}
    own = np.stack([asked, *(by_id[one.id] for one in some)]) - np.mean(read, axis=0)
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    return Near((own[1:] @ own[0]).tolist(), lambda place: (own[1:] @ own[1 + place]).tolist())


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _rarity(texts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    known = Counter(gram for text in texts for gram in text)
    return {gram: math.log((1 + len(texts)) / (1 + count)) + 1 for gram, count in known.items()}


def _cosines(texts: Sequence[Mapping[str, int]], one: Mapping[str, int], rarity: Mapping[str, float]) -> list[float]:
    unseen = math.log(1 + len(texts)) + 1
    weights = {gram: count * rarity.get(gram, unseen) for gram, count in one.items()}
    norm = math.sqrt(sum(weight * weight for weight in weights.values()))
    return [_cosine(text, weights, norm, rarity) for text in texts]


def _varied(pool: Sequence[Demonstration], near: Near, count: int) -> list[Demonstration]:
    """Maximal marginal relevance (Carbonell & Goldstein 1998): each is near the case and unlike those taken before it. Between
    equals the smaller id comes first."""
    alike, left = [0.0] * len(pool), set(range(len(pool)))
    taken: list[Demonstration] = []
    while left and len(taken) < count:
        best = max(left, key=lambda i: (round(NEAR * near.to_query[i] - (1 - NEAR) * alike[i], 9), -_id(pool[i])))
        taken.append(pool[best])
        left.remove(best)
        beside = near.to(best)
        alike = beside if len(taken) == 1 else [max(old, new) for old, new in zip(alike, beside, strict=True)]
    return taken


def _cosine(text: Mapping[str, int], weights: Mapping[str, float], norm: float, rarity: Mapping[str, float]) -> float:
    length = math.sqrt(sum((count * rarity[gram]) ** 2 for gram, count in text.items()))
    if not length or not norm:
        return 0.0
    return sum(text[gram] * rarity[gram] * weight for gram, weight in weights.items() if gram in text) / (length * norm)


def _by_similarity(pool: Sequence[Demonstration], near: Near) -> list[Demonstration]:
    """Nearest last; between equals the one with the smaller id counts as nearer."""
    scored = zip(near.to_query, pool, strict=True)
    return [demonstration for _, demonstration in sorted(scored, key=lambda pair: (round(pair[0], 9), -_id(pair[1])))]


def _by_bm25(pool: Sequence[Demonstration], query: str) -> list[Demonstration]:
    """Best first by BM25 (Robertson & Zaragoza 2009, equation 3.15) over character 2- and 3-grams: a long text is not near for being
    long, and what is said twice counts less than twice. Between equals the smaller id comes first."""
    texts = [features(normalised(demonstration.input)) for demonstration in pool]
    known = Counter(gram for text in texts for gram in text)
    lengths = [sum(text.values()) for text in texts]
    mean = sum(lengths) / len(lengths) if lengths else 1.0
    asked = {
        gram: math.log(1 + (len(texts) - known[gram] + 0.5) / (known[gram] + 0.5))
        for gram in features(normalised(query))
    }

    def score(text: Mapping[str, int], length: int) -> float:
        long = BM25_K1 * (1 - BM25_B + BM25_B * length / mean)
        return sum(
            weight * text[gram] * (BM25_K1 + 1) / (text[gram] + long) for gram, weight in asked.items() if gram in text
        )

    scored = zip(map(score, texts, lengths), pool, strict=True)
    return [one for _, one in sorted(scored, key=lambda pair: (-round(pair[0], 9), _id(pair[1])))]


def _named(pool: Sequence[Demonstration], ids: Sequence[int]) -> list[Demonstration]:
    by_id = {demonstration.id: demonstration for demonstration in pool}
    missing = [str(id) for id in ids if id not in by_id]
    if missing:
        raise FewShotProblem(
            f"The template names demonstrations that are not in the bank: {', '.join(missing)}. "
            "Take them out of the template, or add them again.",
            "few_shot_missing",
            ids=", ".join(missing),
        )
    return [by_id[id] for id in ids]


def _drawn(pool: Sequence[Demonstration], seed: int) -> list[Demonstration]:
    shuffled = sorted(pool, key=_id)
    Random(seed).shuffle(shuffled)
    return shuffled


def _in_rounds(pool: Sequence[Demonstration], seed: int) -> list[Demonstration]:
    """One of each label, then a second of each, and so on. Those without a label are left out."""
    groups: dict[str, list[Demonstration]] = {}
    for demonstration in _drawn(pool, seed):
        if demonstration.label is not None:  # "0" and "" are labels
            groups.setdefault(str(demonstration.label), []).append(demonstration)
    if pool and not groups:
        raise FewShotProblem(
            "Balanced choosing needs labels, and no demonstration has one. Label them or choose nearest.",
            "few_shot_labels",
        )
    labels = sorted(groups)
    Random(f"labels {seed}").shuffle(labels)
    rounds = max(map(len, groups.values()), default=0)
    return [groups[label][i] for i in range(rounds) for label in labels if i < len(groups[label])]


def _id(demonstration: Demonstration) -> int:
    return demonstration.id or 0


@lru_cache(maxsize=8192)
def features(text: str) -> Mapping[str, int]:
    return MappingProxyType(
        Counter(text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1)) or Counter([text])
    )


@lru_cache(maxsize=8192)
def _grams(text: str, n: int) -> frozenset[str]:
    return frozenset(text[i : i + n] for i in range(max(1, len(text) - n + 1)))
