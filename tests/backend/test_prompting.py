"""Prompting: versions that never change, previews that are exactly what is sent."""

from __future__ import annotations

import pytest

from backend import curating, prompting
from backend.access import Denied
from backend.curating import BadDemonstration
from backend.engines.scripted import ScriptedEngine
from backend.prompting import BadInput, Draft
from backend.prompts import build_prompt
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
