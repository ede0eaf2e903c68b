"""What admins do with judgements: see whether training is worth it, start a job, watch it, pause it, stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backend import access
from backend.jobs import ordering
from backend.jobs.ordering import NotReady
from backend.jobs.supervisor import Supervisor
from backend.training import settings as training
from feedback_db import Store, audit, comparisons, documents, jobs, models, people, snapshots
from feedback_db.types import Evaluation, Job, Model, Person, Project, Snapshot

FOLLOW_REWARD = ("ppo", "ift")  # kinds that learn from a reward model's scores


class Readiness(NamedTuple):
    """What the train page shows before anybody clicks."""

    judgements: int  # trainable ones
    new: int  # of these, given since the newest reward model's snapshot
    minimum: int
    demonstrations: int  # worked examples SFT would learn from, beside what was judged
    prompts: int  # distinct prompts PPO and IFT would train on
    texts: int  # plain texts pretraining would learn from, those held out left aside
    reward: Model | None
    report: Mapping[str, Any] | None  # of the reward model
    policy: Model | None
    refusals: Mapping[str, NotReady]  # kind of job -> why it cannot start; a kind that can is not in it


def readiness(store: Store, person: Person, project_id: int) -> Readiness:
    """How many judgements there are, what the current reward model is worth, and what may be started."""
    access.require(person, "retrain")
    count = snapshots.trainable_count(store, project_id)
    shown = len(snapshots.demonstrations(store, project_id)) + snapshots.written_count(store, project_id)
    reward, policy = models.live(store, "reward", project_id), models.live(store, "policy")
    report = _report(store, reward)
    asked = len(comparisons.asked_prompts(store, project_id))
    texts = documents.count(store, project_id, "train")
    follows = {kind: _cannot_follow(kind.upper(), reward, policy, asked) for kind in FOLLOW_REWARD}
    verdicts = snapshots.verdicts_at_most(store, project_id)
    learns = {
        "reward": ordering.too_few_to_judge(count, training.RewardSettings().min_comparisons),
        "sft": _too_few_answers(count + shown),
        "dpo": _too_few_pairs(count),
        "kto": _too_few_of_a_kind(verdicts.desirable + shown, verdicts.undesirable),
        "pretrain": _too_few_texts(texts),
    }
    return Readiness(
        judgements=count,
        new=snapshots.trainable_count(store, project_id, _seen_by(store, reward)),
        minimum=training.RewardSettings().min_comparisons,
        demonstrations=shown,
        prompts=asked,
        texts=texts,
        reward=reward,
        report=report.result if report else None,
        policy=policy,
        refusals={kind: why for kind, why in {**learns, **follows}.items() if why is not None},
    )


def _too_few_answers(count: int) -> NotReady | None:
    minimum = training.SFTSettings().min_answers
    if count >= minimum:
        return None
    told = (
        f"SFT needs {minimum} answers to learn from: demonstrations, edited or preferred ones; there are at most {count}. "
        "Label more, or write demonstrations."
    )
    return NotReady(told, "few_answers", minimum=minimum, count=count)


def _too_few_pairs(count: int) -> NotReady | None:
    minimum = training.DPOSettings().min_pairs
    if count >= minimum:
        return None
    told = f"DPO needs {minimum} judged pairs; there are {count}. Label more first."
    return NotReady(told, "few_pairs", minimum=minimum, count=count)


def _too_few_of_a_kind(desirable: int, undesirable: int) -> NotReady | None:
    minimum = training.KTOSettings().min_of_each
    if min(desirable, undesirable) >= minimum:
        return None
    told = (
        f"KTO needs {minimum} desirable and {minimum} undesirable answers; there are at most {desirable} and {undesirable}. "
        "Label more first."
    )
    return NotReady(told, "few_of_a_kind", minimum=minimum, desirable=desirable, undesirable=undesirable)


def _too_few_texts(count: int) -> NotReady | None:
    minimum = training.PretrainSettings().min_texts
    if count >= minimum:
        return None
    told = (
        f"Pretraining needs {minimum} texts in the split 'train'; there are {count}. "
        "Import some: python app.py import corpus.txt --format text --project NAME."
    )
    return NotReady(told, "few_texts", minimum=minimum, count=count)


def _cannot_follow(method: str, reward: Model | None, policy: Model | None, prompts: int) -> NotReady | None:
    """Why a policy cannot be trained on the reward model's scores."""
    if reward is None:
        told = f"{method} needs a reward model. Train one from the judgements first."
        return NotReady(told, "no_reward_model", method=method)
    if policy is not None and reward.base_fingerprint != policy.base_fingerprint:
        return NotReady(
            f"{reward.name} was trained on the base {reward.base}; {policy.base} is served now. Train a reward model on it.",
            "other_base",
            name=reward.name,
            base=reward.base,
            served=policy.base,
        )
    if not prompts:
        return NotReady(f"{method} needs prompts: send comparisons to labelling first.", "no_prompts", method=method)
    return None


def project_name(store: Store, person: Person, project_id: int) -> str:
    """By which name the command line knows a project."""
    access.require(person, "retrain")
    return store.get(Project, project_id).name


def train_reward(
    store: Store, person: Person, project_id: int, *, changes: Mapping[str, Any], seed: int = 0, key: str | None = None
) -> Job:
    """Freeze the judgements and queue a reward job; see ``train``."""
    return train(store, person, project_id, "reward", changes=changes, seed=seed, key=key)


def run_ppo(
    store: Store,
    person: Person,
    project_id: int,
    *,
    changes: Mapping[str, Any],
    seed: int = 0,
    key: str | None = None,
    despite: str = "",
) -> Job:
    """Queue a PPO job on the prompts people were asked about, with the current reward model; see ``train``."""
    return train(store, person, project_id, "ppo", changes=changes, seed=seed, key=key, despite=despite)


def train(
    store: Store,
    person: Person,
    project_id: int,
    kind: str,
    *,
    changes: Mapping[str, Any],
    seed: int = 0,
    key: str | None = None,
    despite: str = "",
) -> Job:
    """Freeze what a job of this kind learns from and queue it. ``key``: one click is one job, however often it is sent.

    A policy goes on from the live one. PPO and IFT follow the current reward model: one that is not better than guessing
    by length or by majority is refused, unless ``despite`` gives the reason for going on; the reason is kept with the
    job. Names in ``annotator_weights`` are stored as pseudonyms: settings outlive an erased name and go with the model.
    Raises NotReady, training.BadSettings.
    """
    access.require(person, "retrain")
    settings = training.make(training.KINDS[kind], changes)
    estimated = ordering.estimate(store, project_id, settings)
    with store.write():
        if known := _known(store, key):
            return known
        ready = readiness(store, person, project_id)
        if kind in ready.refusals:
            raise ready.refusals[kind]
        settings, _ = ordering.weighed(store, settings)
        follows, reason = kind in FOLLOW_REWARD, despite.strip()
        if follows and ready.report is not None and ready.report["verdict"] != "usable" and not reason:
            raise NotReady(
                "The reward model is not shown to be better than guessing, so a policy that follows it would chase noise. "
                "Label more and train it again, or give a reason to go on.",
                "weak_reward_model",
            )
        against = isinstance(settings, training.RewardSettings) and settings.adv_coef > 0
        former = ordering.former_reward(store, project_id) if against else None
        return ordering.queue(
            store,
            person,
            kind,
            settings,
            project_id=project_id,
            snapshot=ordering.freeze(store, person, project_id, kind, settings, estimated=estimated),
            seed=seed,
            key=key,
            start=ready.policy if kind != "reward" and ready.policy and ready.policy.adapter else None,
            reward=ready.reward if follows else former,
            policy=ready.policy if against else None,
            despite=reason if follows else "",
        )


def stop(store: Store, supervisor: Supervisor, person: Person, job_id: int) -> Job:
    """Ask a job to stop; what it had learnt is dropped, the models that exist stay as they are."""
    access.require(person, "retrain")
    job = supervisor.stop(store.get(Job, job_id))
    audit.record(store, person, "stop_job", "job", job_id, {})
    return job


def pause(store: Store, supervisor: Supervisor, person: Person, job_id: int) -> Job:
    """Ask a job to save and to free the processor; its worker does so within seconds."""
    access.require(person, "retrain")
    job = supervisor.pause(store.get(Job, job_id))
    audit.record(store, person, "pause_job", "job", job_id, {})
    return job


def resume(store: Store, supervisor: Supervisor, person: Person, job_id: int) -> Job:
    """Queue a paused or failed job again; it goes on from its newest checkpoint, or from the start if it has none."""
    access.require(person, "retrain")
    job = supervisor.resume(store.get(Job, job_id))
    audit.record(store, person, "resume_job", "job", job_id, {})
    return job


def job_list(store: Store, person: Person, project_id: int) -> list[Job]:
    """Newest first."""
    access.require(person, "retrain")
    return jobs.of_project(store, project_id)


class JobView(NamedTuple):
    """A job as the list shows it."""

    job: Job
    by: str
    snapshot: Snapshot | None
    seconds_left: float | None


def job_views(store: Store, person: Person, project_id: int) -> list[JobView]:
    """Newest first, each with who started it and the data it saw."""
    return [
        JobView(
            job,
            people.shown_name(store, job.person_id),
            store.get(Snapshot, job.snapshot_id) if job.snapshot_id else None,
            _seconds_left(store, job),
        )
        for job in job_list(store, person, project_id)
    ]


class Curves(NamedTuple):
    job: Job
    points: list[dict[str, Any]]  # {"name", "step", "value", "at"}
    events: list[dict[str, Any]]  # {"at", "kind", "facts"}
    seconds_left: float | None


def curves(store: Store, person: Person, job_id: int) -> Curves:
    """Everything the page shows of one job; it is in the database, so a closed tab or a restart loses nothing."""
    access.require(person, "retrain")
    job = store.get(Job, job_id)
    return Curves(job, jobs.metrics(store, job_id), jobs.events(store, job_id), _seconds_left(store, job))


def _seconds_left(store: Store, job: Job) -> float | None:
    """By the pace of the attempt under way; None when nothing can be said."""
    if job.state != "running" or not (job.total_steps and job.started_at and job.heartbeat_at):
        return None
    first = jobs.first_step(store, job)
    if first is None:
        return None
    spent = (job.heartbeat_at - job.started_at) / 1e6
    return spent / (job.step - first + 1) * (job.total_steps - job.step)


def _known(store: Store, key: str | None) -> Job | None:
    return jobs.with_key(store, key) if key else None


def _report(store: Store, reward: Model | None) -> Evaluation | None:
    return models.evaluation_of(store, reward.id, "reward") if reward and reward.id else None


def _seen_by(store: Store, reward: Model | None) -> int:
    """The newest judgement id the reward model's snapshot could hold; 0 when there is no such model."""
    report = _report(store, reward)
    if report is None or report.snapshot_id is None:
        return 0
    return store.get(Snapshot, report.snapshot_id).as_of_judgement_id
