"""A look at a run adds what came since the one before, and comes to the same as reading everything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from backend import testing
from backend.engines.scripted import ScriptedEngine
from backend.stats.growing import Growing
from backend.stats.paired import difference, flips
from backend.suites import running
from backend.suites.looking import Looks
from feedback_db import Store, suites
from feedback_db.types import Person, Project, SuiteRun
from tests.backend.suites.house import finished, pasted, started, words


def test_a_bootstrap_that_grows_comes_to_that_of_all_cases_at_once() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random(700), rng.random(700) * 0.8
    values = np.stack([first, second, second - first], 1)
    nothing = np.full_like(values, np.nan)
    growing, whole = Growing(3), Growing(3)
    whole.add(range(700), nothing, values)
    for part in np.array_split(rng.permutation(700), 9):  # first half of what they will be, then all of it
        growing.add(part, nothing[part], values[part] / 2)
        growing.add(part, values[part] / 2, values[part])
    for column in range(3):
        mean = float(values[:, column].mean())
        assert growing.estimate(column, mean, 700) == pytest.approx(whole.estimate(column, mean, 700))
    gain, reference = whole.estimate(2, float(values[:, 2].mean()), 700), difference(first, second)  # type: ignore[arg-type]
    width = reference.high - reference.low
    assert abs(gain.low - reference.low) < 0.1 * width and abs(gain.high - reference.high) < 0.1 * width
    assert math.isnan(Growing(1).estimate(0, math.nan, 0).low)


def test_many_flips_are_tested_as_exactly_as_few() -> None:
    for gained, lost in ((300, 260), (500, 400), (2000, 2000)):
        n, least = gained + lost, min(gained, lost)
        exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
        assert flips(gained, lost).p == pytest.approx(exact, rel=1e-9)
    assert flips(9000, 8000).p < 1e-13


def grown(store: Store, engineer: Person, project: Project) -> tuple[SuiteRun, ScriptedEngine]:
    engine = ScriptedEngine(
        lambda messages, model, seed: messages[-1]["content"] if seed or "7" in messages[-1]["content"] else "no"
    )
    suite = pasted(store, engineer, project, words(100), "contains")
    return started(store, engineer, project, suite, ("Say {{word}}", "Sing {{word}} 7"), repeats=2), engine


def test_a_look_reads_only_what_is_new_and_comes_to_the_same(
    store: Store, engineer: Person, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, engine = grown(store, engineer, project)
    read: list[int] = []
    told = suites.told

    def counting(*args: Any) -> list[dict[str, Any]]:
        rows = told(*args)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(suites, "told", counting)
    looks = Looks()
    while running.advance(store, engine):
        testing.summary(store, engineer, run.id or 0, looks)
    assert sum(read) == 400 and len(read) > 5
    assert testing.summary(store, engineer, run.id or 0, looks) == testing.summary(store, engineer, run.id or 0)
    for show in ("all", "failed", "differ", "worse", "close"):
        ids = testing.case_ids(store, engineer, run.id or 0, show=show, looks=looks)  # type: ignore[arg-type]
        assert ids == testing.case_ids(store, engineer, run.id or 0, show=show)  # type: ignore[arg-type]
        assert len(ids) == {"all": 100, "failed": 81, "differ": 81, "worse": 0, "close": 0}[show]


def test_cells_that_are_tried_again_are_not_counted_twice(store: Store, engineer: Person, project: Project) -> None:
    engine = ScriptedEngine(lambda messages, model, seed: messages[-1]["content"])
    suite = pasted(store, engineer, project, words(3), "contains")
    run = finished(store, engine, started(store, engineer, project, suite, ("Say {{word}}", "Say {{other}}")))
    looks = Looks()
    assert [column.failed for column in testing.summary(store, engineer, run.id or 0, looks).columns] == [0, 3]
    testing.go_on(store, engineer, run.id or 0)
    finished(store, engine, run)
    assert [column.n for column in testing.summary(store, engineer, run.id or 0, looks).columns] == [3, 3]


def plan(store: Store, sql: str, args: list[Any]) -> list[str]:
    return [row["detail"] for row in store.rows(f"explain query plan {sql}", args)]


def test_no_look_at_a_run_reads_more_than_its_page(
    store: Store, engineer: Person, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, engine = grown(store, engineer, project)
    finished(store, engine, run)
    looks = Looks()
    testing.summary(store, engineer, run.id or 0, looks)  # what was read before
    asked: list[tuple[str, Any, int]] = []
    rows = Store.rows

    def noting(self: Store, sql: str, args: Any = ()) -> list[dict[str, Any]]:
        found = rows(self, sql, args)
        asked.append((sql, args, len(found)))
        return found

    monkeypatch.setattr(Store, "rows", noting)
    testing.runs(store, engineer, project.id or 0)
    testing.summary(store, engineer, run.id or 0, looks)
    shown, n = testing.rows(store, engineer, run.id or 0, start=50, most=20, looks=looks)
    monkeypatch.undo()
    assert (len(shown), n) == (20, 100)
    assert max(len_ for _, _, len_ in asked) == 20 * 4, "a page of 20 cases has 80 cells"
    for sql, args, _ in asked:
        for step in plan(store, sql, list(args)):
            wide = step.startswith("SCAN") and not any(small in step for small in ("json_each", "CONSTANT", "runs"))
            assert not wide, f"{sql}: {step}"
