"""What a run comes to: each column with intervals, each against the first, paired by case, and how many cases would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backend.stats.agreement import NOTHING, Estimate, median, share
from backend.stats.paired import Flips, cases_needed, flips, holm
from backend.suites.looking import Look


class Column(NamedTuple):
    """``passed`` counts cases whose every repeat passed, so that repeats do not pretend to be cases."""

    passed: Estimate
    score: Estimate  # mean over cases of the mean over repeats; a bootstrap over cases
    flaky: Estimate  # share of repeated cases that did not always say the same; of none without repeats
    seconds: Estimate  # median over answers
    tokens: Estimate  # median of the answers
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


def summed(look: Look) -> Summary:
    columns = [_column(look, arm) for arm in range(look.arms)]
    pairs = [_pair(look, arm) for arm in range(1, look.arms)]
    adjusted = holm([pair.flips.p for pair in pairs])
    return Summary(columns, [pair._replace(adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)])


def _column(look: Look, arm: int) -> Column:
    cells, passed = look.cells[:, arm], look.passed[:, arm]
    there, several = cells > 0, cells > 1
    n = int(there.sum())
    mean = float(np.nanmean(look.means[:, arm])) if n else math.nan
    wavering = int((several & (passed > 0) & (passed < cells)).sum())
    return Column(
        passed=share(int((there & (passed == cells)).sum()), n),
        score=look.spread.estimate(arm, mean, n),
        flaky=share(wavering, int(several.sum())),
        seconds=median(look.facts["seconds"][arm]) or NOTHING,
        tokens=median(look.facts["tokens"][arm]) or NOTHING,
        prompt_tokens=_median(look.facts["prompt_tokens"][arm]),
        failed=int(look.failed[arm]),
        n=int(cells.sum()),
    )


def _pair(look: Look, arm: int) -> Pair:
    both = (look.cells[:, 0] > 0) & (look.cells[:, arm] > 0)
    held = look.passed == look.cells
    found = flips(int((both & ~held[:, 0] & held[:, arm]).sum()), int((both & held[:, 0] & ~held[:, arm]).sum()))
    n = int(both.sum())
    gain = float((look.means[both, arm] - look.means[both, 0]).mean()) if n else math.nan
    net = (found.gained - found.lost) / n if n else 0.0
    needed = cases_needed((found.gained + found.lost) / n, net, look.arms - 1) if n else None
    return Pair(arm, found, found.p, look.spread.estimate(look.arms + arm - 1, gain, n), needed, n)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
