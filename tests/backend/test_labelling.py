"""Labelling: drafts, skips, undo, corrections; and that a desk tells nobody who wrote what."""

from __future__ import annotations

import dataclasses
import json

import pytest

from backend import labelling
from backend.access import Denied
from backend.labelling import LabellingProblem
from feedback_db import audit, judgements
from feedback_db.types import Assignment, Case, Report
from tests.feedback_db.test_queue import SECOND, Clock, answer, key
from tests.ui.house import SECRET_MODEL, build


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=4, clock=clock)
    yield made
    made.store.close()


def desk_of(house, person=None):
    return labelling.next_desk(house.store, person or house.ann, house.project.id)


def test_a_desk_holds_no_model_completion_seed_or_template(house):
    said = json.dumps(dataclasses.asdict(desk_of(house)), default=str)
    assert SECRET_MODEL not in said
    for word in ("model", "completion", "seed", "sampling", "template", "gold", "comparison_id", "shown", "digest"):
        assert word not in said, word


def test_a_case_of_a_template_is_shown_without_its_scaffolding():
    plain = Case(project_id=1, values={"input": "a fine film", "task": "sentiment"}, split="train", digest=b"")
    assert judgements.conversation_of(plain) == ({"role": "user", "content": "a fine film"},)
    listed = dataclasses.replace(plain, values={"title": "x", "text": "y"})
    assert judgements.conversation_of(listed) == ({"role": "user", "content": "title: x\ntext: y"},)


def test_submit_answers_with_the_next_desk_and_a_retry_with_the_same_row(house):
    desk, once = desk_of(house), key()
    done = labelling.submit(house.store, house.ann, desk.assignment, once, answer())
    assert done.counted and done.desk.assignment != desk.assignment
    again = labelling.submit(house.store, house.ann, desk.assignment, once, answer(2, 1))
    assert (again.judgement, again.desk.assignment) == (done.judgement, done.desk.assignment)
    assert house.store.value("select count(*) from judgements") == 1


def test_two_tabs_give_one_judgement(house):
    desk = desk_of(house)
    labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    with pytest.raises(LabellingProblem, match="already"):
        labelling.submit(house.store, house.ann, desk.assignment, key(), answer(2, 1))


def test_an_assignment_of_somebody_else_is_not_there(house):
    desk = desk_of(house)
    for act in (
        lambda: labelling.submit(house.store, house.eve, desk.assignment, key(), answer()),
        lambda: labelling.skip(house.store, house.eve, desk.assignment),
        lambda: labelling.save_draft(house.store, house.eve, desk.assignment, {}),
        lambda: labelling.heartbeat(house.store, house.eve, desk.assignment),
        lambda: labelling.release(house.store, house.eve, desk.assignment, desk.lease),
    ):
        with pytest.raises(LabellingProblem, match="not on your desk"):
            act()


def test_a_disabled_person_is_refused(house):
    with pytest.raises(Denied):
        desk_of(house, dataclasses.replace(house.ann, status="disabled"))


def test_undo_takes_back_and_the_next_submit_corrects(house):
    desk, once = desk_of(house), key()
    first = labelling.submit(house.store, house.ann, desk.assignment, once, answer(1, 2))
    taken = key()
    back = labelling.undo(house.store, house.ann, house.project.id, taken)
    assert back.assignment == desk.assignment and back.draft["ranks"] == [1, 2] and back.answers == desk.answers
    assert labelling.undo(house.store, house.ann, house.project.id, taken).assignment == desk.assignment  # a retry
    assert house.store.value("select count(*) from current_judgements") == 0
    corrected = labelling.submit(house.store, house.ann, desk.assignment, key(), answer(2, 1))
    assert corrected.desk.assignment == first.desk.assignment  # the one that was on the desk before
    rows = house.store.rows("select act, revision, ranks from judgements order by id")
    assert [(row["act"], row["revision"]) for row in rows] == [("submit", 0), ("retract", 1), ("correct", 2)]
    assert house.store.value("select ranks from current_judgements") == "[2,1]"


def test_undo_ends_after_ten_minutes(house, clock):
    desk = desk_of(house)
    labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    clock.now += 601 * SECOND
    with pytest.raises(LabellingProblem, match="10 minutes"):
        labelling.undo(house.store, house.ann, house.project.id, key())


def test_a_skip_is_on_record_and_does_not_come_back(house):
    desk = desk_of(house)
    labelling.skip(house.store, house.ann, desk.assignment, "unclear")
    labelling.skip(house.store, house.ann, desk.assignment, "unclear")
    facts = house.store.rows("select facts from audit_events where action = 'skip'")
    assert [json.loads(row["facts"]) for row in facts] == [{"reason": "unclear"}]
    assert audit.first_broken(house.store) is None
    with pytest.raises(LabellingProblem):
        labelling.skip(house.store, house.ann, desk_of(house).assignment, "I typed this")


def test_a_draft_survives_a_lost_lease_and_is_gone_after_the_submit(house, clock):
    desk = desk_of(house)
    draft = {"ranks": [1, 2], "rationale": "更好 🙂"}
    labelling.save_draft(house.store, house.ann, desk.assignment, draft)
    clock.now += 301 * SECOND
    back = desk_of(house)
    assert (back.assignment, back.draft) == (desk.assignment, draft)
    labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert house.store.value("select count(*) from drafts") == 0


def test_ranks_that_do_not_fit_are_refused_and_nothing_is_stored(house):
    desk = desk_of(house)
    for ranks in ((1,), (1, 2, 3), (2, 2), (1, 3)):
        with pytest.raises(LabellingProblem):
            labelling.submit(house.store, house.ann, desk.assignment, key(), dataclasses.replace(answer(), ranks=ranks))
    with pytest.raises(LabellingProblem, match="tie has no strength"):
        labelling.submit(house.store, house.ann, desk.assignment, key(), dataclasses.replace(answer(), ranks=(1, 1)))
    assert house.store.get(Assignment, desk.assignment).state == "leased"


def test_progress_counts_what_this_person_did(house):
    for _ in range(2):
        labelling.submit(house.store, house.ann, desk_of(house).assignment, key(), answer())
    (found,) = labelling.projects(house.store, house.ann)
    assert (found.counts.today, found.counts.mine, found.counts.median_seconds) == (2, 2, 2.0)
    assert found.counts.waiting == 1  # two judged, one on the desk


def test_a_report_is_kept_and_the_comparison_stays_on_the_desk(house):
    desk, once = desk_of(house), key()
    made = labelling.report(house.store, house.ann, desk.assignment, once, "broken", "  cut off ")
    assert labelling.report(house.store, house.ann, desk.assignment, once, "other", "x") == made
    kept = house.store.get(Report, made)
    lease = house.store.get(Assignment, desk.assignment)
    assert (kept.category, kept.note, kept.comparison_id) == ("broken", "cut off", lease.comparison_id)
    assert desk_of(house).assignment == desk.assignment and lease.state == "leased"
    done = labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert done.counted
    later = labelling.report(house.store, house.ann, desk.assignment, key(), "unclear")  # also of what was judged
    assert house.store.get(Report, later).note is None
    facts = [
        one["facts"] for one in house.store.rows("select facts from audit_events where action = 'report' order by id")
    ]
    assert facts == ['{"category":"broken"}', '{"category":"unclear"}'], "what was typed is in no audit event"


def test_a_report_that_says_nothing_or_too_much_is_refused_and_so_is_one_of_another_desk(house):
    desk, once = desk_of(house), key()
    for category, note, match in (
        ("rude", "", "Known are"),
        ("other", "  ", "few words"),
        ("broken", "x" * 2001, "2000"),
    ):
        with pytest.raises(LabellingProblem, match=match):
            labelling.report(house.store, house.ann, desk.assignment, key(), category, note)
    with pytest.raises(LabellingProblem, match="not on your desk"):
        labelling.report(house.store, house.eve, desk.assignment, key(), "broken")
    labelling.report(house.store, house.ann, desk.assignment, once, "broken")
    with pytest.raises(LabellingProblem, match="another report"):
        labelling.report(house.store, house.eve, desk.assignment, once, "broken")
    for _ in range(9):
        labelling.report(house.store, house.ann, desk.assignment, key(), "broken")
    with pytest.raises(LabellingProblem, match="10 times"):
        labelling.report(house.store, house.ann, desk.assignment, key(), "broken")
