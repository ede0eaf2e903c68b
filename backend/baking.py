"""Baking: what a model answers under a long few-shot prompt is learnt by an adapter under a short one (prompt distillation).

Snell et al. 2022 (arXiv:2209.15189). Three stages, each a thing of its own that can be seen, stopped and killed: a run of a suite
asks the long prompt about cases for training, an SFT job learns the answers under the short prompt, and a second run tests both on
cases that neither saw. Its summary tells the tokens saved and the accuracy lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from backend import access
from backend.engines.client import Client, EngineError
from backend.engines.kept import SamplingSettings, keep_prompt, keep_sampling
from backend.jobs import ordering
from backend.problem import Problem, stored_text, words_of
from backend.stats.agreement import share
from backend.stats.linear import classify
from backend.suites.own import graders_of, suite_digest
from backend.training import settings as training
from feedback_db import Store, audit, bakes, models, snapshots, suites
from feedback_db.cases import conversation
from feedback_db.types import Bake, Case, Job, Model, Person, Sampling, Suite, SuiteRun, Template

FEWEST_TESTED = 5  # cases without which a test says nothing; our choice
ENDED = {"failed": "job_failed", "cancelled": "job_stopped"}


class CannotBake(Problem):
    """A bake that cannot start; the message says what is missing."""


class Engine(Protocol):
    def client(self) -> Any: ...

    def client_for(self, model: Model) -> Client: ...


class Told(NamedTuple):
    """A bake as a page shows it."""

    bake: Bake
    suite: Suite
    long: Template
    short: Template
    run: SuiteRun
    job: Job | None
    test_run: SuiteRun | None
    baked: Model | None
    arms: list[tuple[Template, Model]]  # the columns of the test run


def start(
    store: Store,
    person: Person,
    suite_id: int,
    long_id: int,
    short_id: int,
    *,
    passed: bool = True,
    max_tokens: int = 96,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Bake:
    """Begin to bake. ``passed``: only answers that pass the suite's checks are learnt; ``changes`` are to SFT's settings.

    Raises CannotBake, training.BadSettings.
    """
    access.require(person, "retrain")
    sft = training.make(training.SFTSettings, changes or {})
    suite, long, short = store.get(Suite, suite_id), store.get(Template, long_id), store.get(Template, short_id)
    model = models.live(store, "policy")
    if model is None or model.id is None:
        raise CannotBake(
            "There is no policy to answer yet. Start the app once, so that it registers its base.", "no_base"
        )
    if long_id == short_id or {long.project_id, short.project_id} != {suite.project_id}:
        raise CannotBake("Choose two different templates of the suite's project.", "bake_templates")
    if graders_of(suite):
        raise CannotBake(
            "A check of this suite asks a model. Choose a suite whose checks are deterministic.", "bake_graders"
        )
    learnt = [id for id in suite.case_ids if store.get(Case, id).split != "test"]
    tested = [id for id in suite.case_ids if store.get(Case, id).split == "test"]
    least = sft.min_answers
    if len(learnt) < least or len(tested) < FEWEST_TESTED:
        raise CannotBake(
            f"A bake needs {least} cases to learn from and {FEWEST_TESTED} test cases; this suite has {len(learnt)} and {len(tested)}.",
            "bake_cases",
            least=least,
            tested=FEWEST_TESTED,
            learnt=len(learnt),
            found=len(tested),
        )
    with store.write():
        sampling = keep_sampling(store, SamplingSettings(temperature=0.0, max_tokens=max_tokens))
        settings = {"passed": passed, "seed": seed, "sampling": sampling.id, "sft": training.as_dict(sft)}
        run = _run(store, person, _part(store, person, suite, "train", learnt), [(long_id, model.id)], sampling, seed)
        made = store.add(
            Bake(
                project_id=suite.project_id, suite_id=_part(store, person, suite, "test", tested).id or 0, long_id=long_id,
                short_id=short_id, model_id=model.id, settings=settings, run_id=run.id or 0, person_id=person.id,
            )
        )  # fmt: skip
        audit.record(store, person, "start_bake", "bake", made.id, {"run": run.id})
        return made


def stop(store: Store, person: Person, bake_id: int) -> Bake:
    """It goes no further; a run or a job that is under way is stopped where it stands on its own page."""
    access.require(person, "retrain")
    bake = store.get(Bake, bake_id)
    if bake.finished_at is not None:
        return bake
    for run_id in (bake.run_id, bake.test_run_id):
        if run_id and store.get(SuiteRun, run_id).state == "running":
            suites.set_state(store, run_id, "stopped")
    audit.record(store, person, "stop_bake", "bake", bake_id, {})
    return bakes.update(store, bake, "stopped")


def told(store: Store, person: Person, project_id: int) -> list[Told]:
    """Newest first."""
    access.require(person, "retrain")
    return [_told(store, bake) for bake in bakes.of_project(store, project_id)]


def advance(store: Store, engine: Engine) -> None:
    """Move every bake on whose stage is over; the app itself calls this again and again."""
    for bake in bakes.under_way(store):
        try:
            _move_on(store, engine, bake)
            _tell(store, bake, _waits_for(store, bake))
        except EngineError as problem:  # it rests or starts anew: it is asked again the next time
            _tell(store, bake, stored_text(words_of(problem)))
        except Problem as problem:
            bakes.update(store, bake, "failed", why=stored_text(words_of(problem)))


def _tell(store: Store, bake: Bake, why: str) -> None:
    """What a bake that is under way waits for; nothing when it does not."""
    now = store.get(Bake, bake.id or 0)
    if now.finished_at is None and now.why != why:
        bakes.update(store, now, now.state, why=why)


def _waits_for(store: Store, bake: Bake) -> str:
    run = _run_of(store, bake)
    return run.problem if run is not None and run.state == "stopped" else ""


def _run_of(store: Store, bake: Bake) -> SuiteRun | None:
    """The run that its stage is about."""
    id = {"asking": bake.run_id, "testing": bake.test_run_id}.get(bake.state)
    return store.get(SuiteRun, id) if id else None


def _move_on(store: Store, engine: Engine, bake: Bake) -> None:
    if bake.state == "training":
        job = store.get(Job, bake.job_id or 0)
        if job.state in ENDED:
            bakes.update(store, bake, "failed", why=job.error or ENDED[job.state])
        elif job.state == "done":
            _test(store, bake, job)
        return
    run = store.get(SuiteRun, (bake.run_id if bake.state == "asking" else bake.test_run_id) or 0)
    if run.state == "stopped" and not run.problem:  # by somebody; one that its engine stopped can go on
        bakes.update(store, bake, "failed", why="the run was stopped")
    elif run.state == "done" and bake.state == "asking":
        _learn(store, engine, bake)
    elif run.state == "done":
        bakes.update(store, bake, "done", facts=_facts(store, engine, bake))


def _learn(store: Store, engine: Engine, bake: Bake) -> None:
    """Put the answers under the short prompt and queue the SFT job."""
    person = store.get(Person, bake.person_id or 0)
    access.require(person, "retrain")
    short, model = store.get(Template, bake.short_id), store.get(Model, bake.model_id)
    sampling = store.get(Sampling, bake.settings["sampling"])
    client, most = engine.client_for(model), int(sampling.settings["max_tokens"])
    pairs = [
        (keep_prompt(store, engine, client, short, store.get(Case, case_id), most, person.id).id or 0, completion_id)
        for case_id, completion_id in bakes.answered(store, bake.run_id, passed=bake.settings["passed"])
    ]
    settings = training.make(training.SFTSettings, bake.settings["sft"])
    least = settings.min_answers
    if len(pairs) < least:
        raise CannotBake(
            f"Only {len(pairs)} answers of the long prompt can be learnt; {least} are needed. Add cases, or learn answers that fail too."
        )
    with store.write():
        job = ordering.queue(
            store, person, "sft", settings, project_id=bake.project_id,
            snapshot=snapshots.freeze_baked(store, bake.project_id, "baked answers", person.id, pairs),
            seed=bake.settings["seed"], key=f"bake/{bake.id}", start=model if model.adapter else None,
        )  # fmt: skip
        bakes.update(store, bake, "training", job_id=job.id)


def _test(store: Store, bake: Bake, job: Job) -> None:
    """Ask the test cases of the long prompt, the short one and the baked one, beside the bare base where another answered."""
    person = store.get(Person, bake.person_id or 0)
    columns = [(bake.long_id, bake.model_id), (bake.short_id, bake.model_id), (bake.short_id, job.output_model_id or 0)]
    base = models.resolve(store, "base")
    if base is not None and base.id is not None and base.id != bake.model_id:
        columns += [(bake.long_id, base.id), (bake.short_id, base.id)]
    with store.write():
        sampling = store.get(Sampling, bake.settings["sampling"])
        run = _run(store, person, store.get(Suite, bake.suite_id), columns, sampling, bake.settings["seed"])
        bakes.update(store, bake, "testing", test_run_id=run.id)


def _facts(store: Store, engine: Engine, bake: Bake) -> dict[str, Any]:
    """What a linear probe on the base's features of the bare cases reaches, where the answers are a closed set."""
    labels = store.get(Template, bake.long_id).labels
    if not labels:
        return {}
    train, test = (
        [case for case in cases if case.expected in labels]
        for cases in (
            [store.get(Case, id) for id, _ in bakes.answered(store, bake.run_id, passed=False)],
            [store.get(Case, id) for id in store.get(Suite, bake.suite_id).case_ids],
        )
    )
    if len(train) < len(labels) or not test:
        return {}
    texts = [conversation(case.values, case.conversation)[-1]["content"] for case in [*train, *test]]
    features = np.asarray(engine.client().embeddings(texts).vectors, dtype=np.float64)
    truths = [labels.index(case.expected or "") for case in [*train, *test]]
    n = len(train)
    said = classify(features[:n], truths[:n], features[n:], len(labels))
    right = sum(one == truth for one, truth in zip(said, truths[n:], strict=True))
    return {"probe": {**share(right, len(test))._asdict(), "learnt": n}}


def _part(store: Store, person: Person, suite: Suite, name: str, case_ids: list[int]) -> Suite:
    """The suite with these of its cases alone, as a suite of its own; one that is there already is that one."""
    own = {str(id): suite.own[str(id)] for id in case_ids if str(id) in suite.own}
    called = f"{suite.name} · {name}"[:120]
    key = suite_digest(case_ids, suite.checks, suite.threshold, own)
    newest = suites.newest(store, suite.project_id, called)
    if newest is not None and newest.digest == key:
        return newest
    return store.add(
        Suite(
            project_id=suite.project_id, name=called, version=newest.version + 1 if newest else 1, case_ids=tuple(case_ids),
            checks=suite.checks, threshold=suite.threshold, own=own, digest=key, person_id=person.id,
        )
    )  # fmt: skip


def _run(
    store: Store, person: Person, suite: Suite, columns: list[tuple[int, int]], sampling: Sampling, seed: int
) -> SuiteRun:
    arms = tuple({"template": t, "model": m, "sampling": sampling.id or 0} for t, m in columns)
    return store.add(
        SuiteRun(
            project_id=suite.project_id, suite_id=suite.id or 0, arms=arms, seed=seed, total=len(arms) * len(suite.case_ids),
            person_id=person.id,
        )
    )  # fmt: skip


def _told(store: Store, bake: Bake) -> Told:
    job = store.get(Job, bake.job_id) if bake.job_id else None
    test_run = store.get(SuiteRun, bake.test_run_id) if bake.test_run_id else None
    return Told(
        bake, store.get(Suite, bake.suite_id), store.get(Template, bake.long_id), store.get(Template, bake.short_id),
        store.get(SuiteRun, bake.run_id), job, test_run,
        store.get(Model, job.output_model_id) if job and job.output_model_id else None,
        [(store.get(Template, arm["template"]), store.get(Model, arm["model"])) for arm in (test_run.arms if test_run else ())],
    )  # fmt: skip
