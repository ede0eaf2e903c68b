"""Battles on the compare page: names stay on the server until somebody has voted."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from backend import battling, streaming
from backend.engines.kept import SamplingSettings
from backend.labels.form import Answer
from backend.streaming import Column, Pane
from ui.context import Ui
from ui.views.drawn import drawing, note

VOTES: dict[str, dict[str, Any]] = {
    "left": {"ranks": (1, 2), "strength": 1},
    "tie": {"ranks": (1, 1)},
    "right": {"ranks": (2, 1), "strength": 1},
    "both_bad": {"ranks": (1, 1), "both_bad": True},
}
LAST_SEED = 2**31 - 1


def battle_row(ui: Ui) -> tuple[Any, dict[str, Any]]:
    """The button that begins one, and those that end it."""
    label = ui.text.label
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        begin = gr.Button(label("battle.begin"), size="sm", elem_id="battle", scale=0, min_width=190)
        votes = {
            name: gr.Button(
                label(f"battle.{name}"), size="sm", elem_id=f"vote-{name}", interactive=False, min_width=100
            )
            for name in VOTES
        }
    return begin, votes


def battle_events(
    ui: Ui,
    project: Any,
    begin: Any,
    votes: dict[str, Any],
    shown: Any,
    status: Any,
    drawn_as: Callable[..., dict[str, Any]],
) -> None:
    """``drawn_as(titles, panes)`` draws the panes as the page does."""
    fought = gr.State({})  # completions left and right, the key of the vote, and when both had been read to the end
    buttons = list(votes.values())

    def fight(project_id: int | None) -> Iterator[tuple[Any, ...]]:
        person, seed = ui.guard.person(), secrets.randbelow(LAST_SEED)
        drawn = battling.draw(ui.store, person, project_id or 0, seed)
        columns = [
            Column(template_id=drawn.template_id, model_id=m, sampling=SamplingSettings()) for m in drawn.model_ids
        ]
        titles = [ui.guard.say("battle.unknown")] * 2
        closed = [gr.update(interactive=False)] * len(buttons)
        last: Sequence[Pane] = [Pane(), Pane()]
        yield (drawn_as(titles, last), {}, drawing(note(ui.guard.say("compare.running"))), *closed)
        for last in streaming.side_by_side(
            ui.store, ui.engine, person, case_id=drawn.case_id, columns=columns, seed=seed
        ):
            yield (drawn_as(titles, last), gr.skip(), gr.skip(), *[gr.skip()] * len(buttons))
        ids = [pane.completion_id for pane in last]
        can = None not in ids and last[0].text != last[1].text
        kept = {"ids": ids, "key": uuid.uuid4().hex, "at": time.time()} if can else {}
        told = note(ui.guard.say("battle.vote" if can else "problem.same_answers"), "info" if can else "warn")
        yield (gr.skip(), kept, drawing(told), *[gr.update(interactive=can)] * len(buttons))

    def vote_for(name: str) -> Callable[..., list[Any]]:
        def vote(kept: dict[str, Any]) -> list[Any]:
            answer = Answer(**VOTES[name], seconds=max(0.0, time.time() - float(kept.get("at", 0.0))))
            left, right = kept.get("ids", (0, 0))
            told = battling.vote(ui.store, ui.guard.person(), (left, right), answer, bytes.fromhex(kept.get("key", "")))
            said = ui.guard.say("battle.revealed", left=told.left, right=told.right, id=told.judgement)
            return [drawing(note(said, "ok")), *[gr.update(interactive=False)] * len(buttons)]

        return vote

    begin.click(
        fight, project, [shown, fought, status, *buttons],
        api_name="battle", show_progress="hidden", concurrency_id="generate", concurrency_limit=4,
    )  # fmt: skip
    for name, button in votes.items():
        button.click(vote_for(name), fought, [status, *buttons], api_name=f"battle_vote_{name}")
