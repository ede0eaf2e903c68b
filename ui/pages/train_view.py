"""What the train page shows of readiness, of jobs and of one job's run."""

from __future__ import annotations

import json
from typing import Any

from backend.retraining import Curves, JobView, Readiness
from feedback_db.types import Job
from ui.context import Ui
from ui.views import drawn
from ui.views.words import clipped, clock, duration, figure, share, spread

TONES = {
    "done": "ok",
    "failed": "bad",
    "running": "info",
    "queued": "info",
    "paused": "warn",
    "cancelling": "warn",
    "cancelled": "warn",
}
SAMPLES = 6  # newest sample answers shown
GROUPS: dict[str, tuple[str, ...]] = {  # curves that share a unit share a picture
    "accuracy": ("accuracy", "rewards/accuracies", "held_out/accuracy", "adversarial/accuracy"),
    "loss": ("loss", "held_out/log_loss", "held_out/loss", "adversarial/loss"),
    "margin": ("rewards/margins", "held_out/margin"),
    "rewards": ("rewards/chosen", "rewards/rejected"),
    "logps": ("logps/chosen", "logps/rejected"),
    "start_kl": ("kl",),
    "score": ("objective/scores", "objective/rlhf_reward"),
    "spread": ("objective/score_spread",),
    "theta": ("theta",),
    "kl": ("objective/kl",),
    "entropy": ("objective/entropy",),
    "length": ("completions/mean_length",),
    "ends": ("completions/eos_rate",),
    "policy": ("policy/approxkl_avg", "policy/clipfrac_avg"),
    "losses": ("loss/policy_avg", "loss/value_avg", "loss/kl_avg"),
    "gradient": ("grad_norm",),
    "left_out": ("policy/updates_left_out",),
}


def readiness_shown(ui: Ui, ready: Readiness) -> dict[str, Any]:
    say = ui.guard.say
    report = ready.report or {}
    length = report.get("baselines", {}).get("length")
    return drawn.drawing(
        drawn.cards(
            [
                (say("train.judgements"), str(ready.judgements), say("train.minimum", n=ready.minimum)),
                (say("train.new"), str(ready.new), say("train.new_hint")),
                (say("train.prompts"), str(ready.prompts), say("train.prompts_hint")),
                (say("train.policy"), ready.policy.name if ready.policy else "–", say("train.policy_hint")),
                _reward_card(ui, ready),
                (
                    say("train.baseline"),
                    share(length["value"]) if length else "–",
                    say("train.baseline_hint", spread=spread(length), rule=say(f"train.rule.{_rule(length)}"))
                    if length
                    else say("train.baseline_none"),
                ),
            ]
        ),
        drawn.note(
            say(f"train.verdict.{report['verdict']}")
            if report.get("verdict") in ("near_chance", "no_held_out")
            else "",
            "warn",
        ),
    )


def about_shown(ui: Ui, ready: Readiness, kind: str) -> dict[str, Any]:
    """What a kind of job learns from, and why it cannot start."""
    refusal = ready.refusals.get(kind)
    return drawn.drawing(
        drawn.note(
            ui.guard.say(
                f"train.about.{kind}", judgements=ready.judgements, shown=ready.demonstrations, texts=ready.texts
            )
        ),
        drawn.note(ui.text.problem(refusal, ui.guard.language()), "warn") if refusal else None,
    )


def _reward_card(ui: Ui, ready: Readiness) -> tuple[str, str, str]:
    """The current reward model's held-out accuracy, with what it rests on."""
    say = ui.guard.say
    if ready.reward is None:
        return say("train.reward"), say("train.none_yet"), say("train.reward_none")
    accuracy = (ready.report or {}).get("accuracy")
    hint = say("train.reward_hint", spread=spread(accuracy), name=ready.reward.name)
    return say("train.reward"), share(accuracy["value"]) if accuracy else "–", hint if accuracy else ready.reward.name


def _rule(length: dict[str, Any]) -> str:
    return "longer" if str(length.get("rule", "")).startswith("longer") else "shorter"


def jobs_shown(ui: Ui, jobs: list[JobView], chosen: int | None) -> dict[str, Any]:
    say = ui.guard.say
    rows = [(view.job.id or 0, _row(ui, view)) for view in jobs]
    columns = [say(f"train.column.{name}") for name in ("job", "state", "step", "left", "data", "by", "when", "model")]
    return drawn.drawing(
        drawn.heading(say("train.jobs")),
        drawn.table(columns, rows, caption=say("train.jobs"), empty=say("train.no_jobs"), chosen=chosen, selects=True),
    )


def _row(ui: Ui, view: JobView) -> tuple[drawn.Cell, ...]:
    say, job = ui.guard.say, view.job
    data = say("train.snapshot", version=view.snapshot.version, n=view.snapshot.n or 0) if view.snapshot else "–"
    model = drawn.link(say("train.to_model", id=job.output_model_id), f"/admin/models?model={job.output_model_id}")
    return (
        f"{job.id} · {job.kind}",
        drawn.badge(say(f"train.state.{job.state}"), TONES.get(job.state, "info")),
        f"{job.step} / {job.total_steps or '?'}" if job.step else "–",
        duration(view.seconds_left) or "–",
        data,
        view.by or say("pick.the_app"),
        clock(job.created_at),
        model if job.output_model_id else "–",
    )


def run_shown(ui: Ui, curves: Curves) -> dict[str, Any]:
    """State, messages and sample answers of one job; curves are drawn beside it."""
    say, job = ui.guard.say, curves.job
    messages = [event for event in curves.events if event["kind"] == "message"]
    return drawn.drawing(
        drawn.heading(say("train.job", id=job.id, kind=job.kind), _progress(ui, curves)),
        drawn.note(job.error or "", "bad"),
        drawn.note(" · ".join(f"{name} {figure(value)}" for name, value in _latest(curves).items())),
        *(drawn.note(str(json.loads(event["facts"]).get("text", "")), "warn") for event in messages[-3:]),
    )


def _latest(curves: Curves) -> dict[str, float]:
    """The newest value of each curve that has a picture."""
    pictured = {name for members in GROUPS.values() for name in members}
    return {point["name"]: point["value"] for point in curves.points if point["name"] in pictured}


def _progress(ui: Ui, curves: Curves) -> str:
    say, job = ui.guard.say, curves.job
    parts = [say(f"train.state.{job.state}")]
    if job.total_steps:
        parts.append(f"{job.step} / {job.total_steps}")
    if curves.seconds_left is not None:
        parts.append(say("train.left", time=duration(curves.seconds_left)))
    return " · ".join(parts)


def samples_shown(ui: Ui, curves: Curves) -> dict[str, Any]:
    """The newest answers the policy gave while it trained."""
    say = ui.guard.say
    samples = [json.loads(event["facts"]) for event in curves.events if event["kind"] == "sample"]
    once = {(one.get("step"), one.get("case"), one.get("text")): one for one in samples}  # a step may be done again
    told = list(once.values())[-SAMPLES:]
    return drawn.drawing(
        drawn.heading(say("train.samples")) if told else None,
        drawn.messages(
            {
                "role": "assistant",
                "label": say("train.sample_step", step=one.get("step", "?")),
                "text": str(one.get("text", "")),
                "foot": say(
                    "train.sample_foot",
                    case=clipped(str(one.get("case", "?")), 20),
                    score=figure(float(one.get("score", 0))),
                ),
            }
            for one in reversed(told)
        )
        if told
        else None,
    )


def groups_of(curves: Curves) -> list[str]:
    """The pictures this job has points for; those of a single step, of which no line can be drawn, come last."""
    steps = {
        group: {point["step"] for point in curves.points if point["name"] in members}
        for group, members in GROUPS.items()
    }
    return sorted((group for group in GROUPS if steps[group]), key=lambda group: len(steps[group]) == 1)


def points_of(curves: Curves, group: str | None) -> dict[str, list[Any]]:
    """The columns of one picture: a series per curve."""
    chosen = [point for point in curves.points if point["name"] in GROUPS.get(group or "", ())]
    return {
        "step": [point["step"] for point in chosen],
        "value": [point["value"] for point in chosen],
        "curve": [point["name"] for point in chosen],
    }


def can_pause(job: Job) -> bool:
    return job.state in ("queued", "running", "interrupted")


def can_resume(job: Job) -> bool:
    return job.state in ("paused", "failed")


def can_stop(job: Job) -> bool:
    return job.state in ("queued", "running", "interrupted", "paused")


def watched(jobs: list[JobView], wanted: int | None) -> int | None:
    """Which job to show: the one asked for, else the one that runs, else the newest."""
    ids = [view.job.id for view in jobs]
    if wanted in ids:
        return wanted
    running = next((view.job.id for view in jobs if view.job.state in ("running", "cancelling")), None)
    return running or next(iter(ids), None)
