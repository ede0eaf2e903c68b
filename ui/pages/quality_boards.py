"""Leaderboards of models and of templates on the quality page; they follow the judgements as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from backend.standing import Boards, Leaderboard, Line
from feedback_db.votes import What
from ui.context import Ui
from ui.views.drawn import drawing, drawn, heading, note, table
from ui.views.words import figure, share

EVERY_SECONDS = 5
BOTH: tuple[What, ...] = ("models", "templates")


class Panel(NamedTuple):
    place: Any
    shown: Callable[[int], dict[str, Any]]


def boards_panel(ui: Ui, project: Any) -> Panel:
    boards, place = Boards(), drawn("boards")
    timer, seen = gr.Timer(EVERY_SECONDS, active=True), gr.State(None)

    def shown(project_id: int) -> dict[str, Any]:
        return _drawn(ui, {what: boards.of(ui.store, ui.guard.person(), project_id, what) for what in BOTH})

    def look_again(project_id: int | None, before: Any) -> list[Any]:
        found = {what: boards.of(ui.store, ui.guard.person(), project_id or 0, what) for what in BOTH}
        now = [project_id, *(board.n if board else 0 for board in found.values())]
        return [gr.skip(), gr.skip()] if now == before else [_drawn(ui, found), now]

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    timer.tick(look_again, [project, seen], [place, seen], api_name="boards_tick", **quiet)
    return Panel(place, shown)


def _drawn(ui: Ui, found: dict[What, Leaderboard | None]) -> dict[str, Any]:
    parts: list[Any] = [note(ui.guard.say("board.about"))]
    for what, board in found.items():
        parts += [heading(ui.guard.say(f"board.{what}")), _table(ui, what, board)]
        if board is not None:
            slopes = {style: figure(slope) for style, slope in board.slopes.items()}
            rests = ui.guard.say(
                "board.rests", n=board.n, people=board.people, ties=share(board.ties), even=share(board.even)
            )
            parts += [note(f"{rests} {ui.guard.say('board.slopes', n=board.held_n, **slopes)}")]
    return drawing(*parts)


def _table(ui: Ui, what: What, board: Leaderboard | None) -> Any:
    say = ui.guard.say
    rows = [
        (
            place,
            [
                one.name,
                f"{one.strength:.2f} ({one.low:.2f} – {one.high:.2f})",
                f"{one.held:.2f}",
                str(one.judged),
                _against_next(ui, one),
            ],
        )
        for place, one in enumerate(board.lines if board else ())
    ]
    columns = [say(f"board.{name}") for name in (what, "strength", "held", "judged", "next")]
    return table(columns, rows, caption=say(f"board.{what}"), empty=say(f"board.no_{what}"), numbers=[1, 2, 3])


def _against_next(ui: Ui, one: Line) -> str:
    if one.duel is None:
        return "–"
    duel, test = one.duel, one.duel.test
    values = {"share": share(duel.share), "n": duel.n, "low": share(test.low), "high": share(test.high)}
    if test.is_decided:
        return ui.guard.say("board.beats" if duel.share > 0.5 else "board.loses", **values)
    key = "board.even" if test.more is None else "board.undecided"
    return ui.guard.say(key, **values, more=test.more)
