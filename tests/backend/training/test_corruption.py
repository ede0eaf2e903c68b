"""What is hidden, by the papers' figures: shares, spans, sentinels, orders; and that one draw gives one result."""

from itertools import pairwise

import pytest
import torch

from backend.training import corruption
from backend.training.draws import generator

MASK, ORDINARY = 99, list(range(10, 30))
SENTINELS = [900, 901, 902, 903, 904, 905, 906, 907]


def draw(number: int) -> torch.Generator:
    return generator(0, number, "test")


def test_fifteen_percent_are_guessed_and_of_these_eight_of_ten_are_masked_one_random_one_kept() -> None:
    tokens = [10 + i % 20 for i in range(4000)]
    seen, places = corruption.masked(tokens, [True] * 4000, 0.15, MASK, ORDINARY, draw(1))
    assert len(places) == 600 == len(set(places)) and places == sorted(places)
    assert all(a == b for i, (a, b) in enumerate(zip(tokens, seen, strict=True)) if i not in set(places))
    masked = sum(seen[i] == MASK for i in places)
    kept = sum(seen[i] == tokens[i] for i in places)
    others = [seen[i] for i in places if seen[i] not in (MASK, tokens[i])]
    assert masked == pytest.approx(480, abs=30) and kept == pytest.approx(63, abs=22) and len(others) > 35
    assert set(others) <= set(ORDINARY) and len(set(others)) > 12
    thirds = [sum(start <= i < start + 1000 for i in places) for start in range(0, 4000, 1000)]
    assert min(thirds) > 110  # all over the text


def test_special_tokens_are_never_hidden_and_one_token_always_is() -> None:
    may_hide = [i % 2 == 0 for i in range(400)]
    _, places = corruption.masked(list(range(400)), may_hide, 0.15, MASK, ORDINARY, draw(2))
    assert len(places) == 30 and all(may_hide[i] for i in places)
    _, places = corruption.masked([10, 11, 1], [True, True, False], 0.15, MASK, ORDINARY, draw(3))
    assert len(places) == 1 and places[0] < 2


def test_one_draw_gives_one_result_and_another_draw_another() -> None:
    def all_of(number: int) -> list[object]:
        return [
            corruption.masked(list(range(10, 60)), [True] * 50, 0.15, MASK, ORDINARY, draw(number)),
            corruption.noise(50, 0.15, 3.0, 99, draw(number)),
            corruption.prediction_order([True] * 50, 1 / 6, 5, draw(number)),
        ]

    assert all_of(1) == all_of(1)
    assert all(a != b for a, b in zip(all_of(1), all_of(2), strict=True))


def spans_of(is_removed: list[bool]) -> list[int]:
    """Lengths of the removed stretches."""
    text = "".join("x" if removed else " " for removed in is_removed)
    return [len(part) for part in text.split()]


def test_fifteen_percent_are_removed_in_spans_of_three_on_average_and_a_kept_one_comes_first() -> None:
    lengths: list[int] = []
    for number in range(60):
        is_removed = corruption.noise(200, 0.15, 3.0, 99, draw(number))
        assert len(is_removed) == 200 and sum(is_removed) == 30 and not is_removed[0] and is_removed[-1]
        assert len(spans_of(is_removed)) == 10
        lengths += spans_of(is_removed)
    assert min(lengths) == 1 and max(lengths) > 6
    starts = [corruption.noise(200, 0.15, 3.0, 99, draw(number)).index(True) for number in range(60)]
    assert len(set(starts)) > 15


def test_short_texts_lose_one_token_and_spans_do_not_outnumber_their_sentinels() -> None:
    assert corruption.noise(2, 0.15, 3.0, 99, draw(1)) == [False, True]
    assert sum(corruption.noise(3, 0.9, 1.0, 99, draw(1))) == 2
    assert len(spans_of(corruption.noise(200, 0.5, 1.0, 7, draw(1)))) == 7
    assert len(spans_of(corruption.noise(10, 0.9, 1.0, 99, draw(1)))) == 1  # as many kept stretches as removed ones


def test_sentinels_stand_for_spans_on_both_sides_as_in_the_paper() -> None:
    """Thank you <X> me to your party <Y> week -> <X> for inviting <Y> last <Z>"""
    words = "Thank you for inviting me to your party last week".split()
    tokens = list(range(len(words)))
    is_removed = [word in ("for", "inviting", "last") for word in words]
    seen, targets = corruption.without_spans(tokens, is_removed, SENTINELS)
    assert seen == [0, 1, 900, 4, 5, 6, 7, 901, 9]
    assert targets == [900, 2, 3, 901, 8, 902]


def test_input_and_targets_together_hold_every_token_once() -> None:
    tokens = list(range(100, 160))
    is_removed = corruption.noise(60, 0.3, 3.0, 7, draw(5))
    seen, targets = corruption.without_spans(tokens, is_removed, SENTINELS)
    sentinels = set(SENTINELS)
    assert sorted(t for t in seen + targets if t not in sentinels) == tokens
    assert [t for t in targets if t in sentinels] == [*[t for t in seen if t in sentinels], targets[-1]]


def test_a_sixth_is_predicted_in_spans_of_up_to_five_in_a_random_order() -> None:
    orders = [corruption.prediction_order([True] * 300, 1 / 6, 5, draw(number)) for number in range(40)]
    assert all(len(set(order)) == len(order) for order in orders)
    assert sum(len(order) for order in orders) / (40 * 300) == pytest.approx(1 / 6, abs=0.015)
    assert any(order != sorted(order) for order in orders)
    rising = sum(a < b for order in orders for a, b in pairwise(order))
    assert rising / sum(len(order) - 1 for order in orders) == pytest.approx(0.5, abs=0.06)
    stretches = [spans_of([place in set(order) for place in range(300)]) for order in orders]
    lengths = [length for some in stretches for length in some]
    assert set(lengths) >= {1, 2, 3, 4, 5} and sum(length > 5 for length in lengths) < 0.1 * len(lengths)
    assert len(corruption.prediction_order([True] * 60, 1 / 6, 1, draw(1))) == 10  # one of every six
    firsts = [min(order) for order in orders]
    assert len(set(firsts)) > 8 and max(firsts) < 30


def test_an_order_holds_no_special_token_and_is_never_empty() -> None:
    may_ask = [place < 3 for place in range(4)]
    orders = [corruption.prediction_order(may_ask, 1 / 6, 5, draw(number)) for number in range(50)]
    assert all(order and all(may_ask[place] for place in order) for order in orders)
    assert {place for order in orders for place in order} == {0, 1, 2}


def test_a_predicted_token_sees_the_rest_and_those_before_it_in_the_order_but_not_itself() -> None:
    hidden = corruption.hidden_in([3, 1], 5)
    assert hidden.tolist() == [
        [False, True, False, True, False],  # not predicted: sees neither
        [False, True, False, False, False],  # second: sees the first
        [False, True, False, True, False],
        [False, True, False, True, False],  # first: does not see the second
        [False, True, False, True, False],
    ]
