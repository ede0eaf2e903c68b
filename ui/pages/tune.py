"""The tune page: the risk in the order of demonstrations, how many of them pay, calibration of labels, what to label next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import gradio as gr

from backend import prompting, streaming, tuning
from backend.measuring.findings import Order, Orders
from backend.measuring.plans import SEARCHED, SEEDS
from backend.tuning import Progress
from feedback_db.types import MeasurementKind, Template
from ui.context import Ui
from ui.guard import needs
from ui.pages import tune_next
from ui.pages.tune_next import cases_of, waiting_for
from ui.pages.tune_view import bars_shown, case_choices, earlier_shown, told_shown
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import (
    asked_for,
    fill_projects,
    first_in_language,
    live_first,
    model_choices,
    picker,
    project_picker,
    template_choices,
)

NAME = "tune"
PATH = "tune"
EVERY_SECONDS = 1.0
KINDS: tuple[MeasurementKind, ...] = get_args(MeasurementKind)


class Panel(NamedTuple):
    """One kind of measurement: its buttons, and what is shown of one that was made."""

    start: Any
    stop: Any
    go_on: Any
    status: Any
    shown: Any
    earlier: Any
    chosen: Any  # the id of the measurement that is shown
    seen: Any  # what the clock compares with

    def filled(self) -> list[Any]:
        return [self.shown, self.earlier, self.stop, self.go_on, self.chosen, self.seen]


class Asked(NamedTuple):
    """What all measurements are asked for."""

    project: Any
    template: Any
    model: Any
    most: Any
    seed: Any
    seeds: Any


class Calibrating(NamedTuple):
    case: Any
    text: Any
    show: Any
    bars: Any


class Keeping(NamedTuple):
    """The order that was chosen in the table, by its place, and the button that keeps it."""

    place: Any
    keep: Any


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]), gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300, elem_classes="wh-panel"):
            asked = _asked(ui)
            gr.Markdown(label("tune.about"), elem_classes="wh-about")
        with gr.Column(scale=9, min_width=480, elem_classes="wh-panel"), gr.Tabs():
            panels: dict[MeasurementKind, Panel] = {}
            with gr.Tab(label("tune.tab.order"), elem_id="tab-order"):
                panels["order"] = _panel(ui, "order")
                keeping = Keeping(gr.State(None), gr.Button(label("tune.keep_order"), size="sm", elem_id="keep-order"))
            with gr.Tab(label("tune.tab.count"), elem_id="tab-count"):
                panels["count"] = _panel(ui, "count")
            with gr.Tab(label("tune.tab.calibration"), elem_id="tab-calibration"):
                made: list[Calibrating] = []
                panels["calibration"] = _panel(ui, "calibration", lambda: made.append(_calibrating(ui)))
                (calibrating,) = made
            with gr.Tab(label("tune.tab.next"), elem_id="tab-next"):
                sure: list[Panel] = []
                labelling = tune_next.draw(ui, lambda: sure.append(_panel(ui, "confidence")))
                (panels["confidence"],) = sure
        timer = gr.Timer(EVERY_SECONDS, active=False)
    _events(ui, asked, panels, calibrating.case, timer)
    for kind, panel in panels.items():
        _panel_events(ui, kind, panel, asked, calibrating.case, keeping.place, labelling.count)
    _order_events(ui, panels["order"], asked, keeping)
    _calibration_events(ui, panels["calibration"], calibrating)
    tune_next.connect(ui, asked.template, labelling, panels["confidence"].shown, panels["confidence"].chosen)


def _asked(ui: Ui) -> Asked:
    label = ui.text.label
    project = project_picker(ui)
    template = picker(label("tune.template"), "template")
    model = picker(label("tune.model"), "tune-model")
    with gr.Row(elem_classes="wh-tight"):
        most = gr.Number(SEARCHED, precision=0, label=label("tune.most"), elem_id="tune-most", min_width=90)
        seeds = gr.Number(SEEDS, precision=0, label=label("tune.seeds"), elem_id="tune-seeds", min_width=90)
        seed = gr.Number(0, precision=0, label=label("tune.seed"), elem_id="tune-seed", min_width=70)
    return Asked(project, template, model, most, seed, seeds)


def _panel(ui: Ui, kind: MeasurementKind, between: Callable[[], None] = lambda: None) -> Panel:
    """``between`` draws what stands below the buttons."""
    label = ui.text.label
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        start = gr.Button(label(f"tune.start.{kind}"), variant="primary", size="sm", elem_id=f"start-{kind}", scale=0, min_width=240)  # fmt: skip
        stop = gr.Button(label("tune.stop"), size="sm", visible=False, elem_id=f"stop-{kind}", scale=0, min_width=90)
        go_on = gr.Button(label("tune.go_on"), size="sm", visible=False, elem_id=f"go-on-{kind}", scale=0, min_width=90)
    status = drawn(f"{kind}-status")
    between()
    shown = drawn(f"{kind}-shown")
    earlier = drawn(f"{kind}-earlier")
    return Panel(start, stop, go_on, status, shown, earlier, gr.State(None), gr.State(None))


def _calibrating(ui: Ui) -> Calibrating:
    label = ui.text.label
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        case = picker(label("tune.case"), "tune-case", scale=4, min_width=220)
        text = gr.Textbox(label=label("tune.text"), elem_id="tune-text", max_lines=3, scale=4, min_width=220)
        show = gr.Button(label("tune.try"), size="sm", elem_id="tune-try", scale=0, min_width=90)
    return Calibrating(case, text, show, drawn("tune-bars"))


def _events(ui: Ui, asked: Asked, panels: dict[MeasurementKind, Panel], case: Any, timer: Any) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    every = [one for kind in KINDS for one in panels[kind].filled()]

    def of_template(template_id: int | None) -> list[Any]:
        told = {kind: _shown(ui, template_id, kind, None) for kind in KINDS}
        choices = _choices(ui, told["calibration"][4])
        return [*[one for kind in KINDS for one in told[kind]], choices]

    def open_page(request: gr.Request) -> list[Any]:
        projects, project = fill_projects(ui, request)
        template, model, template_id = _pickers(ui, project.id or 0 if project else 0, asked_for(request, "template"))
        return [gr.Timer(active=True), projects, template, model, *of_template(template_id)]

    def open_project(project_id: int | None) -> list[Any]:
        template, model, template_id = _pickers(ui, project_id or 0, None)
        return [template, model, *of_template(template_id)]

    def look_again(template_id: int | None, *was: Any) -> list[Any]:
        found = tuning.measured(ui.store, ui.guard.person(), template_id) if template_id else []
        fresh: list[Any] = []
        for kind, chosen, seen in zip(KINDS, was[::2], was[1::2], strict=True):
            is_new = _seen(found, kind, chosen) != seen
            fresh += _shown(ui, template_id, kind, chosen) if is_new else [gr.skip()] * len(panels[kind].filled())
        return fresh

    gr.on(
        None, open_page, None, [timer, asked.project, asked.template, asked.model, *every, case], api_name="tune_open", **quiet
    )  # fmt: skip
    asked.project.input(
        open_project, asked.project, [asked.template, asked.model, *every, case], api_name="tune_project", **quiet
    )
    asked.template.input(of_template, asked.template, [*every, case], api_name="tune_template", **quiet)
    watched = [one for kind in KINDS for one in (panels[kind].chosen, panels[kind].seen)]
    timer.tick(look_again, [asked.template, *watched], every, api_name="tune_tick", **quiet)


def _panel_events(
    ui: Ui, kind: MeasurementKind, panel: Panel, asked: Asked, case: Any, place: Any, wanted: Any
) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    more = [case] if kind == "calibration" else [place] if kind == "order" else []

    def after(template_id: int | None, measurement_id: int | None) -> list[Any]:
        filled = _shown(ui, template_id, kind, measurement_id)
        also = [_choices(ui, filled[4])] if kind == "calibration" else [None] if kind == "order" else []
        return [*filled, *also]

    @needs("build")
    def start(_: int | None, template_id: int | None, model_id: int | None, *given: Any) -> list[Any]:
        if not template_id or not model_id:
            skipped = [gr.skip()] * (len(panel.filled()) + len(more))
            return [drawing(note(ui.guard.say("tune.choose"), "warn")), *skipped]
        most, seed, seeds, next_count = (int(one or 0) for one in given)
        made = tuning.start(
            ui.store, ui.engine, ui.guard.person(), template_id, model_id, kind, most=most, seed=seed, seeds=seeds,
            wanted=next_count,
        )  # fmt: skip
        told = note(ui.guard.say("tune.started", id=made.id, n=made.total), "ok")
        return [drawing(told), *after(template_id, made.id)]

    @needs("build")
    def stop(template_id: int | None, measurement_id: int | None) -> list[Any]:
        tuning.stop(ui.store, ui.guard.person(), measurement_id or 0)
        return _shown(ui, template_id, kind, measurement_id)

    @needs("build")
    def go_on(template_id: int | None, measurement_id: int | None) -> list[Any]:
        tuning.go_on(ui.store, ui.guard.person(), measurement_id or 0)
        return _shown(ui, template_id, kind, measurement_id)

    def choose(template_id: int | None, event: gr.EventData) -> list[Any]:
        return after(template_id, int(event._data["id"]))

    filled, of = panel.filled(), [asked.template, panel.chosen]
    panel.start.click(start, [*asked, wanted], [panel.status, *filled, *more], api_name=f"start_{kind}")
    panel.stop.click(stop, of, filled, api_name=f"stop_{kind}")
    panel.go_on.click(go_on, of, filled, api_name=f"go_on_{kind}")
    panel.earlier.select(choose, asked.template, [*filled, *more], api_name=f"choose_{kind}", **quiet)


def _order_events(ui: Ui, panel: Panel, asked: Asked, keeping: Keeping) -> None:
    def choose(measurement_id: int | None, event: gr.EventData) -> list[Any]:
        place, told = int(event._data["id"]), tuning.told(ui.store, ui.guard.person(), measurement_id or 0)
        return [place, told_shown(ui, told, cases_of(ui, told), place)]

    @needs("build")
    def keep(measurement_id: int | None, place: int | None) -> list[Any]:
        if measurement_id is None or place is None:
            return [drawing(note(ui.guard.say("tune.choose_order"), "warn")), gr.skip()]
        person, told = ui.guard.person(), tuning.told(ui.store, ui.guard.person(), measurement_id)
        assert isinstance(told.found, Orders)
        template = prompting.template(ui.store, person, told.progress.measurement.template_id)
        saved = prompting.save_template(
            ui.store, person, template.project_id, _in_order(template, told.found.orders[place])
        )
        templates = template_choices(prompting.templates(ui.store, person, template.project_id))
        said = note(ui.guard.say("tune.kept", name=saved.name, version=saved.version), "ok")
        return [drawing(said), gr.update(choices=templates)]

    panel.shown.select(
        choose, panel.chosen, [keeping.place, panel.shown], api_name="choose_order_row", show_progress="hidden", queue=False
    )  # fmt: skip
    keeping.keep.click(keep, [panel.chosen, keeping.place], [panel.status, asked.template], api_name="keep_order")


def _calibration_events(ui: Ui, panel: Panel, calibrating: Calibrating) -> None:
    def show_case(measurement_id: int | None, case_id: int | None) -> dict[str, Any]:
        if not measurement_id or not case_id:
            return bars_shown(ui, None)
        return bars_shown(ui, tuning.case_bars(ui.store, ui.guard.person(), measurement_id, case_id))

    def show_text(measurement_id: int | None, text: str) -> dict[str, Any]:
        if not measurement_id or not (text or "").strip():
            return bars_shown(ui, None)
        return bars_shown(ui, tuning.text_bars(ui.store, ui.engine, ui.guard.person(), measurement_id, text))

    calibrating.case.input(
        show_case, [panel.chosen, calibrating.case], calibrating.bars, api_name="tune_case", show_progress="hidden"
    )
    gr.on(
        [calibrating.show.click, calibrating.text.submit],
        show_text, [panel.chosen, calibrating.text], calibrating.bars, api_name="tune_text", show_progress="hidden",
    )  # fmt: skip


def _pickers(ui: Ui, project_id: int, wanted: int | None) -> tuple[Any, Any, int | None]:
    """The templates, those with labels first, and the models; and the template that is shown."""
    person = ui.guard.person()
    every = prompting.templates(ui.store, person, project_id)
    found = [one for one in every if one.labels] + [one for one in every if not one.labels]
    template = next((one for one in found if one.id == wanted), None)
    template = template or first_in_language(ui, [one for one in found if one.labels]) or first_in_language(ui, found)
    template_id = template.id if template else None
    policies = [one for one in streaming.policies(ui.store, person) if one.engine_id is None]
    return (
        gr.update(choices=template_choices(found), value=template_id),
        gr.update(choices=model_choices(ui, policies), value=live_first(policies)),
        template_id,
    )


def _shown(ui: Ui, template_id: int | None, kind: MeasurementKind, measurement_id: int | None) -> list[Any]:
    """What a panel is filled with: this measurement, else the newest of its kind."""
    person = ui.guard.person()
    every = tuning.measured(ui.store, person, template_id) if template_id else []
    found = [one for one in every if one.measurement.kind == kind]
    one = next((one for one in found if one.measurement.id == measurement_id), found[0] if found else None)
    names = {model.id or 0: model.name for model in streaming.policies(ui.store, person)}
    chosen = one.measurement.id if one else None
    state = one.measurement.state if one else ""
    told = tuning.told(ui.store, person, chosen) if chosen else None
    return [
        told_shown(ui, told, cases_of(ui, told), None, waiting_for(ui, told)) if told else drawing(),
        earlier_shown(ui, found, chosen, names),
        gr.update(visible=state == "running"),
        gr.update(visible=state == "stopped"),
        chosen,
        _seen(every, kind, chosen),
    ]


def _seen(found: list[Progress], kind: MeasurementKind, chosen: int | None) -> list[Any]:
    """Changes whenever a measurement of this kind has come further."""
    own = [one for one in found if one.measurement.kind == kind]
    return [[one.measurement.id, one.measurement.state, one.done, one.measurement.id == chosen] for one in own]


def _choices(ui: Ui, measurement_id: int | None) -> Any:
    if measurement_id is None:
        return gr.update(choices=[], value=None)
    told = tuning.told(ui.store, ui.guard.person(), measurement_id)
    return gr.update(choices=case_choices(told, cases_of(ui, told)), value=None)


def _in_order(template: Template, order: Order) -> prompting.Draft:
    """The template with these demonstrations, in this order; where it chooses by case, with the seed that makes the order."""
    if order.ids:
        fixed = {"choose": "fixed", "ids": list(order.ids), "k": len(order.ids), "order": "listed"}
        few_shot = {**template.few_shot, **fixed}
    elif order.seed is not None:
        few_shot = {**template.few_shot, "order": "seeded", "seed": order.seed}
    else:
        few_shot = dict(template.few_shot)
    return replace(prompting.draft_of(template), few_shot=few_shot)
