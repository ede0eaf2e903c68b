"""Standing: which model and which template is better, by how much, and whether that is sure yet.

A leaderboard is counted once and then only added to: a new judgement costs a look at the newest rows and a step or two of the
fit. A correction, a retraction or a comparison set aside makes it be counted anew.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backend.access import require
from backend.stats import ranking
from backend.stats.ranking import Board, Fit, Sequential, Votes
from feedback_db import Store, votes
from feedback_db.types import Model, Person, Template
from feedback_db.votes import STYLES, Stamp, Vote, What

AGAIN_AFTER, AGAIN_SHARE = 25, 0.01  # new judgements, at least, after which styles are held equal anew


class Line(NamedTuple):
    """One line of a leaderboard; strengths on the logit scale with their 95 % interval."""

    name: str
    strength: float
    low: float
    high: float
    judged: int
    held: float  # strength with lengths and formats held equal
    duel: Duel | None  # against the next line


class Duel(NamedTuple):
    """Two that were judged against each other, by those judgements alone, however often somebody looks."""

    share: float  # of the first; a tie is half
    n: int
    test: Sequential


class Leaderboard(NamedTuple):
    lines: list[Line]  # the strongest first
    slopes: dict[str, float]  # style -> what it gains
    held_n: int  # judgements that styles were held equal on
    n: int
    people: int
    ties: float  # share of judgements that named neither
    even: float  # how often two of equal strength would tie, by Davidson's model


class _Kept(NamedTuple):
    stamp: Stamp
    ids: tuple[int, ...]
    board: Board
    fit: Fit
    ties: int
    held: Fit
    held_n: int


class Boards:
    """The counted leaderboards of all projects."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, What], _Kept | None] = {}
        self._lock = threading.Lock()

    def of(self, store: Store, person: Person, project_id: int, what: What) -> Leaderboard | None:
        """The leaderboard as of now; None when no two were judged against each other."""
        require(person, "review")
        with self._lock:
            before = self._kept.get((project_id, what))
            now = votes.stamp(store, project_id)
            kept = (
                before
                if before is not None and before.stamp == now
                else _brought_up(store, project_id, what, before, now)
            )
            self._kept[project_id, what] = kept
        return None if kept is None else _drawn_up(store, what, kept)


def _brought_up(store: Store, project_id: int, what: What, before: _Kept | None, now: Stamp) -> _Kept | None:
    """Added to where that is enough, else counted anew."""
    if before is None or before.stamp.void != now.void or votes.has_corrections(store, before.stamp.newest):
        return _counted(store, project_id, what, now)
    new = votes.votes(store, project_id, what, before.stamp.newest)
    place = {id: i for i, id in enumerate(before.ids)}
    if any(vote.first not in place or vote.second not in place for vote in new):
        return _counted(store, project_id, what, now)
    board = before.board
    for vote in new:
        board = ranking.with_vote(board, place[vote.first], place[vote.second], vote.outcome, vote.person)
    board, fit = ranking.refit(board) if new else (board, before.fit)
    ties = before.ties + sum(vote.outcome == 0.5 for vote in new)
    held, held_n = before.held, before.held_n
    if fit.n - held_n >= max(AGAIN_AFTER, AGAIN_SHARE * held_n):
        every = votes.votes(store, project_id, what)
        held, held_n = ranking.fit(columns(every, place, with_styles=True), len(place)), len(every)
    return _Kept(now, before.ids, board, fit, ties, held, held_n)


def _counted(store: Store, project_id: int, what: What, now: Stamp) -> _Kept | None:
    every = votes.votes(store, project_id, what)
    ids = tuple(sorted({id for vote in every for id in (vote.first, vote.second)}))
    if len(ids) < 2:
        return None
    place = {id: i for i, id in enumerate(ids)}
    board, fit = ranking.refit(ranking.board(columns(every, place, with_styles=False), len(ids)))
    held = ranking.fit(columns(every, place, with_styles=True), len(ids))
    return _Kept(now, ids, board, fit, sum(vote.outcome == 0.5 for vote in every), held, len(every))


def columns(every: Sequence[Vote], place: dict[int, int], *, with_styles: bool) -> Votes:
    """Styles are the log of the ratio of lengths, and for each kind of format (first - second) / (first + second + 1)."""
    styles = None
    if with_styles:
        sides = np.array([[getattr(vote, style) for style in STYLES] for vote in every], float)  # (N, D, 2)
        styles = (sides[:, :, 0] - sides[:, :, 1]) / (sides.sum(2) + 1)
        styles[:, 0] = np.log((sides[:, 0, 0] + 1) / (sides[:, 0, 1] + 1))
    return Votes(
        np.array([place[vote.first] for vote in every]),
        np.array([place[vote.second] for vote in every]),
        np.array([vote.outcome for vote in every]),
        np.array([vote.person for vote in every]),
        styles,
    )


def _drawn_up(store: Store, what: What, kept: _Kept) -> Leaderboard:
    order = np.argsort(-kept.fit.strengths, kind="stable").tolist()
    names = [_name(store, what, id) for id in kept.ids]
    models = kept.board.models
    pair = kept.board.keys % models**2
    many, won = (
        ranking.added(pair, part, models**2).reshape(models, models) for part in (kept.board.many, kept.board.won)
    )
    lines = [
        Line(
            names[i],
            float(kept.fit.strengths[i]),
            *kept.fit.interval(i),
            int(many[i].sum() + many[:, i].sum()),
            float(kept.held.strengths[i]),
            _duel(many, won, i, order[turn + 1]) if turn + 1 < len(order) else None,
        )
        for turn, i in enumerate(order)
    ]
    slopes = dict(zip(STYLES, kept.held.slopes.tolist(), strict=True))
    fit = kept.fit
    return Leaderboard(lines, slopes, kept.held_n, fit.n, fit.people, kept.ties / fit.n, fit.tie)


def _duel(many: ranking.Floats, won: ranking.Floats, one: int, other: int) -> Duel | None:
    n = float(many[one, other] + many[other, one])
    if not n:
        return None
    wins = float(won[one, other] + many[other, one] - won[other, one])
    return Duel(wins / n, int(n), ranking.anytime(wins, n))


def _name(store: Store, what: What, id: int) -> str:
    if what == "models":
        return store.get(Model, id).name
    template = store.get(Template, id)
    return f"{template.name} · v{template.version}"
