"""Prioritising: which comparisons are asked first, by which rule, and whether that has been worth it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from backend import access
from backend.jobs import ordering
from backend.problem import Problem
from backend.training import settings as training
from backend.training.score_settings import RULES
from feedback_db import Store, audit, jobs, models, people, priorities, snapshots
from feedback_db.types import Job, Model, Person, Project, Snapshot

FEWEST_JUDGED = 200  # as backend/training/scoring.py has it
SHOWN = 8
EVERY_LEAST, EVERY_MOST = 20, 100_000  # new judgements after which the queue is ordered by itself
UNDER_WAY = ("queued", "running", "interrupted", "cancelling")


class CannotOrder(Problem):
    """The queue cannot be ordered now; the message says what is missing."""


class First(NamedTuple):
    """A comparison near the top of the priority arm: ``rule`` is why, ``chance`` the predicted share of its first answer."""

    id: int
    score: float | None
    rule: str
    chance: float | None


class Automatic(NamedTuple):
    """Whether the queue is ordered anew by itself, and how far it is from that."""

    every: int  # new judgements; 0 is off
    rule: str
    by: str  # who asked for it
    new: int  # judgements since the newest order began
    judged: int


class Order(NamedTuple):
    """What the page shows of the queue's order."""

    job: Job | None  # the newest one
    report: Mapping[str, Any] | None  # of the newest that ended well
    counts: Mapping[str, int]  # feedback_db.priorities.counts
    random_share: float
    first: list[First]
    automatic: Automatic


def state(store: Store, person: Person, project_id: int) -> Order:
    """The arms, what comes next and why, and the measured gain of the newest ordering."""
    access.require(person, "review")
    project = store.get(Project, project_id)
    done = jobs.newest_done(store, project_id, "score")
    return Order(
        _newest(store, project_id),
        _report(store, done),
        priorities.counts(store, project_id),
        float(project.settings.get("random_share", 0.3)),
        [_first(row) for row in priorities.top(store, project_id, SHOWN)],
        _automatic(store, project),
    )


def start(store: Store, person: Person, project_id: int, rule: str, *, key: str | None = None) -> Job:
    """Queue a job that orders what waits by this rule. Raises CannotOrder, training.BadSettings."""
    access.require(person, "review")
    settings = training.make(training.ScoreSettings, {"rule": rule})
    with store.write():
        if key and (known := jobs.with_key(store, key)):
            return known
        if store.find(Job, f"project_id = ? and kind = 'score' and state in {UNDER_WAY}", [project_id], limit=1):
            raise CannotOrder("The queue is being ordered already. Wait until it is done.", "ordering_already")
        waiting = priorities.waiting(store, store.get(Project, project_id))
        if not waiting:
            raise CannotOrder(
                "No comparison waits that nobody has begun and that chance did not keep in the random arm. Send more to labelling.",
                "nothing_to_order",
            )
        reward = _ensemble(store, project_id) if rule == "disagreement" else None
        count = snapshots.trainable_count(store, project_id)
        if rule != "coverage" and reward is None and count < FEWEST_JUDGED:
            raise CannotOrder(
                f"The rule needs {FEWEST_JUDGED} judgements to learn from; there are {count}. Until then chance's order is better.",
                "few_to_order_by",
                minimum=FEWEST_JUDGED,
                count=count,
            )
        return ordering.queue(
            store, person, "score", settings, project_id=project_id, seed=0, key=key,
            snapshot=snapshots.freeze_queue(store, project_id, "queue", person.id, waiting),
            reward=reward,
        )  # fmt: skip


def repeat(store: Store, person: Person, project_id: int, rule: str, every: int) -> Project:
    """Order the queue by this rule whenever so many judgements came since the last order; 0 leaves it to the button."""
    access.require(person, "review")
    settings = training.make(training.ScoreSettings, {"rule": rule})
    if every and not EVERY_LEAST <= every <= EVERY_MOST:
        raise CannotOrder(
            f"The queue is ordered by itself after {EVERY_LEAST} to {EVERY_MOST} new judgements; 0 leaves it to the button.",
            "bad_every",
            least=EVERY_LEAST,
            most=EVERY_MOST,
        )
    with store.write():
        before = store.get(Project, project_id)
        changed = {**before.settings, "order_every": every, "order_rule": settings.rule, "order_by": person.id}
        priorities.save_settings(store, project_id, changed)
        audit.record(store, person, "repeat_order", "project", project_id, {"rule": rule, "every": every})
        return store.get(Project, project_id)


def advance(store: Store) -> list[Job]:
    """Order the queues of all projects that ask for it and have enough new judgements; the jobs begun. The app calls this, again
    and again. It acts as whoever asked for it: without the right to review any more, theirs are not ordered.

    A project with fewer than FEWEST_JUDGED judgements is left in chance's order, whatever the rule. A job that failed is not
    begun again before as many judgements came once more.
    """
    begun = []
    for project in store.find(Project, "archived_at is null"):
        asked = _automatic(store, project)
        if not asked.every or asked.judged < FEWEST_JUDGED or asked.new < asked.every:
            continue
        person = store.find(Person, "id = ?", [project.settings["order_by"]], limit=1)
        try:
            begun += [start(store, one, project.id or 0, asked.rule) for one in person]
        except (
            CannotOrder,
            ordering.NotReady,
            access.Denied,
        ):  # nothing waits, an order is under way, or it is theirs no more
            continue
    return begun


def _automatic(store: Store, project: Project) -> Automatic:
    every = int(project.settings.get("order_every", 0))
    newest = _newest(store, project.id or 0) if every else None
    seen = store.get(Snapshot, newest.snapshot_id).as_of_judgement_id if newest and newest.snapshot_id else 0
    return Automatic(
        every,
        str(project.settings.get("order_rule", RULES[0])),
        people.shown_name(store, project.settings.get("order_by")) if every else "",
        snapshots.trainable_count(store, project.id or 0, seen) if every else 0,
        snapshots.trainable_count(store, project.id or 0) if every else 0,
    )


def _ensemble(store: Store, project_id: int) -> Model | None:
    """The current reward model, where it has several members on the base that is served."""
    reward, base = models.live(store, "reward", project_id), models.resolve(store, "base")
    if reward is None or base is None or reward.base_fingerprint != base.base_fingerprint:
        return None
    report = models.evaluation_of(store, reward.id or 0, "reward")
    return reward if report is not None and int(report.settings.get("num_members", 1)) > 1 else None


def shuffle(store: Store, person: Person, project_id: int) -> int:
    """Ask in a random order again; returns how many comparisons were ordered until now."""
    access.require(person, "review")
    with store.write():
        count = priorities.shuffle(store, store.get(Project, project_id))
        audit.record(store, person, "shuffle_queue", "project", project_id, {"comparisons": count})
        return count


def _report(store: Store, job: Job | None) -> Mapping[str, Any] | None:
    """What the job's worker said when it was done."""
    if job is None:
        return None
    done = [event for event in jobs.events(store, job.id or 0) if event["kind"] == "done"]
    found: Mapping[str, Any] = json.loads(done[-1]["facts"])["report"]
    return found


def _first(row: Mapping[str, Any]) -> First:
    """The worker's reason is a rule and a share; other reasons are the words of whoever asked."""
    rule, _, chance = row["reason"].rpartition(" ")
    if rule in RULES:
        return First(row["id"], row["score"], rule, float(chance))
    return First(row["id"], row["score"], row["reason"], None)


def job_state(store: Store, person: Person, project_id: int) -> list[Any]:
    """Changes when an ordering begins or ends: [job id, state]. Cheap enough to be asked every few seconds."""
    access.require(person, "review")
    newest = _newest(store, project_id)
    return [newest.id, newest.state] if newest else []


def _newest(store: Store, project_id: int) -> Job | None:
    return next(iter(store.find(Job, "project_id = ? and kind = 'score'", [project_id], "id desc", 1)), None)
