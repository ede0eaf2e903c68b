"""What a measurement comes to, on numbers made by hand."""

from __future__ import annotations

import math

import pytest

from backend.measuring.findings import calibration_found, corrected, curve_found, later, orders_found
from backend.measuring.plans import Ask, Plan

A, B = [0.0, -2.0], [-2.0, 0.0]  # a case that is said to be the first label, the second
RIGHT = (0, 0, 0, 1)


def plan(*asks: Ask) -> Plan:
    return Plan(labels=("a", "b"), search=(1, 2, 3, 4), test=(5, 6), asks=asks, seed=0)


ORDERS = plan(*(Ask(f"search:{at}", ids, "search") for at, ids in enumerate([(1, 2, 3), (2, 1, 3), (3, 2, 1)])))
SAID = {"search:0": [A, A, A, A], "search:1": [A, B, A, B], "search:2": [B, A, A, B], "search:3": [A, A, A, B]}


def test_the_pick_without_answers_is_the_most_mixed_order_and_the_best_is_the_one_most_often_right() -> None:
    found = {"search:0": SAID["search:0"], "search:1": [B, B, A, A], "search:2": SAID["search:3"]}
    asks = {ask.name: ask.ids for ask in later("order", ORDERS, found, RIGHT)}
    assert asks == {"test:own": (1, 2, 3), "test:entropy": (2, 1, 3), "test:best": (3, 2, 1)}
    told = orders_found(ORDERS, found, RIGHT, (0, 1))
    assert [one.ids for one in told.orders] == [(3, 2, 1), (1, 2, 3), (2, 1, 3)] and told.accuracy == [0.25, 0.75, 1]
    assert told.orders[2].entropy == pytest.approx(math.log(2)) and told.orders[1].is_own


def test_an_order_in_which_one_label_is_said_is_never_picked_by_its_entropy() -> None:
    told = orders_found(ORDERS, {f"search:{at}": SAID["search:0"] for at in range(3)}, RIGHT, ())
    assert len(told.orders) == 3 and not any(one.is_kept for one in told.orders)


def test_nothing_is_asked_of_test_cases_before_the_search_is_over() -> None:
    assert later("order", ORDERS, {"search:0": SAID["search:0"]}, RIGHT) == []
    none = Plan(labels=("a", "b"), search=(1,), test=(), asks=ORDERS.asks, seed=0)
    assert later("order", none, {f"search:{at}": SAID["search:0"] for at in range(3)}, RIGHT) == []


def test_the_number_that_did_best_is_claimed_against_none_at_all() -> None:
    asks = [Ask("search:0:0", (), "search")]
    asks += [Ask(f"search:{count}:{draw}", (draw,) * count, "search") for count in (1, 2) for draw in (0, 1)]
    said = {"search:0:0": SAID["search:3"], "search:1:0": SAID["search:0"], "search:1:1": SAID["search:3"]}
    said |= {"search:2:0": SAID["search:1"], "search:2:1": SAID["search:2"]}
    names = [ask.name for ask in later("count", plan(*asks), said, RIGHT)]
    assert names == ["test:none", "test:1:0", "test:1:1"]  # .75 and 1 against .75 twice; none at all is not chosen
    told = curve_found(
        plan(*asks), {**said, "test:none": [B, B], "test:1:0": [A, B], "test:1:1": [A, A]}, RIGHT, (0, 1)
    )
    one = told.points[1]
    assert (one.shown, one.accuracy.value, one.accuracy.n, one.lowest, one.highest, one.draws) == (
        1,
        0.875,
        4,
        0.75,
        1,
        2,
    )
    none, best = told.claims
    assert (none.accuracy.value, best.accuracy.value, told.best) == (0.5, 0.75, 1)
    assert best.gain is not None and best.gain.value == pytest.approx(0.25)


def test_each_calibration_rests_on_its_own_texts() -> None:
    found = {"search:plain": [A, B], "content_free": [A], "domain": [B], "stub": [[-1.0, -1.0]]}
    given = corrected([[0.0, -2.0]], found)
    likelier = 1 / (1 + math.exp(-2))
    assert given["plain"][0].tolist() == pytest.approx([likelier, 1 - likelier])
    assert given["contextual"][0].tolist() == pytest.approx([0.5, 0.5])  # the same lean without content
    assert given["domain"][0][0] > given["plain"][0][0]
    for method in ("batch", "pmi"):  # of no lean
        assert given[method][0].tolist() == pytest.approx(given["plain"][0].tolist())
    told = calibration_found({**found, "test:plain": [A]}, (0, None), (1,))
    assert told.search[0].accuracy.n == 1 and told.test[0].accuracy.value == 0
