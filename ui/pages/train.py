"""The train page: is training worth it, start a job, watch it, pause it, stop it. All of it is in the database: a closed tab loses nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from backend import retraining
from backend.retraining import JobView
from backend.training.settings import KINDS
from ui.context import Ui
from ui.pages.train_bake import bake_panel
from ui.pages.train_form import JobForm, changes, command_of, job_form
from ui.pages.train_rounds import rounds_panel
from ui.pages.train_view import (
    about_shown,
    can_pause,
    can_resume,
    can_stop,
    groups_of,
    jobs_shown,
    points_of,
    readiness_shown,
    run_shown,
    samples_shown,
    watched,
)
from ui.shell import static_version
from ui.views.drawn import command, drawing, drawn, note
from ui.views.pickers import asked_for, fill_projects, picker, project_picker

NAME = "train"
PATH = "train"
PLOTS = 2
EVERY_SECONDS = 1
LOST_SECONDS = 20  # how often a page asks whose server, or whose session, is gone


class Watch(NamedTuple):
    """What shows one job."""

    job: Any  # its id
    run: Any
    groups: list[Any]
    plots: list[Any]
    samples: Any
    buttons: list[Any]  # pause, resume, stop
    seen: Any  # what was drawn last: a plot that is drawn again for nothing flickers


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        project = project_picker(ui)
        cards = drawn("readiness")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=380, elem_classes="wh-panel"):
                forms, abouts, commands = [], [], []
                with gr.Tabs():
                    for kind in KINDS:
                        with gr.Tab(label(f"train.tab.{kind}"), elem_id=f"tab-{kind}"):
                            abouts.append(drawn(f"about-{kind}"))
                            forms.append(job_form(ui, kind))
                            commands.append(drawn(f"command-{kind}"))
                status = drawn("train-status")
            with gr.Column(scale=7, min_width=480, elem_classes="wh-panel"):
                jobs = drawn("jobs")
                watch = _watch(ui)
        timer = gr.Timer(EVERY_SECONDS, active=False)
        with gr.Column(elem_classes="wh-panel"):
            by_kind = {form.kind: form for form in forms}
            rounds_panel(ui, project, timer, by_kind["reward"], by_kind["ift"])
        with gr.Column(elem_classes="wh-panel"):
            bake_panel(ui, project, timer)
    _events(ui, project, [cards, *abouts], forms, commands, status, jobs, watch, timer)


def _watch(ui: Ui) -> Watch:
    label = ui.text.label
    job = gr.State(None)
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        run = drawn("run", scale=6)
        buttons = [
            gr.Button(label(f"train.{act}"), size="sm", visible=False, elem_id=act, scale=0, min_width=110)
            for act in ("pause", "resume", "stop")
        ]
    groups, plots = [], []
    with gr.Row(elem_classes="wh-tight"):
        for n in range(PLOTS):
            with gr.Column(min_width=220, elem_classes="wh-plot"):
                groups.append(picker(label("train.curve"), f"group-{n}", visible=False))
                plots.append(
                    gr.LinePlot(x="step", y="value", color="curve", height=260, visible=False, elem_id=f"plot-{n}")
                )
    samples = drawn("samples")
    return Watch(job, run, groups, plots, samples, buttons, gr.State(None))


def _events(
    ui: Ui,
    project: Any,
    told: list[Any],  # the cards, and what is said of each kind of job
    forms: list[JobForm],
    commands: list[Any],
    status: Any,
    jobs: Any,
    watch: Watch,
    timer: Any,
) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    picture = [watch.job, watch.run, *watch.groups, *watch.plots, watch.samples, *watch.buttons, watch.seen]
    chances = [*told, *(form.start for form in forms), *(form.despite for form in forms)]
    whole = [*chances, jobs, *picture]

    def open_page(request: gr.Request) -> list[Any]:
        projects, chosen = fill_projects(ui, request)
        project_id = chosen.id or 0 if chosen else 0
        return [
            gr.Timer(active=True),
            projects,
            *_commands(ui, project_id),
            *_whole(ui, project_id, asked_for(request, "job")),
        ]

    def open_project(project_id: int | None) -> list[Any]:
        return [*_commands(ui, project_id or 0), *_whole(ui, project_id or 0, None)]

    def choose_job(project_id: int | None, event: gr.EventData) -> list[Any]:
        found = retraining.job_views(ui.store, ui.guard.person(), project_id or 0)
        job_id = watched(found, int(event._data["id"]))
        return [jobs_shown(ui, found, job_id), *_picture(ui, job_id, [None] * PLOTS, None)]

    def look_again(project_id: int | None, job_id: int | None, seen: Any, *groups: str | None) -> list[Any]:
        found = retraining.job_views(ui.store, ui.guard.person(), project_id or 0)
        if _told(found) == (seen or {}).get("jobs"):
            return [gr.skip()] * len(whole)
        shown = _remember(_picture(ui, watched(found, job_id), list(groups), seen), found)
        is_news = [(view.job.id, view.job.state) for view in found] != (seen or {}).get("states")
        now = _chances(ui, project_id or 0) if is_news else [gr.skip()] * len(chances)
        return [*now, jobs_shown(ui, found, watched(found, job_id)), *shown]

    def choose_group(job_id: int | None, *groups: str | None) -> list[Any]:
        return _picture(ui, job_id, list(groups), None)

    def pause_job(project_id: int | None, job_id: int | None) -> list[Any]:
        paused = retraining.pause(ui.store, ui.jobs, ui.guard.person(), job_id or 0)
        told = drawing(note(ui.guard.say("train.pausing", id=paused.id), "warn"))
        return [told, *_whole(ui, project_id or 0, paused.id)]

    def resume_job(project_id: int | None, job_id: int | None) -> list[Any]:
        resumed = retraining.resume(ui.store, ui.jobs, ui.guard.person(), job_id or 0)
        told = drawing(note(ui.guard.say("train.resumed", id=resumed.id), "ok"))
        return [told, *_whole(ui, project_id or 0, resumed.id)]

    def stop_job(project_id: int | None, job_id: int | None) -> list[Any]:
        stopped = retraining.stop(ui.store, ui.jobs, ui.guard.person(), job_id or 0)
        told = drawing(note(ui.guard.say("train.stopping", id=stopped.id), "warn"))
        return [told, *_whole(ui, project_id or 0, stopped.id)]

    gr.on(None, open_page, None, [timer, project, *commands, *whole], api_name="train_open", **quiet)
    project.input(open_project, project, [*commands, *whole], api_name="train_project", **quiet)
    jobs.select(choose_job, project, [jobs, *picture], api_name="train_job", **quiet)
    watched_now = [project, watch.job, watch.seen, *watch.groups]
    ticking = timer.tick(look_again, watched_now, whole, api_name="train_tick", **quiet)
    ticking.failure(None, None, timer, js=f"() => {LOST_SECONDS}", api_name="train_tick_lost")
    ticking.success(None, None, timer, js=f"() => {EVERY_SECONDS}", api_name="train_tick_found")
    for group in watch.groups:
        group.input(choose_group, [watch.job, *watch.groups], picture, api_name="train_curve", **quiet)
    for button, act in zip(watch.buttons, (pause_job, resume_job, stop_job), strict=True):
        button.click(act, [project, watch.job], [status, *whole], api_name=act.__name__)
    for form, place in zip(forms, commands, strict=True):
        _form_events(ui, form, place, project, status, whole)


def _form_events(ui: Ui, form: JobForm, place: Any, project: Any, status: Any, whole: list[Any]) -> None:
    given = [project, form.seed, form.despite, *form.fields]

    def show_command(project_id: int | None, seed: float | None, despite: str, *values: Any) -> dict[str, Any]:
        return _command(ui, form.kind, project_id or 0, changes(form.kind, values), int(seed or 0), despite or "")

    def start(project_id: int | None, key: str, seed: float | None, despite: str, *values: Any) -> list[Any]:
        asked: dict[str, Any] = {"changes": changes(form.kind, values), "seed": int(seed or 0), "key": key or None}
        job = retraining.train(ui.store, ui.guard.person(), project_id or 0, form.kind, **asked, despite=despite or "")
        told = drawing(note(ui.guard.say("train.started", id=job.id, kind=job.kind), "ok"))
        return [told, *_whole(ui, project_id or 0, job.id)]

    gr.on(
        [field.input for field in (form.seed, form.despite, *form.fields)],
        show_command, given, place, api_name=f"command_{form.kind}", trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    # The browser names the click: a double click is sent with one key and starts one job.
    form.start.click(
        start, [project, form.key, form.seed, form.despite, *form.fields], [status, *whole], api_name=f"start_{form.kind}",
        js=f"async (project, _, ...rest) => [project, (await import('/static/{static_version()}/views.js'))"
        f".clickKey('{form.kind}'), ...rest]",
    )  # fmt: skip


def _whole(ui: Ui, project_id: int, wanted: int | None) -> list[Any]:
    """Everything on the page but the forms' values and commands."""
    found = retraining.job_views(ui.store, ui.guard.person(), project_id)
    job_id = watched(found, wanted)
    picture = _remember(_picture(ui, job_id, [None] * PLOTS, None), found)
    return [*_chances(ui, project_id), jobs_shown(ui, found, job_id), *picture]


def _chances(ui: Ui, project_id: int) -> list[Any]:
    """The cards, which jobs may start, and where a reason is asked for."""
    ready = retraining.readiness(ui.store, ui.guard.person(), project_id)
    is_weak = ready.report is not None and ready.report.get("verdict") != "usable"
    return [
        readiness_shown(ui, ready),
        *(about_shown(ui, ready, kind) for kind in KINDS),
        *(gr.update(interactive=kind not in ready.refusals) for kind in KINDS),
        *(gr.update(visible=kind in retraining.FOLLOW_REWARD and is_weak) for kind in KINDS),
    ]


def _commands(ui: Ui, project_id: int) -> list[Any]:
    return [_command(ui, kind, project_id, {}, 0, "") for kind in KINDS]


def _command(ui: Ui, kind: str, project_id: int, changed: dict[str, Any], seed: int, despite: str) -> dict[str, Any]:
    if not project_id:
        return drawing()
    name = retraining.project_name(ui.store, ui.guard.person(), project_id)
    return drawing(command(ui.guard.say("train.command"), command_of(kind, name, changed, seed, despite)))


def _picture(ui: Ui, job_id: int | None, groups: list[str | None], seen: Any) -> list[Any]:
    """One job: its id, state, curves, samples, whether it can be paused, resumed, stopped, and what was drawn."""
    if job_id is None:
        hidden = [gr.update(visible=False)] * (2 * PLOTS)
        return [None, drawing(), *hidden, drawing(), *[gr.update(visible=False)] * 3, {}]
    curves = retraining.curves(ui.store, ui.guard.person(), job_id)
    known = groups_of(curves)
    chosen = [group if group in known else (known[n] if n < len(known) else None) for n, group in enumerate(groups)]
    data = [points_of(curves, group) for group in chosen]
    before = (seen or {}).get("data")
    choices = [(ui.guard.say(f"train.group.{group}"), group) for group in known]
    pickers = [gr.update(choices=choices, value=group, visible=group is not None) for group in chosen]
    plots = [gr.skip() if before and before[n] == data[n] else _plot(ui, data[n]) for n in range(PLOTS)]
    may = (can_pause(curves.job), can_resume(curves.job), can_stop(curves.job))
    buttons = [gr.update(visible=allowed) for allowed in may]
    return [job_id, run_shown(ui, curves), *pickers, *plots, samples_shown(ui, curves), *buttons, {"data": data}]


def _plot(ui: Ui, columns: dict[str, list[Any]]) -> Any:
    """A whole new plot: Gradio leaves out a series that was not in the first table it was given."""
    import pandas

    if not columns["step"]:
        return gr.update(visible=False)
    say = ui.guard.say
    return gr.LinePlot(
        pandas.DataFrame(columns), x="step", y="value", color="curve", height=260, visible=True,
        x_title=say("train.step"), y_title=" ", color_title=" ",
    )  # fmt: skip


def _remember(picture: list[Any], found: list[JobView]) -> list[Any]:
    states = [(view.job.id, view.job.state) for view in found]
    return [*picture[:-1], {**picture[-1], "jobs": _told(found), "states": states}]


def _told(found: list[JobView]) -> list[Any]:
    """Changes whenever a job has said something new."""
    return [(view.job.id, view.job.state, view.job.step, view.job.heartbeat_at) for view in found]
