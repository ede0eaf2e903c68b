"""What tests of runs start from: templates, suites of words, and a run that is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend import prompting, testing
from backend.engines.scripted import ScriptedEngine
from backend.suites import running
from feedback_db import Store, models
from feedback_db.types import Model, Person, Project, Suite, SuiteRun, Template


def template(store: Store, person: Person, project: Project, body: str) -> Template:
    return prompting.save_template(store, person, project.id or 0, prompting.Draft(name=body, body=body))


def live(store: Store) -> Model:
    found = models.live(store, "policy")
    assert found is not None
    return found


def pasted(store: Store, person: Person, project: Project, text: str, checks: str = "", **more: Any) -> Suite:
    """A suite of pasted cases, with checks of their own where the text has some."""
    found = testing.read_cases(person, text)
    cases = prompting.add_cases(store, person, project.id or 0, [(one.values, one.expected) for one in found.cases])
    return testing.save_suite(
        store, person, project.id or 0, name="words", case_ids=[case.id or 0 for case in cases], checks=checks,
        own=testing.own_of(found, cases), **more,
    )  # fmt: skip


def started(
    store: Store, person: Person, project: Project, suite: Suite, bodies: Sequence[str] = ("Say {{word}}",), **more: Any
) -> SuiteRun:
    columns = [(template(store, person, project, body).id or 0, live(store).id or 0) for body in bodies]
    return testing.start(store, person, suite.id or 0, columns, **more)


def finished(store: Store, engine: ScriptedEngine, run: SuiteRun) -> SuiteRun:
    for _ in range(200):
        running.advance(store, engine)
        now = store.get(SuiteRun, run.id or 0)
        if now.state != "running":
            return now
    raise AssertionError("the run never ends")


def words(n: int) -> str:
    return "word,expected\n" + "".join(f"w{i},w{i}\n" for i in range(n))
