"""What to label next, on the tune page: by votes alone, then by how sure the model is; and the answer that goes to the bank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from backend import curating, prompting, tuning
from backend.tuning import Told
from feedback_db.types import Case
from ui.context import Ui
from ui.guard import needs
from ui.pages.tune_view import next_shown, told_shown
from ui.views.drawn import drawing, drawn, note


class Labelling(NamedTuple):
    count: Any
    find: Any
    shown: Any
    chosen: Any
    answer: Any
    add: Any
    status: Any


def draw(ui: Ui, second: Callable[[], None]) -> Labelling:
    """``second`` draws the second stage, between the first and the answer."""
    label = ui.text.label
    gr.Markdown(label("tune.first_stage"), elem_classes="wh-about")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        count = gr.Number(10, precision=0, label=label("tune.next_count"), elem_id="next-count", scale=0, min_width=110)
        find = gr.Button(label("tune.find_next"), variant="primary", size="sm", elem_id="find-next", scale=0, min_width=160)  # fmt: skip
    status, shown = drawn("next-status"), drawn("next-shown")
    gr.Markdown(label("tune.second_stage"), elem_classes="wh-about")
    second()
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        answer = gr.Textbox(label=label("tune.answer"), elem_id="next-answer", max_lines=3, scale=4)
        add = gr.Button(label("tune.to_bank"), size="sm", elem_id="next-add", scale=0, min_width=160)
    return Labelling(count, find, shown, gr.State(None), answer, add, status)


def connect(ui: Ui, template: Any, labelling: Labelling, shown: Any, measured: Any) -> None:
    """``shown`` is what the second stage came to, ``measured`` the id of its measurement."""

    def found(template_id: int | None, count: int | None, chosen: int | None = None) -> dict[str, Any]:
        if not template_id:
            return drawing(note(ui.guard.say("tune.choose"), "warn"))
        person = ui.guard.person()
        return next_shown(ui, tuning.what_to_label_next(ui.store, person, template_id, int(count or 0)), chosen)

    def sure(measurement_id: int | None, chosen: int | None = None) -> dict[str, Any]:
        if not measurement_id:
            return drawing()
        told = tuning.told(ui.store, ui.guard.person(), measurement_id)
        return told_shown(ui, told, cases_of(ui, told), chosen, waiting_for(ui, told))

    def find(template_id: int | None, count: int | None) -> list[Any]:
        return [found(template_id, count), None, drawing()]

    def choose(template_id: int | None, count: int | None, event: gr.EventData) -> list[Any]:
        chosen = int(event._data["id"])
        return [found(template_id, count, chosen), chosen]

    def choose_unsure(measurement_id: int | None, event: gr.EventData) -> list[Any]:
        chosen = int(event._data["id"])
        return [sure(measurement_id, chosen), chosen]

    @needs("build")
    def add(
        template_id: int | None, count: int | None, measurement_id: int | None, case_id: int | None, answer: str
    ) -> list[Any]:
        if not template_id or not case_id:
            return [*[gr.skip()] * 4, drawing(note(ui.guard.say("tune.choose_case"), "warn"))]
        person = ui.guard.person()
        template, case = prompting.template(ui.store, person, template_id), prompting.case(ui.store, person, case_id)
        said = (answer or "").strip()
        made = curating.add_demonstration(
            ui.store, person, template.project_id, input=prompting.case_text(case), output=said,
            label=said if said in (template.labels or ()) else None, scenario=template.scenario, language=template.language,
        )  # fmt: skip
        told = drawing(note(ui.guard.say("tune.added", id=made.id), "ok"))
        return [found(template_id, count), sure(measurement_id), None, "", told]

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    of = [template, labelling.count]
    labelling.find.click(find, of, [labelling.shown, labelling.chosen, labelling.status], api_name="find_next")
    labelling.shown.select(choose, of, [labelling.shown, labelling.chosen], api_name="choose_next", **quiet)
    shown.select(choose_unsure, measured, [shown, labelling.chosen], api_name="choose_unsure", **quiet)
    gr.on(
        [labelling.add.click, labelling.answer.submit],
        add, [*of, measured, labelling.chosen, labelling.answer],
        [labelling.shown, shown, labelling.chosen, labelling.answer, labelling.status], api_name="add_next",
    )  # fmt: skip


def cases_of(ui: Ui, told: Told) -> list[Case]:
    person, plan = ui.guard.person(), told.plan
    return [prompting.case(ui.store, person, id) for id in (*plan.search, *plan.test)]


def waiting_for(ui: Ui, told: Told) -> set[int]:
    """Cases that still have no answer, where that is what was asked about."""
    one = told.progress.measurement
    if one.kind != "confidence":
        return set()
    return tuning.still_waiting(ui.store, ui.guard.person(), one.template_id)
