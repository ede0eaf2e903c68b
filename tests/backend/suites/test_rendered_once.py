"""What is compiled and rendered is the template's own text, once per prompt: never a value, an answer or what came out."""

from __future__ import annotations

import pytest

from backend import curating, prompting, testing
from backend.prompts import rows as prompt_rows
from feedback_db import Store, models
from feedback_db.types import Person, Project
from tests.backend.test_testing import Counting, finished

TRICKY = "{{ 7 * 7 }} {{label}} {% if x %} {# a"
FEW = {"k": 1, "choose": "seeded", "shape": "text"}
TEXT = prompting.Draft(name="t", body="{{demonstrations}}\nSay {{input}}", few_shot=FEW, scenario="s")
CHAT = prompting.Draft(
    name="c", few_shot=FEW, scenario="s",
    rows=(
        {"role": "system", "text": "Be kind."}, {"role": "user", "text": "Once {{input}}"},
        {"role": "assistant", "text": "Yes."}, {"role": "user", "text": "{{demonstrations}}\nSay {{input}}"},
    ),
)  # fmt: skip


@pytest.mark.parametrize("draft", [TEXT, CHAT], ids=["text", "chat"])
def test_only_the_texts_of_the_template_are_compiled_and_the_prompt_is_not_rendered_again(
    store: Store, engineer: Person, project: Project, monkeypatch: pytest.MonkeyPatch, draft: prompting.Draft
) -> None:
    curating.add_demonstration(
        store, engineer, project.id or 0, input="Quite another {{label}} thing", output=TRICKY + " out", scenario="s"
    )
    template = prompting.save_template(store, engineer, project.id or 0, draft)
    cases = prompting.add_cases(store, engineer, project.id or 0, [({"input": TRICKY, "label": "gold"}, "gold")])
    suite = testing.save_suite(
        store, engineer, project.id or 0, name="s", case_ids=[cases[0].id or 0], checks="contains:{{input}}"
    )
    live = models.live(store, "policy")
    assert live is not None
    engine = Counting()
    run = testing.start(store, engineer, suite.id or 0, [(template.id or 0, live.id or 0)])
    seen, filled = _listen(monkeypatch)
    finished(store, engine, run)
    assert engine.asked == 1
    texts = [row.get("text", "") for row in prompt_rows.rows_of(template) if row["role"] in prompt_rows.SPEAKERS]
    assert sorted(seen) == sorted(texts), "each text is compiled once"
    assert max(filled.count(text) for text in texts) <= 2, "once without demonstrations, once with them"
    (rows, _) = testing.rows(store, engineer, run.id or 0)
    cell, answer = rows[0].cells[0][0]
    assert cell.passed and answer is not None and f"Say {TRICKY}" in answer.text and "49" not in answer.text
    assert "gold" not in answer.text


def _listen(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The sources that are compiled, and those that are filled, from now on."""
    seen: list[str] = []
    filled: list[str] = []
    compile_own, fill_own = prompt_rows.compile_template, prompt_rows.fill

    def compiling(source: str, mode: str):  # type: ignore[no-untyped-def]
        seen.append(source)
        return compile_own(source, mode)  # type: ignore[arg-type]

    def filling(compiled, values, demonstrations=""):  # type: ignore[no-untyped-def]
        filled.append(compiled.body)
        return fill_own(compiled, values, demonstrations)

    monkeypatch.setattr(prompt_rows, "compile_template", compiling)
    monkeypatch.setattr(prompt_rows, "fill", filling)
    prompt_rows._compiled.cache_clear()
    return seen, filled
