"""Bakes: which long prompt is being learnt under which short one, and how far each is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .store import Store, as_json
from .types import Bake, BakeState


def under_way(store: Store) -> list[Bake]:
    return store.find(Bake, "finished_at is null")


def of_project(store: Store, project_id: int, limit: int = 20) -> list[Bake]:
    """Newest first."""
    return store.find(Bake, "project_id = ?", [project_id], "id desc", limit)


def update(store: Store, bake: Bake, state: BakeState, **more: Any) -> Bake:
    """Move a bake on; ``more``: job_id, test_run_id, facts, why."""
    ended = state in ("done", "failed", "stopped")
    now = replace(bake, state=state, finished_at=store.now() if ended else None, **more)
    with store.write() as db:
        db.conn.execute(
            "update bakes set state = ?, why = ?, job_id = ?, test_run_id = ?, facts = ?, finished_at = ? where id = ?",
            [now.state, now.why, now.job_id, now.test_run_id, as_json(now.facts), now.finished_at, now.id],
        )
    return now


def answered(store: Store, run_id: int, *, passed: bool) -> list[tuple[int, int]]:
    """(case id, completion id) of a run's first column, once per case; with ``passed`` only what passed its checks."""
    sql = (
        "select case_id, completion_id from cells where run_id = ? and arm = 0 and repeat = 0 and completion_id is not null"
        " and (passed = 1 or not ?) order by case_id"
    )
    return [(row["case_id"], row["completion_id"]) for row in store.rows(sql, [run_id, passed])]
