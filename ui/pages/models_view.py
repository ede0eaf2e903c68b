"""What the models page shows: the list, and one model with everything it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.promoting import Detail, ModelView, Outcome
from feedback_db.types import Model
from ui.context import Ui
from ui.views import drawn
from ui.views.words import clock, figure, percent, share

TONES = {"live": "ok", "candidate": "info", "retired": "warn"}


def models_shown(ui: Ui, found: list[ModelView], chosen: int | None) -> dict[str, Any]:
    say = ui.guard.say
    rows = [(view.model.id or 0, _row(ui, view)) for view in found]
    names = ("name", "kind", "stage", "base", "parent", "job", "data", "figure", "when")
    columns = [say(f"models.column.{name}") for name in names]
    return drawn.drawing(
        drawn.table(columns, rows, caption=say("models.title"), empty=say("models.none"), chosen=chosen, selects=True)
    )


def _row(ui: Ui, view: ModelView) -> tuple[drawn.Cell, ...]:
    say, model = ui.guard.say, view.model
    job = drawn.link(say("models.job", id=model.job_id), f"/admin/train?job={model.job_id}") if model.job_id else "–"
    return (
        model.name,
        say(f"models.kind.{model.kind}"),
        drawn.badge(say(f"models.stage.{model.stage}"), TONES[model.stage]),
        model.base,
        model_link(view.parent),
        job,
        say("models.snapshot", version=view.snapshot.version, n=view.snapshot.n or 0) if view.snapshot else "–",
        key_figure(ui, view.report.result) if view.report else "–",
        clock(model.created_at),
    )


def model_link(model: Model | None) -> drawn.Cell:
    return drawn.link(model.name, f"/admin/models?model={model.id}") if model else "–"


def key_figure(ui: Ui, report: Mapping[str, Any]) -> str:
    """The one number a model is judged by, with its interval and n."""
    if report.get("accuracy"):
        return ui.guard.say("models.accuracy", figure=percent(report["accuracy"]))
    if report.get("loss"):
        return ui.guard.say("models.fall", figure=interval(report["loss"]["fall"]))
    held_out = report.get("held_out")
    return ui.guard.say("models.gain", figure=interval(held_out["gain"])) if held_out else "–"


def interval(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("n"):
        return "–"
    return f"{figure(found['value'])} ({figure(found['low'])}–{figure(found['high'])}, n = {found['n']})"


def detail_shown(ui: Ui, detail: Detail) -> dict[str, Any]:
    say, view = ui.guard.say, detail.view
    report = view.report.result if view.report else {}
    return drawn.drawing(
        drawn.heading(view.model.name, say(f"models.stage.{view.model.stage}")),
        drawn.note(say(f"models.verdict.{report['verdict']}") if report.get("verdict") else "", _tone(report)),
        drawn.facts(_report_facts(ui, report)) if report else drawn.note(say("models.no_report")),
        drawn.heading(say("models.lineage")),
        drawn.facts(_lineage(ui, detail)),
        drawn.heading(say("models.history")),
        drawn.table(
            [say(f"models.column.{name}") for name in ("when", "move", "by", "reason")],
            [(move.promotion.id or 0, _move(ui, move)) for move in detail.moves],
            caption=say("models.history"),
            empty=say("models.no_history"),
        ),
    )


def _tone(report: Mapping[str, Any]) -> str:
    return "ok" if report.get("verdict") in ("usable", "gained", "loss_fell") else "warn"


def _over_probe(ui: Ui, gain: Mapping[str, Any] | None) -> list[tuple[str, drawn.Cell]]:
    """Reports of before the two were compared pair by pair have none."""
    if not gain:
        return []
    beaten = "" if gain["low"] > 0 else f". {ui.guard.say('models.probe_not_beaten')}"
    value, low, high = (100 * gain[name] for name in ("value", "low", "high"))
    return [(ui.guard.say("models.over_probe"), f"{value:+.1f} ({low:+.1f} – {high:+.1f}, n = {gain['n']}){beaten}")]


def _report_facts(ui: Ui, report: Mapping[str, Any]) -> list[tuple[str, drawn.Cell]]:
    say = ui.guard.say
    rows: list[tuple[str, drawn.Cell]] = []
    if "accuracy" in report:
        rows.append((say("models.held_out_accuracy"), percent(report["accuracy"])))
        rows += [
            (say(f"models.baseline_{name}"), percent(found)) for name, found in report.get("baselines", {}).items()
        ]
        if report.get("probe"):
            rows.append((say("models.probe"), percent(report["probe"])))
            rows += _over_probe(ui, report["probe"].get("gain"))
        rows += [
            (say("models.member", number=number), percent(member["accuracy"]))
            for number, member in enumerate(report.get("members", []), 1)
        ]
        if apart := report.get("spread"):
            rows.append((say("models.spread"), f"{figure(apart['value'])} (n = {apart['n']})"))
        if (ties := report.get("ties")) and ties.get("log_loss") is not None:
            rows.append((say("models.ties"), say("models.ties_figures", n=ties["n"], **_ties_figures(ties))))
        rows.append((say("models.train_accuracy"), percent(report.get("train_accuracy"))))
        if report.get("adversarial"):
            rows.append((say("models.separation"), percent(report["adversarial"]["separation"])))
            rows.append((say("models.separation_before"), percent(report["adversarial"]["separation_before"])))
        if report.get("newest"):
            rows.append((say("models.newest"), percent(report["newest"]["accuracy"])))
        if report.get("margin"):
            rows.append((say("models.margin"), interval(report["margin"])))
        if report.get("desirable_reward"):
            rows.append((say("models.desirable_reward"), interval(report["desirable_reward"])))
        if report.get("calibration_error") is not None:
            rows.append((say("models.calibration"), figure(report["calibration_error"])))
    if report.get("balance") is not None:
        rows += [
            (
                say("models.kinds"),
                say(
                    "models.kinds_of",
                    desirable=report["sizes"]["train_desirable"],
                    undesirable=report["sizes"]["train_undesirable"],
                ),
            ),
            (say("models.balance"), say("models.balance_of", figure=figure(report["balance"]))),
        ]
    if loss := report.get("loss"):
        rows += [
            (say("models.loss_fall"), interval(loss["fall"])),
            (say("models.loss"), f"{figure(loss['before'])} → {figure(loss['after'])} (n = {loss['n']})"),
        ]
    if perplexity := report.get("perplexity"):
        change = f"{figure(perplexity['before'])} → {figure(perplexity['after'])}"
        rows.append((say("models.perplexity"), f"{change} (n = {perplexity['n']})"))
    if objective := report.get("objective"):
        rows.append((say("models.objective"), say(f"models.objective.{objective}")))
    if held_out := report.get("held_out"):
        kl = held_out.get("kl", {})
        rows += [
            (say("models.score_gain"), interval(held_out.get("gain"))),
            (say("models.score"), f"{figure(held_out['score_before'])} → {figure(held_out['score_after'])}"),
            (say("models.kl"), f"{figure(kl.get('value', 0))} (n = {kl.get('n', 0)})"),
            (
                say("models.length"),
                f"{figure(held_out['mean_length_before'])} → {figure(held_out['mean_length_after'])}",
            ),
            (say("models.ends"), f"{share(held_out['eos_rate_before'])} → {share(held_out['eos_rate_after'])}"),
        ]
    return rows


def _ties_figures(ties: Mapping[str, Any]) -> dict[str, str]:
    return {
        "theta": figure(ties["theta"]),
        "loss": figure(ties["log_loss"]),
        "expected": share(ties["expected"]),
        "observed": share(ties["observed"]),
    }


def _lineage(ui: Ui, detail: Detail) -> list[tuple[str, drawn.Cell]]:
    say, view = ui.guard.say, detail.view
    rows: list[tuple[str, drawn.Cell]] = [(say("models.parent"), model_link(one)) for one in detail.ancestors]
    if detail.job:
        rows.append(
            (
                say("models.made_by"),
                drawn.link(say("models.job", id=detail.job.id), f"/admin/train?job={detail.job.id}"),
            )
        )
    if detail.reward:
        rows.append((say("models.followed"), model_link(detail.reward)))
    if detail.against:
        rows.append((say("models.against"), model_link(detail.against)))
    if view.snapshot:
        rows.append((say("models.data"), say("models.snapshot", version=view.snapshot.version, n=view.snapshot.n or 0)))
        rows.append((say("models.since"), str(view.changed_since)))
    rows.append(
        (
            say("models.source"),
            say(f"models.source.{view.model.source}")
            if view.model.source in ("base", "trained")
            else view.model.source,
        )
    )
    if view.model.digest:
        rows.append((say("models.digest"), view.model.digest.hex()[:16]))
    return rows


def _move(ui: Ui, move: Any) -> tuple[drawn.Cell, ...]:
    say, promotion = ui.guard.say, move.promotion
    moved = f"{say(f'models.stage.{promotion.from_stage}')} → {say(f'models.stage.{promotion.to_stage}')}"
    return clock(promotion.at), moved, move.by or say("pick.the_app"), promotion.reason


def outcome_said(ui: Ui, model: Model, outcome: Outcome) -> str:
    """What a change of the live model did."""
    say = ui.guard.say
    if outcome.former is None:
        return say("models.now_live_first", name=model.name)
    if model.kind != "policy":
        return say("models.now_live", name=model.name, former=outcome.former.name)
    return say("models.now_live_policy", name=model.name, former=outcome.former.name, n=outcome.comparisons_retired)
