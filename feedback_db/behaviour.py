"""What two template versions did with the same cases: cells of suite runs, side by side."""

from __future__ import annotations

from typing import NamedTuple

from .store import Store


class Place(NamedTuple):
    """What two columns must share to differ by the template alone."""

    suite_id: int
    model_id: int
    sampling_id: int


class Outcome(NamedTuple):
    case_id: int
    passed: bool  # every repeat
    completion_id: int | None  # of the first repeat that failed, else of the first


def tried(store: Store, template_id: int) -> dict[Place, tuple[int, int]]:
    """Where a version was run: (run id, column) of the newest run at each place."""
    sql = (
        "select r.suite_id, json_extract(a.value, '$.model'), json_extract(a.value, '$.sampling'), r.id, a.key"
        " from runs r, json_each(r.arms) a where json_extract(a.value, '$.template') = ? order by r.id"
    )
    return {Place(*row[:3]): (row[3], row[4]) for row in store.db.conn.execute(sql, [template_id])}


def outcomes(store: Store, run_id: int, arm: int) -> dict[int, Outcome]:
    """Case id -> what a column of a run made of it."""
    sql = "select case_id, passed, completion_id from cells where run_id = ? and arm = ? order by case_id, repeat"
    found: dict[int, Outcome] = {}
    for case_id, passed, completion_id in store.db.conn.execute(sql, [run_id, arm]):
        before = found.get(case_id)
        if before is None or (before.passed and not passed):
            found[case_id] = Outcome(case_id, bool(passed), completion_id)
    return found
