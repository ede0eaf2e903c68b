"""What is compiled and rendered is the template's own text, once per prompt: never a value, an answer or what came out."""

from __future__ import annotations

import pytest

from backend import curating, prompting, testing
from backend.prompts import chat
from feedback_db import Store, models
from feedback_db.types import Person, Project
from tests.backend.test_testing import Counting, finished

TRICKY = "{{ 7 * 7 }} {{label}} {% if x %} {# a"


def test_only_the_texts_of_the_template_are_compiled_and_the_prompt_is_not_rendered_again(
    store: Store, engineer: Person, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    own = chat.compile_template

    def listening(source: str, mode: str):  # type: ignore[no-untyped-def]
        seen.append(source)
        return own(source, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(chat, "compile_template", listening)
    curating.add_demonstration(
        store, engineer, project.id or 0, input="Quite another {{label}} thing", output=TRICKY + " out", scenario="s"
    )
    few = {"k": 1, "choose": "seeded", "shape": "text"}
    template = prompting.save_template(
        store,
        engineer,
        project.id or 0,
        prompting.Draft(name="t", body="{{demonstrations}}\nSay {{input}}", few_shot=few, scenario="s"),
    )
    cases = prompting.add_cases(store, engineer, project.id or 0, [({"input": TRICKY, "label": "gold"}, "gold")])
    suite = testing.save_suite(
        store, engineer, project.id or 0, name="s", case_ids=[cases[0].id or 0], checks="contains:{{input}}"
    )
    live = models.live(store, "policy")
    assert live is not None
    engine = Counting()
    run = testing.start(store, engineer, suite.id or 0, [(template.id or 0, live.id or 0)])
    finished(store, engine, run)
    assert engine.asked == 1
    assert set(seen) == {template.body, template.system_text}
    (rows, _) = testing.rows(store, engineer, run.id or 0)
    cell, answer = rows[0].cells[0][0]
    assert cell.passed and answer is not None and f"Say {TRICKY}" in answer.text and "49" not in answer.text
    assert "gold" not in answer.text
