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


def test_cases_needed_are_those_of_the_formula() -> None:
    assert cases_needed(0.20, 0.05) == 621
    assert cases_needed(0.20, 0.10) == 150
    assert cases_needed(0.10, -0.03) == 865
    assert cases_needed(0.1, 0.0) is None and cases_needed(0.05, 0.1) is None


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
