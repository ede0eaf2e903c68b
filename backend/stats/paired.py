"""Two columns over the same cases: which is better, how sure that is, and how many cases would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from backend.stats.agreement import Estimate

DRAWS = 2000
EXACT_INTEGERS = 500  # flips up to which whole numbers are summed
TERMS = 4000  # of a binomial tail, from its end; those before them are below 1e-100 of it for any number of flips a run can have
ALPHA, POWER = 0.05, 0.8


class Flips(NamedTuple):
    """Cases that one passes and the other fails."""

    gained: int  # the second passes, the first failed
    lost: int
    p: float  # McNemar, exact, two-sided


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Flips:
    """Exact test of McNemar (1947): given that they differ, either is as likely; binomial with 1/2. Equal lengths."""
    pairs = list(zip(first, second, strict=True))
    return flips(sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs))


def flips(gained: int, lost: int) -> Flips:
    """McNemar's exact test of counts. Of many flips the binomial terms are summed as logarithms, which is as exact and quicker."""
    n, least = gained + lost, min(gained, lost)
    if n <= EXACT_INTEGERS:
        tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    else:
        whole = math.lgamma(n + 1) - n * math.log(2)
        tail = math.fsum(
            math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1))
            for k in range(max(0, least - TERMS), least + 1)
        )
    return Flips(gained, lost, min(1.0, 2 * tail))


def difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean of second - first with a 95 % interval: a bootstrap over cases (Efron 1979). A case's score is the mean of its
    repeats, so repeats do not make the interval narrower than the cases allow."""
    gaps = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    n = len(gaps)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    drawn = gaps[np.random.default_rng(seed).integers(n, size=(DRAWS, n))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(gaps.mean()), float(low), float(high), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for having looked at all of them (Holm 1979): each stands for the chance of any false alarm."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def cases_needed(flips: float, gain: float, tests: int = 1) -> int | None:
    """Cases with which McNemar's test finds this gain four times in five, where this share of cases flips and so many columns are
    tested. None where there is no gain to find.

    Connor (1987) by the normal approximation, with the correction for continuity (Fleiss) that the exact test's caution comes to:
    without it a test of a few cases would be told to need no more than it has.
    """
    if not 0 < abs(gain) <= flips <= 1:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / (2 * tests)) * math.sqrt(flips)
    reach += normal.inv_cdf(POWER) * math.sqrt(flips - gain * gain)
    plain = (reach / gain) ** 2
    return math.ceil(plain / 4 * (1 + math.sqrt(1 + 4 / (plain * abs(gain)))) ** 2)


def flakes(repeats: Sequence[Sequence[bool]]) -> float:
    """Share of the cases asked more than once that did not always pass or always fail; nan where none was."""
    several = [one for one in repeats if len(one) > 1]
    return sum(len(set(one)) > 1 for one in several) / len(several) if several else math.nan
