"""Adjudicating: blind first, then in sight of all; one more row, which training takes instead of what divided people or was flagged."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from backend import adjudicating, labelling, reviewing
from backend.access import Denied
from backend.adjudicating import CannotReview
from feedback_db import comparisons, quality, snapshots
from feedback_db.types import Assignment, Comparison, Judgement
from tests.backend.test_reviewing import by_position, clock, house, judge_all  # noqa: F401  fixtures
from tests.feedback_db.test_queue import answer, key
from tests.ui.house import add_comparisons


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
    assert told[0].ranks.index(1) == seen.shown.index(0) and told[1].ranks.index(1) == seen.shown.index(1)
    assert told[2].ranks == (1, 2)
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


# ---- rankings, flags and reports


TEXTS = ("the first ", "the second ", "the third ")


@pytest.fixture
def ranking(house):  # noqa: F811
    """Three rankings, which nobody has seen yet."""
    with house.store.write() as db:
        db.conn.execute("update comparisons set status = 'paused'")
    return add_comparisons(house.store, house.project, 3, overlap=3, first=900, texts=TEXTS)


def rank_all(house, person, *orders) -> None:  # noqa: F811
    """Each comparison gets the next of these ranks by canonical position."""
    for ranks in orders:
        desk = labelling.next_desk(house.store, person, house.project.id)
        shown = house.store.get(Assignment, desk.assignment).shown
        labelling.submit(house.store, person, desk.assignment, key(), answer(*(ranks[at] for at in shown)))


def test_rankings_that_divide_people_wait_and_those_that_do_not_do_not(house, ranking):  # noqa: F811
    rank_all(house, house.ann, (1, 2, 3), (1, 2, 3), (1, 1, 2))
    order = [one.comparison_id for one in house.store.find(Judgement, order_by="id")]
    given = {order[0]: (3, 2, 1), order[1]: (1, 3, 2), order[2]: (1, 2, 3)}  # all three pairs, one pair, a tie broken
    for _ in range(3):
        desk = labelling.next_desk(house.store, house.eve, house.project.id)
        lease = house.store.get(Assignment, desk.assignment)
        ranks = given[lease.comparison_id]
        labelling.submit(house.store, house.eve, lease.id, key(), answer(*(ranks[at] for at in lease.shown)))
    found = adjudicating.conflicts(house.store, house.bob, house.project.id)
    assert [one.id for one in found] == order[:2] and all(one.judged == 2 for one in found)
    assert found[0].value > 2 * found[1].value > 0


def test_a_ranking_is_decided_blind_and_then_all_orders_are_told_in_the_reviewers_letters(house, ranking):  # noqa: F811
    rank_all(house, house.ann, (1, 2, 3))
    rank_all(house, house.eve, *([(3, 2, 1)] * 3))
    (one,) = adjudicating.conflicts(house.store, house.bob, house.project.id)
    seen = adjudicating.look(house.store, house.bob, one.id)
    assert sorted(seen.shown) == [0, 1, 2] and seen.has_order and len(seen.answers) == 3
    assert [text.split()[1] for text in seen.answers] == [("first", "second", "third")[at] for at in seen.shown]
    for wrong in ((1, 2), (2, 2, 3), (1, 2, 4)):
        with pytest.raises(CannotReview, match="Ranks of the 3"):
            adjudicating.judge(house.store, house.bob, one.id, answer(*wrong), key())
    told = adjudicating.judge(house.store, house.bob, one.id, answer(1, 3, 2), key())
    by = {said.person: said.ranks for said in told}
    assert by["ann"] == tuple(at + 1 for at in seen.shown) and by["eve"] == tuple(3 - at for at in seen.shown)
    assert by["bob"] == (1, 3, 2)
    (decided,) = [row for row in rows_of(house) if len(row["answers"]) == 3 and row["ranks"] == [1, 3, 2]]
    assert decided["weight"] == 1.0, "training takes the decision alone"


def test_what_was_flagged_waits_first_and_the_reviewer_says_what_is_so(divided):
    store, project = divided.store, divided.project.id
    open_ones = [one.id for one in adjudicating.conflicts(store, divided.bob, project)]
    add_comparisons(store, divided.project, 1, overlap=2, first=901)
    desk = labelling.next_desk(store, divided.ann, project)
    lease = store.get(Assignment, desk.assignment)
    labelling.submit(store, divided.ann, lease.id, key(), replace(answer(1, 2), flags=("unsafe:1", "bad_prompt")))
    found = adjudicating.conflicts(store, divided.bob, project)
    assert [one.id for one in found] == [lease.comparison_id, *open_ones]
    assert (found[0].flags, found[0].judged, found[0].value) == (("bad_prompt", "unsafe"), 1, 0.0)
    seen = adjudicating.look(store, divided.bob, lease.comparison_id)
    assert "unsafe" in seen.flags and "unsafe" not in str(seen.answers)
    for wrong in ("rude:0", "unsafe:2", "unsafe", "bad_prompt:0", "unsafe:¹"):
        with pytest.raises(CannotReview, match="Unknown flag"):
            adjudicating.judge(store, divided.bob, lease.comparison_id, replace(answer(1, 2), flags=(wrong,)), key())
    said = replace(answer(1, 2), flags=("false:0",))
    told = adjudicating.judge(store, divided.bob, lease.comparison_id, said, key())
    assert told[0].flags == (("unsafe", seen.shown.index(lease.shown[1])), ("bad_prompt", None))
    assert told[1].flags == (("false", 0),) and told[1].purpose == "review"
    assert [one.id for one in adjudicating.conflicts(store, divided.bob, project)] == open_ones
    unpaired = [json.loads(line) for line in snapshots.rows_text(
        store, snapshots.freeze_unpaired(store, divided.project.id, "u", None)).splitlines()]  # fmt: skip
    flagged = [row for row in unpaired if row["source"] == "flagged"]
    assert [row["answer"]["text"] for row in flagged] == [seen.answers[0]], (
        "the reviewer's flag, not the first person's"
    )


def test_ranks_and_flags_are_told_by_the_places_the_reviewer_saw(house):  # noqa: F811
    row = {
        "person_id": house.ann.id, "purpose": "label", "shown": "[2, 0, 1]", "ranks": "[1, 2, 3]", "both_bad": 0, "both_good": 0,
        "strength": None, "flags": '["unsafe:0", "bad_prompt"]', "rationale": None,
    }  # fmt: skip
    told = adjudicating._said(house.store, row, (1, 2, 0))
    assert told.ranks == (3, 1, 2) and told.flags == (("unsafe", 1), ("bad_prompt", None))


def test_what_was_skipped_as_broken_waits_until_it_is_left_or_set_aside_and_again_when_skipped_anew(house, clock):  # noqa: F811
    store, project = house.store, house.project.id
    for reason in ("broken", "needs_knowledge", "personal"):
        desk = labelling.next_desk(store, house.ann, project)
        labelling.skip(store, house.ann, desk.assignment, reason)
        if reason == "broken":
            broken = store.get(Assignment, desk.assignment).comparison_id
    found = adjudicating.conflicts(store, house.bob, project)
    assert [one.skips for one in found if one.id == broken] == [("broken",)] and len(found) == 2, (
        "ignorance is no report"
    )
    clock.now += 1
    adjudicating.keep(store, house.bob, broken)
    assert broken not in [one.id for one in adjudicating.conflicts(store, house.bob, project)]
    clock.now += 1
    with store.write() as db:  # the one that was left is the next one
        db.conn.execute("update comparisons set queue_key = -1 where id = ?", [broken])
    desk = labelling.next_desk(store, house.eve, project)
    assert store.get(Assignment, desk.assignment).comparison_id == broken, "it is still asked"
    labelling.skip(store, house.eve, desk.assignment, "unclear")
    (again,) = [one for one in adjudicating.conflicts(store, house.bob, project) if one.id == broken]
    assert again.skips == ("unclear",) and again.judged == 0
    adjudicating.look(store, house.bob, broken)
    told = adjudicating.judge(store, house.bob, broken, answer(1, 2), key())
    assert [(one.person, one.purpose, one.reason) for one in told] == [
        ("bob", "review", ""), ("ann", "skip", "broken"), ("eve", "skip", "unclear"),
    ]  # fmt: skip
    adjudicating.void(store, house.bob, broken, "the text is cut off")
    with pytest.raises(CannotReview, match="not reviewed"):
        adjudicating.keep(store, house.bob, broken)


def test_a_report_waits_before_all_else_with_its_note_and_without_its_author(divided):
    store, project = divided.store, divided.project.id
    open_ones = [one.id for one in adjudicating.conflicts(store, divided.bob, project)]
    add_comparisons(store, divided.project, 1, overlap=2, first=903)
    desk = labelling.next_desk(store, divided.ann, project)
    id = store.get(Assignment, desk.assignment).comparison_id
    labelling.report(store, divided.ann, desk.assignment, key(), "other", " 第二行 is cut off ")
    labelling.report(store, divided.ann, desk.assignment, key(), "broken")
    assert adjudicating.reports_waiting(store, divided.bob) == 1
    found = adjudicating.conflicts(store, divided.bob, project)
    assert [one.id for one in found] == [id, *open_ones] and found[0].reports == ("broken", "other")
    seen = adjudicating.look(store, divided.bob, id)
    assert seen.told == (("other", "第二行 is cut off"), ("broken", "")) and seen.has_order
    told = adjudicating.judge(store, divided.bob, id, answer(1, 2), key())
    assert [(one.person, one.purpose, one.reason, one.rationale) for one in told] == [
        ("bob", "review", "", ""), ("ann", "report", "other", "第二行 is cut off"), ("ann", "report", "broken", ""),
    ]  # fmt: skip
    assert adjudicating.reports_waiting(store, divided.bob) == 0
    assert [one.id for one in adjudicating.conflicts(store, divided.bob, project)] == open_ones
    with pytest.raises(Denied):
        adjudicating.reports_waiting(store, divided.ann)


def test_who_has_judged_what_was_reported_may_set_it_aside_or_leave_it_but_not_review_it(house, clock):  # noqa: F811
    store, project = house.store, house.project.id
    ids = []
    for _ in range(2):
        desk = labelling.next_desk(store, house.bob, project)
        ids.append(store.get(Assignment, desk.assignment).comparison_id)
        labelling.report(store, house.bob, desk.assignment, key(), "personal")
        labelling.submit(store, house.bob, desk.assignment, key(), answer(1, 2))
    assert {one.id for one in adjudicating.conflicts(store, house.bob, project)} == set(ids)
    assert not adjudicating.look(store, house.bob, ids[0]).has_order
    with pytest.raises(CannotReview, match="not blind"):
        adjudicating.judge(store, house.bob, ids[0], answer(1, 2), key())
    adjudicating.void(store, house.bob, ids[0], "names a person")
    clock.now += 1
    adjudicating.keep(store, house.bob, ids[1])
    assert adjudicating.conflicts(store, house.bob, project) == []
    for id in ids:
        with pytest.raises(CannotReview):
            adjudicating.look(store, house.bob, id)


def test_gold_that_was_reported_can_be_set_aside_and_then_counts_against_nobody(house):  # noqa: F811
    store = house.store
    (asked,) = add_comparisons(store, house.project, 1, first=950)
    gold = reviewing.make_gold(store, house.bob, asked.id, (1, 2))
    lease = store.add(
        Assignment(
            comparison_id=gold.id, person_id=house.ann.id, project_id=house.project.id, purpose="gold", shown=(0, 1),
            leased_at=store.now(), expires_at=store.now() + 10**9,
        )
    )  # fmt: skip
    labelling.report(store, house.ann, lease.id, key(), "other", "the other one is right")
    labelling.submit(store, house.ann, lease.id, key(), answer(2, 1))
    assert reviewing.own(store, house.ann, house.project.id).gold.n == 1
    (one,) = [one for one in adjudicating.conflicts(store, house.bob, house.project.id) if one.id == gold.id]
    assert not adjudicating.look(store, house.bob, one.id).has_order
    with pytest.raises(CannotReview, match="nothing to order"):
        adjudicating.judge(store, house.bob, one.id, answer(1, 2), key())
    adjudicating.void(store, house.bob, one.id, "the wrong side")
    assert reviewing.own(store, house.ann, house.project.id).gold.n == 0


def test_what_asks_for_a_written_answer_can_be_set_aside_or_left_but_not_ordered(house):  # noqa: F811
    store = house.store
    with store.write() as db:
        db.conn.execute("update comparisons set status = 'paused'")
        case = store.find(Comparison)[0].case_id
        asked = comparisons.add_comparison(
            store, Comparison(project_id=house.project.id, case_id=case, kind="demonstration", size=0), []
        )
    desk = labelling.next_desk(store, house.ann, house.project.id)
    assert store.get(Assignment, desk.assignment).comparison_id == asked.id
    labelling.skip(store, house.ann, desk.assignment, "unclear")
    assert [one.id for one in adjudicating.conflicts(store, house.bob, house.project.id)] == [asked.id]
    seen = adjudicating.look(store, house.bob, asked.id)
    assert not seen.has_order and seen.answers == () and seen.conversation
    with pytest.raises(CannotReview, match="nothing to order"):
        adjudicating.judge(store, house.bob, asked.id, answer(1, 2), key())
    adjudicating.keep(store, house.bob, asked.id)
    assert adjudicating.conflicts(store, house.bob, house.project.id) == []


def test_only_reviewers_review(divided):
    for act in (adjudicating.conflicts, adjudicating.candidates, adjudicating.look, adjudicating.said):
        with pytest.raises(Denied):
            act(divided.store, divided.ann, 1)
    for act in (adjudicating.judge, adjudicating.resolve):
        with pytest.raises(Denied):
            act(divided.store, divided.ann, 1, answer(1, 2), key())
    with pytest.raises(Denied):
        adjudicating.void(divided.store, divided.ann, 1, "no")
    with pytest.raises(Denied):
        adjudicating.keep(divided.store, divided.ann, 1)
