"""The build page: the exact prompt, versions, demonstrations."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from feedback_db.types import Case, Demonstration, Template
from tests.ui.house import token_for
from tests.ui.pages.studio import HOSTILE, Studio, Tab, parts
from ui.pages.build import MOST_VARIABLES
from ui.pages.build_form import Form

NO_VALUES = [""] * MOST_VARIABLES


def form(**typed: Any) -> list[Any]:
    empty = {
        "name": "mine", "kind": "text", "system_text": "", "body": "{{input}}", "mode": "plain", "scenario": None, "language": "", "labels": "",
        "note": "", "k": 0, "choose": "fixed", "order": "listed", "shape": "turns", "seed": 0, "rows": {"rows": []}, "bank": {"picked": []},
    }  # fmt: skip
    return list(Form(**{**empty, **typed}))


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("build_open")
    return opened


def prompt(tab: Tab, studio: Studio, typed: list[Any], values: list[str]) -> dict[str, Any]:
    return tab.call("build_prompt", studio.project.id, None, None, *typed, *values, *NO_VALUES[len(values) :])[0]


def variables(tab: Tab, typed: list[Any]) -> list[Any]:
    return tab.call("build_variables", None, *typed, *NO_VALUES)


def test_the_preview_shows_the_exact_messages_as_text(tab: Tab, studio: Studio) -> None:
    typed = form(system_text="Be kind.", body="{{task}}: {{input}}\n  end")
    boxes = variables(tab, typed)
    assert [(box["label"], box["visible"]) for box in boxes[1:3]] == [("task", True), ("input", True)]
    assert boxes[3]["visible"] is False
    shown = prompt(tab, studio, typed, ["Answer", HOSTILE])
    assert [(m["role"], m["text"]) for m in parts(shown, "messages")[0]["items"]] == [
        ("system", "Be kind."),
        ("user", f"Answer: {HOSTILE}\n  end"),
    ]
    bar = parts(shown, "segments")[0]
    assert bar["of"] == 4096 and [kind for kind, *_ in bar["parts"]] == ["system", "instruction", "case"]


def test_a_variable_without_a_value_is_named_above_the_prompt(tab: Tab, studio: Studio) -> None:
    typed = form(body="{{task}}: {{input}} {{more}}")
    variables(tab, typed)
    shown = prompt(tab, studio, typed, ["Answer", "", ""])
    assert parts(shown, "note")[0]["text"].startswith("Empty here: input, more.")
    assert parts(shown, "messages")[0]["items"][0]["text"] == "Answer:  "
    assert not parts(prompt(tab, studio, typed, ["Answer", "a", "b"]), "note")


def test_an_error_names_the_line_and_what_to_do(tab: Tab, studio: Studio) -> None:
    typed = form(body="one\n{{ other }}")
    shown = prompt(tab, studio, typed, [])
    assert parts(shown, "note")[0]["tone"] == "bad"
    assert parts(shown, "note")[0]["text"].startswith('Line 2: the variable "other" has no value. Give it one')


def test_a_saved_draft_is_the_next_version_and_an_equal_one_is_not(tab: Tab, studio: Studio) -> None:
    name = "customer service"
    newest = studio.store.find(Template, "name = ?", [name], "version desc")[0]
    typed = form(name=name, system_text="Be brief.", scenario=newest.scenario, language=newest.language, note="shorter")
    picker, versions, *_, status = tab.call("save_template", studio.project.id, *typed)
    saved = studio.store.get(Template, picker["value"])
    assert (saved.version, saved.system_text, saved.parent_id) == (newest.version + 1, "Be brief.", newest.id)
    assert parts(status, "note")[0]["text"] == f"{name}, version {saved.version}, is saved."
    assert parts(versions, "table")[0]["rows"][0]["cells"][:3] == [f"v{saved.version}", "", "shorter"]
    again = tab.call("save_template", studio.project.id, *typed)
    assert again[0]["value"] == saved.id


def test_a_template_of_the_sample_that_is_saved_unchanged_stays_its_version(tab: Tab, studio: Studio) -> None:
    sample = studio.store.find(Template, "name = 'movie sentiment'")[0]
    opened = tab.call("build_template", studio.project.id, sample.id)
    fields = [
        field["value"] if isinstance(field, dict) and "value" in field else field
        for field in opened[1 : 1 + len(Form._fields)]
    ]
    assert tab.call("save_template", studio.project.id, *fields)[0]["value"] == sample.id


def test_demonstrations_chosen_by_hand_stand_in_the_order_chosen(tab: Tab, studio: Studio) -> None:
    typed = form(scenario="customer service", language="en")
    for answer in ("first", "second"):
        tab.call("add_demonstration", f"Where is my {answer}?", answer, "", "", studio.project.id, "", *typed)
    first, second = (studio.store.find(Demonstration, "output = ?", [answer])[0].id for answer in ("first", "second"))
    typed = form(scenario="customer service", language="en", k=2, bank={"picked": [second, first]})
    variables(tab, typed)
    shown = prompt(tab, studio, typed, ["Where is my order?"])
    assert [m["text"] for m in parts(shown, "messages")[0]["items"] if m["role"] == "assistant"] == ["second", "first"]


def test_values_that_were_typed_can_be_kept_as_a_case(tab: Tab, studio: Studio) -> None:
    typed = form(body="{{input}}", scenario="customer service", language="en")
    variables(tab, typed)
    picker, _ = tab.call("add_case", studio.project.id, None, "an answer", *typed, "A new question?", *NO_VALUES[1:])
    kept = studio.store.get(Case, picker["value"])
    assert (kept.values, kept.expected, kept.scenario) == (
        {"input": "A new question?"},
        "an answer",
        "customer service",
    )
    with pytest.raises(gr.Error, match="at least one value"):
        tab.call("add_case", studio.project.id, None, "", *typed, *NO_VALUES)
