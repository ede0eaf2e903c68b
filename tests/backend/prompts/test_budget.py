"""The token budget gives up whole demonstrations, farthest first, and nothing else."""

import pytest

from backend.prompts.budget import BudgetProblem, fit
from feedback_db.types import Demonstration

SHOTS = [Demonstration(id=i, project_id=1, input="word " * 9, output="out", digest=bytes(32)) for i in (11, 12, 13, 14)]


def build(kept):
    content = "instruction " + "".join(one.input + one.output + " " for one in kept) + "case"
    return ({"role": "user", "content": content},)


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


def test_what_fits_is_kept_whole():
    fitted = fit(SHOTS, build, words, 42)
    assert (fitted.kept, fitted.dropped_ids, fitted.tokens) == (tuple(SHOTS), (), 42)


@pytest.mark.parametrize(
    ("limit", "dropped"), [(41, (11,)), (32, (11,)), (31, (11, 12)), (12, (11, 12, 13)), (2, (11, 12, 13, 14))]
)
def test_the_first_shown_counts_as_farthest_and_goes_first(limit, dropped):
    fitted = fit(SHOTS, build, words, limit)
    assert fitted.dropped_ids == dropped
    assert fitted.tokens == words(fitted.messages) <= limit
    assert fitted.messages[0]["content"].startswith("instruction ") and fitted.messages[0]["content"].endswith("case")


def test_the_farthest_goes_first_and_the_order_of_the_rest_stays():
    fitted = fit(SHOTS, build, words, 30, closeness=[0.9, 0.1, 0.8, 0.2])
    assert fitted.dropped_ids == (12, 14)
    assert [one.id for one in fitted.kept] == [11, 13]


def test_instruction_and_case_are_never_cut():
    with pytest.raises(BudgetProblem, match="need 2 tokens; the limit is 1"):
        fit(SHOTS, build, words, 1)
