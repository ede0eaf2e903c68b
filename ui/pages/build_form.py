"""The template editor's fields: how they stand on the page, and how they become a draft and come back from a version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from backend.prompting import Draft
from backend.prompts.rows import USER, row
from feedback_db.types import Template
from ui.context import Ui
from ui.pages.build_rows import rows_editor, rows_in
from ui.views.drawn import drawn

KINDS = ("text", "chat")
MODES = ("plain", "logic")
CHOOSE = ("fixed", "seeded", "nearest", "bm25", "varied", "embedded", "embedded_varied", "balanced")
ORDERS = ("listed", "nearest_last", "seeded")
SHAPES = ("turns", "text")
LANGUAGES = ("en", "zh")


class Form(NamedTuple):
    """The fields of a draft, in the order in which handlers get their values."""

    name: Any
    kind: Any  # text or chat
    system_text: Any
    body: Any
    mode: Any
    scenario: Any
    language: Any
    labels: Any
    note: Any
    k: Any
    choose: Any
    order: Any
    shape: Any
    seed: Any
    rows: Any  # {"rows": [...]} of a chat template
    bank: Any  # {"picked": [ids]}: the demonstrations of choose = fixed, in order


def editor(ui: Ui) -> tuple[Form, Any]:
    """The fields on the left, and the button that saves; the bank stands in its own tab (see ``bank``)."""
    label = ui.text.label

    def choices(group: str, names: Sequence[str]) -> list[tuple[Any, str]]:
        return [(label(f"build.{group}.{name}"), name) for name in names]

    with gr.Row(elem_classes="wh-tight"):
        name = gr.Textbox(label=label("build.name"), elem_id="name", scale=3, min_width=160, max_lines=1)
        kind = gr.Dropdown(
            choices("kind", KINDS), value="text", label=label("build.kind"), elem_id="kind", min_width=110
        )
        mode = gr.Dropdown(
            choices("mode", MODES), value="plain", label=label("build.mode"), elem_id="mode", min_width=110
        )
        scenario = gr.Dropdown(
            [], label=label("build.scenario"), elem_id="scenario", allow_custom_value=True, scale=2, min_width=140
        )
        language = gr.Dropdown(
            [(label("build.any"), ""), *((code, code) for code in LANGUAGES)],
            value="",
            label=label("build.language"),
            elem_id="language",
            min_width=90,
        )
    system_text = gr.Textbox(label=label("build.system"), lines=2, max_lines=5, elem_id="system-text")
    body = gr.Textbox(
        label=label("build.body"),
        info=label("build.body_hint"),
        lines=8,
        max_lines=16,
        elem_id="body",
        elem_classes="wh-code",
    )
    rows = rows_editor()
    with gr.Row(elem_classes="wh-tight"):
        k = gr.Number(value=0, precision=0, step=1, label=label("build.k"), elem_id="k", min_width=70)
        choose = gr.Dropdown(
            choices("choose", CHOOSE),
            value="fixed",
            label=label("build.choose"),
            elem_id="choose",
            scale=2,
            min_width=130,
        )
        order = gr.Dropdown(
            choices("order", ORDERS),
            value="listed",
            label=label("build.order"),
            elem_id="order",
            scale=2,
            min_width=120,
        )
        shape = gr.Dropdown(
            choices("shape", SHAPES), value="turns", label=label("build.shape"), elem_id="shape", scale=2, min_width=120
        )
        seed = gr.Number(value=0, precision=0, step=1, label=label("build.seed"), elem_id="seed", min_width=70)
    with gr.Row(elem_classes="wh-tight"):
        labels = gr.Textbox(
            label=label("build.labels"), placeholder=label("build.labels_hint"), elem_id="labels", scale=2, max_lines=1
        )
        note = gr.Textbox(
            label=label("build.note"), placeholder=label("build.note_hint"), elem_id="note", scale=3, max_lines=1
        )
        save = gr.Button(label("build.save"), variant="primary", size="sm", elem_id="save", min_width=130)
    bank = drawn("bank", "bank", render=False)
    return Form(
        name, kind, system_text, body, mode, scenario, language, labels, note, k, choose, order, shape, seed, rows, bank
    ), save


def draft_of(values: Sequence[Any]) -> Draft:
    """The draft that these values of a Form stand for."""
    typed = Form(*values)
    few_shot: dict[str, Any] = {}
    if typed.k:
        few_shot = {"k": int(typed.k), "choose": typed.choose, "order": typed.order, "shape": typed.shape}
        few_shot |= {"seed": int(typed.seed or 0)}
        if typed.choose == "fixed":
            few_shot |= {"ids": [int(id) for id in (typed.bank or {}).get("picked", [])]}
    labels = tuple(part.strip() for part in re.split("[,,、\n]", typed.labels or "") if part.strip())
    return Draft(
        name=typed.name or "",
        system_text=typed.system_text or "",
        body=typed.body or "",
        rows=(rows_in(typed.rows) or (row(USER),)) if typed.kind == "chat" else (),
        mode=typed.mode,
        few_shot=few_shot,
        labels=labels or None,
        scenario=typed.scenario or None,
        language=typed.language or None,
        note=typed.note or "",
    )


def values_of(template: Template | None) -> list[Any]:
    """What the fields before the rows show for a version; empty fields for a new template."""
    if template is None:
        return ["", "text", "", "", "plain", None, "", "", "", 0, "fixed", "listed", "turns", 0]
    few_shot = {"k": 0, "choose": "fixed", "order": "listed", "shape": "turns", "seed": 0} | template.few_shot
    return [
        template.name,
        "chat" if template.rows else "text",
        template.system_text,
        template.body,
        template.mode,
        template.scenario,
        template.language or "",
        ", ".join(template.labels or ()),
        "",
        *(few_shot[name] for name in ("k", "choose", "order", "shape", "seed")),
    ]
