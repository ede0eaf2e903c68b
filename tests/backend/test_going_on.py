"""Going on from a judgement: each turn is a comparison of two answers to the conversation so far."""

from __future__ import annotations

import json

import pytest

from backend import comparing, going_on, labelling
from backend.engines.scripted import ScriptedEngine
from backend.labels import form as forms
from backend.labels import turns
from backend.labels.form import Form
from backend.labels.turns import CannotGoOn
from feedback_db import Store, comparisons, models
from feedback_db.types import Case, Judgement, Person, Project, Prompt
from tests.feedback_db.test_queue import answer, key


@pytest.fixture
def chat(store: Store, engine: ScriptedEngine, project: Project) -> Project:
    """The sample project, in which conversations go on, with two comparisons waiting."""
    comparing.refill(store, engine, project_id=project.id or 0, target=2)
    with store.write() as db:
        db.conn.execute("update projects set label_form = ?", [json.dumps(forms.stored(Form(continues=True)))])
    return project


def judged(store: Store, person: Person, project: Project, *ranks: int) -> int:
    desk = labelling.next_desk(store, person, project.id or 0)
    assert desk is not None
    return labelling.submit(store, person, desk.assignment, key(), answer(*ranks)).judgement


def test_the_next_turn_lies_on_the_desk_before_all_else(store, engine, annotator, chat):
    first = labelling.next_desk(store, annotator, chat.id)
    said = labelling.submit(store, annotator, first.assignment, key(), answer(2, 1)).judgement
    made = going_on.go_on(store, engine, annotator, said, 1, "  And then? ")
    desk = labelling.next_desk(store, annotator, chat.id)
    assert desk.conversation == (
        *first.conversation,
        {"role": "assistant", "content": first.answers[1]},
        {"role": "user", "content": "And then?"},
    )
    assert len(set(desk.answers)) == 2 and desk.kind == "pair"
    case = store.get(Case, made.case_id)
    assert (case.judgement_id, case.source, made.arm, made.overlap) == (said, "turn", "priority", 1)
    before = store.get(Case, case_of(store, said))
    assert case.split == before.split, "what is held out stays so, turn by turn"
    third = labelling.submit(store, annotator, desk.assignment, key(), answer(1, 2))
    going_on.go_on(store, engine, annotator, third.judgement, 0, "Thanks!")
    assert len(labelling.next_desk(store, annotator, chat.id).conversation) == len(first.conversation) + 4


def case_of(store: Store, judgement_id: int) -> int:
    return store.value(
        "select case_id from comparisons where id = (select comparison_id from judgements where id = ?)", [judgement_id]
    )


def test_the_model_reads_the_scaffolding_of_the_turn_before(store, engine, annotator, chat):
    said = judged(store, annotator, chat, 1, 2)
    made = going_on.go_on(store, engine, annotator, said, 0, "And then?")
    chosen = store.get(Judgement, said)
    before = comparisons.prompt_of(store, comparisons.completions_of(store, chosen.comparison_id)[chosen.shown[0]].id)
    (prompt,) = store.find(Prompt, "case_id = ?", [made.case_id])
    assert prompt.messages[: len(before.messages)] == before.messages and prompt.template_id == before.template_id
    both = comparisons.completions_of(store, made.id)
    assert [one.prompt_id for one in both] == [prompt.id] * 2, (
        "one rendered prompt, so that policies may learn from the pair"
    )
    assert {one.model_id for one in both} == {models.live(store, "policy").id}


def test_saying_the_same_again_gives_the_same_comparison(store, engine, annotator, chat):
    said = judged(store, annotator, chat, 1, 2)
    made = going_on.go_on(store, engine, annotator, said, 0, "And then?")
    assert going_on.go_on(store, engine, annotator, said, 0, "And then?").id == made.id
    desk = labelling.next_desk(store, annotator, chat.id)
    labelling.submit(store, annotator, desk.assignment, key(), answer(1, 2))
    with pytest.raises(CannotGoOn, match="judged this turn"):
        going_on.go_on(store, engine, annotator, said, 0, "And then?")


def test_what_stands_in_the_way_is_said(store, engine, annotator, engineer, chat, monkeypatch):
    said = judged(store, annotator, chat, 1, 2)

    def go(person=annotator, place=0, text="x", with_=engine):
        return going_on.go_on(store, with_, person, said, place, text)

    with pytest.raises(CannotGoOn, match="judged best"):
        go(place=1)
    with pytest.raises(CannotGoOn, match="judged best"):
        go(place=5)
    with pytest.raises(CannotGoOn, match="at most 4000"):
        go(text=" ")
    with pytest.raises(CannotGoOn, match="not one of yours"):
        go(person=engineer)
    with pytest.raises(CannotGoOn, match="No policy"):
        go(with_=None)
    with pytest.raises(CannotGoOn, match="came out the same"):
        go(with_=ScriptedEngine(lambda *_: "always this"))
    with pytest.raises(CannotGoOn, match="has grown"):
        go(with_=ScriptedEngine(lambda *_: "", max_model_len=90))
    monkeypatch.setattr(turns, "TURNS_MOST", 1)
    with pytest.raises(CannotGoOn, match="at most 1 turns"):
        go()
    with store.write() as db:
        db.conn.execute("update projects set label_form = '{}'")
    with pytest.raises(CannotGoOn, match="does not go on"):
        go()
    assert store.value("select count(*) from cases where source = 'turn'") == 0
