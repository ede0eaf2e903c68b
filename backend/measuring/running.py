"""The work behind a measurement: part by part, each kept as it is done, so that it goes on where it was cut off and can be
stopped between two parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from backend.engines.answers import Client
from backend.engines.features import embedder
from backend.engines.kept import engine_name
from backend.problem import Problem, stored_text, words_of
from backend.prompts import calibrate
from backend.prompts.chat import text_of
from backend.prompts.fewshot import FewShot, choose, shuffled
from backend.prompts.labelwords import Scorer, asked, saying, score, stub_of, truth_of
from feedback_db import NotFound, Store, measurements, prompts
from feedback_db.types import Case, Demonstration, MeasuredPart, Measurement, Message, Model, Template

from . import findings, sure
from .plans import Ask, CannotMeasure, Cases, Plan, without_leaks

AT_ONCE_SECONDS = 2.0  # of parts before somebody else's turn; our choice


class Engine(Protocol):
    def client(self) -> Any: ...

    def client_for(self, model: Model) -> Client: ...


def scorer_for(engine: Engine, model: Model) -> Scorer:
    """The client that can tell how likely an answer is. Raises CannotMeasure where the model's engine cannot."""
    client = engine.client_for(model)
    if model.engine_id is not None or not hasattr(client, "likelihoods"):
        raise CannotMeasure(
            f"The engine of {model.name} does not tell how likely a given answer is. Choose a model of the built-in engine.",
            "no_likelihoods",
            name=model.name,
        )
    return cast(Scorer, client)


def advance(store: Store, engine: Engine, clock: Callable[[], float] = time.monotonic) -> int:
    """Some parts of every measurement that is under way; the app itself calls this again and again. Returns how many."""
    done, until = 0, clock() + AT_ONCE_SECONDS
    for one in measurements.running(store):
        try:
            while store.get(Measurement, one.id or 0).state == "running":
                ask = next(iter(missing(store, one)), None)
                if ask is None:
                    measurements.finish(store, one.id or 0)
                    break
                _do(store, engine, one, ask)
                done += 1
                if clock() > until:
                    break
        except (Problem, NotFound) as problem:  # of the engine; a demonstration went with its judgement
            measurements.set_state(store, one.id or 0, "stopped", problem=stored_text(words_of(problem)))
    return done


def missing(store: Store, measurement: Measurement) -> list[Ask]:
    """The parts that are not done, in order; those of test cases once the search is over."""
    plan = Plan.parse(measurement.settings)
    found = logps_of(store, measurement.id or 0)
    asks = [*plan.asks, *findings.later(measurement.kind, plan, found, truths(store, plan, plan.search))]
    return [ask for ask in asks if ask.name not in found]


def logps_of(store: Store, measurement_id: int) -> dict[str, Sequence[Sequence[float]]]:
    return {name: part.logps for name, part in measurements.parts(store, measurement_id).items()}


def truths(store: Store, plan: Plan, case_ids: Sequence[int]) -> list[int | None]:
    return [truth_of(store.get(Case, id), plan.labels) for id in case_ids]


def _do(store: Store, engine: Engine, measurement: Measurement, ask: Ask) -> None:
    plan, template = Plan.parse(measurement.settings), store.get(Template, measurement.template_id)
    model = store.get(Model, measurement.model_id)
    scorer = scorer_for(engine, model)
    if measurement.kind == "confidence":
        pool, client = bank_of(store, template), engine.client_for(model)
        found = sure.measured(store, engine, client, scorer, template, model, pool, plan, ask)
    else:
        conversations = conversations_of(store, engine, template, plan, ask)
        found = score(scorer, conversations, plan.labels, engine_name(model))
    part = MeasuredPart(
        measurement_id=measurement.id or 0, name=ask.name, logps=tuple(found.logps), straddling=tuple(found.straddling)
    )
    measurements.keep_part(store, part)


def conversations_of(
    store: Store, engine: Engine, template: Template, plan: Plan, ask: Ask
) -> list[tuple[Message, ...]]:
    """The prompts of one part, as they are sent."""
    if ask.on == "stub":
        return [({"role": "user", "content": stub_of(template)},)]
    cases = [store.get(Case, id) for id in (plan.test if ask.on == "test" else plan.search)]
    if ask.on in ("content_free", "domain"):
        cases = [saying(cases[0], text) for text in (plan.texts or {})[ask.on]]
    if ask.ids is not None:
        shown = prompts.demonstrations_by_id(store, ask.ids)
        return [asked(template, case, shown) for case in cases]
    if plan.chosen is not None:
        given = [plan.chosen[case.id or 0] for case in cases]
        ids = [one.own if ask.order_seed is None else tuple(shuffled(one.ranked, ask.order_seed)) for one in given]
        return [
            asked(template, case, prompts.demonstrations_by_id(store, own))
            for case, own in zip(cases, ids, strict=True)
        ]
    few_shot, pool = FewShot.parse(template.few_shot), pool_of(store, template, plan)
    embed = embedder(store, engine)
    return [asked(template, case, choose(pool, text_of(case), few_shot, embed)) for case in cases]


def bank_of(store: Store, template: Template) -> list[Demonstration]:
    """What a template may show, as when its prompts are sent: the bank, and what it names though it was taken out of the bank."""
    few_shot = FewShot.parse(template.few_shot)
    named = few_shot.ids if few_shot.choose == "fixed" else ()
    return prompts.demonstrations(
        store, template.project_id, scenario=template.scenario, language=template.language, named=named
    )


def pool_of(store: Store, template: Template, plan: Plan) -> list[Demonstration]:
    """Of these what is not (nearly) one of the cases."""
    cases = Cases([store.get(Case, id) for id in plan.search], [store.get(Case, id) for id in plan.test])
    return without_leaks(bank_of(store, template), cases)


def texts_for(template: Template, cases: Sequence[Case], seed: int) -> Mapping[str, list[str]]:
    """Texts that say nothing, and texts of the cases' own words in no order."""
    own = [text_of(case) for case in cases]
    letters = [letter for text in own for letter in text if not letter.isspace()]
    is_chinese = sum("\u4e00" <= letter <= "\u9fff" for letter in letters) > len(letters) / 2
    return {
        "content_free": list(calibrate.CONTENT_FREE),
        "domain": calibrate.bags(own, is_chinese=is_chinese, seed=seed),
    }
