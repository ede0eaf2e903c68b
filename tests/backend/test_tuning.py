"""Measuring a few-shot prompt: orders, numbers of demonstrations, calibration and what to label next, part by part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend import curating, prompting, tuning
from backend.access import Denied
from backend.engines.answers import EngineError, Messages
from backend.engines.scripted import ScriptedEngine
from backend.measuring import running
from backend.measuring.findings import Calibrated, Curve, Orders
from backend.measuring.plans import CannotMeasure, Plan
from backend.prompting import Draft
from backend.prompts.chat import text_of
from backend.prompts.fewshot import leaks
from feedback_db import Store, measurements, prompts
from feedback_db.types import Case, Measurement, Model, Person, Project, Template

LABELS = ("good", "bad")
BODY = "Say good or bad.\n\n{{demonstrations}}\nInput: {{input}}\nOutput:"
TOPICS = ("film", "book", "song", "meal", "hotel", "train", "phone", "chair")
WORDS = {"good": "a joy from start to end", "bad": "a waste of the whole evening"}


def likely(messages: Messages, answer: str) -> float:
    """A model that hears what it is asked, and believes the last demonstration's label a little more."""
    text = messages[-1]["content"]
    shown, _, asked = text.rpartition("Input: ")
    if not shown:  # the answer stub alone
        return -1.0 if answer == "good" else -2.0
    heard = 2.0 * (WORDS[answer] in asked) if "Output: " in shown else 0.0
    last = shown.rstrip().rpartition("Output: ")[2] == answer
    return -5.0 + heard + 2.5 * last + 0.5 * (answer == "good")


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda *_: "", likely=likely)


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
    return store.add(
        Model(
            name="base",
            kind="policy",
            base="starter",
            source="shipped",
            digest=bytes(32),
            base_fingerprint=bytes(32),
            stage="live",
        )
    )


@pytest.fixture
def template(store: Store, engineer: Person) -> Template:
    """Ten cases in each split's stead are made until there are enough; eight demonstrations, half of each label."""
    project = store.add(Project(name="p")).id or 0
    for at, topic in enumerate(TOPICS):
        label = LABELS[at % 2]
        curating.add_demonstration(
            store, engineer, project, input=f"the {topic} was {WORDS[label]}", output=label, label=label, scenario="s"
        )
    for n in range(60):
        label = LABELS[n % 2]
        values = {"input": f"visit {n * 37} to a place called {chr(97 + n % 26) * 5}: {WORDS[label]}"}
        prompting.add_case(store, engineer, project, values=values, expected=label, scenario="s")
    few_shot = {"k": 4, "choose": "balanced", "shape": "text"}
    return prompting.save_template(
        store, engineer, project, Draft(name="t", body=BODY, few_shot=few_shot, labels=LABELS, scenario="s")
    )


def version(store: Store, person: Person, template: Template, **few_shot: Any) -> Template:
    given = {**template.few_shot, **few_shot}
    draft = Draft(name="t", body=BODY, few_shot=given, labels=template.labels, scenario="s")
    return prompting.save_template(store, person, template.project_id, draft)


def finished(store: Store, engine: ScriptedEngine, person: Person, one: Measurement) -> tuning.Told:
    for _ in range(60):
        running.advance(store, engine)
    told = tuning.told(store, person, one.id or 0)
    assert told.progress.measurement.state == "done" and told.progress.done == one.total, told.progress
    return told


def test_four_demonstrations_are_measured_in_24_orders_and_the_pick_is_claimed_on_test_cases(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "order")
    told = finished(store, engine, engineer, one)
    assert isinstance(told.found, Orders) and len(told.found.orders) == 24 and one.total == 27
    assert len({order.ids for order in told.found.orders}) == 24
    assert (
        sum(order.is_own for order in told.found.orders) == 1 and sum(order.is_kept for order in told.found.orders) == 4
    )
    assert told.found.orders[0].accuracy.value > told.found.orders[-1].accuracy.value  # the last label shown sways it
    assert [claim.name for claim in told.found.claims] == ["own", "entropy", "best"]
    assert told.found.claims[0].accuracy.n == len(told.plan.test) and told.found.claims[0].gain is None
    assert told.looks == 1 and measurements.of_template(store, template.id or 0)[0].model_digest == bytes(32)


def test_a_chat_template_is_measured_too_but_not_on_a_case_that_a_row_answers(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    case = prompts.cases(store, template.project_id, split="val")[0]
    rows = (
        {"role": "user", "text": text_of(case)}, {"role": "assistant", "text": case.expected or ""},
        {"role": "demonstrations"}, {"role": "user", "text": "Input: {{input}}\nOutput:"},
    )  # fmt: skip
    few_shot = {**template.few_shot, "shape": "turns"}
    draft = Draft(name="chat", rows=rows, few_shot=few_shot, labels=LABELS, scenario="s")
    chat = prompting.save_template(store, engineer, template.project_id, draft)
    one = tuning.start(store, engine, engineer, chat.id or 0, model.id or 0, "order")
    told = finished(store, engine, engineer, one)
    assert isinstance(told.found, Orders) and len(told.found.orders) == 24
    assert case.id not in (*told.plan.search, *told.plan.test) and told.plan.search
    asked = running.conversations_of(store, engine, chat, told.plan, told.plan.asks[0])
    starts = {tuple(turn["content"] for turn in messages[:10]) for messages in asked}
    assert len(starts) == 1, "what stands before the case is the same for all, so that it is read once"


def test_what_searches_never_sees_a_test_case_and_no_case_is_shown_as_a_demonstration(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    case = prompts.cases(store, template.project_id, split="val")[0]
    near = curating.add_demonstration(
        store, engineer, template.project_id, input=text_of(case) + ".", output="good", label="good", scenario="s"
    )
    assert leaks(near.input, text_of(case))
    for kind in ("order", "count", "calibration"):
        one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, kind, most=200)  # type: ignore[arg-type]
        plan = Plan.parse(store.get(Measurement, one.id or 0).settings)
        assert {store.get(Case, id).split for id in plan.search} <= {"val", "train"} and plan.left_out == 1
        assert {store.get(Case, id).split for id in plan.test} == {"test"}
        assert all(near.id not in (ask.ids or ()) for ask in plan.asks)
        assert {ask.on for ask in plan.asks if ask.name.startswith("search")} == {"search"}


def test_val_cases_come_first_where_a_search_takes_few(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    val = len(prompts.cases(store, template.project_id, split="val"))
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "order", most=val + 1)
    splits = [store.get(Case, id).split for id in Plan.parse(one.settings).search]
    assert splits == ["val"] * val + ["train"]


def test_numbers_of_demonstrations_are_drawn_five_times_each_and_make_a_curve(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "count", seed=2)
    told = finished(store, engine, engineer, one)
    assert isinstance(told.found, Curve)
    assert [(point.shown, point.draws) for point in told.found.points] == [(0, 1), (1, 5), (2, 5), (4, 5), (8, 5)]
    assert told.found.points[0].accuracy.value < told.found.points[-1].accuracy.value
    assert all(point.lowest - 1e-9 <= point.accuracy.value <= point.highest + 1e-9 for point in told.found.points)
    assert told.found.best and [claim.name for claim in told.found.claims] == ["0", str(told.found.best)]
    ids = [ask.ids or () for ask in told.plan.asks if ask.name in ("search:2:0", "search:4:0")]
    assert set(ids[0]) < set(ids[1])  # of one draw the smaller number is among the larger


def test_calibration_takes_off_the_lean_to_one_label(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "calibration", most=60)
    told = finished(store, engine, engineer, one)
    assert isinstance(told.found, Calibrated)
    methods = {method.name: method for method in told.found.test}
    assert list(methods) == ["plain", "contextual", "domain", "batch", "pmi"]
    assert methods["contextual"].accuracy.value == 1 > methods["plain"].accuracy.value
    assert methods["contextual"].gain and methods["contextual"].gain.value > 0 and methods["plain"].prior == [0.5, 0.5]
    assert all(abs(sum(method.prior) - 1) < 1e-9 for method in told.found.test)
    first = store.get(Case, told.plan.test[0]).expected
    other = next(id for id in told.plan.test if store.get(Case, id).expected != first)
    bars = tuning.case_bars(store, engineer, one.id or 0, other)
    assert bars and list(bars.shares) == list(methods) and bars.truth is not None
    live = tuning.text_bars(store, engine, engineer, one.id or 0, f"it was {WORDS['bad']}")
    assert live.shares["contextual"][1] > 0.5 and live.truth is None
    again = tuning.text_bars(store, engine, engineer, one.id or 0, bars.text)
    assert again.shares["plain"] == pytest.approx(bars.shares["plain"])


def test_a_measurement_that_was_killed_asks_nothing_twice(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "order")
    calls: list[int] = []
    whole = engine.likelihoods

    def counted(conversations: Any, answers: Any, *, model: str) -> Any:
        calls.append(len(conversations))
        if len(calls) == 10:
            raise EngineError("The engine ended while it answered.")
        return whole(conversations, answers, model=model)

    engine.likelihoods = counted  # type: ignore[method-assign]
    running.advance(store, engine)
    seen = tuning.told(store, engineer, one.id or 0)
    assert seen.progress.measurement.state == "stopped" and "ended" in seen.progress.measurement.problem
    assert seen.progress.done == 9 and isinstance(seen.found, Orders) and len(seen.found.orders) == 9
    tuning.go_on(store, engineer, one.id or 0)
    finished(store, engine, engineer, one)
    assert len(calls) == one.total + 1  # the one that failed, once more


def test_a_measurement_is_stopped_between_two_parts(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "order")
    whole = engine.likelihoods

    def stopping(conversations: Any, answers: Any, *, model: str) -> Any:
        tuning.stop(store, engineer, one.id or 0)
        return whole(conversations, answers, model=model)

    engine.likelihoods = stopping  # type: ignore[method-assign]
    assert running.advance(store, engine) == 1
    assert tuning.measured(store, engineer, template.id or 0)[0].measurement.state == "stopped"
    assert running.advance(store, engine) == 0


def test_a_demonstration_that_is_gone_stops_the_measurement_and_nothing_else(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "order")
    gone = (Plan.parse(one.settings).asks[0].ids or (0,))[0]
    with store.write() as db:
        db.conn.execute("delete from demonstrations where id = ?", [gone])
    running.advance(store, engine)
    stopped = store.get(Measurement, one.id or 0)
    assert stopped.state == "stopped" and str(gone) in stopped.problem


def test_what_was_taken_out_of_the_bank_is_measured_where_a_version_names_it_and_drawn_nowhere(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    bank = prompts.demonstrations(store, template.project_id)
    ids = [one.id or 0 for one in bank[:3]]
    named = version(store, engineer, template, choose="fixed", ids=ids, k=3)
    prompts.change_demonstration(store, replace(bank[0], retired_at=1))
    one = tuning.start(store, engine, engineer, named.id or 0, model.id or 0, "order")
    assert Plan.parse(one.settings).asks[0].ids == tuple(ids) and one.total == 9
    one = tuning.start(store, engine, engineer, named.id or 0, model.id or 0, "count")
    assert not any(bank[0].id in (ask.ids or ()) for ask in Plan.parse(one.settings).asks)


def test_equal_seeds_draw_equally_in_another_process(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    version(store, engineer, template, k=6)
    newest = prompts.templates(store, template.project_id)[0]
    for kind in ("order", "count", "calibration"):
        tuning.start(store, engine, engineer, newest.id or 0, model.id or 0, kind, seed=5)  # type: ignore[arg-type]
    rows = [one.settings for one in measurements.of_template(store, newest.id or 0)]
    script = f"""
from backend import tuning
from backend.engines.scripted import ScriptedEngine
from feedback_db import Store, measurements
from feedback_db.types import Person
store = Store({str(store.path)!r})
engineer = store.get(Person, {engineer.id})
for kind in ("order", "count", "calibration"):
    tuning.start(store, ScriptedEngine(lambda *_: ""), engineer, {newest.id}, {model.id}, kind, seed=5)
store.close()
"""
    environment = {"PYTHONHASHSEED": "11", "PATH": ""}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    again = [one.settings for one in measurements.of_template(store, newest.id or 0)]
    assert again[:3] == rows and len(again) == 6


def test_what_cannot_be_measured_says_what_is_missing(
    store: Store, engine: Any, engineer: Person, template: Template, model: Model
) -> None:
    def refused(code: str, given: Template, kind: str = "order", **more: Any) -> None:
        with pytest.raises(CannotMeasure) as problem:
            tuning.start(store, engine, engineer, given.id or 0, model.id or 0, kind, **more)  # type: ignore[arg-type]
        assert problem.value.code == code

    refused("searched_cases", template, most=0)
    refused("measured_draws", template, seeds=0)
    refused("order_of_few", version(store, engineer, template, choose="nearest", k=1))
    refused("order_of_few", version(store, engineer, template, choose="balanced", k=1))
    refused("no_labels", version(store, engineer, replace(template, labels=None)))
    small: Any = ScriptedEngine(lambda *_: "", max_model_len=75, likely=likely)
    engine = small
    refused("no_room", template)
    one = tuning.start(store, small, engineer, template.id or 0, model.id or 0, "count", counts=(0, 1, 8))
    assert Plan.parse(one.settings).unfit == (8,)
    refused("no_room", template, "count", counts=(0, 8))
    engine = SimpleNamespace(client_for=lambda model: SimpleNamespace())  # such as a remote one
    refused("no_likelihoods", template)
    engine = small
    empty = prompting.save_template(
        store, engineer, template.project_id, Draft(name="e", body=BODY, labels=LABELS, scenario="nobody")
    )
    refused("no_search_cases", empty)


@pytest.mark.parametrize("choose", ["nearest", "bm25", "varied", "embedded_varied"])
def test_what_was_chosen_for_each_case_is_measured_in_all_orders_and_any_of_them_can_be_kept(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model, choose: str
) -> None:
    by_case = version(store, engineer, template, choose=choose, k=3)
    one = tuning.start(store, engine, engineer, by_case.id or 0, model.id or 0, "order", seed=7)
    plan = Plan.parse(one.settings)
    assert one.total == 6 + 3 and all(ask.ids is None for ask in plan.asks)
    chosen = plan.chosen or {}
    assert set(chosen) == {*plan.search, *plan.test} and len({frozenset(own.ranked) for own in chosen.values()}) > 1
    for ask in plan.asks:
        kept = (
            by_case
            if ask.order_seed is None
            else version(store, engineer, by_case, order="seeded", seed=ask.order_seed)
        )
        asked = running.conversations_of(store, engine, by_case, plan, ask)
        for id, messages in zip(plan.search, asked, strict=True):
            values = store.get(Case, id).values or {}
            sent = prompting.preview(store, engine, engineer, template.project_id, prompting.draft_of(kept), values)
            assert [dict(one) for one in messages] == [dict(one) for one in sent.messages]
    curating.add_demonstration(
        store, engineer, template.project_id, input="a place called zzz", output="bad", label="bad", scenario="s"
    )
    told = finished(store, engine, engineer, one)  # what came to the bank meanwhile is not measured in some orders only
    assert isinstance(told.found, Orders) and len(told.found.orders) == 6
    assert sorted(order.places for order in told.found.orders) == list(permutations((1, 2, 3)))
    own = next(order for order in told.found.orders if order.is_own)
    assert (own.places, own.seed) == ((3, 2, 1), None)
    assert len(told.found.accuracy) == 6 and len(told.found.claims) == 3


def test_an_own_order_that_differs_from_case_to_case_is_measured_too(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    by_case = version(store, engineer, template, choose="varied", k=4, order="nearest_last")
    one = tuning.start(store, engine, engineer, by_case.id or 0, model.id or 0, "order")
    told = finished(store, engine, engineer, one)
    assert isinstance(told.found, Orders) and len(told.found.orders) == 24
    assert [order.places for order in told.found.orders if order.is_own] == [()]
    assert len({order.places for order in told.found.orders}) == 24


@pytest.mark.parametrize("choose", ["nearest", "embedded"])
def test_a_template_that_chooses_case_by_case_is_calibrated_as_it_is(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model, choose: str
) -> None:
    nearest = version(store, engineer, template, choose=choose, k=2)
    one = tuning.start(store, engine, engineer, nearest.id or 0, model.id or 0, "calibration")
    told = finished(store, engine, engineer, one)
    assert told.plan.asks[0].ids is None and isinstance(told.found, Calibrated) and len(told.found.test) == 5


def test_the_next_to_label_are_train_cases_without_an_answer(
    store: Store, engineer: Person, template: Template
) -> None:
    assert tuning.what_to_label_next(store, engineer, template.id or 0).cases == []
    for n in range(30):
        values = {"input": f"a parcel that did not come, number {n}" if n % 3 else f"{n} rooms without a window"}
        prompting.add_case(store, engineer, template.project_id, values=values, scenario="s")
    found = tuning.what_to_label_next(store, engineer, template.id or 0, 5)
    assert len(found.cases) == 5 and found.bank == len(TOPICS)
    assert all(one.case.expected is None and one.case.split == "train" for one in found.cases)
    assert found.waiting == len([c for c in prompts.cases(store, template.project_id, split="train") if not c.expected])
    with pytest.raises(CannotMeasure):
        tuning.what_to_label_next(store, engineer, template.id or 0, 0)


def test_an_annotator_is_refused_all_of_it(
    store: Store, engine: ScriptedEngine, engineer: Person, template: Template, model: Model
) -> None:
    one = tuning.start(store, engine, engineer, template.id or 0, model.id or 0, "calibration")
    ann, t, m, id = (
        store.add(Person(pseudonym="a", name="ann", role="annotator")),
        template.id or 0,
        model.id or 0,
        one.id or 0,
    )
    for act in (
        lambda: tuning.start(store, engine, ann, t, m, "order"),
        lambda: tuning.stop(store, ann, id),
        lambda: tuning.go_on(store, ann, id),
        lambda: tuning.measured(store, ann, t),
        lambda: tuning.told(store, ann, id),
        lambda: tuning.case_bars(store, ann, id, 1),
        lambda: tuning.text_bars(store, engine, ann, id, "x"),
        lambda: tuning.what_to_label_next(store, ann, t),
    ):
        with pytest.raises(Denied):
            act()
