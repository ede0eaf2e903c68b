"""The order of the queue on the quality page: by which rule, what comes first and why, and what that has gained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from backend import prioritising
from backend.prioritising import Automatic, First, Order
from backend.training.score_settings import RULES
from ui.context import Ui
from ui.guard import needs
from ui.shell import static_version
from ui.views.drawn import cards, drawing, drawn, heading, note, table
from ui.views.words import share

EVERY_SECONDS = 3
TONES = {"gain": "ok", "loss": "warn"}


def order_panel(ui: Ui, project: Any) -> list[Any]:
    """The outputs that ``order_shown`` and ``order_every`` fill."""
    label = ui.text.label
    shown = drawn("order")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        rule = gr.Radio(
            [(label(f"order.{name}"), name) for name in RULES], value=RULES[0], label=label("order.rule"), elem_id="rule", scale=4
        )  # fmt: skip
        start = gr.Button(label("order.start"), variant="primary", size="sm", elem_id="order-queue", min_width=150)
        shuffle = gr.Button(label("order.shuffle"), size="sm", elem_id="shuffle-queue", min_width=150)
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        every = gr.Number(
            value=0, precision=0, step=10, label=label("order.every"), info=label("order.every_hint"),
            elem_id="order-every", scale=4,
        )  # fmt: skip
        again = gr.Button(label("order.repeat"), size="sm", elem_id="repeat-order", min_width=150)
    status = drawn("order-status")
    key = gr.Textbox(visible=False)
    timer = gr.Timer(EVERY_SECONDS, active=True)
    seen = gr.State(None)

    @needs("review")
    def order_queue(project_id: int | None, name: str, once: str) -> list[Any]:
        job = prioritising.start(ui.store, ui.guard.person(), project_id or 0, name, key=once or None)
        return [drawing(note(ui.guard.say("order.started", id=job.id), "ok")), *order_shown(ui, project_id or 0)]

    @needs("review")
    def shuffle_queue(project_id: int | None) -> list[Any]:
        count = prioritising.shuffle(ui.store, ui.guard.person(), project_id or 0)
        return [drawing(note(ui.guard.say("order.shuffled", count=count), "ok")), *order_shown(ui, project_id or 0)]

    @needs("review")
    def repeat_order(project_id: int | None, name: str, count: float | None) -> list[Any]:
        saved = prioritising.repeat(ui.store, ui.guard.person(), project_id or 0, name, int(count or 0))
        said = ui.guard.say(
            "order.repeats" if saved.settings["order_every"] else "order.repeats_not", every=int(count or 0)
        )
        return [drawing(note(said, "ok")), *order_shown(ui, project_id or 0)]

    def look_again(project_id: int | None, before: Any) -> list[Any]:
        found = prioritising.job_state(ui.store, ui.guard.person(), project_id or 0)
        return [gr.skip(), gr.skip()] if found == before else order_shown(ui, project_id or 0)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    start.click(
        order_queue, [project, rule, key], [status, shown, seen], api_name="order_queue", show_progress="hidden",
        js=f"async (project, rule) => [project, rule, (await import('/static/{static_version()}/views.js')).clickKey('order')]",
    )  # fmt: skip
    shuffle.click(shuffle_queue, project, [status, shown, seen], api_name="shuffle_queue", **quiet)
    again.click(repeat_order, [project, rule, every], [status, shown, seen], api_name="repeat_order", **quiet)
    timer.tick(look_again, [project, seen], [shown, seen], api_name="order_tick", **quiet)
    return [shown, seen, every]


def order_shown(ui: Ui, project_id: int) -> list[Any]:
    """What is drawn, and what the clock compares with."""
    person = ui.guard.person()
    return [
        _drawn(ui, prioritising.state(ui.store, person, project_id)),
        prioritising.job_state(ui.store, person, project_id),
    ]


def order_every(ui: Ui, project_id: int) -> int:
    """After how many new judgements the queue is ordered by itself."""
    return prioritising.state(ui.store, ui.guard.person(), project_id).automatic.every


def _drawn(ui: Ui, found: Order) -> dict[str, Any]:
    say, counts = ui.guard.say, found.counts
    report = found.report or {}
    gain: Mapping[str, Any] = report.get("gain", {})
    arms = [
        (
            say(f"order.{arm}"),
            str(counts[f"{arm}_judged"]),
            say("order.waiting", count=counts[f"{arm}_waiting"], share=share(part)),
        )
        for arm, part in (("random", found.random_share), ("priority", 1 - found.random_share))
    ]
    return drawing(
        note(say("order.about", share=share(found.random_share))),
        cards(arms),
        note(_job_said(ui, found), "bad" if found.job and found.job.state == "failed" else "info"),
        heading(say("order.gain")),
        note(_gain_said(ui, gain), TONES.get(gain.get("verdict", ""), "info")),
        note(_itself_said(ui, found.automatic)),
        heading(say("order.first")),
        table(
            [say("quality.comparison"), say("order.why"), say("order.score")],
            [
                (one.id, [str(one.id), _why(ui, one), "–" if one.score is None else f"{one.score:.4f}"])
                for one in found.first
            ],
            caption=say("order.first"),
            empty=say("order.nothing_first"),
            numbers=[2],
        ),
    )


def _job_said(ui: Ui, found: Order) -> str:
    job = found.job
    if job is None or job.state == "cancelled":
        return ""
    if job.state == "failed":
        return ui.guard.say("order.failed", id=job.id, error=job.error)
    if job.state != "done":
        return ui.guard.say("order.under_way", id=job.id)
    report = found.report or {}
    rule = ui.guard.say(f"order.{report['rule']}")
    return ui.guard.say("order.done", id=job.id, count=report["n"], rule=rule, judged=report["judged"])


def _itself_said(ui: Ui, found: Automatic) -> str:
    """Why the queue will, or will not, be ordered anew by itself."""
    if not found.every:
        return ui.guard.say("order.by_button")
    if found.judged < prioritising.FEWEST_JUDGED:
        return ui.guard.say(
            "order.by_itself_later", least=prioritising.FEWEST_JUDGED, count=found.judged, every=found.every
        )
    rule = ui.guard.say(f"order.{found.rule}")
    return ui.guard.say("order.by_itself", every=found.every, rule=rule, by=found.by, new=found.new)


def _gain_said(ui: Ui, gain: Mapping[str, Any]) -> str:
    if not gain:
        return ui.guard.say("order.gain_unknown")
    if gain["verdict"] == "too_few":
        return ui.guard.say("order.gain_too_few", **gain)
    points = {name: f"{100 * gain[name]:+.1f}" for name in ("value", "low", "high")}
    both = {f"with_{name}": share(value) for name, value in gain["accuracy"].items()}
    return ui.guard.say(f"order.gain_{gain['verdict']}", each=gain["each"], n=gain["n"], **points, **both)


def _why(ui: Ui, one: First) -> str:
    if one.chance is None:
        return ui.guard.say("order.why_shuffled") if one.rule == "shuffled" else one.rule
    return ui.guard.say(f"order.why_{one.rule}", chance=share(one.chance))
