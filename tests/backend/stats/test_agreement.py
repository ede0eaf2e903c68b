"""Agreement equals published values, does not depend on order, and finds what was planted."""

from __future__ import annotations

import math
import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from backend.stats import agreement

KRIPPENDORFF = [  # 12 units of 4 observers, from "Computing Krippendorff's Alpha-Reliability" (2011), 0 for missing
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def counts(table: list[list[int]], kinds: int) -> np.ndarray:
    judged = [(unit, value - 1) for row in table for unit, value in enumerate(row) if value]
    return agreement.count([unit for unit, _ in judged], [value for _, value in judged], kinds)


@pytest.mark.parametrize(("values", "published"), [(None, 0.743), ([1, 2, 3, 4, 5], 0.849)])
def test_alpha_is_the_published_one(values, published):
    found = agreement.measure(counts(KRIPPENDORFF, 5), values)
    assert found.alpha.value == pytest.approx(published, abs=5e-4)
    assert found.alpha.low < found.alpha.value < found.alpha.high and found.alpha.n == 11


def test_fleiss_is_the_published_one():
    """Ten subjects of fourteen raters, from Fleiss (1971) as reprinted widely: kappa 0.210."""
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
             [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    found = agreement.measure(np.array(table)).fleiss
    assert found.value == pytest.approx(0.210, abs=5e-4) and found.low < 0.210 < found.high and found.n == 10
    assert agreement.measure(np.array([[2, 0], [1, 2]])).fleiss.n == 0


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=2, max_size=40), st.randoms())
def test_the_order_of_judgements_and_the_names_of_units_change_nothing(judged, draw):
    mixed = list(judged)
    draw.shuffle(mixed)
    ours, theirs = (
        agreement.measure(agreement.count([u for u, _ in rows], [c for _, c in rows], 4))
        for rows in (judged, [(100 - unit, category) for unit, category in mixed])
    )
    assert ours.alpha.n == theirs.alpha.n
    if ours.alpha.n:
        assert ours.alpha.value == pytest.approx(theirs.alpha.value) and ours.raw.value == pytest.approx(
            theirs.raw.value
        )


def test_people_who_agree_have_alpha_one_and_people_who_guess_have_none():
    units = np.repeat(np.arange(2000), 3)
    same = agreement.measure(agreement.count(units, np.repeat(np.arange(2000) % 3, 3), 3))
    draw = np.random.default_rng(0)
    guessed = agreement.measure(agreement.count(units, draw.integers(0, 3, 6000), 3))
    assert same.alpha.value == 1.0 and same.raw.value == 1.0
    assert guessed.alpha.low < 0 < guessed.alpha.high and guessed.raw.value == pytest.approx(1 / 3, abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(1)
    truth, covered = None, 0
    for trial in range(-1, 60):
        size = 200_000 if trial < 0 else 300
        right = draw.integers(0, 2, size)
        said = np.where(draw.random((size, 2)) < 0.8, right[:, None], 1 - right[:, None])
        found = agreement.measure(agreement.count(np.repeat(np.arange(size), 2), said.ravel(), 2))
        if truth is None:
            truth = found.alpha.value
        covered += trial >= 0 and found.alpha.low <= truth <= found.alpha.high
    assert 51 <= covered <= 60


def test_a_million_judgements_take_less_than_a_second_and_with_intervals_two():
    draw = np.random.default_rng(2)
    units, said = np.repeat(np.arange(333_334), 3)[:1_000_000], draw.integers(0, 4, 1_000_000)
    counts = agreement.count(units, said, 4)
    agreement.measure(counts[:10])  # what is imported late is imported now
    began = time.process_time()
    agreement._alpha(counts[counts.sum(1) > 1], None)
    assert time.process_time() - began < 1.0
    began = time.process_time()
    found = agreement.measure(agreement.count(units, said, 4))
    assert time.process_time() - began < 2.0 and found.alpha.n == 333_333


def test_one_person_alone_says_nothing_and_a_share_of_few_is_wide():
    alone = agreement.measure(agreement.count([1, 2, 3], [0, 1, 0], 2))
    assert alone.alpha.n == 0 and math.isnan(alone.alpha.value)
    assert agreement.share(9, 10).low == pytest.approx(0.5958, abs=1e-3)
    assert agreement.share(9, 10).high == pytest.approx(0.9821, abs=1e-3)
    assert agreement.share(0, 0)[1:] == (0.0, 1.0, 0)


def test_units_that_come_in_groups_do_not_make_a_share_surer_than_its_groups():
    alone = agreement.share_of_groups([1, 1, 0, 1, 0, 1, 1, 1], [1] * 8)
    assert tuple(alone) == pytest.approx(tuple(agreement.share(6, 8)), abs=0.03)
    alike = agreement.share_of_groups([15, 15, 0, 15, 0, 15, 15, 15], [15] * 8)
    assert (alike.low, alike.high) == pytest.approx((alone.low, alone.high)) and (alike.value, alike.n) == (0.75, 120)
    right = agreement.share_of_groups([15] * 8, [15] * 8)
    assert right[1:] == (pytest.approx(agreement.share(8, 8).low), 1.0, 120)
    assert agreement.share_of_groups([0, 0], [0, 0])[1:] == (0.0, 1.0, 0)


def test_the_interval_of_a_grouped_share_covers_it_19_times_in_20():
    draw, held = np.random.default_rng(0), 0
    for _ in range(400):
        of = draw.integers(1, 16, 30)
        hits = draw.binomial(of, draw.beta(3, 1, 30))
        found = agreement.share_of_groups(hits, of)
        held += found.low <= 0.75 <= found.high
    assert 0.91 <= held / 400 <= 0.99


def test_a_median_has_an_interval_that_covers_what_it_should():
    draw = np.random.default_rng(0)
    hits = [
        found.low <= 1.0 <= found.high
        for found in (agreement.median(draw.exponential(1 / np.log(2), 41).tolist()) for _ in range(600))
    ]
    assert 0.93 <= np.mean(hits) <= 0.995
    assert agreement.median([]) is None and agreement.median([3.0]) == (3.0, 3.0, 3.0, 1)
    assert agreement.median([4, 1, 2])[0] == 2


def test_cohen_is_the_one_of_the_formula():
    first, second = [0, 0, 1, 1, 0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1, 1, 0, 1, 0]
    found = agreement.cohen(first, second, 2)
    assert found.value == pytest.approx((0.8 - 0.52) / (1 - 0.52)) and found.low < found.value < found.high <= 1
    assert agreement.cohen(first, first, 2).value == 1.0 and agreement.cohen([], [], 2).n == 0


def test_the_draws_of_every_figure_lie_about_the_figure_itself():
    """The values and their draws are reckoned on two ways; a mistake in one of them would part them."""
    draw = np.random.default_rng(3)
    right = draw.integers(0, 3, 4000)
    said = np.where(draw.random((4000, 2)) < 0.7, right[:, None], draw.integers(0, 3, (4000, 2)))
    found = agreement.measure(agreement.count(np.repeat(np.arange(4000), 2), said.ravel(), 3))
    pair = agreement.cohen(said[:, 0], said[:, 1], 3)
    for one in (
        *found,
        pair,
        agreement.measure(agreement.count(np.repeat(np.arange(4000), 2), said.ravel(), 3), [0, 1, 2]).alpha,
    ):
        assert abs((one.low + one.high) / 2 - one.value) < 0.003 and 0.02 < one.high - one.low < 0.06, one
    assert found.fleiss.value == pytest.approx(pair.value, abs=0.01)


def test_rows_that_are_tallied_are_the_rows_that_are_sorted(monkeypatch):
    draw = np.random.default_rng(4)
    counted = draw.integers(0, 4, (500, 3))
    fast = agreement._patterns(counted)
    monkeypatch.setattr(agreement, "TALLIED", 0)
    slow = agreement._patterns(counted)
    assert (fast[0][fast[1]] == counted).all() and (slow[0][slow[1]] == counted).all() and len(fast[0]) == len(slow[0])
