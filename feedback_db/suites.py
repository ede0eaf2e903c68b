"""Suites, their runs, and the cells of a run: what was answered and what the checks said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .store import Store, as_json, as_row
from .types import Cell, Completion, Model, Suite, SuiteRun


def suites(store: Store, project_id: int) -> list[Suite]:
    """The newest version of each suite, by name."""
    return store.find(
        Suite,
        "project_id = ? and version = (select max(version) from suites s where s.project_id = suites.project_id"
        " and s.name = suites.name)",
        [project_id],
        "name",
    )


def newest_made(store: Store, project_id: int) -> int | None:
    """Id of the version that a person saved last; the parts into which a bake cuts a suite are the bake's."""
    sql = (
        "select max(id) from suites where project_id = ? and id not in (select suite_id from bakes)"
        " and id not in (select r.suite_id from runs r join bakes b on b.run_id = r.id)"
    )
    found = store.value(sql, [project_id])
    return None if found is None else int(found)


def titles(store: Store, project_id: int) -> dict[int, str]:
    """Name and version of every suite, by id; without the cases, of which there may be many."""
    rows = store.rows("select id, name, version from suites where project_id = ?", [project_id])
    return {row["id"]: f"{row['name']} · v{row['version']}" for row in rows}


def newest(store: Store, project_id: int, name: str) -> Suite | None:
    return next(iter(store.find(Suite, "project_id = ? and name = ?", [project_id, name], "version desc", 1)), None)


def runs(store: Store, project_id: int, limit: int = 50) -> list[SuiteRun]:
    """Newest first."""
    return store.find(SuiteRun, "project_id = ?", [project_id], "id desc", limit)


def running(store: Store) -> list[SuiteRun]:
    return store.find(SuiteRun, "state = 'running'")


def followed(store: Store) -> list[SuiteRun]:
    """The newest run of each suite's name, where it is to be run again for new policies."""
    return store.find(
        SuiteRun,
        "follows = 1 and id in (select max(r.id) from runs r join suites s on s.id = r.suite_id group by s.project_id, s.name)",
    )


def not_seen_by(store: Store, run: SuiteRun) -> list[Model]:
    """Policies that a job of the run's project trained after it began, oldest first; a policy itself serves every project."""
    return store.find(
        Model,
        "kind = 'policy' and adapter is not null and created_at > ? and job_id in (select id from jobs where project_id = ?)",
        [run.created_at, run.project_id],
    )


def set_state(
    store: Store, run_id: int, state: Literal["running", "stopped", "done"], *, problem: str = ""
) -> SuiteRun:
    with store.write() as db:
        db.conn.execute(
            "update runs set state = ?, problem = ?, finished_at = ? where id = ?",
            [state, problem, store.now() if state == "done" else None, run_id],
        )
        return store.get(SuiteRun, run_id)


def count_sent(store: Store, run_id: int, more: int) -> None:
    with store.write() as db:
        db.conn.execute("update runs set sent = sent + ? where id = ?", [more, run_id])


def finish(store: Store, run_id: int) -> None:
    """A run that nobody stopped meanwhile is done."""
    with store.write() as db:
        db.conn.execute(
            "update runs set state = 'done', finished_at = ? where id = ? and state = 'running'", [store.now(), run_id]
        )


def keep_cell(store: Store, cell: Cell) -> None:
    """Add it behind those there are; one that is there stays."""
    row = as_row(cell)
    names, marks = ",".join(row), ",".join("?" * len(row))
    with store.write() as db:
        db.conn.execute(
            f"insert or ignore into cells ({names}, seq)"
            f" values ({marks}, (select coalesce(max(seq), 0) + 1 from cells where run_id = ?))",
            (*row.values(), cell.run_id),
        )


def forget_failed(store: Store, run_id: int) -> None:
    """Cells without an answer make room for another try."""
    with store.write() as db:
        db.conn.execute("delete from cells where run_id = ? and problem <> ''", [run_id])


def there(store: Store, run_id: int) -> set[tuple[int, int, int]]:
    """(case id, arm, repeat) of the cells that were tried."""
    rows = store.rows("select case_id, arm, repeat from cells where run_id = ?", [run_id])
    return {(row["case_id"], row["arm"], row["repeat"]) for row in rows}


def cells(store: Store, run_id: int, case_ids: Sequence[int] | None = None) -> list[Cell]:
    """Of a run, or of these cases of it; by case, arm and repeat."""
    if case_ids is None:
        return store.find(Cell, "run_id = ?", [run_id], "case_id, arm, repeat")
    return store.find(
        Cell,
        "run_id = ? and case_id in (select value from json_each(?))",
        [run_id, as_json(list(case_ids))],
        "case_id, arm, repeat",
    )


TOLD = (
    "select l.seq, l.arm, l.case_id, l.repeat, l.score, l.passed, c.seconds, c.tokens, c.prompt_tokens, l.problem <> '' as failed,"
    " l.results from cells l left join completions c on c.id = l.completion_id where l.run_id = ? and l.seq > ? order by l.seq"
)


def told(store: Store, run_id: int, after: int = 0) -> list[dict[str, Any]]:
    """Of every cell that came after the one numbered ``after`` what aggregates need: arm, case_id, repeat, score, passed, results
    as JSON, and of its answer seconds and tokens; in the order in which they came."""
    return store.rows(TOLD, [run_id, after])


def cut_off(store: Store, run_id: int) -> int:
    """How many answers of a run were cut at the limit of tokens."""
    sql = (
        "select count(*) from cells l join completions c on c.id = l.completion_id"
        " where l.run_id = ? and c.finish_reason = 'length'"
    )
    return int(store.value(sql, [run_id]))


def results_of(store: Store, run_id: int, completion_ids: Sequence[int]) -> list[dict[str, Any]]:
    """{"case_id", "completion_id", "results"} of a run's cells that hold one of these answers."""
    return store.rows(
        "select l.case_id, l.completion_id, l.results from json_each(?) w"
        " join cells l indexed by cells_completion on l.completion_id = w.value where l.run_id = ?",
        [as_json(list(completion_ids)), run_id],
    )


def prompt_digests(store: Store, prompt_ids: Sequence[int]) -> dict[int, bytes]:
    rows = store.rows(
        "select id, digest from prompts where id in (select value from json_each(?))", [as_json(list(prompt_ids))]
    )
    return {row["id"]: row["digest"] for row in rows}


def completions(store: Store, ids: Sequence[int]) -> dict[int, Completion]:
    found = store.find(Completion, "id in (select value from json_each(?))", [as_json(list(ids))])
    return {one.id: one for one in found if one.id is not None}


def answered_before(
    store: Store, prompt_digest: bytes, model_id: int, sampling_id: int, seed: int, repeat: int
) -> Completion | None:
    """An answer to the same bytes by the same model, sampled alike: it need not be generated again."""
    found = store.find(
        Completion,
        "prompt_id in (select id from prompts where digest = ?) and model_id = ? and sampling_id = ? and seed = ?"
        " and repeat = ? and finish_reason in ('stop', 'length')",
        [prompt_digest, model_id, sampling_id, seed, repeat],
        limit=1,
    )
    return found[0] if found else None
