"""The job queue is a table: every change of state is one transaction, and the schema refuses impossible ones."""

from __future__ import annotations

import math
from typing import Any

from .store import Store, as_json
from .types import Job, JobState


def unfinished(store: Store) -> list[Job]:
    """Jobs that wait or run, oldest first."""
    return store.find(Job, "state in ('queued', 'running', 'cancelling', 'interrupted')")


def of_project(store: Store, project_id: int, limit: int = 50) -> list[Job]:
    """Newest first."""
    return store.find(Job, "project_id = ?", [project_id], "id desc", limit)


def with_key(store: Store, key: str) -> Job | None:
    return next(iter(store.find(Job, "key = ?", [key])), None)


def newest_done(store: Store, project_id: int, kind: str) -> Job | None:
    return next(
        iter(store.find(Job, "project_id = ? and kind = ? and state = 'done'", [project_id, kind], "id desc", 1)), None
    )


def claim(store: Store, job_id: int) -> Job | None:
    """Take a waiting job: it is running now, with one more attempt counted. None when somebody else was faster."""
    with store.write() as db:
        cursor = db.conn.execute(
            "update jobs set state = 'running', attempt = attempt + 1, started_at = ?, heartbeat_at = ? "
            "where id = ? and state in ('queued', 'interrupted')",
            [store.now(), store.now(), job_id],
        )
        return store.get(Job, job_id) if cursor.rowcount else None


def set_worker(store: Store, job_id: int, worker: str) -> None:
    with store.write() as db:
        db.conn.execute("update jobs set worker = ? where id = ?", [worker, job_id])


def set_state(
    store: Store, job_id: int, state: JobState, *, error: str | None = None, output_model_id: int | None = None
) -> Job:
    """Move a job on. Raises sqlite's IntegrityError for a step the schema forbids."""
    ended = state in ("done", "failed", "cancelled")
    with store.write() as db:
        db.conn.execute(
            "update jobs set state = ?, error = ?, finished_at = ?, output_model_id = coalesce(?, output_model_id) where id = ?",
            [state, error, store.now() if ended else None, output_model_id, job_id],
        )
        return store.get(Job, job_id)


def queue_again(store: Store, job_id: int) -> Job:
    """A paused or failed job waits again, with as many attempts before it as a new one."""
    with store.write() as db:
        db.conn.execute(
            "update jobs set state = 'queued', error = null, finished_at = null, max_attempts = attempt + 3 where id = ?",
            [job_id],
        )
        return store.get(Job, job_id)


def record_events(store: Store, job_id: int, events: list[dict[str, Any]]) -> None:
    """Take in what a worker reported: heartbeats, metrics and messages, in one transaction; taking it in twice changes nothing."""
    with store.write() as db:
        for event in events:
            if event["kind"] == "metrics":
                _record_metrics(store, job_id, event)
            elif event["kind"] != "heartbeat":
                facts = as_json({k: v for k, v in event.items() if k not in ("at", "kind")})
                known = "select 1 from job_events where job_id = ? and at = ? and kind = ? and facts = ?"
                if store.value(known, [job_id, event["at"], event["kind"], facts]) is None:
                    db.conn.execute(
                        "insert into job_events(job_id, at, kind, facts) values (?,?,?,?)",
                        [job_id, event["at"], event["kind"], facts],
                    )
        db.conn.execute("update jobs set heartbeat_at = ? where id = ?", [max(e["at"] for e in events), job_id])


def _record_metrics(store: Store, job_id: int, event: dict[str, Any]) -> None:
    conn = store.db.conn
    conn.execute(
        "update jobs set step = ?, total_steps = ? where id = ?", [event["step"], event.get("total_steps"), job_id]
    )
    for name, value in event["values"].items():
        if value is None or not math.isfinite(value):  # a curve has no point there
            continue
        conn.execute("insert into metric_names(name) values (?) on conflict(name) do nothing", [name])
        conn.execute(
            "insert into metrics(job_id, name_id, step, attempt, value, at) "
            "values (?, (select id from metric_names where name = ?), ?, ?, ?, ?) on conflict do nothing",
            [job_id, name, event["step"], event["attempt"], float(value), event["at"]],
        )


def metrics(store: Store, job_id: int) -> list[dict[str, Any]]:
    """Points of all attempts as one curve: {"name", "step", "value", "at"}, no step twice.

    An attempt that went on from a checkpoint replaces what earlier ones said of the steps it did again.
    """
    return store.rows(
        "with begun as (select attempt, min(step) as step from metrics where job_id = ? group by attempt) "
        "select n.name, m.step, m.value, m.at from metrics m join metric_names n on n.id = m.name_id "
        "where m.job_id = ? and not exists (select 1 from begun b where b.attempt > m.attempt and (b.step < m.step "
        "or exists (select 1 from metrics again where again.job_id = m.job_id and again.name_id = m.name_id "
        "and again.step = m.step and again.attempt = b.attempt))) order by n.name, m.step",
        [job_id, job_id],
    )


def first_step(store: Store, job: Job) -> int | None:
    """The first step of the attempt under way; None before it is done."""
    step: int | None = store.value(
        "select min(step) from metrics where job_id = ? and attempt = ?", [job.id, job.attempt]
    )
    return step


def events(store: Store, job_id: int) -> list[dict[str, Any]]:
    """What the worker said, oldest first: {"at", "kind", "facts" (JSON text)}."""
    return store.rows("select at, kind, facts from job_events where job_id = ? order by id", [job_id])
