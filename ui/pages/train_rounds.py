"""Rounds on the train page: choose, start, stop, see who or what a series waits for, and what each round came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from backend import alternating, retraining
from backend.alternating import RoundView
from feedback_db.types import Job
from ui.context import Ui
from ui.pages.train_form import JobForm, changes, command_of, job_form
from ui.shell import static_version
from ui.views import drawn
from ui.views.drawn import command, drawing, note
from ui.views.pickers import fill_projects
from ui.views.words import clock, figure, percent

TONES = {"done": "ok", "ended": "ok", "failed": "bad", "stopped": "warn", "waiting_for_people": "warn"}
COLUMNS = ("round", "kind", "state", "separation", "accuracy", "gain", "kl", "reward", "policy", "started", "why")


def rounds_panel(ui: Ui, project: Any, timer: Any, reward: JobForm, ift: JobForm) -> None:
    """``reward`` and ``ift``: the forms whose settings the jobs of a series take."""
    label = ui.text.label
    about = drawn.drawn("rounds-about")
    form = job_form(ui, "rounds")
    stop = gr.Button(label("rounds.stop"), size="sm", elem_id="stop-rounds", visible=False)
    place, status = drawn.drawn("command-rounds"), drawn.drawn("rounds-status")
    log = drawn.drawn("rounds-log")
    _events(ui, project, timer, (form, reward, ift), [about, log, form.start, stop, gr.State(None)], place, status)


def _events(
    ui: Ui,
    project: Any,
    timer: Any,
    forms: tuple[JobForm, JobForm, JobForm],
    shown: list[Any],  # about, log, start, stop, and what was drawn last
    place: Any,
    status: Any,
) -> None:
    form, stop, seen = forms[0], shown[3], shown[4]
    fields = [field for one in forms for field in one.fields]
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}

    def open_rounds(request: gr.Request) -> list[Any]:
        chosen = fill_projects(ui, request)[1]
        project_id = chosen.id or 0 if chosen else 0
        return [_command(ui, project_id, {}, 0, ""), *_shown(ui, project_id)]

    def open_project(project_id: int | None) -> list[Any]:
        return [_command(ui, project_id or 0, {}, 0, ""), *_shown(ui, project_id or 0)]

    def look_again(project_id: int | None, before: Any) -> list[Any]:
        found = alternating.round_log(ui.store, ui.guard.person(), project_id or 0)
        return [gr.skip()] * len(shown) if _told(found) == before else _shown(ui, project_id or 0)

    def show_command(project_id: int | None, seed: float | None, despite: str, *values: Any) -> dict[str, Any]:
        given = _given(forms, values)
        named = {**given["rounds"], **{f"{k}_{n}": v for k in ("reward", "ift") for n, v in given[k].items()}}
        return _command(ui, project_id or 0, named, int(seed or 0), despite or "")

    def start_rounds(project_id: int | None, key: str, seed: float | None, despite: str, *values: Any) -> list[Any]:
        given = _given(forms, values)
        begun = alternating.start_rounds(
            ui.store,
            ui.guard.person(),
            project_id or 0,
            changes=given["rounds"],
            reward=given["reward"],
            ift=given["ift"],
            seed=int(seed or 0),
            despite=despite or "",
            key=key or None,
        )
        told = drawing(note(ui.guard.say("rounds.started", id=begun.reward_job_id), "ok"))
        return [told, *_shown(ui, project_id or 0)]

    def stop_rounds(project_id: int | None) -> list[Any]:
        stopped = alternating.stop_rounds(ui.store, ui.jobs, ui.guard.person(), project_id or 0)
        said = ui.guard.say("rounds.stopped", number=stopped.number) if stopped else ui.guard.say("rounds.none_to_stop")
        return [drawing(note(said, "warn")), *_shown(ui, project_id or 0)]

    gr.on(None, open_rounds, None, [place, *shown], api_name="rounds_open", **quiet)
    project.input(open_project, project, [place, *shown], api_name="rounds_project", **quiet)
    timer.tick(look_again, [project, seen], shown, api_name="rounds_tick", **quiet)
    gr.on(
        [field.input for field in (form.seed, form.despite, *fields)],
        show_command, [project, form.seed, form.despite, *fields], place, api_name="command_rounds",
        trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    form.start.click(
        start_rounds, [project, form.key, form.seed, form.despite, *fields], [status, *shown], api_name="start_rounds",
        js=f"async (project, _, ...rest) => [project, (await import('/static/{static_version()}/views.js'))"
        ".clickKey('rounds'), ...rest]",
    )  # fmt: skip
    stop.click(stop_rounds, [project], [status, *shown], api_name="stop_rounds")


def _given(forms: Sequence[JobForm], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """What differs from the defaults in each form; the values stand form by form."""
    found, start = {}, 0
    for form in forms:
        found[form.kind] = changes(form.kind, values[start : start + len(form.fields)])
        start += len(form.fields)
    return found


def _command(ui: Ui, project_id: int, changed: dict[str, Any], seed: int, despite: str) -> dict[str, Any]:
    if not project_id:
        return drawing()
    name = retraining.project_name(ui.store, ui.guard.person(), project_id)
    return drawing(command(ui.guard.say("train.command"), command_of("rounds", name, changed, seed, despite)))


def _shown(ui: Ui, project_id: int) -> list[Any]:
    """About, log, whether a series can be started or stopped, and what was drawn."""
    found = alternating.round_log(ui.store, ui.guard.person(), project_id)
    refusal = alternating.refusal(ui.store, ui.guard.person(), project_id) if project_id else None
    is_open = bool(found) and found[0].round.finished_at is None
    told = None if is_open or refusal is None else ui.text.problem(refusal, ui.guard.language())
    about = drawing(
        drawn.heading(ui.guard.say("rounds.title")),
        note(ui.guard.say("rounds.about")),
        note(_now(ui, found[0]) if is_open else "", "warn" if is_open and found[0].waits_for else "info"),
        note(told or "", "warn"),
    )
    can_start = bool(project_id) and refusal is None
    return [about, log_shown(ui, found), gr.update(interactive=can_start), gr.update(visible=is_open), _told(found)]


def _told(found: Sequence[RoundView]) -> list[Any]:
    """Changes whenever a round, or what it waits for, does."""
    return [(v.round.id, v.round.state, v.waits_for, [job.state for job in v.jobs if job]) for v in found]


def _now(ui: Ui, view: RoundView) -> str:
    """Who or what the series waits for, in a sentence."""
    round, job = view.round, view.jobs[1] or view.jobs[0]
    where = {"number": round.number, "wanted": round.wanted}
    if round.state == "waiting_for_people":
        return ui.guard.say("rounds.now.waiting_for_people", **where, n=view.waits_for)
    assert job is not None
    if job.state == "paused":
        return ui.guard.say("rounds.now.paused", **where, job=job.id)
    return ui.guard.say(
        f"rounds.now.{round.state}", **where, job=job.id, state=ui.guard.say(f"train.state.{job.state}")
    )


def log_shown(ui: Ui, found: Sequence[RoundView]) -> dict[str, Any]:
    say = ui.guard.say
    return drawing(
        drawn.heading(say("rounds.log")),
        note(say("rounds.log_hint")) if found else None,
        drawn.table(
            [say(f"rounds.column.{name}") for name in COLUMNS],
            [(view.round.id or 0, _row(ui, view)) for view in found],
            caption=say("rounds.log"),
            empty=say("rounds.empty"),
        ),
    )


def _row(ui: Ui, view: RoundView) -> tuple[drawn.Cell, ...]:
    say, round = ui.guard.say, view.round
    facts, gain, kl = round.facts, round.facts.get("gain"), round.facts.get("kl")
    return (
        say("rounds.number", number=round.number, wanted=round.wanted),
        say(f"rounds.kind.{round.kind}"),
        drawn.badge(say(f"rounds.state.{round.state}"), TONES.get(round.state, "info")),
        _separation(ui, view),
        percent(facts.get("accuracy")),
        f"{figure(gain['value'])} ({figure(gain['low'])}–{figure(gain['high'])}, n = {gain['n']})" if gain else "–",
        f"{figure(kl['value'])} (n = {kl['n']})" if kl else "–",
        _made(ui, view.jobs[0]),
        _made(ui, view.jobs[1]),
        f"{view.by} · {clock(round.created_at)}",
        _reason(ui, view),
    )


def _reason(ui: Ui, view: RoundView) -> str:
    round = view.round
    if not round.reason:
        return "–"
    kind = "_cooperative" if (round.reason, round.kind) == ("no_separation", "cooperative") else ""
    return ui.guard.say(f"rounds.reason.{round.reason}{kind}", problem=round.facts.get("problem", ""))


def _separation(ui: Ui, view: RoundView) -> str:
    """Adversarial: good answers told from the policy's own. Cooperative: accuracy on the newest policy's answers."""
    facts = view.round.facts
    if view.round.kind == "cooperative":
        newest = (facts.get("newest") or {}).get("accuracy")
        return ui.guard.say("rounds.newest", share=percent(newest)) if newest else "–"
    before, after = facts.get("separation_before"), facts.get("separation")
    return f"{percent(before)} → {percent(after)}" if before else percent(after)


def _made(ui: Ui, job: Job | None) -> drawn.Cell:
    """The model a job made; the job itself until then."""
    if job is None:
        return "–"
    if job.output_model_id:
        return drawn.link(
            ui.guard.say("train.to_model", id=job.output_model_id), f"/admin/models?model={job.output_model_id}"
        )
    return drawn.link(ui.guard.say("rounds.to_job", id=job.id), f"/admin/train?job={job.id}")
