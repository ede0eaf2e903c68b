"""The bootstrap: few units are drawn often, many less often, and the interval is that of the plain one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from backend.stats import resampling


def shares(drawn):
    """(2, B): of the kinds 0 and 1."""
    return (drawn[:, :2] / drawn.sum(1, keepdims=True)).T


def test_the_interval_of_a_share_is_that_of_the_plain_bootstrap():
    draw = np.random.default_rng(0)
    kind = draw.choice(3, 400, p=[0.6, 0.3, 0.1])
    found = resampling.interval(kind, 3, shares)
    for one in (0, 1):
        plain = [(kind[draw.integers(0, 400, 400)] == one).mean() for _ in range(4000)]
        assert (found.low[one], found.high[one]) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.01)


def test_the_more_units_the_fewer_draws_and_never_fewer_than_200():
    seen = []
    for units in (10, 50_000, 100_000, 2_000_000):
        assert resampling.draws(units) == {10: 1000, 50_000: 1000, 100_000: 500, 2_000_000: 200}[units]
    kind = np.arange(100_000) % 2
    resampling.interval(kind, 2, lambda drawn: seen.append(drawn) or shares(drawn))
    assert sum(map(len, seen)) == 500 and {int(one.sum(1).min()) for one in seen} == {100_000}


def test_equal_seeds_give_equal_intervals_and_a_single_unit_has_no_width():
    kind = np.arange(60) % 2
    one, same, other = (resampling.interval(kind, 2, shares, seed=seed) for seed in (1, 1, 2))
    assert (one.low == same.low).all() and one.low[0] != other.low[0]
    alone = resampling.interval(np.array([1]), 2, shares)
    assert alone.low.tolist() == alone.high.tolist() == [0.0, 1.0]


def test_a_million_units_are_drawn_in_less_than_200_mb():
    kind = np.arange(1_000_000) % 7
    resampling.interval(kind[:10], 7, shares)
    tracemalloc.start()
    resampling.interval(kind, 7, shares)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
