"""Adjudicating: blind first, then in sight of all; one more row, which training takes instead of the divided ones."""

from __future__ import annotations

import json
import math

import pytest

from backend import adjudicating, labelling, reviewing
from backend.access import Denied
from backend.adjudicating import CannotReview
from feedback_db import quality, snapshots
from feedback_db.types import Assignment, Comparison, Judgement
from tests.backend.test_reviewing import by_position, clock, house, judge_all  # noqa: F401  fixtures
from tests.feedback_db.test_queue import answer, key


def rows_of(made_of) -> list[dict]:
    made = snapshots.freeze_preferences(made_of.store, made_of.project.id, f"p{key().hex()}", None)
    return [json.loads(line) for line in snapshots.rows_text(made_of.store, made).splitlines()]


@pytest.fixture
def divided(house):  # noqa: F811
    judge_all(house, house.ann, by_position(0))
    judge_all(house, house.eve, by_position(1))
    return house


def test_what_divides_people_is_listed_and_the_most_open_question_comes_first(divided):
    found = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)
    assert len(found) == 24 and all(one.judged == 2 and 0 < one.value <= math.log(2) + 1e-9 for one in found)
    judge_all(divided, divided.admin, lambda desk, left: (1, 1) if desk.assignment % 2 else by_position(0)(desk, left))
    values = [one.value for one in adjudicating.conflicts(divided.store, divided.bob, divided.project.id)]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    assert adjudicating.conflicts(divided.store, divided.admin, divided.project.id) == [], "not blind to any"


def test_nothing_others_said_is_told_before_the_blind_judgement_stands(divided):
    first = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)[0]
    seen = adjudicating.look(divided.store, divided.bob, first.id)
    assert len(seen.answers) == 2 and seen == adjudicating.look(divided.store, divided.bob, first.id)
    with pytest.raises(CannotReview, match="blind first"):
        adjudicating.said(divided.store, divided.bob, first.id)
    with pytest.raises(CannotReview, match="blind first"):
        adjudicating.resolve(divided.store, divided.bob, first.id, answer(1, 2), key())
    once = key()
    told = adjudicating.judge(divided.store, divided.bob, first.id, answer(1, 2), once)
    assert [(one.person, one.purpose) for one in told] == [("ann", "label"), ("eve", "label"), ("bob", "review")]
    assert told[0].place == seen.shown.index(0) and told[1].place == seen.shown.index(1) and told[2].place == 0
    assert adjudicating.judge(divided.store, divided.bob, first.id, answer(1, 2), once) == told
    assert len(divided.store.find(Assignment, "purpose = 'review'")) == 1
    with pytest.raises(CannotReview, match="not blind"):
        adjudicating.look(divided.store, divided.bob, first.id)


def test_a_review_never_lies_on_the_desk_of_the_label_page(divided):
    first = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)[0]
    adjudicating.look(divided.store, divided.bob, first.id)
    adjudicating.judge(divided.store, divided.bob, first.id, answer(1, 2), key())
    desk = labelling.next_desk(divided.store, divided.bob, divided.project.id)
    assert divided.store.get(Assignment, desk.assignment).comparison_id != first.id
    assert divided.store.get(Comparison, first.id).slots_left == 1, "a review takes no slot"


def test_training_takes_the_decision_instead_of_what_divided_people(divided):
    before = rows_of(divided)
    first = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)[0]
    shown = adjudicating.look(divided.store, divided.bob, first.id).shown
    adjudicating.judge(divided.store, divided.bob, first.id, answer(1, 2), key())
    after = rows_of(divided)
    assert len(before) == 48 and len(after) == 47
    (decided,) = [row for row in after if row["weight"] == 1.0]
    position = [
        one["id"]
        for one in divided.store.rows(
            "select completion_id as id from comparison_items where comparison_id = ? order by position", [first.id]
        )
    ]
    assert decided["ranks"] == [1, 2] and decided["answers"][0]["completion"] == position[shown[0]]
    assert len(quality.said(divided.store, divided.project.id)) == 48, "agreement is about those who label"


def test_who_decides_otherwise_in_sight_of_the_others_adds_a_row_that_says_so(divided):
    first = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)[0]
    adjudicating.judge(divided.store, divided.bob, first.id, answer(1, 2), key())
    again = key()
    stored = adjudicating.resolve(divided.store, divided.bob, first.id, answer(2, 1), again)
    assert stored.after_reveal and stored.act == "correct" and stored.revision == 1
    assert adjudicating.resolve(divided.store, divided.bob, first.id, answer(2, 1), again).id == stored.id
    chain = divided.store.find(Judgement, "comparison_id = ? and person_id = ?", [first.id, divided.bob.id])
    assert [one.ranks for one in chain] == [(1, 2), (2, 1)]
    (decided,) = [row for row in rows_of(divided) if row["weight"] == 1.0]
    assert decided["ranks"] == [2, 1] and decided["judgements"] == [stored.id]
    assert first.id not in [one.id for one in adjudicating.conflicts(divided.store, divided.bob, divided.project.id)]


def test_what_is_set_aside_needs_a_reason_and_counts_nowhere(divided):
    first = adjudicating.conflicts(divided.store, divided.bob, divided.project.id)[0]
    for nothing in ("", "  \n ", "x" * 501):
        with pytest.raises(CannotReview, match="Say in 1 to 500"):
            adjudicating.void(divided.store, divided.bob, first.id, nothing)
    found = adjudicating.void(divided.store, divided.bob, first.id, " the question \n is cut off ")
    assert (found.status, found.void_reason) == ("retired", "the question is cut off")
    assert len(rows_of(divided)) == 46 and len(quality.said(divided.store, divided.project.id)) == 46
    assert len(divided.store.find(Judgement, "comparison_id = ?", [first.id])) == 2, "kept on record"
    for act in (adjudicating.look, lambda *who: adjudicating.void(*who, "again")):
        with pytest.raises(CannotReview):
            act(divided.store, divided.bob, first.id)
    with pytest.raises(Exception, match="retired"), divided.store.write() as db:
        db.conn.execute("update comparisons set status = 'open' where id = ?", [first.id])


def test_gold_is_made_of_what_three_agree_on_and_only_once(house):  # noqa: F811
    for person in (house.ann, house.eve):
        judge_all(house, person, by_position(1))
    assert adjudicating.candidates(house.store, house.bob, house.project.id) == [], "two are too few"
    judge_all(house, house.admin, lambda desk, left: by_position(1 if desk.assignment % 3 else 0)(desk, left))
    found = adjudicating.candidates(house.store, house.bob, house.project.id)
    assert 0 < len(found) < 24 and all(one.order == (2, 1) and one.judged == 3 for one in found)
    assert "window.hacked" in found[0].better and "router" in found[0].worse
    reviewing.make_gold(house.store, house.bob, found[0].id, found[0].order)
    assert found[0].id not in [one.id for one in adjudicating.candidates(house.store, house.bob, house.project.id)]


def test_only_reviewers_review(divided):
    for act in (adjudicating.conflicts, adjudicating.candidates, adjudicating.look, adjudicating.said):
        with pytest.raises(Denied):
            act(divided.store, divided.ann, 1)
    for act in (adjudicating.judge, adjudicating.resolve):
        with pytest.raises(Denied):
            act(divided.store, divided.ann, 1, answer(1, 2), key())
    with pytest.raises(Denied):
        adjudicating.void(divided.store, divided.ann, 1, "no")
