"""The log of rounds: which series is under way, what each round came to, and how many judgements one waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .snapshots import TRAINABLE
from .store import Store, as_json
from .types import Round, RoundState

OF_MODEL = """ and j.comparison_id in (select i.comparison_id from comparison_items i
  join completions t on t.id = i.completion_id where t.model_id = ?)"""


def under_way(store: Store) -> list[Round]:
    """The unfinished rounds, one per project at most."""
    return store.find(Round, "finished_at is null")


def open_round(store: Store, project_id: int) -> Round | None:
    return next(iter(store.find(Round, "project_id = ? and finished_at is null", [project_id])), None)


def of_series(store: Store, series: str) -> list[Round]:
    """In order."""
    return store.find(Round, "series = ?", [series], "number")


def of_project(store: Store, project_id: int, limit: int = 30) -> list[Round]:
    """Newest first."""
    return store.find(Round, "project_id = ?", [project_id], "id desc", limit)


def update(store: Store, round: Round, state: RoundState, *, policy_job_id: int | None = None, **facts: Any) -> Round:
    """Move an unfinished round on; new facts stand beside the ones it has."""
    return _changed(store, replace(round, state=state, policy_job_id=policy_job_id or round.policy_job_id), facts)


def finish(store: Store, round: Round, state: RoundState, reason: str = "", **facts: Any) -> Round:
    """End a round. ``reason``: why the series goes no further; empty when it goes on."""
    return _changed(store, replace(round, state=state, reason=reason, finished_at=store.now()), facts)


def _changed(store: Store, round: Round, facts: dict[str, Any]) -> Round:
    now = replace(round, facts={**round.facts, **facts})
    with store.write() as db:
        db.conn.execute(
            "update rounds set state = ?, policy_job_id = ?, reason = ?, facts = ?, finished_at = ? where id = ?",
            [now.state, now.policy_job_id, now.reason, as_json(now.facts), now.finished_at, now.id],
        )
    return now


def judgements_of(store: Store, project_id: int, model_id: int) -> int:
    """Judgements fit for training on comparisons that hold an answer of this model."""
    return store.value(f"select count(*) {TRAINABLE} {OF_MODEL}", [project_id, model_id])
