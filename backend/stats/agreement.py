"""How far people agree: Krippendorff's alpha, Fleiss' kappa and plain agreement, with bootstrap intervals over comparisons.

A unit is a comparison; what several people said of it is a row of counts, one column per category. Equal rows are one pattern
with a number of how often it occurs, so a bootstrap draws numbers of patterns (one multinomial) and never touches a judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
BOOTSTRAPS = 1000


class Estimate(NamedTuple):
    """A value with its 95 % interval, and what it rests on. NaN where nothing can be said."""

    value: float
    low: float
    high: float
    n: int  # units that more than one person judged


class Agreement(NamedTuple):
    alpha: Estimate
    raw: Estimate  # share of the pairs of judgements on one comparison that are equal
    fleiss: float  # NaN unless every unit has equally many judgements


def count(units: Sequence[int] | Counts, categories: Sequence[int] | Counts, kinds: int) -> Counts:
    """(U, kinds): for each unit how many people chose each category. ``units`` and ``categories`` go by judgement."""
    ids, place = np.unique(np.asarray(units, np.int64), return_inverse=True)
    cells = place * kinds + np.asarray(categories, np.int64)
    return np.asarray(np.bincount(cells, minlength=len(ids) * kinds).reshape(len(ids), kinds), np.int64)


def nominal(kinds: int) -> Floats:
    """Distances between categories without an order: 0 or 1."""
    return 1.0 - np.eye(kinds)


def interval(values: Sequence[float]) -> Floats:
    """Squared distances between categories that are numbers."""
    numbers = np.asarray(values, float)
    return (numbers[:, None] - numbers[None, :]) ** 2


def measure(counts: Counts, distance: Floats, *, seed: int = 0) -> Agreement:
    """Agreement of the units in ``counts`` (U, C); those that one person judged say nothing and are left out."""
    several = counts[counts.sum(1) > 1]
    if len(several) == 0:
        nothing = Estimate(float("nan"), float("nan"), float("nan"), 0)
        return Agreement(nothing, nothing, float("nan"))
    patterns, times = np.unique(several, axis=0, return_counts=True)
    pairs = _coincidences(patterns)  # (P, C, C)
    equal, all_pairs = _pairs(patterns)  # (P,), (P,)
    drawn = np.random.default_rng(seed).multinomial(len(several), times / times.sum(), BOOTSTRAPS)  # (B, P)
    weights = np.vstack([times, drawn]).astype(float)  # the first row is what was seen
    alphas = _alpha(np.tensordot(weights, pairs, 1), distance)
    raws = (weights @ equal) / (weights @ all_pairs)
    return Agreement(_estimate(alphas, len(several)), _estimate(raws, len(several)), fleiss(several))


def _coincidences(patterns: Counts) -> Floats:
    """Per pattern the pairs of values that stand together in one unit, each value counted once (Krippendorff 2011)."""
    rows = patterns.astype(float)
    together = rows[:, :, None] * rows[:, None, :] - np.eye(rows.shape[1]) * rows[:, :, None]
    return together / (rows.sum(1) - 1)[:, None, None]


def _pairs(patterns: Counts) -> tuple[Floats, Floats]:
    """Per pattern the pairs of judgements that are equal, and all pairs."""
    totals = patterns.sum(1)
    return (patterns * (patterns - 1)).sum(1) / 2.0, totals * (totals - 1) / 2.0


def _alpha(coincidences: Floats, distance: Floats) -> Floats:
    """1 - observed over expected distance, for each matrix (B, C, C); 1 where nothing could differ."""
    margins = coincidences.sum(2)  # (B, C)
    n = margins.sum(1)
    observed = (coincidences * distance).sum((1, 2))
    expected = np.einsum("bc,bk,ck->b", margins, margins, distance) / (n - 1)
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 1.0)


def fleiss(counts: Counts) -> float:
    """Fleiss' kappa; NaN unless every unit was judged by equally many people."""
    each = counts.sum(1)
    if len(counts) == 0 or each.min() != each.max() or each[0] < 2:
        return float("nan")
    n = each[0]
    observed = float(((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean())
    expected = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def cohen(first: Sequence[int] | Counts, second: Sequence[int] | Counts, kinds: int) -> float:
    """Cohen's kappa of two people who judged the same units, in the same order; NaN for none."""
    together = np.zeros((kinds, kinds))
    np.add.at(together, (np.asarray(first, np.int64), np.asarray(second, np.int64)), 1.0)
    if not together.sum():
        return float("nan")
    together /= together.sum()
    observed, expected = float(np.trace(together)), float(together.sum(1) @ together.sum(0))
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _estimate(values: Floats, n: int) -> Estimate:
    """The first value, with the percentiles of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high), n)


def share(hits: float, n: float) -> Estimate:
    """A share with Wilson's 95 % interval; honest for few."""
    if n <= 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n)), round(n))


def median(values: Sequence[float]) -> Estimate | None:
    """The upper median with a 95 % interval between two of the values (order statistics; Conover 1999, section 3.2); None of none."""
    n = len(values)
    if n == 0:
        return None
    ordered, reach = sorted(values), 1.959964 * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - reach))), min(n - 1, int(np.ceil(n / 2 + reach)))
    return Estimate(float(ordered[n // 2]), float(ordered[low]), float(ordered[high]), n)
