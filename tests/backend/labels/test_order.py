"""An order that is typed is read as it was meant, or refused with how one is written."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from backend.labels import order


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("B > A = C", (2, 1, 2)),
        ("c>b>a", (3, 2, 1)),
        ("A=B=C", (1, 1, 1)),
        ("\uff23\uff1e\uff21\uff1d\uff22", (2, 2, 1)),
    ],
)
def test_letters_are_ranks_the_best_first(text, ranks):
    assert order.ranks_of(text, 3) == ranks


@pytest.mark.parametrize("text", ["", "A > B", "A > B > B", "A > B > C > D", "A > > B = C", "A B C", "1 > 2 > 3"])
def test_what_is_no_order_of_all_answers_is_refused(text):
    with pytest.raises(order.BadOrder, match="A to C once"):
        order.ranks_of(text, 3)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=16))
def test_an_order_that_is_written_is_read_again(given_ranks):
    ranks = tuple(1 + sum(other < one for other in given_ranks) for one in given_ranks)
    assert order.ranks_of(order.written(ranks), len(ranks)) == ranks
