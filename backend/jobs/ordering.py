"""Putting a job into the queue: what it may see is frozen, and its settings, seed and models stand in one row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend.problem import Problem
from backend.stats.people import relied_on
from backend.stats.reliability import Pairs
from backend.training import settings as training
from feedback_db import Store, audit, comparisons, jobs, models, people, snapshots
from feedback_db.store import as_json
from feedback_db.types import Job, Model, Person, Snapshot

FEWEST_TOGETHER = 30  # comparisons that several people judged, or gold, from which on tables of people say something
STATISTICS = {  # of a snapshot, and what a job says of it before it runs
    "judgements_left_out": "The weights of people leave out {judgements_left_out} judgements; {comparisons_left_out} comparisons have no other.",
    "soft_comparisons": (
        "{soft_comparisons} pairs are learnt as what is probable, by the reliability of {soft_people} people, estimated from {comparisons} "
        "comparisons that several of them judged or that are gold."
    ),
    "weighed_people": (
        "Where people call one answer good and bad, each counts by the reliability of {weighed_people} people, estimated from {comparisons} "
        "comparisons that several of them judged or that are gold."
    ),
}


class NotReady(Problem):
    """A job cannot start yet; the message says what is missing and what to do."""


def weighed(
    store: Store, settings: training.CommonSettings
) -> tuple[training.CommonSettings, Mapping[int, float] | None]:
    """The settings with pseudonyms in the place of names, and person id -> weight; None without weights."""
    if not isinstance(settings, training.RewardSettings | training.DPOSettings | training.KTOSettings):
        return settings, None
    weights: dict[int, float] = {}
    stored = []
    for name, weight in training.weights_of(settings.annotator_weights).items():
        judge = people.named(store, name)
        if judge is None or judge.id is None:
            raise training.BadSettings(
                f"'annotator_weights' names {name}, and nobody has that name. Write names as the People page has them.",
                "weights_unknown",
                name=name,
            )
        if judge.id in weights:
            raise training.BadSettings(
                f"'annotator_weights' names {name} twice. Give each person one weight.", "weights_twice", name=name
            )
        weights[judge.id] = weight
        stored.append((judge.pseudonym, weight))
    return replace(settings, annotator_weights=training.weights_text(dict(stored))), weights or None


def freeze(
    store: Store,
    person: Person,
    project_id: int,
    kind: str,
    settings: training.CommonSettings,
    newest: Model | None = None,
    estimated: Pairs | None = None,
) -> Snapshot:
    """What a job of this kind may see; of people its settings give no weight, nothing. ``newest``: the policy whose
    newest answers a reward model's report looks at. ``estimated``: what ``estimate`` found; without it, it is found now."""
    found = estimated or estimate(store, project_id, settings)
    tables = _tables(found) if found else None
    if kind in ("reward", "dpo"):
        return _freeze_preferences(store, person, project_id, settings, newest, tables)
    if kind == "kto":
        return _freeze_unpaired(store, person, project_id, settings, tables)
    if kind == "pretrain":
        return snapshots.freeze_texts(store, project_id, "texts", person.id)
    if kind == "sft":
        return snapshots.freeze_answers(store, project_id, "answers", person.id)
    prompt_ids = [p.id for p, _ in comparisons.asked_prompts(store, project_id) if p.id is not None]
    return snapshots.freeze_prompts(store, project_id, "prompts", prompt_ids, person.id)


def _freeze_preferences(
    store: Store,
    person: Person,
    project_id: int,
    settings: training.CommonSettings,
    newest: Model | None,
    tables: dict[str, Any] | None,
) -> Snapshot:
    _, weights = weighed(store, settings)
    of_reward = settings if isinstance(settings, training.RewardSettings) else None
    made = snapshots.freeze_preferences(
        store,
        project_id,
        "preferences" if of_reward else "pairs with prompts",
        person.id,
        with_prompts=not of_reward,
        weights=weights,
        with_good=of_reward is not None and of_reward.adv_coef > 0,
        newest_of=newest.id if newest else None,
        reliability=tables,
    )
    _check_left(made, weights)
    return made


def _freeze_unpaired(
    store: Store, person: Person, project_id: int, settings: training.CommonSettings, tables: dict[str, Any] | None
) -> Snapshot:
    _, weights = weighed(store, settings)
    made = snapshots.freeze_unpaired(
        store,
        project_id,
        "good and bad answers",
        person.id,
        weights=weights,
        reliability=tables,
    )
    _check_left(made, weights)
    return made


def _check_left(made: Snapshot, weights: Mapping[int, float] | None) -> None:
    if weights and not made.n:
        raise training.BadSettings(
            "'annotator_weights' leaves no judgement. Give somebody who judged a weight above 0.", "weights_none"
        )


def estimate(store: Store, project_id: int, settings: training.CommonSettings) -> Pairs | None:
    """How far people can be relied on, where the settings ask for it. It takes seconds: to be called before a transaction."""
    return relied_on(store, project_id) if getattr(settings, "reliability", "off") == "estimated" else None


def _tables(found: Pairs) -> dict[str, Any]:
    """Tables of people as a snapshot keeps them."""
    if found.comparisons < FEWEST_TOGETHER:
        raise NotReady(
            f"How far people can be relied on shows in pairs that several of them judged, or in gold. {FEWEST_TOGETHER} are needed; "
            f"there are {found.comparisons}. Ask for more judgements per comparison, or set 'reliability' to off.",
            "few_together",
            minimum=FEWEST_TOGETHER,
            count=found.comparisons,
        )
    return {
        "prior": [round(value, 6) for value in found.prior],
        "people": {
            str(id): [[round(value, 6) for value in row] for row in table] for id, table in sorted(found.tables.items())
        },
        "comparisons": found.comparisons,
    }


def queue(
    store: Store,
    person: Person,
    kind: str,
    settings: training.CommonSettings | training.ScoreSettings,
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
    if despite:
        _say(store, job, f"Goes on with a weak reward model: {despite}")
    for word, text in STATISTICS.items():
        if word in (snapshot.statistics or {}):
            _say(store, job, text.format(**(snapshot.statistics or {}), **snapshot.filters.get("reliability", {})))
    return job


def _say(store: Store, job: Job, text: str) -> None:
    """A message of the job from before it runs."""
    jobs.record_events(store, job.id or 0, [{"kind": "message", "at": store.now(), "text": text}])


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
