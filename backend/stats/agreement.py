"""How far people agree: Krippendorff's alpha, Fleiss' and Cohen's kappa and plain agreement, with bootstrap intervals over comparisons.

A unit is a comparison; what several people said of it is a row of counts, one column per category. Equal rows are one pattern
with a number of how often it occurs, so a bootstrap draws numbers of patterns (one multinomial) and never touches a judgement.
Alpha itself is the krippendorff package's; no library draws a thousand of it from a million judgements within a second
(docs/decisions/007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import krippendorff
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
BOOTSTRAPS = 1000
TALLIED = 1 << 22  # different rows that could be; above this they are sorted


class Estimate(NamedTuple):
    """A value with its 95 % interval, and what it rests on. NaN where nothing can be said."""

    value: float
    low: float
    high: float
    n: int  # units that more than one person judged


NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0)


class Agreement(NamedTuple):
    alpha: Estimate
    raw: Estimate  # share of the pairs of judgements on one comparison that are equal
    fleiss: Estimate  # nothing unless every unit has equally many judgements


def count(units: Sequence[int] | Counts, categories: Sequence[int] | Counts, kinds: int) -> Counts:
    """(U, kinds): for each unit how many people chose each category. ``units`` and ``categories`` go by judgement."""
    ids, place = np.unique(np.asarray(units, np.int64), return_inverse=True)
    cells = place * kinds + np.asarray(categories, np.int64)
    return np.asarray(np.bincount(cells, minlength=len(ids) * kinds).reshape(len(ids), kinds), np.int64)


def measure(counts: Counts, values: Sequence[float] | None = None, *, seed: int = 0) -> Agreement:
    """Agreement of the units in ``counts`` (U, C); those that one person judged say nothing and are left out.

    ``values``: the categories as rising numbers, whose squared distances alpha then goes by; without them any two differ alike.
    """
    several = counts[counts.sum(1) > 1]
    if len(several) == 0:
        return Agreement(NOTHING, NOTHING, NOTHING)
    patterns, times = _patterns(several)
    drawn = _drawn(times, seed)  # (B, P)
    alphas = _alphas(np.tensordot(drawn, _coincidences(patterns), 1), _distances(patterns.shape[1], values))
    equal, pairs = _pairs(patterns)  # (P,), (P,)
    raw = float(times @ equal / (times @ pairs))
    n = len(several)
    return Agreement(
        _estimate(_alpha(several, values), alphas, n),
        _estimate(raw, (drawn @ equal) / (drawn @ pairs), n),
        _fleiss(patterns, times, drawn),
    )


def _patterns(several: Counts) -> tuple[Counts, Counts]:
    """The different rows, and how often each occurs. Rows are read as the digits of a number, which sorts a hundred times faster."""
    kinds, base = several.shape[1], int(several.max()) + 1
    if base**kinds > TALLIED:
        rows, times = np.unique(several, axis=0, return_counts=True)
        return rows, times
    places = base ** np.arange(kinds)
    tally = np.bincount(several @ places, minlength=base**kinds)
    seen = np.flatnonzero(tally)
    return seen[:, None] // places % base, tally[seen]


def _drawn(times: Counts, seed: int) -> Floats:
    """(B, P): how often each pattern, or cell of a table, occurs in each draw."""
    n = int(times.sum())
    return np.asarray(np.random.default_rng(seed).multinomial(n, times / n, BOOTSTRAPS), float)


def _alpha(several: Counts, values: Sequence[float] | None) -> float:
    """1 where only one category was ever chosen, of which the library says nothing."""
    if (several.any(0)).sum() < 2:
        return 1.0
    level: Literal["nominal", "interval"] = "nominal" if values is None else "interval"
    return float(krippendorff.alpha(value_counts=several, value_domain=values, level_of_measurement=level))


def _distances(kinds: int, values: Sequence[float] | None) -> Floats:
    """(C, C) between categories: 0 or 1, or squared differences of their values."""
    if values is None:
        return 1.0 - np.eye(kinds)
    numbers = np.asarray(values, float)
    return (numbers[:, None] - numbers[None, :]) ** 2


def _coincidences(patterns: Counts) -> Floats:
    """Per pattern the pairs of values that stand together in one unit, each value counted once (Krippendorff 2011)."""
    rows = patterns.astype(float)
    together = rows[:, :, None] * rows[:, None, :] - np.eye(rows.shape[1]) * rows[:, :, None]
    return together / (rows.sum(1) - 1)[:, None, None]


def _pairs(patterns: Counts) -> tuple[Floats, Floats]:
    """Per pattern the pairs of judgements that are equal, and all pairs."""
    totals = patterns.sum(1)
    return (patterns * (patterns - 1)).sum(1) / 2.0, totals * (totals - 1) / 2.0


def _alphas(coincidences: Floats, distance: Floats) -> Floats:
    """1 - observed over expected distance, for each draw's matrix (B, C, C); 1 where nothing could differ."""
    margins = coincidences.sum(2)  # (B, C)
    n = margins.sum(1)
    observed = (coincidences * distance).sum((1, 2))
    expected = np.einsum("bc,bk,ck->b", margins, margins, distance) / (n - 1)
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 1.0)


def _fleiss(patterns: Counts, times: Counts, drawn: Floats) -> Estimate:
    """Fleiss' kappa (1971); nothing unless every unit was judged by equally many people."""
    each = patterns.sum(1)
    if each.min() != each.max():
        return NOTHING
    weights = np.vstack([times, drawn]).astype(float)  # the first row is what was seen
    units = weights.sum(1)
    equal, pairs = _pairs(patterns)
    shares = weights @ patterns / (units * each[0])[:, None]  # (1 + B, C) of each category
    kappas = _kappas(weights @ (equal / pairs) / units, (shares**2).sum(1))
    return _estimate(float(kappas[0]), kappas[1:], int(units[0]))


def cohen(first: Sequence[int] | Counts, second: Sequence[int] | Counts, kinds: int, *, seed: int = 0) -> Estimate:
    """Cohen's kappa (1960) of two people who judged the same units, in the same order."""
    cells = np.bincount(np.asarray(first, np.int64) * kinds + np.asarray(second, np.int64), minlength=kinds**2)
    n = int(cells.sum())
    if not n:
        return NOTHING
    tables = np.vstack([cells, _drawn(cells, seed)]).reshape(-1, kinds, kinds) / n
    kappas = _kappas(np.trace(tables, axis1=1, axis2=2), (tables.sum(1) * tables.sum(2)).sum(1))
    return _estimate(float(kappas[0]), kappas[1:], n)


def _kappas(observed: Floats, expected: Floats) -> Floats:
    """Agreement beyond chance, as a share of what was to be had; 1 where chance alone gives all."""
    room = 1 - expected
    return np.where(room > 1e-12, (observed - expected) / np.where(room > 1e-12, room, 1), 1.0)


def _estimate(value: float, drawn: Floats, n: int) -> Estimate:
    """The value with the percentiles of the draws."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


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
