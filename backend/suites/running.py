"""The work behind a run: cells are answered in small batches, each kept with what the checks say of it, so that a run goes on
where it was cut off and can be stopped between two batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from backend.engines.again import asked_again
from backend.engines.answers import Answer, EngineError
from backend.engines.kept import engine_name, keep_answer, keep_prompt
from backend.problem import Phrase, Problem, stored, stored_text, words_of
from backend.suites.asking import Engine, ask, questions
from backend.suites.kinds import Given, Told
from backend.suites.own import Asked, asked_by
from backend.suites.scoring import scored
from backend.suites.sending import send_by_rules
from feedback_db import Store, suites
from feedback_db.types import Case, Cell, Completion, Model, Prompt, Sampling, Suite, SuiteRun, Template

AT_ONCE = 8  # requests kept in flight: enough for the engine to batch
TOGETHER = 64  # cells between two looks at whether somebody stopped the run


class Arm(NamedTuple):
    """One column of a run."""

    template: Template
    model: Model
    sampling: Sampling


def arms_of(store: Store, run: SuiteRun) -> list[Arm]:
    return [
        Arm(store.get(Template, arm["template"]), store.get(Model, arm["model"]), store.get(Sampling, arm["sampling"]))
        for arm in run.arms
    ]


class _Asked(NamedTuple):
    """A cell that wants an answer. Equal prompts are one row, however often they are asked."""

    place: tuple[int, int, int]  # case id, arm, repeat
    case: Case
    arm: Arm
    prompt: Prompt
    seed: int


class _Marking(NamedTuple):
    """How answers are looked at: the checks of each case, and which models some of them ask."""

    of_case: Callable[[int], Asked]
    graders: dict[str, Model]


def advance(store: Store, engine: Engine) -> int:
    """Answer some cells of every run that is under way; the app itself calls this again and again. Returns how many."""
    done = 0
    for run in suites.running(store):
        places = list(islice(_missing(store, run), TOGETHER))
        try:
            done += _answer(store, engine, run, places)
        except EngineError as error:
            suites.set_state(store, run.id or 0, "stopped", problem=stored_text(words_of(error)))
            continue
        if len(places) < TOGETHER:
            send_by_rules(store, run)
            suites.finish(store, run.id or 0)
    return done


def _missing(store: Store, run: SuiteRun) -> Iterator[tuple[int, int, int]]:
    """Cells that are not there yet, case by case, so that columns can be compared early; repeats come last."""
    there, suite = suites.there(store, run.id or 0), store.get(Suite, run.suite_id)
    for repeat in range(run.repeats):
        for case_id in suite.case_ids:
            for arm in range(len(run.arms)):
                if (case_id, arm, repeat) not in there:
                    yield case_id, arm, repeat


def _answer(store: Store, engine: Engine, run: SuiteRun, places: Sequence[tuple[int, int, int]]) -> int:
    """Raises EngineError when the engine cannot be reached, is full, or refuses whoever asks; cells before it are kept."""
    arms, marking = arms_of(store, run), _marking(store, run)
    asked: list[_Asked] = []
    answered: list[tuple[_Asked, Completion]] = []  # what is there, or needs a model's word before its checks can look
    done = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="suite") as pool:
        for place in places:
            one = _asked(store, engine, run, arms, place)
            before = _known(store, one) if isinstance(one, _Asked) else None
            if isinstance(one, str):
                suites.keep_cell(store, _without(run, place, one))
                done += 1
            elif before is not None:
                answered.append((one, before))
            else:
                asked.append(one)
        for one, told in zip(asked, pool.map(lambda one: _told(engine, one), asked), strict=True):
            if isinstance(told, EngineError):
                if is_of_the_engine(told):
                    pool.shutdown(cancel_futures=True)
                    raise told
                suites.keep_cell(store, _without(run, one.place, words_of(told)))
                done += 1
                continue
            with store.write():
                kept = keep_answer(
                    store, one.prompt, one.arm.model, one.arm.sampling, told, seed=one.seed, repeat=one.place[2]
                )
                if not marking.graders:
                    suites.keep_cell(store, _cell(run, marking, one, kept, {}))
                    done += 1
            if marking.graders:
                answered.append((one, kept))
        return done + _graded(store, engine, run, marking, answered, pool)


def _graded(
    store: Store,
    engine: Engine,
    run: SuiteRun,
    marking: _Marking,
    answered: Sequence[tuple[_Asked, Completion]],
    pool: ThreadPoolExecutor,
) -> int:
    """Have the models say what the checks ask them, outside any transaction, and keep the cells. Raises EngineError."""
    wanted = [
        questions(marking.of_case(one.place[0]).checks, _given(one, kept), one.case, marking.graders)
        for one, kept in answered
    ]
    told = ask(store, engine, [each for several in wanted for each in several], pool, is_of_the_engine)
    for (one, kept), several in zip(answered, wanted, strict=True):
        said = {each.key: told[each.digest] for each in several}
        suites.keep_cell(store, _cell(run, marking, one, kept, said))
    return len(answered)


def _marking(store: Store, run: SuiteRun) -> _Marking:
    graders = {name: store.get(Model, model_id) for name, model_id in run.graders.items()}
    return _Marking(asked_by(store.get(Suite, run.suite_id)), graders)


def _asked(
    store: Store, engine: Engine, run: SuiteRun, arms: Sequence[Arm], place: tuple[int, int, int]
) -> _Asked | str:
    """The prompt of a cell, or why there is none."""
    case_id, number, repeat = place
    case, arm = store.get(Case, case_id), arms[number]
    try:
        most = int(arm.sampling.settings["max_tokens"])
        prompt = asked_again(
            lambda: keep_prompt(store, engine, engine.client_for(arm.model), arm.template, case, most, run.person_id)
        )
    except EngineError as error:
        if is_of_the_engine(error):
            raise
        return words_of(error)
    except Problem as problem:
        return words_of(problem)
    return _Asked(place, case, arm, prompt, run.seed + repeat)


def _known(store: Store, one: _Asked) -> Completion | None:
    model_id, sampling_id = one.arm.model.id or 0, one.arm.sampling.id or 0
    return suites.answered_before(store, one.prompt.digest, model_id, sampling_id, one.seed, one.place[2])


def _told(engine: Engine, one: _Asked) -> Answer | EngineError:
    settings = one.arm.sampling.settings
    try:
        (answer,) = asked_again(
            lambda: engine.client_for(one.arm.model).complete(
                list(one.prompt.messages),
                model=engine_name(one.arm.model),
                seed=one.seed,
                temperature=settings["temperature"],
                top_p=settings["top_p"],
                max_tokens=settings["max_tokens"],
            )
        )
    except EngineError as error:
        return error
    except Problem as problem:  # such as a key that is not there: the next would miss it as well
        return EngineError(str(problem), problem.code, status=None, **problem.values)
    return answer


def is_of_the_engine(error: EngineError) -> bool:
    """Not of this prompt: the next would fail as well."""
    return error.status is None or error.status in (401, 403, 404, 429) or error.status >= 500


def _given(one: _Asked, completion: Completion, told: Mapping[str, Told] | None = None) -> Given:
    return Given(
        answer=completion.text,
        expected=one.case.expected,
        values=dict(one.case.values or {}),
        seconds=completion.seconds,
        tokens=completion.tokens,
        mean_logp=completion.mean_logp,
        finish_reason=completion.finish_reason,
        told=told or {},
    )


def _cell(run: SuiteRun, marking: _Marking, one: _Asked, completion: Completion, told: Mapping[str, Told]) -> Cell:
    case_id, arm, repeat = one.place
    asked = marking.of_case(case_id)
    found = scored(asked.checks, _given(one, completion, told), asked.threshold)
    results = tuple(
        (round(said.score, 12), said.passed, stored(said.reason), *(() if said.is_known else (False,)))
        for said in found.results
    )
    return Cell(
        run_id=run.id or 0, arm=arm, case_id=case_id, repeat=repeat, completion_id=completion.id, score=found.score,
        passed=found.passed, results=results,
    )  # fmt: skip


def _without(run: SuiteRun, place: tuple[int, int, int], problem: str) -> Cell:
    case_id, arm, repeat = place
    return Cell(
        run_id=run.id or 0, arm=arm, case_id=case_id, repeat=repeat, completion_id=None, score=0.0, passed=False, results=(),
        problem=stored_text(problem or Phrase("no answer", "no_answer_came")),
    )  # fmt: skip
