"""How sure a model is of cases without an answer, and which of them are to be labelled for that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import curating, prompting, tuning
from backend.engines.answers import Answer, EngineError, Messages
from backend.engines.scripted import ScriptedEngine
from backend.measuring import running
from backend.measuring.plans import CannotMeasure
from backend.measuring.sure import Sure
from backend.prompting import Draft
from backend.prompts.chat import text_of
from backend.prompts.votek import vote_k
from feedback_db import Store, measurements
from feedback_db.types import Case, Measurement, Model, Person, Project, Template

LABELS = ("good", "bad")
DOUBT = "the clerk shrugged and said it was fine, number"
CERTAIN = "the room was a joy, number"


def likely(messages: Messages, answer: str) -> float:
    """Of a case with a number n, e^(n / 50) to 1; of one it doubts, one to one."""
    asked = messages[-1]["content"]
    number = int(asked.rsplit("number ", 1)[1].split()[0]) if "number " in asked else 0
    return (number / 50 if CERTAIN in asked else 0.0) if answer == "good" else 0.0


class Hesitant(ScriptedEngine):
    """Answers the number in the question, and is the surer the larger it is."""

    def complete(self, messages: Messages, **settings: Any) -> list[Answer]:
        number = int(messages[-1]["content"].rsplit("number ", 1)[1].split()[0])
        (own,) = super().complete(messages, **settings)
        return [Answer(**{**own.__dict__, "mean_logp": -1 / (1 + number)})]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "feedback.db")
    yield made
    made.close()


@pytest.fixture
def engineer(store: Store) -> Person:
    return store.add(Person(pseudonym="e", name="eve", role="engineer"))


@pytest.fixture
def model(store: Store) -> Model:
    given: dict[str, Any] = {"digest": bytes(32), "base_fingerprint": bytes(32)}
    return store.add(Model(name="b", kind="policy", base="starter", source="shipped", stage="live", **given))


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda *_: "", likely=likely)


@pytest.fixture
def template(store: Store, engineer: Person) -> Template:
    """A hundred cases without an answer, of which eighty or so are for training, and two demonstrations."""
    project = store.add(Project(name="p")).id or 0
    for label, text in zip(LABELS, ("a joy of an evening", "a waste of an evening"), strict=True):
        curating.add_demonstration(store, engineer, project, input=text, output=label, label=label, scenario="s")
    for n in range(100):
        text = f"{DOUBT if n % 2 else CERTAIN} {n}"
        prompting.add_case(store, engineer, project, values={"input": text}, scenario="s")
    return saved(store, engineer, project, labels=LABELS)


def saved(store: Store, engineer: Person, project: int, **fields: Any) -> Template:
    few_shot = {"k": 2, "choose": "nearest", "shape": "text"}
    body = "{{demonstrations}}\nInput: {{input}}\nOutput:"
    return prompting.save_template(
        store, engineer, project, Draft(name="t", body=body, few_shot=few_shot, scenario="s", **fields)
    )


def finished(store: Store, engine: ScriptedEngine, person: Person, one: Measurement) -> Sure:
    for _ in range(20):
        running.advance(store, engine)
    told = tuning.told(store, person, one.id or 0)
    assert told.progress.measurement.state == "done", told.progress.measurement.problem
    assert isinstance(told.found, Sure)
    return told.found


def test_cases_are_taken_evenly_from_doubt_to_confidence_and_never_from_the_surest_tenth(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "confidence", wanted=6)
    assert running.advance(store, engine) and one.total == math.ceil(len(one.settings["search"]) / 16)
    found, asked = finished(store, engine, engineer, one), one.settings["search"]
    assert {store.get(Case, id).split for id in asked} == {"train"} and len(found.confidences) == len(asked)
    for id, confidence in zip(asked, found.confidences, strict=True):
        number = id - min(c.id or 0 for c in store.find(Case))
        wanted = 1 / (1 + math.exp(-number / 50)) if number % 2 == 0 else 0.5
        assert confidence == pytest.approx(wanted, abs=1e-9)
    assert found.left_out == len(asked) // 10
    assert [pick.group for pick in found.picks] == [1, 2, 3, 4, 5, 6]
    taken = [pick.confidence for pick in found.picks]
    assert taken == sorted(taken) and taken[0] == 0.5 and len({pick.case_id for pick in found.picks}) == 6
    assert max(taken) < sorted(found.confidences)[-found.left_out]
    ranks = sorted(found.confidences).index(taken[-1])
    assert ranks >= len(asked) * 0.9 * 5 / 6 - 1  # the last group


def test_of_one_group_the_case_with_the_most_votes_is_taken(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "confidence", wanted=1)
    (pick,) = finished(store, engine, engineer, one).picks
    texts = ["a joy of an evening", "a waste of an evening"]
    asked = one.settings["search"]
    votes = vote_k([*texts, *(text_of(store.get(Case, id)) for id in asked)], len(asked), [0, 1])
    surest = sorted(asked, key=lambda id: -finished(store, engine, engineer, one).confidences[asked.index(id)])
    best = next(asked[vote.place - 2] for vote in votes if asked[vote.place - 2] not in surest[: len(asked) // 10])
    assert pick.case_id == best


def test_what_was_named_stays_when_one_of_it_is_labelled(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "confidence", wanted=4)
    found = finished(store, engine, engineer, one)
    first = store.get(Case, found.picks[0].case_id)
    curating.add_demonstration(store, engineer, template.project_id, input=text_of(first), output="good", scenario="s")
    assert finished(store, engine, engineer, one) == found
    waiting = tuning.still_waiting(store, engineer, template.id or 0)
    assert first.id not in waiting and {pick.case_id for pick in found.picks[1:]} <= waiting
    again = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "confidence", wanted=4)
    assert first.id not in again.settings["search"]


def test_a_free_answer_is_as_sure_as_its_tokens(
    store: Store, engineer: Person, template: Template, model: Model
) -> None:
    free = saved(store, engineer, template.project_id)
    engine: Any = Hesitant(lambda messages, *_: "it is " + messages[-1]["content"][-20:])
    one = tuning.start(store, engine, engineer, free.id or 0, model.id or 0, "confidence", wanted=3)
    found = finished(store, engine, engineer, one)
    first = min(case.id or 0 for case in store.find(Case))
    wanted = [math.exp(-1 / (1 + id - first)) for id in one.settings["search"]]
    assert found.confidences == pytest.approx(wanted)


def test_it_goes_on_where_it_was_and_asks_nothing_twice(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    asked: list[str] = []
    whole = engine.likelihoods

    def failing(conversations: Any, answers: Any, *, model: str) -> Any:
        if len(asked) == 32:
            asked.append("once")
            raise EngineError("away")
        asked.extend(messages[-1]["content"] for messages in conversations)
        return whole(conversations, answers, model=model)

    engine.likelihoods = failing  # type: ignore[method-assign]
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "confidence", wanted=3)
    running.advance(store, engine)
    told = tuning.told(store, engineer, one.id or 0)
    assert told.progress.measurement.problem == "away" and told.progress.done == 2
    assert isinstance(told.found, Sure) and len(told.found.confidences) == 32 and not told.found.picks
    tuning.go_on(store, engineer, one.id or 0)
    finished(store, engine, engineer, one)
    assert len(asked) == len(set(asked)) == len(one.settings["search"]) + 1


def test_what_cannot_be_asked_says_what_is_missing(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    def refused(code: str, engine: Any, template_id: int, **more: Any) -> None:
        with pytest.raises(CannotMeasure) as problem:
            tuning.start(store, engine, engineer, template_id, model.id or 0, "confidence", **more)
        assert problem.value.code == code

    refused("next_cases", engine, template.id or 0, wanted=0)
    refused("no_room", ScriptedEngine(lambda *_: "", likely=likely, max_model_len=40), template.id or 0)
    nobody = Draft(name="n", body="{{input}}", labels=LABELS, scenario="nobody")
    empty = prompting.save_template(store, engineer, template.project_id, nobody)
    refused("none_waits", engine, empty.id or 0)
    with store.write() as db:
        db.conn.execute("delete from demonstrations")
    refused("label_first", engine, template.id or 0)
    assert measurements.of_template(store, template.id or 0) == []
