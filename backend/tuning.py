"""Measuring a few-shot prompt: the risk in its order, how many demonstrations pay, calibration of its labels, what to label next."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

from backend import access
from backend.engines.features import embedder
from backend.engines.kept import engine_name
from backend.measuring import findings, plans, running, sure
from backend.measuring.findings import Calibrated, Curve, Orders
from backend.measuring.plans import COUNTS, MOST_SURE, SEARCHED, SEEDS, CannotMeasure, Plan
from backend.measuring.sure import Sure
from backend.prompts.chat import text_of
from backend.prompts.fewshot import CASE_WISE, FewShot, choose, normalised
from backend.prompts.labelwords import asked, saying, score, truth_of
from backend.prompts.rows import given_away
from backend.prompts.votek import MOST_TEXTS, vote_k
from feedback_db import Store, audit, measurements, prompts
from feedback_db.types import Case, Demonstration, Measurement, MeasurementKind, Model, Person, Template

LABEL_TOKENS = 32  # room that is left for a label behind a prompt; our choice
MOST_NEXT = 100


class Progress(NamedTuple):
    measurement: Measurement
    done: int  # parts
    seconds_left: float | None  # None: not known yet, or nothing is under way


class Told(NamedTuple):
    """What a measurement has come to so far."""

    progress: Progress
    plan: Plan
    found: Orders | Curve | Calibrated | Sure
    straddling: list[str]  # labels that a tokenizer would have joined with the end of the prompt
    looks: int  # measurements of this template that test cases were asked for


class Bars(NamedTuple):
    """One text's label probabilities by method, "plain" first."""

    labels: tuple[str, ...]
    shares: dict[str, list[float]]
    text: str
    truth: int | None


class Next(NamedTuple):
    """A case worth labelling."""

    case: Case
    score: float
    stands_for: int  # other cases that are like it and near no demonstration


class NextCases(NamedTuple):
    cases: list[Next]
    waiting: int  # cases without an expected answer
    bank: int  # demonstrations that count as labelled


def start(
    store: Store,
    engine: running.Engine,
    person: Person,
    template_id: int,
    model_id: int,
    kind: MeasurementKind,
    *,
    most: int = SEARCHED,
    seed: int = 0,
    counts: Sequence[int] = COUNTS,
    seeds: int = SEEDS,
    wanted: int = 10,
) -> Measurement:
    """Begin to measure; ``advance`` of the room does the work. Raises CannotMeasure, FewShotProblem, EngineError."""
    access.require(person, "build")
    template, model = store.get(Template, template_id), store.get(Model, model_id)
    if not 1 <= seeds <= 20:
        raise CannotMeasure(f"Draw demonstrations 1 to 20 times, not {seeds}.", "measured_draws", most=20, n=seeds)
    running.scorer_for(engine, model)
    if kind == "confidence":
        plan = _sure_plan(store, template, seed, wanted)
    else:
        plan = _plan(store, engine, template, kind, most, seed, counts, seeds)
    plan = _fitting(store, engine, template, model, kind, plan)
    with store.write():
        made = store.add(
            Measurement(
                project_id=template.project_id, template_id=template_id, model_id=model_id,
                model_digest=model.digest or model.base_fingerprint, kind=kind, settings=plan.as_row(),
                total=plans.total_of(kind, plan), person_id=person.id,
            )
        )  # fmt: skip
        audit.record(store, person, "start_measurement", "measurement", made.id, {"kind": kind})
        return made


def _plan(
    store: Store,
    engine: running.Engine,
    template: Template,
    kind: MeasurementKind,
    most: int,
    seed: int,
    counts: Sequence[int],
    seeds: int,
) -> Plan:
    labels = plans.labels_of(template)
    found = prompts.cases(store, template.project_id, scenario=template.scenario, language=template.language)
    found = [case for case in found if given_away(template, text_of(case)) is None]  # a row answers these already
    cases = plans.cases_for(found, labels, most, seed, need_truth=kind == "count")
    bank = _bank(store, template)
    safe = plans.without_leaks(bank, cases)
    texts = chosen = None
    if kind == "order" and FewShot.parse(template.few_shot).choose in CASE_WISE:
        chosen = plans.chosen_for(template, safe, cases, embedder(store, engine))
        asks = plans.case_wise_order_asks(chosen, seed)
    elif kind == "order":
        asks = plans.order_asks(template, bank, safe, seed)
    elif kind == "count":
        asks = plans.count_asks(template, [one for one in safe if one.retired_at is None], counts, seeds, seed)
        if not any(ask.ids for ask in asks):
            raise CannotMeasure(
                "There is no demonstration to try that is not one of the cases. Add some to the bank.", "no_bank"
            )
    else:
        asks = plans.calibration_asks(template, safe)
        asks = asks if cases.test else [ask for ask in asks if ask.on != "test"]
        texts = running.texts_for(template, cases.search, seed)
    return Plan(
        labels=labels, search=_ids(cases.search), test=_ids(cases.test), asks=tuple(asks), seed=seed,
        left_out=len(bank) - len(safe), texts=texts, chosen=chosen,
    )  # fmt: skip


def _sure_plan(store: Store, template: Template, seed: int, wanted: int) -> Plan:
    """Raises CannotMeasure."""
    _wanted(wanted)
    found = [case for case in _waiting(store, template) if given_away(template, text_of(case)) is None]
    bank = _bank(store, template)
    if not found:
        raise CannotMeasure("No train case of this scenario waits for an answer. Add cases without one.", "none_waits")
    if not any(one.retired_at is None for one in bank):
        raise CannotMeasure(
            "The second stage shows the model what is labelled, and nothing is. Label the cases of the first stage.",
            "label_first",
        )
    Random(f"sure {seed}").shuffle(found)
    drawn = sorted(_ids(found[: min(MOST_SURE, max(1, MOST_TEXTS - len(bank)))]))
    return Plan(
        labels=tuple(template.labels or ()), search=tuple(drawn), test=(), asks=tuple(sure.asks(len(drawn))), seed=seed,
        wanted=min(wanted, len(drawn)),
    )  # fmt: skip


def _sure(store: Store, one: Measurement, plan: Plan, logps: Mapping[str, Sequence[Sequence[float]]]) -> Sure:
    """By what was labelled when the model was asked, so that labelling one case leaves the others as they are."""
    bank = [shown for shown in _bank(store, store.get(Template, one.template_id)) if shown.created_at <= one.created_at]
    texts = {id: text_of(store.get(Case, id)) for id in plan.search}
    return sure.sure_found(plan, logps, texts, [shown.input for shown in bank])


def _fitting(
    store: Store, engine: running.Engine, template: Template, model: Model, kind: MeasurementKind, plan: Plan
) -> Plan:
    """Without the numbers of demonstrations for which the model's context has no room. Raises CannotMeasure where none is left."""
    cases = [store.get(Case, id) for id in (*plan.search, *plan.test)]
    longest = max(cases, key=lambda case: len(text_of(case)))
    client = engine.client_for(model)
    sizes = {one.id: len(one.input) + len(one.output) for one in _bank(store, template)}

    def is_fit(ids: Sequence[int], case: Case = longest, room: int = LABEL_TOKENS) -> bool:
        shown = prompts.demonstrations_by_id(store, tuple(ids))
        counted = client.tokenize(asked(template, case, shown), model=engine_name(model))
        return counted.count + room <= counted.max_model_len

    def letters(ids: Sequence[int]) -> int:
        return sum(sizes.get(id, 0) for id in ids)

    def widest(count: int) -> Sequence[int]:
        """The longest of the draws by its letters."""
        return max((ask.ids or () for ask in plans.draws_of(plan.asks, count)), key=letters)

    if kind == "count":
        unfit = tuple(count for count in plans.counts_of(plan.asks) if not is_fit(widest(count)))
        kept = tuple(ask for ask in plan.asks if int(ask.name.split(":")[1]) not in unfit)
        plan = replace(plan, asks=kept, unfit=unfit)
        if any(ask.ids for ask in kept):
            return plan
    elif plan.chosen is not None:
        shown = {case.id: plan.chosen[case.id or 0].own for case in cases}
        widest_case = max(cases, key=lambda case: len(text_of(case)) + letters(shown[case.id]))
        if is_fit(shown[widest_case.id], widest_case):
            return plan
    elif kind == "confidence":
        few_shot = FewShot.parse(template.few_shot)
        shown_ids = [
            one.id or 0 for one in choose(_bank(store, template), text_of(longest), few_shot, embedder(store, engine))
        ]
        room = LABEL_TOKENS if plan.labels else sure.SAID_TOKENS
        if is_fit(shown_ids, room=room):
            return plan
    elif plan.asks[0].ids is None or is_fit(plan.asks[0].ids):
        return plan
    raise CannotMeasure(
        "The prompt with its demonstrations is longer than the model's context. Show fewer or shorter ones.", "no_room"
    )


def stop(store: Store, person: Person, measurement_id: int) -> Measurement:
    access.require(person, "build")
    return measurements.set_state(store, measurement_id, "stopped")


def go_on(store: Store, person: Person, measurement_id: int) -> Measurement:
    """What is done is not asked again."""
    access.require(person, "build")
    return measurements.set_state(store, measurement_id, "running")


def measured(store: Store, person: Person, template_id: int) -> list[Progress]:
    """All measurements of a template version, newest first."""
    access.require(person, "build")
    found = measurements.of_template(store, template_id)
    done = measurements.done_at(store, [one.id or 0 for one in found])
    return [_progress(one, done.get(one.id or 0, [])) for one in found]


def told(store: Store, person: Person, measurement_id: int) -> Told:
    """What it has come to, also while it is under way."""
    access.require(person, "build")
    one = store.get(Measurement, measurement_id)
    plan, parts = Plan.parse(one.settings), measurements.parts(store, measurement_id)
    logps = {name: part.logps for name, part in parts.items()}
    searched, tested = running.truths(store, plan, plan.search), running.truths(store, plan, plan.test)
    found: Orders | Curve | Calibrated | Sure
    if one.kind == "order":
        found = findings.orders_found(plan, logps, searched, tested)
    elif one.kind == "count":
        found = findings.curve_found(plan, logps, searched, tested)
    elif one.kind == "confidence":
        found = _sure(store, one, plan, logps)
    else:
        found = findings.calibration_found(logps, searched, tested)
    straddling = sorted({label for part in parts.values() for label in part.straddling})
    return Told(
        _progress(one, sorted(part.created_at for part in parts.values())),
        plan,
        found,
        straddling,
        measurements.looks_at_test(store, one),
    )


def case_bars(store: Store, person: Person, measurement_id: int, case_id: int) -> Bars | None:
    """A case that a calibration has scored already; None where it has not, or not yet."""
    access.require(person, "build")
    plan = Plan.parse(store.get(Measurement, measurement_id).settings)
    logps, case = running.logps_of(store, measurement_id), store.get(Case, case_id)
    for ids, name in ((plan.search, "search:plain"), (plan.test, "test:plain")):
        if case_id in ids and name in logps:
            return _bars(plan, logps, [logps[name][ids.index(case_id)]], text_of(case), truth_of(case, plan.labels))
    return None


def text_bars(store: Store, engine: running.Engine, person: Person, measurement_id: int, text: str) -> Bars:
    """Any text in the place of a case's own, scored now; the shared beginning is in the engine's memory. Raises EngineError."""
    access.require(person, "build")
    one = store.get(Measurement, measurement_id)
    plan, template, model = (
        Plan.parse(one.settings),
        store.get(Template, one.template_id),
        store.get(Model, one.model_id),
    )
    case = saying(store.get(Case, plan.search[0]), text)
    pool = running.pool_of(store, template, plan)
    ids = plan.asks[0].ids
    shown = (
        prompts.demonstrations_by_id(store, ids) if ids is not None else _chosen(store, engine, template, pool, text)
    )
    found = score(running.scorer_for(engine, model), [asked(template, case, shown)], plan.labels, engine_name(model))
    return _bars(plan, running.logps_of(store, measurement_id), found.logps, text, None)


def what_to_label_next(store: Store, person: Person, template_id: int, count: int = 10) -> NextCases:
    """Train cases of a template's scenario without an expected answer that stand for many others, by vote-k; the bank counts as
    labelled. Raises CannotMeasure."""
    access.require(person, "build")
    _wanted(count)
    template = store.get(Template, template_id)
    bank, waiting = _bank(store, template), _waiting(store, template)
    shown = waiting[: max(0, MOST_TEXTS - len(bank))]
    texts = [one.input for one in bank] + [text_of(case) for case in shown]
    votes = vote_k(texts, count, range(len(bank))) if shown else []
    cases = [Next(shown[vote.place - len(bank)], vote.score, vote.stands_for) for vote in votes]
    return NextCases(cases, len(waiting), len(bank))


def _waiting(store: Store, template: Template) -> list[Case]:
    """Train cases without an expected answer that are no demonstration yet."""
    found = prompts.cases(
        store, template.project_id, scenario=template.scenario, language=template.language, split="train"
    )
    known = {normalised(one.input) for one in _bank(store, template)}
    return [case for case in found if case.expected is None and normalised(text_of(case)) not in known]


def still_waiting(store: Store, person: Person, template_id: int) -> set[int]:
    """Ids of the train cases that have no answer yet, and are no demonstration."""
    access.require(person, "build")
    return set(_ids(_waiting(store, store.get(Template, template_id))))


def _wanted(count: int) -> None:
    if not 1 <= count <= MOST_NEXT:
        raise CannotMeasure(f"Ask for 1 to {MOST_NEXT} cases, not {count}.", "next_cases", most=MOST_NEXT, n=count)


def _bars(plan: Plan, found: Any, logps: Any, text: str, truth: int | None) -> Bars:
    shares = {name: own[0].tolist() for name, own in findings.corrected(logps, found).items()}
    return Bars(plan.labels, shares, text, truth)


def _progress(one: Measurement, done_at: Sequence[int]) -> Progress:
    """Time left by the median between two parts, so that a pause in between does not count."""
    gaps = [(after - before) / 1e6 for before, after in pairwise(done_at)]
    if one.state != "running" or not gaps:
        return Progress(one, len(done_at), None)
    return Progress(one, len(done_at), statistics.median(gaps) * max(0, one.total - len(done_at)))


def _chosen(
    store: Store, engine: running.Engine, template: Template, pool: Sequence[Demonstration], text: str
) -> list[Demonstration]:
    return choose(pool, text, FewShot.parse(template.few_shot), embedder(store, engine))


def _bank(store: Store, template: Template) -> list[Demonstration]:
    return running.bank_of(store, template)


def _ids(cases: Sequence[Case]) -> tuple[int, ...]:
    return tuple(case.id or 0 for case in cases)
