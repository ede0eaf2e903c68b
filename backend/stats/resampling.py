"""Intervals by the bootstrap: scipy.stats.bootstrap over units, of which equal ones are drawn as one kind.

A figure of agreement is a sum over units, so a draw is known by how often each kind of unit is in it. Those numbers, a few per draw,
are all that a statistic is given, and one draw serves every coefficient that is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST, FEWEST = 1000, 200  # draws
UNITS_DRAWN = 50_000_000  # in all draws together: half a second; of more than 50,000 units there are fewer draws
AT_ONCE = 1_000_000  # units drawn before they are counted: some 40 MB


class Interval(NamedTuple):
    low: Floats  # (K,), of each coefficient
    high: Floats


def draws(units: int) -> int:
    """How many draws so many units are given. Ends of an interval vary by a tenth of its width with 200, and by half that with 1,000."""
    return int(np.clip(UNITS_DRAWN // max(units, 1), FEWEST, MOST))


def interval(kind: Ints, kinds: int, coefficients: Callable[[Floats], Floats], *, seed: int = 0) -> Interval:
    """95 % intervals of K coefficients. ``kind`` (U,): which of ``kinds`` each unit is, from 0; ``coefficients`` turns how often each
    kind is in each draw (B, kinds) into (K, B).

    Percentiles, because BCa leaves out one unit after the other, which is U x U numbers, and knows no interval where all agree.
    """
    from scipy.stats import bootstrap  # half a second to import

    if len(kind) < 2:  # every draw is the unit itself
        alone = coefficients(_tally(kind[None, :], kinds))[:, 0]
        return Interval(alone, alone)
    smallest = kind.astype(np.min_scalar_type(kinds))  # what is drawn from stays in the cache of the processor
    found = bootstrap(
        (smallest,),
        lambda drawn, axis: coefficients(_tally(drawn, kinds)),
        n_resamples=draws(len(kind)),
        batch=max(1, AT_ONCE // len(kind)),
        vectorized=True,
        method="percentile",
        rng=seed,
    )
    return Interval(*found.confidence_interval)


def _tally(drawn: npt.NDArray[np.integer], kinds: int) -> Floats:
    """(B, kinds): how often each kind is in each row of ``drawn`` (B, U)."""
    rows = np.arange(len(drawn))[:, None] * kinds
    return np.bincount((rows + drawn).ravel(), minlength=len(drawn) * kinds).reshape(len(drawn), kinds).astype(float)
