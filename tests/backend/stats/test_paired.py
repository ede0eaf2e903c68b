"""Paired tests give the values of textbooks, and intervals that hold what they promise."""

import math

import numpy as np
import pytest

from backend.stats.paired import cases_needed, difference, flakes, holm, mcnemar


def columns(gained: int, lost: int, both: int = 3) -> tuple[list[bool], list[bool]]:
    first = [False] * gained + [True] * lost + [True] * both
    return first, [True] * gained + [False] * lost + [True] * both


def test_mcnemar_is_the_exact_binomial() -> None:
    assert mcnemar(*columns(5, 0)).p == pytest.approx(0.0625)
    assert mcnemar(*columns(6, 0)).p == pytest.approx(0.03125)
    assert mcnemar(*columns(1, 7)) == (1, 7, pytest.approx(2 * (1 + 8) / 256))
    assert mcnemar(*columns(0, 0)).p == mcnemar(*columns(4, 4)).p == 1.0


def test_there_is_no_number_of_cases_for_no_gain() -> None:
    assert cases_needed(0.1, 0.0) is None and cases_needed(0.05, 0.1) is None


@pytest.mark.parametrize(("flips", "gain"), [(0.5, 0.5), (0.5, 0.3), (0.2, 0.1), (0.2, 0.05), (0.1, -0.03)])
@pytest.mark.parametrize("tests", [1, 3])
def test_the_exact_test_finds_the_gain_in_so_many_cases_about_four_times_in_five(flips, gain, tests) -> None:
    n, draw = cases_needed(flips, gain, tests), np.random.default_rng(0)
    moved = draw.binomial(n, flips, 1500)
    gained = draw.binomial(moved, (flips + gain) / (2 * flips))
    found = np.mean(
        [mcnemar(*columns(int(g), int(m - g), 0)).p < 0.05 / tests for g, m in zip(gained, moved, strict=True)]
    )
    assert 0.75 < found < 0.98 if n < 40 else 0.75 < found < 0.88, (n, found)


@pytest.mark.parametrize("tests", [1, 2, 7])
def test_cases_that_do_not_tell_columns_apart_are_never_said_to_be_enough(tests) -> None:
    for n in range(2, 40):
        for gained in range(1, n + 1):
            for lost in range(min(gained, n - gained + 1)):
                if mcnemar(*columns(gained, lost, 0)).p * tests >= 0.05:
                    assert cases_needed((gained + lost) / n, (gained - lost) / n, tests) > n, (n, gained, lost)


def test_holm_adjusts_in_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_interval_of_a_difference_covers_it_19_times_in_20() -> None:
    draw, held = np.random.default_rng(0), 0
    for seed in range(200):
        first, second = draw.random(80) < 0.6, draw.random(80) < 0.7
        found = difference(first.astype(float), second.astype(float), seed=seed)
        held += found.low <= 0.1 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_no_cases_tell_nothing() -> None:
    assert math.isnan(difference([], []).value)


def test_flakes_are_cases_that_do_not_always_say_the_same() -> None:
    assert flakes([[True, True], [True, False], [False]]) == 0.5
    assert math.isnan(flakes([[True]]))
