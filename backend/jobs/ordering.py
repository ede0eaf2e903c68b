"""Putting a job into the queue: what it may see is frozen, and its settings, seed and models stand in one row."""

from __future__ import annotations

import hashlib

from backend.problem import Problem
from backend.training import settings as training
from feedback_db import Store, audit, comparisons, jobs, models, snapshots
from feedback_db.store import as_json
from feedback_db.types import Job, Model, Person, Snapshot


class NotReady(Problem):
    """A job cannot start yet; the message says what is missing and what to do."""


def freeze(
    store: Store,
    person: Person,
    project_id: int,
    kind: str,
    settings: training.CommonSettings,
    newest: Model | None = None,
) -> Snapshot:
    """What a job of this kind may see. ``newest``: the policy whose newest answers a reward model's report looks at."""
    if isinstance(settings, training.RewardSettings):
        return snapshots.freeze_preferences(
            store,
            project_id,
            "preferences",
            person.id,
            with_good=settings.adv_coef > 0,
            newest_of=newest.id if newest else None,
        )
    if kind == "dpo":
        return snapshots.freeze_preferences(store, project_id, "pairs with prompts", person.id, with_prompts=True)
    if kind == "sft":
        return snapshots.freeze_answers(store, project_id, "answers", person.id)
    prompt_ids = [p.id for p, _ in comparisons.asked_prompts(store, project_id) if p.id is not None]
    return snapshots.freeze_prompts(store, project_id, "prompts", prompt_ids, person.id)


def queue(
    store: Store,
    person: Person,
    kind: str,
    settings: training.CommonSettings,
    *,
    project_id: int,
    snapshot: Snapshot,
    seed: int,
    key: str | None,
    start: Model | None = None,
    reward: Model | None = None,
    policy: Model | None = None,
    despite: str = "",
) -> Job:
    """``key`` is unique: what is queued twice under one key raises. ``despite``: why a weak reward model is followed."""
    base = models.resolve(store, "base")
    if base is None:
        raise NotReady("There is no base model yet. Start the app once, so that it registers its base.", "no_base")
    values = training.as_dict(settings)
    job = store.add(
        Job(
            project_id=project_id,
            kind=kind,  # type: ignore[arg-type]
            settings=values,
            settings_digest=hashlib.sha256(as_json(values).encode()).digest(),
            seed=seed,
            key=key,
            snapshot_id=snapshot.id,
            base_model_id=base.id,
            start_model_id=start.id if start else None,
            reward_model_id=reward.id if reward else None,
            policy_model_id=policy.id if policy else None,
            person_id=person.id,
        )
    )
    facts = {"kind": kind, "snapshot": snapshot.id, "despite_weak_reward": bool(despite)}
    audit.record(store, person, "start_job", "job", job.id, facts)
    if despite and job.id is not None:
        said = {"kind": "message", "at": store.now(), "text": f"Goes on with a weak reward model: {despite}"}
        jobs.record_events(store, job.id, [said])
    return job


def too_few_to_judge(count: int, minimum: int) -> NotReady | None:
    """Why a reward model cannot be trained on so many judgements."""
    if count >= minimum:
        return None
    told = f"A reward model needs {minimum} judgements; there are {count}. Label more first."
    return NotReady(told, "few_judgements", minimum=minimum, count=count)


def former_reward(store: Store, project_id: int) -> Model | None:
    """The current reward model, where it stands on the base that is served: what a new one can be compared with."""
    former, base = models.live(store, "reward", project_id), models.resolve(store, "base")
    return former if former and base and former.base_fingerprint == base.base_fingerprint else None
