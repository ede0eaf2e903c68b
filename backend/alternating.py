"""Rounds: a reward job, an IFT job that follows it, and again, until the reward model no longer separates.

All that is known of a series stands in its rounds' rows; ``advance`` looks at the jobs and moves each series on by one
transaction. Jobs have the round's own key, so nothing that is done twice, or cut short, starts a job twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from backend import access
from backend.jobs import ordering
from backend.jobs.ordering import NotReady
from backend.jobs.supervisor import Supervisor
from backend.problem import Problem
from backend.stats.reliability import Pairs
from backend.training import settings as training
from feedback_db import Store, audit, comparisons, models, people, rounds, snapshots
from feedback_db.types import Job, Model, Person, Project, Round

UNDER_WAY = ("queued", "running", "paused", "interrupted", "cancelling")  # states of a job that a round waits for


class RoundView(NamedTuple):
    """A round as the log shows it."""

    round: Round
    by: str
    jobs: tuple[Job | None, Job | None]  # reward, policy
    waits_for: int  # judgements people still owe; 0 when it does not wait for people


class Wanted(NamedTuple):
    """Whose answers people are to judge before a series goes on, and how many judgements are missing."""

    project_id: int
    model_id: int
    missing: int


def refusal(store: Store, person: Person, project_id: int) -> NotReady | None:
    """Why a series cannot be started now."""
    access.require(person, "retrain")
    if rounds.open_round(store, project_id) is not None:
        return NotReady("Rounds are under way in this project. Wait for them, or stop them first.", "rounds_under_way")
    count = snapshots.trainable_count(store, project_id)
    if too_few := ordering.too_few_to_judge(count, training.RewardSettings().min_comparisons):
        return too_few
    if not comparisons.asked_prompts(store, project_id):
        return NotReady("IFT needs prompts: send comparisons to labelling first.", "no_prompts", method="IFT")
    return None


def start_rounds(
    store: Store,
    person: Person,
    project_id: int,
    *,
    changes: Mapping[str, Any],
    reward: Mapping[str, Any],
    ift: Mapping[str, Any],
    seed: int = 0,
    despite: str = "",
    key: str | None = None,
) -> Round:
    """Begin a series: its first reward job is queued. ``changes`` are of RoundsSettings, ``reward`` and ``ift`` of the jobs.

    One ``key`` is one series, however often it is sent. Raises NotReady, training.BadSettings.
    """
    access.require(person, "retrain")
    wanted = training.make(training.RoundsSettings, changes)
    more = {"adv_coef": wanted.adv_coef} if wanted.kind == "adversarial" else {}
    of_reward, of_ift = (
        training.make(training.RewardSettings, {**reward, **more}),
        training.make(training.IFTSettings, ift),
    )
    series = key or uuid.uuid4().hex
    estimated = ordering.estimate(store, project_id, of_reward)
    with store.write():
        if known := rounds.of_series(store, series):
            return known[0]
        store.get(Project, project_id)
        if why := refusal(store, person, project_id):
            raise why
        settings = {
            "rounds": training.as_dict(wanted),
            "reward": training.as_dict(ordering.weighed(store, of_reward)[0]),  # pseudonyms: a series outlives a name
            "ift": training.as_dict(of_ift),
            "despite": despite.strip(),
        }
        begun = _begin(
            store,
            person,
            models.live(store, "policy"),
            estimated,
            project_id=project_id,
            series=series,
            number=1,
            wanted=wanted.rounds,
            kind=wanted.kind,
            settings=settings,
            seed=seed,
        )
        facts = {"kind": begun.kind, "wanted": begun.wanted, "despite_weak_reward": bool(settings["despite"])}
        audit.record(store, person, "start_rounds", "round", begun.id, facts)
        return begun


def stop_rounds(store: Store, supervisor: Supervisor, person: Person, project_id: int) -> Round | None:
    """End the series under way and stop its job; the models it made stay. None when no series is under way."""
    access.require(person, "retrain")
    with store.write():
        found = rounds.open_round(store, project_id)
        if found is None:
            return None
        stopped = rounds.finish(store, found, "stopped", "stopped_by_person")
        audit.record(store, person, "stop_rounds", "round", stopped.id, {"number": stopped.number})
    job = store.get(Job, stopped.policy_job_id or stopped.reward_job_id)
    if job.state in UNDER_WAY:
        supervisor.stop(job)
    return stopped


def round_log(store: Store, person: Person, project_id: int) -> list[RoundView]:
    """Newest first."""
    access.require(person, "retrain")
    return [
        RoundView(
            round,
            people.shown_name(store, round.person_id),
            (store.get(Job, round.reward_job_id), store.get(Job, round.policy_job_id) if round.policy_job_id else None),
            max(0, _missing(store, round)) if round.state == "waiting_for_people" else 0,
        )
        for round in rounds.of_project(store, project_id)
    ]


def wanted_answers(store: Store) -> list[Wanted]:
    """For the app itself, which fills the queue: what series wait for people to judge."""
    found = []
    for round in rounds.under_way(store):
        missing = _missing(store, round) if round.state == "waiting_for_people" else 0
        if missing > 0:
            found.append(Wanted(round.project_id, _made_by(store, round.policy_job_id), missing))
    return found


def advance(store: Store) -> None:
    """Move every series on as far as its jobs and its people have come. The app itself calls this, again and again."""
    for round in rounds.under_way(store):
        try:
            estimated = _estimated(store, round)
            with store.write():
                now = store.get(Round, round.id or 0)
                if now.finished_at is None:
                    _move_on(store, now, estimated)
        except Problem as problem:  # it would come again every second
            _give_up(store, round, problem)


def _give_up(store: Store, round: Round, problem: Problem) -> None:
    with store.write():
        now = store.get(Round, round.id or 0)
        if now.finished_at is None:
            rounds.finish(store, now, "failed", "cannot_go_on", problem=str(problem))


def run_to_rest(
    store: Store,
    supervisor: Supervisor,
    person: Person,
    series: Round,
    tell: Callable[[RoundView], None],
    every_seconds: float = 0.5,
) -> RoundView:
    """Watch a series until it ends or only people can move it on, for programs without pages; ``tell`` hears each change."""
    told = None
    while True:
        supervisor.tick()
        advance(store)
        view = next(v for v in round_log(store, person, series.project_id) if v.round.series == series.series)
        job = view.jobs[1] or view.jobs[0]
        if (now := (view.round.number, view.round.state, job and job.step)) != told:
            told = now
            tell(view)
        if view.round.finished_at or view.round.state == "waiting_for_people" or (job and job.state == "paused"):
            return view
        time.sleep(every_seconds)


# ---- one round


def _estimated(store: Store, round: Round) -> Pairs | None:
    """How far people can be relied on, where this round seems to be at its end and the next one's reward job may ask."""
    if round.state == "waiting_for_people":
        is_over = _missing(store, round) <= 0
    else:
        is_over = bool(round.policy_job_id) and store.get(Job, round.policy_job_id or 0).state == "done"
    settings = training.make(training.RewardSettings, round.settings["reward"])
    return ordering.estimate(store, round.project_id, settings) if is_over else None


def _move_on(store: Store, round: Round, estimated: Pairs | None) -> None:
    """One step of an unfinished round, when what it waits for has come."""
    if round.state == "waiting_for_people":
        if _missing(store, round) <= 0:
            _next_round(store, round, estimated)
        return
    is_reward = round.state == "training_reward"
    job = store.get(Job, (round.reward_job_id if is_reward else round.policy_job_id) or 0)
    if job.state in UNDER_WAY:
        return
    if job.state != "done":
        rounds.finish(store, round, "failed", "job_stopped" if job.state == "cancelled" else "job_failed")
    elif is_reward:
        _follow(store, round, job)
    else:
        _made_a_policy(store, round, job, estimated)


def _follow(store: Store, round: Round, job: Job) -> None:
    """The reward job is done: end the series by a rule, or queue the IFT job that follows the new reward model."""
    reward = store.get(Model, job.output_model_id or 0)
    report = _report(store, reward.id or 0, "reward")
    facts = {name: report.get(name) for name in ("accuracy", "verdict")}
    facts |= {name: report.get("adversarial", {}).get(name) for name in ("separation", "separation_before")}
    facts["newest"] = report.get("newest")
    reason = _ends(store, round, report)
    if reason == "accuracy_fell":
        _put_back(store, round, reward)
    if reason:
        rounds.finish(store, round, "ended", reason, **facts)
        return
    person = _starter(store, round)
    if person is None:
        rounds.finish(store, round, "failed", "starter_may_not", **facts)
        return
    despite = round.settings["despite"] if report["verdict"] != "usable" else ""
    policy_job = _queue_policy(store, person, round, reward, despite)
    rounds.update(store, round, "training_policy", policy_job_id=policy_job.id, **facts)


def _ends(store: Store, round: Round, report: Mapping[str, Any]) -> str:
    """Which rule ends the series after this round's reward model; empty when none does."""
    first = rounds.of_series(store, round.series)[0].facts.get("accuracy")
    accuracy, most = report.get("accuracy"), round.settings["rounds"]["max_accuracy_fall"]
    if round.number > 1 and first and accuracy and first["value"] - accuracy["value"] > most:
        return "accuracy_fell"
    if round.kind == "adversarial" and report["adversarial"]["separation"]["low"] <= 0.5:
        return "no_separation"
    newest = report.get("newest") or {}
    if round.kind == "cooperative" and round.number > 1 and newest.get("accuracy"):
        floor = max(0.5, *(baseline["value"] for baseline in newest["baselines"].values()))
        if newest["accuracy"]["value"] <= floor:
            return "no_separation"
    return "" if report["verdict"] == "usable" or round.settings["despite"] else "weak_reward_model"


def _made_a_policy(store: Store, round: Round, job: Job, estimated: Pairs | None) -> None:
    held_out = _report(store, job.output_model_id or 0, "ift").get("held_out") or {}
    facts = {"gain": held_out.get("gain"), "kl": held_out.get("kl")}
    if round.number == round.wanted:
        rounds.finish(store, round, "done", "all_done", **facts)
    elif round.kind == "cooperative":
        rounds.update(store, round, "waiting_for_people", **facts)
    else:
        _next_round(store, round, estimated, **facts)


def _next_round(store: Store, round: Round, estimated: Pairs | None, **facts: Any) -> None:
    policy = store.get(Model, _made_by(store, round.policy_job_id))
    person = _starter(store, round)
    if person is None:
        rounds.finish(store, round, "failed", "starter_may_not", **facts)
        return
    rounds.finish(store, round, "done", **facts)
    same = {name: getattr(round, name) for name in ("project_id", "series", "wanted", "kind", "settings", "seed")}
    _begin(store, person, policy, estimated, number=round.number + 1, **same)


def _begin(store: Store, person: Person, policy: Model | None, estimated: Pairs | None, **of_round: Any) -> Round:
    """Queue the round's reward job, which looks at this policy's answers, and add its row."""
    settings = training.make(training.RewardSettings, of_round["settings"]["reward"])
    project_id = of_round["project_id"]
    newest = policy if of_round["kind"] == "cooperative" else None
    job = ordering.queue(
        store,
        person,
        "reward",
        settings,
        project_id=project_id,
        snapshot=ordering.freeze(store, person, project_id, "reward", settings, newest, estimated),
        seed=of_round["seed"],
        key=_key(of_round["series"], of_round["number"], "reward"),
        reward=ordering.former_reward(store, project_id) if settings.adv_coef else None,
        policy=policy,
    )
    return store.add(Round(reward_job_id=job.id or 0, person_id=person.id, **of_round))


def _queue_policy(store: Store, person: Person, round: Round, reward: Model, despite: str) -> Job:
    """The IFT job goes on from the policy that the round's reward job looked at."""
    settings = training.make(training.IFTSettings, round.settings["ift"])
    before = store.get(Job, round.reward_job_id).policy_model_id
    start = store.get(Model, before) if before else None
    return ordering.queue(
        store,
        person,
        "ift",
        settings,
        project_id=round.project_id,
        snapshot=ordering.freeze(store, person, round.project_id, "ift", settings),
        seed=round.seed,
        key=_key(round.series, round.number, "ift"),
        start=start if start and start.adapter else None,
        reward=reward,
        despite=despite,
    )


def _key(series: str, number: int, kind: str) -> str:
    return f"rounds/{series}/{number}/{kind}"


def _put_back(store: Store, round: Round, reward: Model) -> None:
    """The reward model of the round before becomes the current one again, unless somebody chose another meanwhile."""
    before = rounds.of_series(store, round.series)[round.number - 2]
    former = store.get(Model, _made_by(store, before.reward_job_id))
    current = models.live(store, "reward", round.project_id)
    if current is not None and current.id == reward.id != former.id:
        models.move(store, former, "live", reason=f"{reward.name} lost accuracy", person_id=round.person_id)


def _starter(store: Store, round: Round) -> Person | None:
    """The person who started the series, while they may train."""
    person = store.get(Person, round.person_id) if round.person_id else None
    return person if person is not None and access.may(person, "retrain") else None


def _made_by(store: Store, job_id: int | None) -> int:
    """The id of the model a finished job made."""
    return store.get(Job, job_id or 0).output_model_id or 0


def _report(store: Store, model_id: int, kind: str) -> dict[str, Any]:
    found = models.evaluation_of(store, model_id, kind)
    return found.result if found else {}


def _missing(store: Store, round: Round) -> int:
    """Judgements of the round's own policy's answers that are still to be given; not above 0: the series can go on."""
    given = rounds.judgements_of(store, round.project_id, _made_by(store, round.policy_job_id))
    return int(round.settings["rounds"]["min_new_judgements"]) - given
