"""Battles on the compare page: names stay on the server until somebody has voted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from backend import battling, prompting
from backend.labels.form import Answer
from backend.streaming import Column, Pane, Run
from ui.context import Ui
from ui.pages.compare_run import RunRow, panes_of, refuse_others, turns_of
from ui.views.drawn import SHOWN_KEY, drawing, note

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
                label(f"battle.{name}"), size="sm", elem_id=f"battle-{name}", interactive=False, scale=0, min_width=130
            )
            for name in VOTES
        }
    return begin, votes


def battle_events(
    ui: Ui,
    project: Any,
    begin: Any,
    votes: dict[str, Any],
    row: RunRow,
) -> None:
    """A battle takes the place of a run's columns, and a run that of a battle: the other is stopped, and only what is on the page
    can be judged."""
    fought = gr.State({})  # completions left and right, the key of the vote, and when both had been read to the end
    buttons = list(votes.values())
    of_run = [row.send, row.votes.tie, row.votes.bad, row.votes.go_on]

    def fight(request: gr.Request, project_id: int | None) -> Iterator[tuple[Any, ...]]:
        person, seed = ui.guard.person(), secrets.randbelow(LAST_SEED)
        drawn = battling.draw(ui.store, person, project_id or 0, seed)
        columns = [  # a seed each: with one, policies that are near one another would mostly write the same
            Column(template_id=drawn.template_id, model_id=model, seed=seed + at)
            for at, model in enumerate(drawn.model_ids)
        ]
        titles = [ui.guard.say("battle.unknown")] * 2
        asked = turns_of(ui, prompting.case(ui.store, person, drawn.case_id))
        made = Run(ui.store, ui.engine, person, case_id=drawn.case_id, columns=columns, seed=seed)
        run = row.runs.add(made, request.session_hash)
        closed = [gr.update(interactive=False)] * len(buttons)
        last: Sequence[Pane] = run.panes()
        yield (
            drawing(asked, panes_of(ui, titles, last, run.key, is_blind=True)), {}, drawing(note(ui.guard.say("compare.running"))),
            *closed, *[gr.update(interactive=False)] * len(of_run),
        )  # fmt: skip
        for last in run.watched():
            yield (
                drawing(asked, panes_of(ui, titles, last, run.key, is_blind=True)),
                *[gr.skip()] * (2 + len(buttons) + len(of_run)),
            )
        if run.is_replaced:
            return
        ids = [pane.completion_id for pane in last]
        stored = sum(one is not None for one in ids)
        can = stored == len(ids) and last[0].text != last[1].text
        kept = {"ids": ids, "key": run.key, "at": time.time()} if can else {}
        key = "battle.vote" if can else "battle.alike" if stored == len(ids) else "battle.not_both"
        key = "battle.stopped" if any(pane.state == "stopped" for pane in last) else key
        told = note(ui.guard.say(key), "info" if can else "warn")
        yield (
            gr.skip(), kept, drawing(told), *[gr.update(interactive=can)] * len(buttons),
            *[gr.update(interactive=False)] * len(of_run),
        )  # fmt: skip

    def vote_for(name: str) -> Callable[..., list[Any]]:
        def vote(kept: dict[str, Any], on_page: str) -> list[Any]:
            refuse_others(on_page, kept.get("key", ""))
            answer = Answer(**VOTES[name], seconds=max(0.0, time.time() - float(kept.get("at", 0.0))))
            left, right = kept.get("ids", (0, 0))
            told = battling.vote(ui.store, ui.guard.person(), (left, right), answer, bytes.fromhex(kept.get("key", "")))
            said = ui.guard.say("battle.revealed", left=told.left, right=told.right, id=told.judgement)
            run = row.runs.of(ui.guard.person(), on_page)
            asked = turns_of(ui, prompting.case(ui.store, ui.guard.person(), run.case_id))
            revealed = drawing(asked, panes_of(ui, [told.left, told.right], run.panes(), run.key))
            return [revealed, drawing(note(said, "ok")), *[gr.update(interactive=False)] * len(buttons)]

        return vote

    begin.click(
        fight, project, [row.shown, fought, row.status, *buttons, *of_run],
        api_name="battle", show_progress="hidden", concurrency_id="generate", concurrency_limit=4,
    )  # fmt: skip
    for name, button in votes.items():
        button.click(
            vote_for(name), [fought, row.on_page], [row.shown, row.status, *buttons], api_name=f"battle_vote_{name}",
            js=f"kept => [kept, {SHOWN_KEY}]",
        )  # fmt: skip
    for other in (row.run, row.votes.go_on):
        other.click(
            lambda: ({}, *[gr.update(interactive=False)] * len(buttons)), None, [fought, *buttons],
            api_name=False, show_progress="hidden", queue=False,
        )  # fmt: skip
