"""Calibration against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.prompts import calibrate

TWO = [[math.log(0.8), math.log(0.2)], [math.log(0.6), math.log(0.4)]]  # two cases, two labels, nats


def test_shares_are_a_softmax_over_the_labels() -> None:
    assert calibrate.shares(TWO).tolist() == [pytest.approx([0.8, 0.2]), pytest.approx([0.6, 0.4])]
    assert calibrate.shares([[-1000.0, -1000.0]])[0].tolist() == [0.5, 0.5]  # scores far from 0 do no harm


def test_a_prior_is_divided_out() -> None:
    by = calibrate.prior(calibrate.shares(TWO))
    assert by.tolist() == pytest.approx([0.7, 0.3])
    found = calibrate.divided(calibrate.shares(TWO), by)
    # .8/.7 against .2/.3, and .6/.7 against .4/.3
    assert found[0].tolist() == pytest.approx([(8 / 7) / (8 / 7 + 2 / 3), (2 / 3) / (8 / 7 + 2 / 3)])
    assert calibrate.chosen(calibrate.shares(TWO)) == [0, 0] and calibrate.chosen(found) == [0, 1]


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_a_uniform_prior_changes_nothing(labels: int) -> None:
    given = calibrate.shares(np.random.default_rng(0).normal(size=(20, labels)))
    assert calibrate.divided(given, np.full(labels, 1 / labels)) == pytest.approx(given, abs=1e-12)
    scores = np.random.default_rng(1).normal(size=(20, labels)).tolist()
    assert calibrate.beyond(scores, [-3.0] * labels) == pytest.approx(calibrate.shares(scores), abs=1e-12)


def test_mutual_information_takes_off_what_the_stub_says_already() -> None:
    found = calibrate.beyond([[math.log(0.8), math.log(0.2)]], [math.log(0.9), math.log(0.1)])
    assert found[0].tolist() == pytest.approx([(8 / 9) / (8 / 9 + 2), 2 / (8 / 9 + 2)])


def test_confidence_that_keeps_its_word_has_no_error() -> None:
    kept = np.array([[0.8, 0.2]] * 5)
    assert calibrate.calibration_error(kept, [0, 0, 0, 0, 1]) == pytest.approx(0)
    assert calibrate.calibration_error(kept, [1] * 5) == pytest.approx(0.8)
    two_bins = np.array([[0.95, 0.05], [0.55, 0.45]])  # sure and right, unsure and wrong: (.05 + .55) / 2
    assert calibrate.calibration_error(two_bins, [0, 1]) == pytest.approx(0.3)
    wrong = calibrate.calibration_error(np.array([[1.0, 0.0]]), [1])
    assert wrong == pytest.approx(1)  # in the last bin, not beyond it
    assert math.isnan(calibrate.calibration_error(np.zeros((0, 2)), []))


def test_an_order_that_always_says_one_label_has_no_entropy() -> None:
    assert calibrate.label_entropy(np.array([[0.9, 0.1], [0.6, 0.4]])) == 0
    assert calibrate.label_entropy(np.array([[0.9, 0.1], [0.4, 0.6]])) == pytest.approx(math.log(2))
    four = np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]])
    assert calibrate.label_entropy(four) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_four_demonstrations_give_24_orders() -> None:
    found = calibrate.orders(4, seed=0)
    assert len(found) == len(set(found)) == 24 and found[0] == (0, 1, 2, 3)
    assert len(calibrate.orders(3, seed=0)) == 6 and len(calibrate.orders(2, seed=0)) == 2


def test_more_demonstrations_give_24_different_orders_by_the_seed() -> None:
    found = calibrate.orders(8, seed=3)
    assert len(found) == len(set(found)) == 24 and found[0] == tuple(range(8))
    assert all(sorted(one) == list(range(8)) for one in found)
    assert all(len(set(calibrate.orders(5, seed))) == 24 for seed in range(9))  # of 120 some would be drawn twice
    assert calibrate.orders(8, seed=3) == found != calibrate.orders(8, seed=4)


def test_bags_are_made_of_the_cases_own_words_at_their_mean_length() -> None:
    texts = ["the film was good", "a poor story told in a slow film"]
    bags = calibrate.bags(texts, is_chinese=False, seed=1)
    assert len(bags) == 20 and all(len(bag.split()) == 6 for bag in bags)
    assert {word for bag in bags for word in bag.split()} <= {word for text in texts for word in text.split()}
    assert calibrate.bags(texts, is_chinese=False, seed=1) == bags != calibrate.bags(texts, is_chinese=False, seed=2)


def test_chinese_bags_are_made_of_neighbouring_characters() -> None:
    bags = calibrate.bags(["这部电影很好看", "故事太慢"], is_chinese=True, seed=1)
    pairs = {"这部", "部电", "电影", "影很", "很好", "好看", "故事", "事太", "太慢"}
    assert len(bags) == 20 and all(bag[:2] in pairs and len(bag) % 2 == 0 for bag in bags)
    assert calibrate.bags(["", " "], is_chinese=True, seed=1) == []
