"""The models page: every model with what it rests on; put one live, or take it back."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from backend import promoting
from backend.promoting import Detail
from feedback_db.types import Model
from ui.context import Ui
from ui.guard import needs
from ui.pages.models_view import detail_shown, models_shown, outcome_said
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import asked_for

NAME = "models"
PATH = "models"


class Act(NamedTuple):
    """A change of the live model, and the step that asks for it once more."""

    begin: Any
    row: Any
    question: Any
    yes: Any
    no: Any


def page(ui: Ui) -> None:
    label = ui.text.label
    chosen = gr.State(None)
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        with gr.Column(elem_classes="wh-panel"):
            table = drawn("models")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=420, elem_classes="wh-panel"):
                detail = drawn("detail")
            with gr.Column(scale=4, min_width=300, elem_classes="wh-panel"):
                moving = drawn("moving")
                reason = gr.Textbox(label=label("models.reason"), elem_id="reason", max_lines=3)
                promote = _act(ui, "promote", "primary")
                roll_back = _act(ui, "roll_back", "secondary")
                status = drawn("models-status")
    shown = [chosen, table, detail, moving, promote.begin, roll_back.begin, promote.row, roll_back.row]

    def open_page(request: gr.Request) -> list[Any]:
        return _shown(ui, asked_for(request, "model"))

    def choose_model(event: gr.EventData) -> list[Any]:
        return [*_shown(ui, int(event._data["id"])), drawing()]

    def ask_promote(model_id: int | None) -> list[Any]:
        found = promoting.detail(ui.store, ui.guard.person(), model_id or 0)
        return _asked(ui, "promote", found.view.model, found.live, found.replaced)

    def ask_roll_back(model_id: int | None) -> list[Any]:
        found = promoting.detail(ui.store, ui.guard.person(), model_id or 0)
        return _asked(ui, "roll_back", found.view.model, found.before, found.replaced)

    @needs("promote")
    def do_promote(model_id: int | None, why: str) -> list[Any]:
        live = promoting.promote(ui.store, ui.settings.models_dir, ui.guard.person(), model_id or 0, reason=why or "")
        return [*_moved(ui, live), ""]

    @needs("promote")
    def do_roll_back(model_id: int | None) -> list[Any]:
        live = promoting.roll_back(ui.store, ui.settings.models_dir, ui.guard.person(), model_id or 0)
        return _moved(ui, live)

    def leave() -> Any:
        return gr.update(visible=False)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, shown, api_name="models_open", **quiet)
    table.select(choose_model, None, [*shown, status], api_name="models_choose", **quiet)
    promote.begin.click(
        ask_promote, chosen, [promote.row, promote.question, roll_back.row], api_name="ask_promote", **quiet
    )
    roll_back.begin.click(
        ask_roll_back, chosen, [roll_back.row, roll_back.question, promote.row], api_name="ask_roll_back", **quiet
    )
    promote.yes.click(do_promote, [chosen, reason], [*shown, status, reason], api_name="promote")
    roll_back.yes.click(do_roll_back, chosen, [*shown, status], api_name="roll_back")
    promote.no.click(leave, None, promote.row, api_name="leave_promote", **quiet)
    roll_back.no.click(leave, None, roll_back.row, api_name="leave_roll_back", **quiet)


def _act(ui: Ui, name: str, variant: Any) -> Act:
    label, id = ui.text.label, name.replace("_", "-")
    begin = gr.Button(label(f"models.{name}"), variant=variant, size="sm", interactive=False, elem_id=id)
    with gr.Column(visible=False, elem_classes="wh-confirm", elem_id=f"{id}-confirm") as row:
        question = drawn(f"{id}-question")
        with gr.Row(elem_classes="wh-tight"):
            yes = gr.Button(label(f"models.{name}_yes"), variant="primary", size="sm", elem_id=f"{id}-yes")
            no = gr.Button(label("models.cancel"), size="sm", elem_id=f"{id}-no")
    return Act(begin, row, question, yes, no)


def _shown(ui: Ui, wanted: int | None) -> list[Any]:
    """The whole page for one model: the one asked for, else the live policy, else the newest."""
    found = promoting.model_list(ui.store, ui.guard.person())
    ids = [view.model.id for view in found]
    live = next((view.model.id for view in found if view.model.stage == "live" and view.model.kind == "policy"), None)
    model_id = wanted if wanted in ids else live or next(iter(ids), None)
    hidden = [gr.update(visible=False), gr.update(visible=False)]
    if model_id is None:
        return [None, models_shown(ui, found, None), drawing(), drawing(), gr.skip(), gr.skip(), *hidden]
    detail = promoting.detail(ui.store, ui.guard.person(), model_id)
    can_promote = detail.view.model.stage != "live" and detail.view.model.kind != "external"
    return [
        model_id,
        models_shown(ui, found, model_id),
        detail_shown(ui, detail),
        _moving(ui, detail),
        gr.update(interactive=can_promote),
        gr.update(interactive=detail.before is not None),
        *hidden,
    ]


def _moving(ui: Ui, detail: Detail) -> dict[str, Any]:
    """One sentence: what can be done with this model now."""
    say, model = ui.guard.say, detail.view.model
    if model.kind == "external":
        return drawing(note(say("models.only_imported")))
    if model.stage != "live":
        return drawing(note(say("models.can_promote", name=model.name)))
    key = "models.can_roll_back" if detail.before else "models.is_live"
    return drawing(note(say(key, name=model.name, before=detail.before.name if detail.before else "")))


def _asked(ui: Ui, act: str, model: Model, other: Model | None, replaced: int) -> list[Any]:
    """The question before a change, with what it will do; the other act's question goes away."""
    name = other.name if other else "–"
    asked = ui.guard.say(f"models.ask_{act}", name=model.name, other=name)
    closing = ui.guard.say("models.will_close", n=replaced) if model.kind == "policy" else ""
    return [gr.update(visible=True), drawing(note(f"{asked} {closing}".strip(), "warn")), gr.update(visible=False)]


def _moved(ui: Ui, live: Model) -> list[Any]:
    outcome = promoting.outcome(ui.store, ui.guard.person(), live)
    return [*_shown(ui, live.id), drawing(note(outcome_said(ui, live, outcome), "ok"))]
