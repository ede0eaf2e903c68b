"""How far people agree: Krippendorff's alpha, Fleiss' and Cohen's kappa and plain agreement, with bootstrap intervals over comparisons.

A unit is a comparison; what several people said of it is a row of counts, one column per category. Values are those of libraries
(krippendorff, statsmodels, scikit-learn), intervals of scipy's bootstrap (resampling.py). Equal rows are one kind of unit, and a draw
is the number of each: the few lines that turn it into the same coefficients are held to the libraries by the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import krippendorff
import numpy as np
import numpy.typing as npt

from backend.stats import resampling

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
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
    n = len(several)
    if n == 0:
        return Agreement(NOTHING, NOTHING, NOTHING)
    patterns, kind = _patterns(several)
    distance = _distances(patterns.shape[1], values)
    is_even = bool((patterns.sum(1) == patterns[0].sum()).all())

    def coefficients(drawn: Floats) -> Floats:
        found = [_alphas(drawn, patterns, distance), _raws(drawn, patterns)]
        return np.stack([*found, _fleiss(drawn, patterns)] if is_even else found)

    low, high = resampling.interval(kind, len(patterns), coefficients, seed=seed)
    seen = np.bincount(kind, minlength=len(patterns))[None, :].astype(float)
    reckoned = [
        _alpha(several, values),
        float(_raws(seen, patterns)[0]),
        *([_fleiss_kappa(several)] if is_even else []),
    ]
    estimates = [Estimate(value, float(low[i]), float(high[i]), n) for i, value in enumerate(reckoned)]
    return Agreement(estimates[0], estimates[1], estimates[2] if is_even else NOTHING)


def _patterns(several: Counts) -> tuple[Counts, Counts]:
    """The different rows (P, C), and which of them each unit is (U,). Rows are read as the digits of a number, which sorts a hundred
    times faster."""
    kinds, base = several.shape[1], int(several.max()) + 1
    if base**kinds > TALLIED:
        rows, kind = np.unique(several, axis=0, return_inverse=True)
        return rows, kind
    places = base ** np.arange(kinds)
    codes = several @ places
    seen = np.flatnonzero(np.bincount(codes))
    return seen[:, None] // places % base, np.searchsorted(seen, codes)


def _alpha(several: Counts, values: Sequence[float] | None) -> float:
    """1 where only one category was ever chosen, of which the library says nothing."""
    if (several.any(0)).sum() < 2:
        return 1.0
    level: Literal["nominal", "interval"] = "nominal" if values is None else "interval"
    return float(krippendorff.alpha(value_counts=several, value_domain=values, level_of_measurement=level))


def _fleiss_kappa(several: Counts) -> float:
    """Fleiss' kappa (1971) of units that equally many people judged; 1 where only one category was ever chosen."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(several)) if (several.any(0)).sum() > 1 else 1.0


def cohen(first: Sequence[int] | Counts, second: Sequence[int] | Counts, kinds: int, *, seed: int = 0) -> Estimate:
    """Cohen's kappa (1960) of two people who judged the same units, in the same order."""
    codes = np.asarray(first, np.int64) * kinds + np.asarray(second, np.int64)
    cells, kind = np.unique(codes, return_inverse=True)
    return _cohen(np.eye(kinds * kinds)[cells], kind, kinds, seed)


def cohen_of_tables(tables: Floats, *, seed: int = 0) -> Estimate:
    """Cohen's kappa of two sides over tables (U, C, C), one per unit: how often one side said the row where the other said the column.

    The interval goes by units; n is the number of pairs of judgements.
    """
    patterns, kind = np.unique(tables.reshape(len(tables), -1), axis=0, return_inverse=True)
    return _cohen(patterns, kind, tables.shape[1], seed)


def _cohen(patterns: Floats, kind: Counts, size: int, seed: int) -> Estimate:
    """``patterns`` (P, C x C), and which of them each unit is (U,)."""
    if not len(kind):
        return NOTHING
    total = (np.bincount(kind, minlength=len(patterns)) @ patterns).reshape(size, size)
    low, high = resampling.interval(
        kind, len(patterns), lambda drawn: _cohens(drawn @ patterns, size)[None, :], seed=seed
    )
    return Estimate(_cohen_kappa(total), float(low[0]), float(high[0]), round(float(total.sum())))


def _cohen_kappa(total: Floats) -> float:
    """Of a table (C, C) of numbers; 1 where both sides only ever chose one and the same category."""
    from sklearn.metrics import cohen_kappa_score

    first, second = np.nonzero(total)
    if len({*first.tolist(), *second.tolist()}) < 2:
        return 1.0
    return float(cohen_kappa_score(first, second, sample_weight=total[first, second]))


# ---- the same coefficients of many draws at once: ``drawn`` (B, P) tells how often each pattern is in each


def _alphas(drawn: Floats, patterns: Counts, distance: Floats) -> Floats:
    """(B,): 1 - observed over expected distance (Krippendorff 2011); 1 where nothing could differ."""
    rows = patterns.astype(float)
    together = rows[:, :, None] * rows[:, None, :] - np.eye(rows.shape[1]) * rows[:, :, None]
    coincidences = np.tensordot(drawn, together / (rows.sum(1) - 1)[:, None, None], 1)  # (B, C, C)
    margins = coincidences.sum(2)
    observed = (coincidences * distance).sum((1, 2))
    expected = np.einsum("bc,bk,ck->b", margins, margins, distance) / (margins.sum(1) - 1)
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 1.0)


def _distances(kinds: int, values: Sequence[float] | None) -> Floats:
    """(C, C) between categories: 0 or 1, or squared differences of their values."""
    if values is None:
        return 1.0 - np.eye(kinds)
    numbers = np.asarray(values, float)
    return (numbers[:, None] - numbers[None, :]) ** 2


def _pairs(patterns: Counts) -> tuple[Floats, Floats]:
    """Per pattern the pairs of judgements that are equal, and all pairs."""
    totals = patterns.sum(1)
    return (patterns * (patterns - 1)).sum(1) / 2.0, totals * (totals - 1) / 2.0


def _raws(drawn: Floats, patterns: Counts) -> Floats:
    """(B,): the share of pairs of judgements that are equal."""
    equal, pairs = _pairs(patterns)
    return (drawn @ equal) / (drawn @ pairs)


def _fleiss(drawn: Floats, patterns: Counts) -> Floats:
    """(B,): of patterns of equally many judgements."""
    equal, pairs = _pairs(patterns)
    units = drawn.sum(1)
    shares = drawn @ patterns / (units * patterns[0].sum())[:, None]  # (B, C) of each category
    return _kappas(drawn @ (equal / pairs) / units, (shares**2).sum(1))


def _cohens(cells: Floats, size: int) -> Floats:
    """(B,): of tables given as rows of cells (B, C x C)."""
    tables = cells.reshape(-1, size, size) / cells.sum(1)[:, None, None]
    return _kappas(np.trace(tables, axis1=1, axis2=2), (tables.sum(1) * tables.sum(2)).sum(1))


def _kappas(observed: Floats, expected: Floats) -> Floats:
    """Agreement beyond chance, as a share of what was to be had; 1 where chance alone gives all."""
    room = 1 - expected
    return np.where(room > 1e-12, (observed - expected) / np.where(room > 1e-12, room, 1), 1.0)


# ---- shares and medians


def share(hits: float, n: float) -> Estimate:
    """A share with Wilson's 95 % interval; honest for few."""
    if n <= 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n)), round(n))


def share_of_groups(hits: Sequence[float] | Floats, of: Sequence[float] | Floats) -> Estimate:
    """A share whose units come in groups, such as the pairs of a ranking: ``hits[i]`` of the ``of[i]`` units of group i.

    Units of a group are no independent witnesses, so Wilson's interval stands on the effective number of units, which is the number
    over the design effect (Rao and Scott 1992). Where every group says the same, each counts once. ``n`` is the number of units.
    """
    h, n = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    h, n = h[n > 0], n[n > 0]
    groups, total = len(n), float(n.sum())
    if not groups:
        return share(0, 0)
    p = float(h.sum() / total)
    spread = float(((h - p * n) ** 2).sum()) * groups / max(1, groups - 1) / total**2
    effective = min(total, p * (1 - p) / spread) if spread > 1e-12 else float(groups)
    found = share(p * effective, effective)
    return found._replace(value=p, n=round(total))


def median(values: Sequence[float]) -> Estimate | None:
    """The upper median with a 95 % interval between two of the values (order statistics; Conover 1999, section 3.2); None of none."""
    n = len(values)
    if n == 0:
        return None
    ordered, reach = sorted(values), 1.959964 * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - reach))), min(n - 1, int(np.ceil(n / 2 + reach)))
    return Estimate(float(ordered[n // 2]), float(ordered[low]), float(ordered[high]), n)
