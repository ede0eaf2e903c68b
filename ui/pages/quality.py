"""The quality page: how far people agree, who is careful, which model is better, and what the project asks."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from backend import reviewing
from backend.labels import form as forms
from backend.reviewing import Quality
from backend.stats.agreement import Estimate
from feedback_db.types import Project
from ui.context import Ui
from ui.guard import needs
from ui.pages.quality_boards import boards_panel
from ui.pages.quality_guidelines import guidelines_panel, guidelines_shown
from ui.pages.quality_order import order_every, order_panel, order_shown
from ui.pages.quality_review import review_panel, review_shown
from ui.views.drawn import cards, drawing, drawn, heading, note, table
from ui.views.pickers import fill_projects, picker, project_picker
from ui.views.words import figure, share

NAME = "quality"
PATH = "quality"
CHOICES = ("tie", "both_bad", "both_good", "best_worst", "points", "edit", "confidence", "markdown", "continues")


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        project = project_picker(ui)
        with gr.Tabs(elem_classes="wh-panel"):
            with gr.Tab(label("quality.figures"), elem_id="tab-figures"):
                shown = drawn("quality")
                with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
                    divided = picker(label("quality.split"), "divided", scale=2, min_width=200)
                    more = gr.Button(label("quality.one_more"), size="sm", elem_id="one-more", min_width=180)
                    asked = drawn("asked", scale=3)
            with gr.Tab(label("board.tab"), elem_id="tab-boards"):
                boards = boards_panel(ui, project)
            with gr.Tab(label("order.tab"), elem_id="tab-order"):
                order = order_panel(ui, project)
            with gr.Tab(label("review.tab"), elem_id="tab-review"):
                review = review_panel(ui, project)
            with gr.Tab(label("guide.tab"), elem_id="tab-guidelines"):
                guidelines = guidelines_panel(ui, project)
            with gr.Tab(label("quality.form"), elem_id="tab-form"):
                fields = _fields(ui)
                save = gr.Button(label("quality.save"), variant="primary", size="sm", elem_id="save-form")
                saved = drawn("form-status")

    def show(project_id: int | None) -> list[Any]:
        found = reviewing.overview(ui.store, ui.guard.person(), project_id or 0)
        of, form = reviewing.project(ui.store, ui.guard.person(), project_id or 0)
        ids = [(str(one.id), one.id) for one in found.split]
        first = ids[0][1] if ids else None
        return [
            _drawn(ui, found),
            gr.update(choices=ids, value=first),
            *_filled(of, form),
            boards.shown(project_id or 0),
            *order_shown(ui, project_id or 0),
            order_every(ui, project_id or 0),
            *review_shown(ui, project_id or 0),
            *guidelines_shown(ui, project_id or 0),
        ]

    def open_page(request: gr.Request) -> list[Any]:
        projects, chosen = fill_projects(ui, request)
        return [projects, *show(chosen.id if chosen else None)]

    @needs("review")
    def save_form(project_id: int | None, *given: Any) -> dict[str, Any]:
        steps, choices, aspects, tags, flags, rationale, overlap, gold, repeats, random, reveal, holdout = given
        form = forms.parse(
            {
                **{name: name in choices for name in CHOICES},
                "steps": int(steps), "aspects": _names(aspects), "span_tags": _names(tags), "flags": list(flags or []),
                "rationale": rationale, "reveal": reveal, "reveal_holdout": float(holdout or 0),
            }
        )  # fmt: skip
        reviewing.save_form(
            ui.store, ui.guard.person(), project_id or 0, form, overlap=int(overlap or 0), gold_every=int(gold or 0),
            repeat_share=float(repeats or 0), random_share=float(random or 0),
        )  # fmt: skip
        return drawing(note(ui.guard.say("quality.saved"), "ok"))

    @needs("review")
    def ask_one_more(comparison_id: int | None) -> dict[str, Any]:
        made = reviewing.ask_one_more(ui.store, ui.guard.person(), comparison_id or 0)
        return drawing(note(ui.guard.say("quality.asked", id=made.id), "ok"))

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    outputs = [shown, divided, *fields, boards.place, *order, *review, *guidelines]
    gr.on(None, open_page, None, [project, *outputs], api_name="quality_open", **quiet)
    project.input(show, project, outputs, api_name="quality_project", **quiet)
    save.click(save_form, [project, *fields], saved, api_name="save_form")
    more.click(ask_one_more, divided, asked, api_name="ask_one_more")


def _fields(ui: Ui) -> list[Any]:
    """The form's settings, in the order of ``_filled``."""
    label = ui.text.label
    return [
        gr.Radio([2, 4, 6], value=4, label=label("quality.steps"), elem_id="steps"),
        gr.CheckboxGroup([(label(f"quality.{name}"), name) for name in CHOICES], label=label("quality.choices"), elem_id="choices"),
        gr.Textbox(label=label("quality.aspects"), elem_id="aspects", max_lines=1),
        gr.Textbox(label=label("quality.span_tags"), elem_id="span-tags", max_lines=1),
        gr.CheckboxGroup([(label(f"label.flag.{name}"), name) for name in forms.FLAGS], label=label("quality.flags"), elem_id="flags"),
        gr.Radio(
            [(label(f"quality.{name}"), name) for name in ("off", "optional", "required")], value="optional",
            label=label("quality.rationale"), elem_id="rationale-asked",
        ),
        gr.Number(value=1, precision=0, step=1, label=label("quality.overlap"), elem_id="overlap"),
        gr.Number(value=0, precision=0, step=1, label=label("quality.gold_every"), elem_id="gold-every"),
        gr.Number(value=0.0, step=0.01, label=label("quality.repeat_share"), elem_id="repeat-share"),
        gr.Number(value=0.3, step=0.05, label=label("quality.random_share"), elem_id="random-share"),
        gr.Radio(
            [(label(f"quality.reveal.{name}"), name) for name in ("off", "margin", "others")], value="off",
            label=label("quality.reveal"), elem_id="reveal",
        ),
        gr.Number(value=0.3, step=0.05, label=label("quality.reveal_holdout"), elem_id="reveal-holdout"),
    ]  # fmt: skip


def _filled(project: Project, form: forms.Form) -> list[Any]:
    return [
        form.steps,
        [name for name in CHOICES if getattr(form, name)],
        ", ".join(form.aspects),
        ", ".join(form.span_tags),
        list(form.flags),
        form.rationale,
        project.overlap,
        project.gold_every,
        float(project.settings.get("repeat_share", 0.0)),
        float(project.settings.get("random_share", 0.3)),
        form.reveal,
        form.reveal_holdout,
    ]


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").replace(",", ",").split(",") if part.strip()]


def _drawn(ui: Ui, found: Quality) -> dict[str, Any]:
    say = ui.guard.say
    (alpha, raw, fleiss), cohen = found.agreement, found.cohen
    return drawing(
        cards(
            [
                (say("quality.alpha"), _number(alpha.value), _rests(ui, alpha)),
                (say("quality.raw"), share(raw.value) if raw.n else "–", _rests(ui, raw)),
                (
                    say("quality.fleiss"),
                    _number(fleiss.value),
                    _rests(ui, fleiss) if fleiss.n else say("quality.every_unit_alike"),
                ),
                (say("quality.cohen"), _number(cohen.value), _rests(ui, cohen) if cohen.n else say("quality.of_two")),
            ]
        ),
        heading(say("quality.people")),
        _people(ui, found),
        heading(say("quality.split")),
        table(
            [say("quality.comparison"), say("quality.wanted"), say("quality.given")],
            [(one.id or 0, [str(one.id), str(one.overlap), str(one.judged)]) for one in found.split],
            caption=say("quality.split"),
            empty=say("quality.no_split"),
            numbers=[1, 2],
        ),
    )


def _people(ui: Ui, found: Quality) -> dict[str, Any]:
    say = ui.guard.say
    shares = ("gold", "consistency", "agrees", "left", "longer")
    rows = [
        (
            place,
            [
                judge.name,
                str(judge.own.judged),
                _share(judge.right),
                *(_share(getattr(judge.own, name)) for name in shares),
                _seconds(judge.own.seconds),
            ],
        )
        for place, judge in enumerate(found.judges)
    ]
    columns = [say(f"quality.{name}") for name in ("person", "judged", "right", *shares, "seconds")]
    return table(
        columns, rows, caption=say("quality.people"), empty=say("quality.nobody"), numbers=list(range(1, len(columns)))
    )


def _share(value: Estimate) -> str:
    return f"{share(value.value)} ({share(value.low)}–{share(value.high)}, n = {value.n})" if value.n else "–"


def _seconds(value: Estimate | None) -> str:
    return "–" if value is None else f"{figure(value.value)} ({figure(value.low)}–{figure(value.high)}, n = {value.n})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _rests(ui: Ui, value: Estimate) -> str:
    return ui.guard.say("quality.rests", low=_number(value.low), high=_number(value.high), n=value.n)
