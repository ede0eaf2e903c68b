"""Answers that people write themselves where nothing is shown: asked for, kept, and learned from as what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend import comparing, labelling
from backend.access import Denied
from backend.labelling import LabellingProblem
from backend.labels.form import Answer
from feedback_db import prompts, snapshots
from feedback_db.snapshot_rows import answer_rows, unpaired_rows
from feedback_db.types import Demonstration, Judgement
from tests.feedback_db.test_queue import key

WROTE = Answer(edited_text="Restart it in the menu.", seconds=9.0)


@pytest.fixture
def asked(store, engineer, project):
    case = prompts.cases(store, project.id)[0]
    comparing.ask_to_write(store, engineer, case.id)
    return case


def test_one_request_waits_for_a_case_and_annotators_make_none(store, engineer, annotator, project, asked):
    again = comparing.ask_to_write(store, engineer, asked.id)
    assert store.value("select count(*) from comparisons where kind = 'demonstration'") == 1 and again.size == 0
    with pytest.raises(Denied):
        comparing.ask_to_write(store, annotator, asked.id)


def test_what_was_written_is_a_demonstration_and_an_answer_to_learn_from_but_no_preference(
    store, annotator, project, asked
):
    desk = labelling.next_desk(store, annotator, project.id)
    assert (desk.kind, desk.answers) == ("demonstration", ())
    done = labelling.submit(store, annotator, desk.assignment, key(), WROTE)
    kept = store.get(Judgement, done.judgement)
    assert done.counted and (kept.ranks, kept.edited_text, kept.edited_position) == ((), WROTE.edited_text, None)
    (shown,) = store.find(Demonstration, "judgement_id = ?", [kept.id])
    assert (shown.source, shown.output, shown.person_id) == ("written", WROTE.edited_text, annotator.id)
    assert snapshots.trainable_count(store, project.id) == 0 and snapshots.written_count(store, project.id) == 1
    assert snapshots.freeze_preferences(store, project.id, "p", None).n == 0
    written = [row for row in answer_rows(store, snapshots.freeze_answers(store, project.id, "a", None))
               if row["answer"]["text"] == WROTE.edited_text]  # fmt: skip
    assert len(written) == 1, "once, though it is a demonstration as well"
    good = [row for row in unpaired_rows(store, snapshots.freeze_unpaired(store, project.id, "u", None))
            if row["answer"]["text"] == WROTE.edited_text]  # fmt: skip
    assert [(row["desirable"], row["judgements"]) for row in good] == [(True, [kept.id])]


def test_it_can_be_taken_back_and_comes_back_as_it_was_written(store, annotator, project, asked):
    desk = labelling.next_desk(store, annotator, project.id)
    labelling.submit(store, annotator, desk.assignment, key(), WROTE)
    again = labelling.undo(store, annotator, project.id, key())
    assert again.draft["edited_text"] == WROTE.edited_text
    assert store.find(Demonstration, "judgement_id is not null") == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"edited_text": " "}, "want to read"),
        ({"ranks": (1, 2)}, "no answers here"),
        ({"flags": ("unsafe:0",)}, "no answers here"),
        ({"edited_place": 0}, "no answers here"),
        ({"confidence": 2}, "Confidence"),
        ({"edited_text": "x" * 20_001}, "20000 characters"),
    ],
)
def test_what_does_not_fit_is_refused(store, annotator, project, asked, changes, why):
    desk = labelling.next_desk(store, annotator, project.id)
    with pytest.raises(LabellingProblem, match=why):
        labelling.submit(store, annotator, desk.assignment, key(), replace(WROTE, **changes))
