"""Measurements of few-shot templates, and the parts of them that are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .store import Store, as_json, as_record, as_row
from .types import MeasuredPart, Measurement


def of_template(store: Store, template_id: int, limit: int = 50) -> list[Measurement]:
    """Newest first."""
    return store.find(Measurement, "template_id = ?", [template_id], "id desc", limit)


def running(store: Store) -> list[Measurement]:
    return store.find(Measurement, "state = 'running'")


def looks_at_test(store: Store, measurement: Measurement) -> int:
    """How many measurements of any version of the template have been told what the test cases say."""
    return int(
        store.value(
            "select count(distinct m.id) from measurements m join templates t on t.id = m.template_id"
            " join measured_parts p on p.measurement_id = m.id join templates own on own.id = ?"
            " where t.project_id = own.project_id and t.name = own.name and p.name like 'test:%'",
            [measurement.template_id],
        )
    )


def parts(store: Store, measurement_id: int) -> dict[str, MeasuredPart]:
    """By name."""
    found = store.rows("select * from measured_parts where measurement_id = ?", [measurement_id])
    return {part.name: part for part in (as_record(MeasuredPart, row) for row in found)}


def done_at(store: Store, measurement_ids: Sequence[int]) -> dict[int, list[int]]:
    """When the parts of each were done, oldest first."""
    rows = store.rows(
        "select measurement_id as id, created_at from measured_parts"
        " where measurement_id in (select value from json_each(?)) order by created_at",
        [as_json(list(measurement_ids))],
    )
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row["created_at"])
    return found


def keep_part(store: Store, part: MeasuredPart) -> None:
    """Add it; one that is there stays."""
    row = as_row(part) | {"created_at": store.now()}
    names, marks = ",".join(row), ",".join("?" * len(row))
    with store.write() as db:
        db.conn.execute(f"insert or ignore into measured_parts ({names}) values ({marks})", tuple(row.values()))


def set_state(
    store: Store, measurement_id: int, state: Literal["running", "stopped"], *, problem: str = ""
) -> Measurement:
    """One that is done stays done."""
    with store.write() as db:
        db.conn.execute(
            "update measurements set state = ?, problem = ? where id = ? and state <> 'done'",
            [state, problem, measurement_id],
        )
        return store.get(Measurement, measurement_id)


def finish(store: Store, measurement_id: int) -> None:
    """One that nobody stopped meanwhile is done."""
    with store.write() as db:
        db.conn.execute(
            "update measurements set state = 'done', problem = '', finished_at = ? where id = ? and state = 'running'",
            [store.now(), measurement_id],
        )
