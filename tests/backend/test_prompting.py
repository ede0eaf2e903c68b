"""Prompting: versions that never change, previews that are exactly what is sent."""

from __future__ import annotations

import pytest

from backend import curating, prompting
from backend.access import Denied
from backend.curating import BadDemonstration
from backend.engines.scripted import ScriptedEngine
from backend.prompting import BadInput, Draft
from backend.prompts import BudgetProblem, PromptProblem, build_prompt
from backend.prompts.template import TemplateProblem
from feedback_db import Store
from feedback_db.types import Person, Project

SEED_FORM = "Perform the following {{task}}:\n\n{{demonstrations}}\nInput: {{input}}\nOutput:"


def test_the_preview_is_the_seed_form_with_the_chosen_demonstrations(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    bank = curating.demonstrations(store, engineer, project.id or 0, scenario="movie sentiment", language="en")
    chosen = [bank[2], bank[0]]
    draft = Draft(
        name="mine",
        body=SEED_FORM,
        few_shot={"k": 2, "choose": "fixed", "ids": [d.id for d in chosen], "shape": "text"},
        scenario="movie sentiment",
        language="en",
    )
    values = {"task": "rating", "input": "A film of its own kind entirely."}
    shown = prompting.preview(store, engine, engineer, project.id or 0, draft, values)
    assert shown.messages[-1]["content"] == build_prompt("rating", values["input"], chosen)
    assert shown.demonstration_ids == tuple(d.id for d in chosen)
    assert [part.kind for part in shown.segments] == ["instruction", "demonstration", "demonstration", "case"]
    assert sum(part.tokens for part in shown.segments) == shown.tokens
    assert 0 < shown.tokens < shown.max_tokens


def test_demonstrations_that_do_not_fit_are_dropped_whole(store: Store, engineer: Person, project: Project) -> None:
    small = ScriptedEngine(lambda *_: "", max_model_len=prompting.ANSWER_TOKENS + 20)
    draft = Draft(
        name="mine",
        body="{{input}}",
        few_shot={"k": 8, "choose": "seeded"},
        scenario="customer service",
        language="en",
    )
    shown = prompting.preview(store, small, engineer, project.id or 0, draft, {"input": "Where is it?"})
    assert shown.dropped_ids and shown.tokens <= 20
    dropped = [part for part in shown.segments if part.kind == "dropped"]
    assert tuple(part.demonstration_id for part in dropped) == shown.dropped_ids and all(p.tokens > 0 for p in dropped)
    assert sum(part.tokens for part in shown.segments if part.kind != "dropped") == shown.tokens
    assert len(shown.messages) == 1 + 2 * len(shown.demonstration_ids)


def test_of_a_shuffled_order_the_farthest_are_dropped_first(store: Store, engineer: Person, project: Project) -> None:
    few_shot = {"k": 8, "choose": "nearest", "order": "seeded", "seed": 1}
    draft = Draft(name="mine", body="{{input}}", few_shot=few_shot, scenario="customer service", language="en")
    values = {"input": "Where is it?"}
    small = ScriptedEngine(lambda *_: "", max_model_len=prompting.ANSWER_TOKENS + 90)
    shown = prompting.preview(store, small, engineer, project.id or 0, draft, values)
    listed = Draft(
        name="mine", body="{{input}}", few_shot={**few_shot, "order": "listed"}, scenario=draft.scenario, language="en"
    )
    whole = ScriptedEngine(lambda *_: "", max_model_len=10_000)
    nearest_last = prompting.preview(store, whole, engineer, project.id or 0, listed, values).demonstration_ids
    dropped = len(shown.dropped_ids)
    assert 0 < dropped < 8 and shown.dropped_ids == nearest_last[:dropped]
    assert shown.demonstration_ids != nearest_last[dropped:] and set(shown.demonstration_ids) == set(
        nearest_last[dropped:]
    )


def test_an_answer_that_leaves_no_room_is_said(store: Store, engineer: Person, project: Project) -> None:
    small = ScriptedEngine(lambda *_: "", max_model_len=prompting.ANSWER_TOKENS)
    draft = Draft(name="mine", body="{{input}}", few_shot={"k": 0}, scenario="customer service", language="en")
    with pytest.raises(BudgetProblem, match="leaves no room for a prompt: the model takes"):
        prompting.preview(store, small, engineer, project.id or 0, draft, {"input": "Where is it?"})


CHAT = (
    {"role": "system", "text": "Be kind."},
    {"role": "user", "text": "Where is my parcel?"},
    {"role": "assistant", "text": "On its way."},
    {"role": "demonstrations"},
    {"role": "user", "text": "{{input}}"},
)


def test_of_a_chat_only_demonstrations_are_dropped_and_its_rows_stay(
    store: Store, engineer: Person, project: Project
) -> None:
    small = ScriptedEngine(lambda *_: "", max_model_len=prompting.ANSWER_TOKENS + 30)
    few_shot = {"k": 8, "choose": "seeded"}
    draft = Draft(name="mine", rows=CHAT, few_shot=few_shot, scenario="customer service", language="en")
    shown = prompting.preview(store, small, engineer, project.id or 0, draft, {"input": "I want my money back."})
    assert shown.dropped_ids and shown.tokens <= 30
    assert [part.kind for part in shown.segments][:2] == ["system", "instruction"]
    assert sum(part.tokens for part in shown.segments if part.kind != "dropped") == shown.tokens
    texts = [message["content"] for message in shown.messages]
    assert texts[:3] == ["Be kind.", "Where is my parcel?", "On its way."] and texts[-1] == "I want my money back."
    assert len(texts) == 4 + 2 * len(shown.demonstration_ids)


def test_a_row_that_answers_the_case_is_told_before_anything_is_asked(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    draft = Draft(name="mine", rows=CHAT)
    with pytest.raises(PromptProblem, match="Row 2 asks what this case asks"):
        prompting.preview(store, engine, engineer, project.id or 0, draft, {"input": "where is my  parcel?"})


def test_a_bad_row_is_refused_by_its_number(store: Store, engineer: Person, project: Project) -> None:
    with pytest.raises(TemplateProblem, match="Row 4: the model answers"):
        prompting.save_template(store, engineer, project.id or 0, Draft(name="t", rows=CHAT[:4]))
    as_text = {"k": 1, "shape": "text"}
    with pytest.raises(BadInput, match="user row at the end"):
        rows = (*CHAT[:3], {"role": "turns"})
        prompting.save_template(store, engineer, project.id or 0, Draft(name="t", rows=rows, few_shot=as_text))


def test_saving_makes_the_next_version_and_an_equal_draft_makes_none(
    store: Store, engineer: Person, project: Project
) -> None:
    first = prompting.save_template(store, engineer, project.id or 0, Draft(name="t", body="{{input}}"))
    again = prompting.save_template(store, engineer, project.id or 0, Draft(name="t", body="{{input}}"))
    second = prompting.save_template(store, engineer, project.id or 0, Draft(name="t", body="Say {{input}}"))
    assert (first.version, again.id, second.version, second.parent_id) == (1, first.id, 2, first.id)


def test_a_bad_template_is_refused_with_its_line(store: Store, engineer: Person, project: Project) -> None:
    with pytest.raises(TemplateProblem, match="2"):
        prompting.save_template(store, engineer, project.id or 0, Draft(name="t", body="fine\n{% bad %}", mode="logic"))
    with pytest.raises(BadInput, match="name"):
        prompting.save_template(store, engineer, project.id or 0, Draft(name=" ", body="x"))


def test_cases_and_demonstrations_are_kept_once(store: Store, engineer: Person, project: Project) -> None:
    one = prompting.add_case(store, engineer, project.id or 0, values={"input": "x"})
    assert prompting.add_case(store, engineer, project.id or 0, values={"input": "x"}).id == one.id
    shot = curating.add_demonstration(store, engineer, project.id or 0, input="a", output="b")
    assert curating.add_demonstration(store, engineer, project.id or 0, input="a", output="b").id == shot.id
    for bad in ({"input": " "}, {}):
        with pytest.raises(BadInput):
            prompting.add_case(store, engineer, project.id or 0, values=bad)
    with pytest.raises(BadDemonstration):
        curating.add_demonstration(store, engineer, project.id or 0, input="a", output=" ")


def test_an_annotator_may_do_none_of_it(
    store: Store, engine: ScriptedEngine, annotator: Person, project: Project
) -> None:
    draft = Draft(name="t", body="x")
    for act in (
        lambda: prompting.projects(store, annotator),
        lambda: prompting.templates(store, annotator, 1),
        lambda: curating.demonstrations(store, annotator, 1, scenario=None, language=None),
        lambda: prompting.cases(store, annotator, 1, scenario=None, language=None),
        lambda: prompting.preview(store, engine, annotator, 1, draft, {}),
        lambda: prompting.save_template(store, annotator, 1, draft),
        lambda: prompting.add_case(store, annotator, 1, values={"a": "b"}),
        lambda: curating.add_demonstration(store, annotator, 1, input="a", output="b"),
    ):
        with pytest.raises(Denied):
            act()
