"""Suites and their runs: what was answered is never asked again, a stop holds, and columns are compared by case."""

from __future__ import annotations

from typing import Any

import pytest

from backend import prompting, testing
from backend.access import Denied
from backend.engines import again
from backend.engines.answers import EngineError
from backend.engines.keys import NoKey
from backend.engines.scripted import ScriptedEngine
from backend.problem import read_back
from backend.suites import running
from backend.suites.checks import BadCheck
from backend.testing import CannotTest
from feedback_db import Store, models
from feedback_db.types import Completion, Job, Model, Person, Project, Suite, SuiteRun, Template

CHECKS = "contains:{{word}}\nnot-contains:sorry"


class Counting(ScriptedEngine):
    """Says the case's word, or sorry to a template that shouts; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.asked = 0
        self.fails_after: int | None = None

    def _say(self, messages: object, model: str, seed: int) -> str:
        self.asked += 1
        if self.fails_after is not None and self.asked > self.fails_after:
            raise EngineError("The engine is gone.")
        text = messages[-1]["content"]  # type: ignore[index]
        return "sorry" if text.startswith("SHOUT") and "b" in text else text


@pytest.fixture
def counting() -> Counting:
    return Counting()


def template(store: Store, person: Person, project: Project, body: str) -> Template:
    draft = prompting.Draft(name=body, body=body)
    return prompting.save_template(store, person, project.id or 0, draft)


def made(store: Store, person: Person, project: Project, words: str = "abcdef", checks: str = CHECKS) -> Suite:
    rows = [({"word": word}, word) for word in words]
    cases = prompting.add_cases(store, person, project.id or 0, rows)
    return testing.save_suite(
        store, person, project.id or 0, name="words", case_ids=[case.id or 0 for case in cases], checks=checks
    )


def started(store: Store, person: Person, project: Project, bodies: tuple[str, ...], repeats: int = 1) -> SuiteRun:
    live = models.live(store, "policy")
    assert live is not None and live.id is not None
    columns = [(template(store, person, project, body).id or 0, live.id) for body in bodies]
    return testing.start(store, person, made(store, person, project).id or 0, columns, repeats=repeats)


def counted(store: Store, run: SuiteRun) -> tuple[int, int]:
    now = store.get(SuiteRun, run.id or 0)
    return now.done, now.failed


def finished(store: Store, engine: ScriptedEngine, run: SuiteRun) -> SuiteRun:
    for _ in range(100):
        running.advance(store, engine)
        now = store.get(SuiteRun, run.id or 0)
        if now.state != "running":
            return now
    raise AssertionError("the run never ends")


def test_every_cell_is_answered_and_checked(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    run = started(store, engineer, project, ("Say {{word}}", "SHOUT {{word}}"))
    assert finished(store, counting, run).state == "done"
    (rows, n) = testing.rows(store, engineer, run.id or 0)
    assert n == 6 and [len(row.cells) for row in rows] == [2] * 6
    shouted = {row.case.values["word"]: row.cells[1][0][0] for row in rows if row.case.values}
    assert [word for word, cell in shouted.items() if not cell.passed] == ["b"]
    assert shouted["b"].results[0][1] is False and "lacks" in read_back(shouted["b"].results[0][2])
    summary = testing.summary(store, engineer, run.id or 0)
    assert [column.passed.value for column in summary.columns] == [1.0, pytest.approx(5 / 6)]
    (pair,) = summary.pairs
    assert (pair.flips.gained, pair.flips.lost, pair.n) == (0, 1, 6) and pair.gain.value < 0


def test_a_key_that_is_not_there_stops_its_run_and_no_other(store: Store, engineer: Person, project: Project) -> None:
    first, second = (started(store, engineer, project, (f"{verb} {{{{word}}}}",)) for verb in ("Say", "Whisper"))

    def say(messages: object, model: str, seed: int) -> str:
        text: str = messages[-1]["content"]  # type: ignore[index]
        if text.startswith("Say"):
            raise NoKey("The environment variable BOX_API_KEY holds no key.", "no_key", name="BOX_API_KEY")
        return text

    assert finished(store, ScriptedEngine(say), second).state == "done"
    now = store.get(SuiteRun, first.id or 0)
    assert now.state == "stopped" and "BOX_API_KEY" in now.problem


def test_what_was_answered_is_never_asked_again(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    run = started(store, engineer, project, ("Say {{word}}",))
    counting.fails_after = 4
    now = finished(store, counting, run)
    assert (now.state, now.problem) == ("stopped", "The engine is gone.")
    kept = counted(store, run)
    assert 0 < kept[0] <= 4 and kept[1] == 0
    counting.fails_after, counting.asked = None, 0
    testing.go_on(store, engineer, run.id or 0)
    assert finished(store, counting, run).state == "done"
    assert counting.asked == 6 - kept[0]
    again = testing.start(store, engineer, run.suite_id, [(run.arms[0]["template"], run.arms[0]["model"])])
    assert finished(store, counting, again).state == "done" and counting.asked == 6 - kept[0]
    assert len(store.find(Completion)) == 6


def test_a_stop_holds_until_somebody_goes_on(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    run = started(store, engineer, project, ("Say {{word}}",))
    testing.stop(store, engineer, run.id or 0)
    assert running.advance(store, counting) == 0 and counting.asked == 0
    testing.go_on(store, engineer, run.id or 0)
    assert finished(store, counting, run).state == "done" and counting.asked == 6


def test_a_template_that_asks_for_more_than_a_case_has_is_a_cell_without_answer(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    run = started(store, engineer, project, ("Say {{word}} and {{other}}", "Say {{word}}"))
    assert finished(store, counting, run).state == "done"
    assert counted(store, run) == (12, 6)
    rows, _ = testing.rows(store, engineer, run.id or 0, show="failed")
    cell, answer = rows[0].cells[0][0]
    assert answer is None and "other" in cell.problem
    testing.go_on(store, engineer, run.id or 0)
    assert counted(store, run) == (6, 0)


def test_repeats_are_sampled_anew_and_flakes_counted(store: Store, engineer: Person, project: Project) -> None:
    engine = ScriptedEngine(lambda messages, model, seed: "sorry" if seed % 2 else messages[-1]["content"])
    run = started(store, engineer, project, ("Say {{word}}",), repeats=2)
    assert finished(store, engine, run).state == "done"
    (column,) = testing.summary(store, engineer, run.id or 0).columns
    assert (column.n, column.passed.n, column.passed.value, column.flaky.value) == (12, 6, 0.0, 1.0)
    assert (column.flaky.n, column.flaky.high) == (6, 1.0) and 0.5 < column.flaky.low < 0.7
    assert column.seconds.n == column.tokens.n == 12 and column.tokens.low <= column.tokens.value <= column.tokens.high
    assert column.score.value == pytest.approx(0.5)


def trained(store: Store, project: Project) -> Model:
    """A policy as a job of the project leaves it: it serves every project and belongs to none."""
    job = store.add(Job(project_id=project.id or 0, kind="ppo", settings={}, settings_digest=b"s" * 32))
    digest = f"{job.id}".encode().ljust(32)
    return store.add(
        Model(
            name=f"ppo-{job.id}",
            kind="policy",
            base="tiny",
            adapter=f"x{job.id}",
            source="trained",
            job_id=job.id,
            digest=digest,
        )
    )


def test_a_followed_run_is_run_again_for_a_new_policy_beside_base_and_live(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    run = started(store, engineer, project, ("Say {{word}}", "SHOUT {{word}}"))
    assert testing.follow(store) == []
    live = run.arms[0]["model"]
    followed = testing.start(store, engineer, run.suite_id, [(arm["template"], live) for arm in run.arms], follows=True)
    assert testing.follow(store) == []
    new = trained(store, project)
    (made,) = testing.follow(store)
    assert [(arm["template"], arm["model"]) for arm in made.arms] == [
        (arm["template"], model) for arm in followed.arms for model in (live, new.id)
    ]
    assert (made.total, made.suite_id, made.arms[0]["sampling"]) == (24, run.suite_id, followed.arms[0]["sampling"])
    assert testing.follow(store) == []
    trained(store, store.add(Project(name="another")))
    assert testing.follow(store) == []


def test_regressions_stand_first_in_a_run_that_follows_training(
    store: Store, engineer: Person, project: Project, counting: Counting
) -> None:
    plain = started(store, engineer, project, ("Say {{word}}", "SHOUT {{word}}"))
    finished(store, counting, plain)
    arms = [(arm["template"], arm["model"]) for arm in plain.arms]
    followed = finished(store, counting, testing.start(store, engineer, plain.suite_id, arms, follows=True))
    order = list(store.get(Suite, plain.suite_id).case_ids)
    (worse,) = testing.case_ids(store, engineer, followed.id or 0, show="worse")
    assert order[0] != worse and testing.case_ids(store, engineer, plain.id or 0) == order
    first = [worse, *(one for one in order if one != worse)]
    assert testing.case_ids(store, engineer, followed.id or 0) == first
    rows, total = testing.rows(store, engineer, followed.id or 0, most=2)
    assert ([row.case.id for row in rows], total) == (first[:2], len(order))


def test_pages_show_what_is_asked_for(store: Store, engineer: Person, project: Project, counting: Counting) -> None:
    run = started(store, engineer, project, ("Say {{word}}", "SHOUT {{word}}"))
    finished(store, counting, run)
    for show, n in (("all", 6), ("failed", 1), ("differ", 1), ("worse", 1)):
        found, total = testing.rows(store, engineer, run.id or 0, show=show, most=4)  # type: ignore[arg-type]
        assert total == n and len(found) == min(4, n)
    second, _ = testing.rows(store, engineer, run.id or 0, start=4, most=4)
    assert len(second) == 2


def test_a_suite_is_a_version_and_never_changes(store: Store, engineer: Person, project: Project) -> None:
    first = made(store, engineer, project)
    assert made(store, engineer, project).id == first.id
    second = made(store, engineer, project, checks="is-json")
    assert (second.version, [s.version for s in testing.named(store, engineer, project.id or 0)]) == (2, [2])
    with pytest.raises(Exception, match="never changes"), store.write() as db:
        db.conn.execute("update suites set threshold = 1")
    assert testing.checks_as_text(first) == CHECKS


def test_what_cannot_be_tested_is_refused(store: Store, engineer: Person, project: Project) -> None:
    suite = made(store, engineer, project)
    live = models.live(store, "policy")
    assert live is not None
    one = (template(store, engineer, project, "Say {{word}}").id or 0, live.id or 0)
    for columns, repeats, says in (([], 1, "columns"), ([one], 0, "times"), ([one], 101, "times")):
        with pytest.raises(CannotTest, match=says):
            testing.start(store, engineer, suite.id or 0, columns, repeats=repeats)
    with pytest.raises(BadCheck, match="Line 1"):
        made(store, engineer, project, checks="nonsense")
    with pytest.raises(CannotTest, match="needs a check"):
        made(store, engineer, project, checks="# nothing")
    with pytest.raises(CannotTest, match="1 to"):
        testing.save_suite(store, engineer, project.id or 0, name="x", case_ids=[], checks="is-json")


def test_annotators_are_refused_all_of_it(store: Store, engineer: Person, annotator: Person, project: Project) -> None:
    run = started(store, engineer, project, ("Say {{word}}",))
    id = run.id or 0
    for act in (
        lambda: testing.named(store, annotator, 1),
        lambda: testing.suite(store, annotator, 1),
        lambda: testing.read_cases(annotator, "a\nb"),
        lambda: testing.save_suite(store, annotator, 1, name="x", case_ids=[1], checks="is-json"),
        lambda: testing.start(store, annotator, 1, [(1, 1)]),
        lambda: testing.stop(store, annotator, id),
        lambda: testing.go_on(store, annotator, id),
        lambda: testing.runs(store, annotator, 1),
        lambda: testing.progress(store, annotator, id),
        lambda: testing.summary(store, annotator, id),
        lambda: testing.rows(store, annotator, id),
    ):
        with pytest.raises(Denied):
            act()


class Dying(Counting):
    """Ends whenever it is asked for the third thing of a kind: counting tokens, or answering; each time it is started it says so."""

    def __init__(self, *dies_at: str) -> None:
        super().__init__()
        self.dies_at, self.calls, self.started = list(dies_at), 0, 0

    def client_for(self, model: Model) -> ScriptedEngine:
        self.started += 1
        return super().client_for(model)  # type: ignore[return-value]

    def _ends(self, what: str) -> None:
        self.calls += 1
        if self.calls > 2 and what in self.dies_at:
            self.dies_at.remove(what)
            raise EngineError("The engine ended while it answered.", "engine_ended")

    def tokenize(self, *given: Any, **more: Any) -> Any:
        self._ends("tokenize")
        return super().tokenize(*given, **more)

    def complete(self, *given: Any, **more: Any) -> Any:
        self._ends("complete")
        return super().complete(*given, **more)


@pytest.mark.parametrize("what", ["tokenize", "complete"])
def test_a_run_goes_on_by_itself_when_the_engine_ends_in_its_middle(
    store: Store, engineer: Person, project: Project, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(again, "PAUSES_SECONDS", (0.0, 0.0))
    engine = Dying(what, what)
    now = finished(store, engine, started(store, engineer, project, ("{{word}}",)))
    assert (now.state, now.problem, now.done, now.failed) == ("done", "", 6, 0) and engine.dies_at == []
    engine = Dying(*[what] * 1000)
    now = finished(store, engine, started(store, engineer, project, ("{{word}}!",)))
    assert now.state == "stopped" and "engine_ended" in now.problem, "one that ends each time is told"
