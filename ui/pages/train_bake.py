"""Baking on the train page: which long prompt is learnt under which short one, how far it is, and the ladder of what each way reaches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from backend import baking, prompting, testing, tuning
from backend.baking import Told
from backend.stats.agreement import Estimate
from feedback_db.types import SuiteRun
from ui.context import Ui
from ui.guard import needs
from ui.views import drawn
from ui.views.drawn import drawing, note
from ui.views.pickers import fill_projects, picker, template_choices
from ui.views.words import clock, in_words

TONES = {"done": "ok", "failed": "bad", "stopped": "warn"}


def bake_panel(ui: Ui, project: Any, timer: Any) -> None:
    label = ui.text.label
    about = drawn.drawn("bake-about")
    with gr.Row(elem_classes="wh-tight"):
        suite = picker(label("bake.suite"), "bake-suite", scale=3, min_width=160)
        long = picker(label("bake.long"), "bake-long", scale=3, min_width=160)
        short = picker(label("bake.short"), "bake-short", scale=3, min_width=160)
        most = gr.Number(value=96, precision=0, label=label("bake.most"), elem_id="bake-most", min_width=90, minimum=1)
        passed = gr.Checkbox(value=True, label=label("bake.passed"), elem_id="bake-passed", scale=3, min_width=240)
        begin = gr.Button(label("bake.start"), variant="primary", size="sm", elem_id="start-bake", min_width=110)
    status, under_way, log = drawn.drawn("bake-status"), drawn.drawn("bakes-open"), drawn.drawn("bakes")
    seen = gr.State(None)
    shown = [about, under_way, log, seen]
    fields = [suite, long, short]
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}

    def open_bakes(request: gr.Request) -> list[Any]:
        chosen = fill_projects(ui, request)[1]
        return open_project(chosen.id if chosen else None)

    def open_project(project_id: int | None) -> list[Any]:
        return [*_choices(ui, project_id or 0), *_shown(ui, project_id or 0)]

    def look_again(project_id: int | None, before: Any) -> list[Any]:
        found = baking.told(ui.store, ui.guard.person(), project_id or 0)
        return [gr.skip()] * len(shown) if _stamp(found) == before else _shown(ui, project_id or 0)

    def start_bake(
        project_id: int | None,
        suite_id: int | None,
        long_id: int | None,
        short_id: int | None,
        most: float | None,
        passed: bool,
    ) -> list[Any]:
        if not (suite_id and long_id and short_id):
            return [drawing(note(ui.guard.say("bake.choose"), "warn")), *[gr.skip()] * len(shown)]
        made = baking.start(
            ui.store, ui.guard.person(), suite_id, long_id, short_id, passed=bool(passed), max_tokens=int(most or 0)
        )
        return [drawing(note(ui.guard.say("bake.started", id=made.id), "ok")), *_shown(ui, project_id or 0)]

    @needs("retrain")
    def stop_bake(project_id: int | None, event: gr.EventData) -> list[Any]:
        stopped = baking.stop(ui.store, ui.guard.person(), int(event._data["id"]))
        return [drawing(note(ui.guard.say("bake.stopped", id=stopped.id), "warn")), *_shown(ui, project_id or 0)]

    gr.on(None, open_bakes, None, [*fields, *shown], api_name="bake_open", **quiet)
    project.input(open_project, project, [*fields, *shown], api_name="bake_project", **quiet)
    timer.tick(look_again, [project, seen], shown, api_name="bake_tick", **quiet)
    begin.click(start_bake, [project, *fields, most, passed], [status, *shown], api_name="start_bake")
    under_way.select(stop_bake, project, [status, *shown], api_name="stop_bake")


def _choices(ui: Ui, project_id: int) -> list[Any]:
    person = ui.guard.person()
    suites = [(f"{one.name} · v{one.version}", one.id or 0) for one in testing.named(ui.store, person, project_id)]
    templates = template_choices(prompting.templates(ui.store, person, project_id))
    return [gr.update(choices=suites, value=None), *(gr.update(choices=templates, value=None) for _ in range(2))]


def _shown(ui: Ui, project_id: int) -> list[Any]:
    say, found = ui.guard.say, baking.told(ui.store, ui.guard.person(), project_id)
    open_ones = [one for one in found if one.bake.finished_at is None]
    columns = [say(f"bake.column.{name}") for name in ("id", "what", "state", "answers", "job", "test", "started")]
    table = drawn.table(
        columns, [(one.bake.id or 0, _row(ui, one)) for one in found], caption=say("bake.log"), empty=say("bake.none")
    )
    done = next((one for one in found if one.bake.state == "done"), None)
    ladder = list(_ladder(ui, done)) if done else []
    about = drawing(drawn.heading(say("bake.title")), note(say("bake.about")))
    return [about, drawing(_under_way(ui, open_ones) if open_ones else None), drawing(table, *ladder), _stamp(found)]


def _under_way(ui: Ui, found: Sequence[Told]) -> Any:
    """Each bake that goes on with a button that stops it, and what it waits for."""
    say = ui.guard.say
    rows = [
        (one.bake.id or 0, (say("bake.stop_one", id=one.bake.id), _waiting(ui, one) or say("bake.moves")))
        for one in found
    ]
    columns = [say("bake.stop"), say("bake.waits_for")]
    return drawn.table(columns, rows, caption=say("bake.under_way"), empty="", selects="button")


def _waiting(ui: Ui, one: Told) -> str:
    if one.bake.finished_at is not None or not one.bake.why:
        return ""
    run = one.test_run or one.run
    way = ui.guard.say("bake.go_on", id=run.id) if run.state == "stopped" else ""
    return f"{in_words(ui, one.bake.why)} {way}".strip()


def _stamp(found: Sequence[Told]) -> list[Any]:
    return [
        (
            one.bake.id,
            one.bake.state,
            one.bake.why,
            one.run.state,
            one.run.done,
            one.job and (one.job.state, one.job.step),
            one.test_run and (one.test_run.done, one.test_run.state),
        )
        for one in found
    ]


def _row(ui: Ui, one: Told) -> tuple[drawn.Cell, ...]:
    say, bake = ui.guard.say, one.bake
    waits = bake.finished_at is None and bool(bake.why)
    state = say(f"bake.state.{'waiting' if waits else bake.state}")
    return (
        str(bake.id),
        {
            "text": f"{one.long.name} v{one.long.version} → {one.short.name} v{one.short.version}",
            "sub": in_words(ui, bake.why),
        },
        drawn.badge(state, "warn" if waits else TONES.get(bake.state, "info")),
        _progress(one.run),
        drawn.link(say("rounds.to_job", id=one.job.id), f"/admin/train?job={one.job.id}") if one.job else "–",
        _progress(one.test_run) if one.test_run else "–",
        clock(bake.created_at),
    )


def _progress(run: SuiteRun) -> drawn.Cell:
    return drawn.link(f"{run.done} / {run.total}", f"/studio/test?run={run.id}")


def _ladder(ui: Ui, one: Told) -> Iterator[Any]:
    """The rungs of one bake, the cheapest first, and what baking saved and cost."""
    say = ui.guard.say
    rungs = [*_of_run(ui, one), *_calibrated(ui, one), *_probe(ui, one)]
    yield drawn.heading(say("bake.ladder"), say("bake.ladder_hint", n=rungs[0][1].n))
    yield drawn.rungs(
        say("bake.ladder"),
        [
            (
                name,
                e.value,
                e.low,
                e.high,
                _percent(e) + (say("bake.costs", tokens=tokens, seconds=seconds) if tokens else ""),
            )
            for name, e, tokens, seconds in rungs
        ],
    )
    summary = testing.summary(ui.store, ui.guard.person(), one.bake.test_run_id or 0)
    before, after = summary.columns[0], summary.columns[2]
    pair = next(pair for pair in summary.pairs if pair.arm == 2)
    yield note(
        say(
            "bake.saved", saved=_figure(before.prompt_tokens - after.prompt_tokens), of=_figure(before.prompt_tokens),
            gained=pair.flips.gained, lost=pair.flips.lost, p=f"{pair.flips.p:.2g}", n=pair.n,
        ),
        "warn" if pair.flips.lost > pair.flips.gained else "ok",
    )  # fmt: skip


Rung = tuple[
    str, Estimate, str, str
]  # way, share of test cases that pass, prompt tokens and seconds per answer (medians)


def _of_run(ui: Ui, one: Told) -> Iterator[Rung]:
    summary = testing.summary(ui.store, ui.guard.person(), one.bake.test_run_id or 0)
    for column, (template, model) in zip(summary.columns, one.arms, strict=True):
        baked = one.baked is not None and model.id == one.baked.id
        shots = template.few_shot.get("k", 0)
        kind = "baked" if baked else "few" if shots else "zero"
        name = ui.guard.say(f"bake.way.{kind}", k=shots)
        yield f"{name} · {model.name}", column.passed, _figure(column.prompt_tokens), f"{column.seconds.value:.2f}"


def _calibrated(ui: Ui, one: Told) -> Iterator[Rung]:
    """The newest calibration that claims on test cases, of the long prompt: the best of its methods where it was searched."""
    for progress in tuning.measured(ui.store, ui.guard.person(), one.long.id or 0):
        if progress.measurement.kind != "calibration" or progress.measurement.state != "done":
            continue
        found = tuning.told(ui.store, ui.guard.person(), progress.measurement.id or 0).found
        methods = {method.name: method for method in getattr(found, "test", [])}
        searched = [
            method for method in getattr(found, "search", []) if method.name in methods and method.name != "plain"
        ]
        if searched:
            best = max(searched, key=lambda method: method.accuracy.value)
            yield ui.guard.say("bake.way.calibrated", method=best.name), methods[best.name].accuracy, "", ""
            return


def _probe(ui: Ui, one: Told) -> Iterator[Rung]:
    probe = one.bake.facts.get("probe")
    if probe:
        e = Estimate(probe["value"], probe["low"], probe["high"], probe["n"])
        yield ui.guard.say("bake.way.probe", n=probe["learnt"]), e, "", ""


def _percent(e: Estimate) -> str:
    if not e.n or math.isnan(e.value):
        return "–"
    return f"{round(100 * e.value)} % ({round(100 * e.low)}–{round(100 * e.high)}, n = {e.n})"


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:g}"
