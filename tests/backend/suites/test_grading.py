"""Reward models and judges as checks: asked once, read strictly, and never without their agreement with people."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest

from backend import labelling, sending, testing
from backend.engines import again
from backend.engines.answers import EngineError
from backend.engines.scripted import ScriptedEngine
from backend.problem import read_back
from backend.suites.asking import verdict_of
from backend.suites.sending import Pick
from backend.testing import CannotTest
from feedback_db import Store
from feedback_db.types import Model, Person, Project
from tests.backend.suites.house import finished, live, pasted, started, words


class Judging(ScriptedEngine):
    """Answers with the case's word twice, and as a judge as it is told to; counts what it is asked."""

    def __init__(self, verdict: Any = None) -> None:
        super().__init__(self._say)
        self.verdict = verdict or (lambda shown: {"reason": "as asked", "score": 1.0, "pass": True})
        self.judged: list[dict[str, Any]] = []
        self.scored = 0

    def _say(self, messages: Any, model: str, seed: int) -> str:
        content = messages[-1]["content"]
        if not content.startswith('{"question"'):
            return " ".join([content.split()[-1]] * (1 + seed))
        self.judged.append(json.loads(content))
        said = self.verdict(self.judged[-1])
        return said if isinstance(said, str) else json.dumps(said)

    def rewards(self, messages: Any, answers: Any, *, model: str) -> list[float]:
        self.scored += 1
        return super().rewards(messages, answers, model=model)


@pytest.fixture
def reward(store: Store, project: Project) -> Model:
    return store.add(
        Model(
            project_id=project.id, name="kind-1", kind="reward", base="tiny", adapter="r", source="test", digest=b"r" * 32, stage="live"
        )
    )  # fmt: skip


def test_a_judge_reads_the_rubric_as_data_and_is_asked_once(store: Store, engineer: Person, project: Project) -> None:
    engine = Judging(lambda shown: {"reason": "is it", "score": 0.8, "pass": shown["answer"] == shown["expected"]})
    suite = pasted(store, engineer, project, words(3), "llm-rubric:Says {{word}}")
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    rows, _ = testing.rows(store, engineer, run.id or 0)
    assert all(row.cells[0][0][0].passed and row.cells[0][0][0].score == 0.8 for row in rows)
    assert [one["rubric"] for one in engine.judged] == ["Says w0", "Says w1", "Says w2"]
    assert engine.judged[0]["question"] == [{"role": "user", "content": "word: w0"}]
    finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    assert len(engine.judged) == 3, "equal bytes are judged once"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "PASS",
        '{"score": 1, "pass": true}',
        'Sure! {"reason": "", "score": 1, "pass": true}',
        '{"reason": "", "score": 2, "pass": true}',
        '{"reason": "", "score": NaN, "pass": true}',
        '{"reason": "", "score": true, "pass": true}',
        '{"reason": "", "score": 1, "pass": "yes"}',
        '{"reason": "", "score": 1, "pass": true, "note": ""}',
        "[" * 5000,
    ],
)
def test_a_judges_answer_that_is_not_just_a_verdict_is_no_verdict(answer: str) -> None:
    assert verdict_of(answer).problem
    assert verdict_of('{"reason": "r", "score": 0.5, "pass": false}') == (0.5, False, "r", "")


def test_what_a_judge_failed_to_say_fails_the_case_with_the_reason_and_is_asked_again(
    store: Store, engineer: Person, project: Project
) -> None:
    engine = Judging(lambda shown: "I think it passes.")
    suite = pasted(store, engineer, project, words(1), "llm-rubric:Is good")
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    (row,), _ = testing.rows(store, engineer, run.id or 0)
    cell = row.cells[0][0][0]
    assert not cell.passed and len(cell.results[0]) == 4 and "cannot be read" in read_back(cell.results[0][2])
    finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    assert len(engine.judged) == 2


def test_with_a_threshold_a_judges_score_must_reach_it_too(store: Store, engineer: Person, project: Project) -> None:
    engine = Judging(lambda shown: {"reason": "so so", "score": 0.5, "pass": True})
    suite = pasted(store, engineer, project, words(1), "llm-rubric(0.6):Is good")
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    (row,), _ = testing.rows(store, engineer, run.id or 0)
    assert not row.cells[0][0][0].passed and row.cells[0][0][0].score == 0.5


def test_the_live_or_a_named_reward_model_scores_and_its_threshold_decides(
    store: Store, engineer: Person, project: Project, reward: Model
) -> None:
    engine = Judging()  # a word is worth a point
    suite = pasted(store, engineer, project, words(2), "reward(1)\nreward(2):kind-1")
    run = finished(store, engine, started(store, engineer, project, suite, repeats=2))
    assert set(run.graders.values()) == {reward.id} and engine.scored == 4
    rows, _ = testing.rows(store, engineer, run.id or 0)
    first, second = (cell for cell, _ in rows[0].cells[0])
    assert [result[1] for result in first.results] == [True, False]
    assert [result[1] for result in second.results] == [True, True]
    assert first.results[0][0] == pytest.approx(0.5) and first.results[1][0] == pytest.approx(1 / (1 + math.e))
    assert "1.000 by kind-1, below 2" in read_back(first.results[1][2])


def test_a_run_cannot_begin_without_the_models_that_its_checks_ask(
    store: Store, engineer: Person, project: Project
) -> None:
    for checks, says in (
        ("llm-rubric:x", "choose the model that judges"),
        ("reward", "No reward model is live"),
        ("reward:no", "no reward model no"),
    ):
        with pytest.raises(CannotTest, match=says):
            started(store, engineer, project, pasted(store, engineer, project, words(1), checks))


def test_a_judge_that_is_gone_stops_the_run_and_no_answer_is_lost(
    store: Store, engineer: Person, project: Project
) -> None:
    def gone(shown: Any) -> Any:
        raise EngineError("The judge is gone.")

    engine = Judging(gone)
    suite = pasted(store, engineer, project, words(2), "llm-rubric:x")
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    assert (run.state, run.problem, run.done) == ("stopped", "The judge is gone.", 0)
    engine.verdict = lambda shown: {"reason": "", "score": 1, "pass": True}
    testing.go_on(store, engineer, run.id or 0)
    assert finished(store, engine, run).done == 2


@pytest.mark.parametrize("check", ["llm-rubric:x", "reward"])
def test_a_run_goes_on_by_itself_when_the_engine_ends_while_it_judges(
    store: Store, engineer: Person, project: Project, reward: Model, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    monkeypatch.setattr(again, "PAUSES_SECONDS", (0.0, 0.0))
    left = ["engine_ended", "engine_unreachable"]

    def dying(*_: Any, **__: Any) -> Any:
        if left:
            raise EngineError("The engine ended.", left.pop(0))
        return {"reason": "", "score": 1, "pass": True}

    engine = Judging(dying if check != "reward" else None)
    rewards = engine.rewards
    if check == "reward":
        engine.rewards = lambda *given, **more: (dying(), rewards(*given, **more))[1]  # type: ignore[method-assign]
    suite = pasted(store, engineer, project, words(2), check)
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id))
    assert (run.state, run.problem, run.done, run.failed, left) == ("done", "", 2, 0, [])


def judged_run(store: Store, engineer: Person, project: Project, annotator: Person, prefers: Any) -> int:
    """A run of two answers per case that somebody judged, ``prefers`` saying whether the longer one; the judge likes long ones."""
    engine = Judging(lambda shown: {"reason": "long", "score": len(shown["answer"]) / 100, "pass": True})
    suite = pasted(store, engineer, project, words(12), "llm-rubric:Is long")
    run = finished(store, engine, started(store, engineer, project, suite, judge=live(store).id, repeats=2))
    sending.send_picked(store, engineer, run.id or 0, [Pick(case_id) for case_id in suite.case_ids])
    for number in range(12):
        desk = labelling.next_desk(store, annotator, project.id or 0)
        assert desk is not None
        lengths = [len(text) for text in desk.answers]
        longer = (1, 2) if lengths[0] > lengths[1] else (2, 1)
        ranks = longer if prefers(number) else tuple(reversed(longer))
        labelling.submit(
            store,
            annotator,
            desk.assignment,
            uuid.uuid4().bytes,
            labelling.Answer(ranks=ranks, strength=1, seconds=1.0),
        )
    return run.id or 0


def test_agreement_with_people_is_not_known_until_somebody_judged_the_same_answers(
    store: Store, engineer: Person, project: Project
) -> None:
    suite = pasted(store, engineer, project, words(2), "llm-rubric:x")
    run = finished(store, Judging(), started(store, engineer, project, suite, judge=live(store).id))
    (found,) = testing.agreement(store, engineer, run.id or 0)
    assert found.kappa.n == found.accuracy.n == found.people == 0 and math.isnan(found.accuracy.value)


@pytest.mark.parametrize(("says", "accuracy", "kappa"), [(lambda n: True, 1.0, 1.0), (lambda n: n % 4 > 0, 0.75, 0.5)])
def test_agreement_with_people_is_counted_on_the_answers_both_judged(
    store: Store, engineer: Person, annotator: Person, project: Project, says: Any, accuracy: float, kappa: float
) -> None:
    run_id = judged_run(store, engineer, project, annotator, says)
    (found,) = testing.agreement(store, engineer, run_id)
    assert (found.accuracy.value, found.accuracy.n, found.people) == (accuracy, 12, 1)
    assert found.kappa.value == pytest.approx(kappa) and found.kappa.low <= found.kappa.value <= found.kappa.high
