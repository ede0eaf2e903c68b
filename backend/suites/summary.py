"""What a run comes to: each column with intervals, each against the first, paired by case, and how many cases would tell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backend.stats.agreement import Estimate, share
from backend.stats.paired import Flips, cases_needed, difference, flakes, holm, mcnemar


class Column(NamedTuple):
    """``passed`` counts cases whose every repeat passed, so that repeats do not pretend to be cases."""

    passed: Estimate
    score: Estimate  # mean over cases of the mean over repeats; a bootstrap over cases
    flaky: float  # share of repeated cases that did not always say the same; nan without repeats
    seconds: float  # median per answer
    tokens: float  # median of the answer
    prompt_tokens: float  # median
    failed: int  # cells without an answer
    n: int  # cells


class Pair(NamedTuple):
    """One column against the first."""

    arm: int
    flips: Flips
    adjusted: float  # p by Holm over all columns
    gain: Estimate  # of the score
    needed: int | None  # cases with which a gain of this size would be found; None where there is none to find
    n: int  # cases that both answered


class Summary(NamedTuple):
    columns: list[Column]
    pairs: list[Pair]


def summed(rows: Iterable[Mapping[str, Any]], arms: int) -> Summary:
    """``rows`` are the cells as feedback_db.suites.told gives them."""
    scores: list[dict[int, list[float]]] = [defaultdict(list) for _ in range(arms)]
    passes: list[dict[int, list[bool]]] = [defaultdict(list) for _ in range(arms)]
    facts: list[list[Mapping[str, Any]]] = [[] for _ in range(arms)]
    for row in rows:
        scores[row["arm"]][row["case_id"]].append(row["score"])
        passes[row["arm"]][row["case_id"]].append(bool(row["passed"]))
        facts[row["arm"]].append(row)
    columns = [_column(scores[arm], passes[arm], facts[arm]) for arm in range(arms)]
    pairs = [_pair(arm, scores[0], scores[arm], passes[0], passes[arm]) for arm in range(1, arms)]
    adjusted = holm([pair.flips.p for pair in pairs])
    return Summary(columns, [pair._replace(adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)])


def _column(
    scores: Mapping[int, Sequence[float]], passes: Mapping[int, Sequence[bool]], facts: Sequence[Mapping[str, Any]]
) -> Column:
    means = [_mean(scores[case]) for case in sorted(scores)]
    return Column(
        passed=share(sum(all(one) for one in passes.values()), len(passes)),
        score=difference([0.0] * len(means), means),
        flaky=flakes(list(passes.values())),
        seconds=_median([row["seconds"] for row in facts]),
        tokens=_median([row["tokens"] for row in facts]),
        prompt_tokens=_median([row["prompt_tokens"] for row in facts]),
        failed=sum(bool(row["failed"]) for row in facts),
        n=len(facts),
    )


def _pair(
    arm: int,
    first: Mapping[int, Sequence[float]],
    other: Mapping[int, Sequence[float]],
    first_passes: Mapping[int, Sequence[bool]],
    other_passes: Mapping[int, Sequence[bool]],
) -> Pair:
    both = sorted(set(first) & set(other))
    flips = mcnemar([all(first_passes[case]) for case in both], [all(other_passes[case]) for case in both])
    gain = difference([_mean(first[case]) for case in both], [_mean(other[case]) for case in both])
    n = len(both)
    net = (flips.gained - flips.lost) / n if n else 0.0
    needed = cases_needed((flips.gained + flips.lost) / n, net) if n else None
    return Pair(arm, flips, flips.p, gain, needed, n)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _median(values: Sequence[float | None]) -> float:
    known = sorted(value for value in values if value is not None)
    middle = len(known) // 2
    if not known:
        return math.nan
    return float(known[middle]) if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
