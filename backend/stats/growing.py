"""Means over cases with bootstrap intervals that are added to as the cases come, without going over those before.

A bootstrap draw gives each case a weight; with Poisson weights of mean 1 a case's weight does not depend on how many cases there are
(Chamandy et al. 2012, "Estimating uncertainty for massive data streams"), so every draw's weighted sum can simply be added to.
All columns share the weights of a case: that makes differences between columns paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from backend.stats.agreement import Estimate

Floats = npt.NDArray[np.float64]
DRAWS = 1000
BLOCK = 256  # cases whose weights are drawn together
STEPS = 1 << 16


def _quantiles() -> npt.NDArray[np.float32]:
    """How many times a case is drawn, by a number from 0 to 65535: the inverse of the Poisson distribution of mean 1."""
    upto, term, found = 0.0, math.exp(-1), np.full(STEPS, 9, np.float32)
    for times in range(9):
        first, upto = upto, upto + term
        found[round(first * STEPS) : round(upto * STEPS)] = times
        term /= times + 1
    return found


_TIMES = _quantiles()


class Growing:
    """Weighted sums of several columns of values, one row of weights per case. ``seed`` fixes the draws."""

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        self._seed = seed
        self._sums = np.zeros((DRAWS, columns))
        self._counts = np.zeros((DRAWS, columns))

    def add(self, places: Sequence[int], before: Floats, after: Floats) -> None:
        """Cases at these places (K,) change their values from ``before`` to ``after``, both (K, columns); NaN is no value."""
        change = np.nan_to_num(after) - np.nan_to_num(before)
        count = np.isfinite(after).astype(float) - np.isfinite(before)
        at = np.asarray(places)
        for block in np.unique(at // BLOCK):
            chosen = at // BLOCK == block
            weights = self._weights(int(block))[at[chosen] % BLOCK].T.astype(float)  # (DRAWS, K of this block)
            self._sums += weights @ change[chosen]
            self._counts += weights @ count[chosen]

    def estimate(self, column: int, value: float, n: int) -> Estimate:
        """``value`` with the 95 % interval of its column; NaN where there is no case."""
        if not n:
            return Estimate(math.nan, math.nan, math.nan, 0)
        has = self._counts[:, column] > 0.5
        low, high = np.quantile(self._sums[has, column] / self._counts[has, column], [0.025, 0.975])
        return Estimate(value, min(value, float(low)), max(value, float(high)), n)

    def _weights(self, block: int) -> npt.NDArray[np.float32]:
        drawn = np.random.default_rng([self._seed, block]).integers(STEPS, size=(BLOCK, DRAWS), dtype=np.uint16)
        return _TIMES[drawn]
