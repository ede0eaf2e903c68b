"""What admins do with models: compare their reports, put one live, take it back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from backend import access
from backend.problem import Problem
from backend.registry import artifacts
from feedback_db import Store, audit, comparisons, models, people, snapshots
from feedback_db.types import Evaluation, Job, Model, Person, Promotion, Snapshot


class CannotPromote(Problem):
    """This model cannot go live; the message says why."""


class ModelView(NamedTuple):
    """A model with everything it rests on."""

    model: Model
    parent: Model | None
    snapshot: Snapshot | None
    report: Evaluation | None
    history: list[Promotion]
    changed_since: int  # trainable judgements given after its snapshot


class Move(NamedTuple):
    """A change of stage, with who made it (empty: the app itself)."""

    promotion: Promotion
    by: str


class Detail(NamedTuple):
    """One model with all it stands on."""

    view: ModelView
    ancestors: list[Model]  # parent first, the bare base last
    job: Job | None
    reward: Model | None  # the reward model its job followed
    against: Model | None  # the policy whose answers its job, of a reward model, looked at
    moves: list[Move]  # newest first
    live: Model | None  # what is live where this one would go
    before: Model | None  # what a roll back of this one would put back
    replaced: int  # open comparisons nobody has begun that a change of the live policy would close


class Outcome(NamedTuple):
    """What the newest change of the live model did."""

    former: Model | None
    comparisons_retired: int


def detail(store: Store, person: Person, model_id: int) -> Detail:
    """Everything one model rests on, and what moving it would do."""
    access.require(person, "see_models")
    view = _view(store, store.get(Model, model_id))
    model = view.model
    job = store.get(Job, model.job_id) if model.job_id else None
    live = models.live(store, model.kind, model.project_id) if model.kind != "external" else None
    return Detail(
        view=view,
        ancestors=_ancestors(store, model),
        job=job,
        reward=store.get(Model, job.reward_model_id) if job and job.reward_model_id and job.kind != "reward" else None,
        against=store.get(Model, job.policy_model_id) if job and job.policy_model_id else None,
        moves=[Move(p, people.shown_name(store, p.person_id)) for p in view.history],
        live=live,
        before=models.live_before(store, model) if model.stage == "live" else None,
        replaced=comparisons.unjudged_of(store, live.id) if live and live.id and live.kind == "policy" else 0,
    )


def outcome(store: Store, person: Person, model: Model) -> Outcome:
    """What putting this model live did, as the audit log has it."""
    access.require(person, "see_models")
    facts = audit.newest_facts(store, ("promote", "roll_back"), "model", model.id)
    former = store.get(Model, facts["from"]) if facts.get("from") else None
    return Outcome(former, facts.get("comparisons_retired", 0))


def _ancestors(store: Store, model: Model) -> list[Model]:
    found: list[Model] = []
    while model.parent_id is not None and len(found) < 100:
        model = store.get(Model, model.parent_id)
        found.append(model)
    return found


def model_list(store: Store, person: Person) -> list[ModelView]:
    """Every model, newest first."""
    access.require(person, "see_models")
    return [_view(store, model) for model in models.all_models(store)]


def promote(store: Store, models_dir: Path, person: Person, model_id: int, *, reason: str) -> Model:
    """Put a model live. Its files are verified first; then one transaction moves the stages, closes open comparisons
    of the policy it replaces and writes the audit row. Raises CannotPromote.
    """
    access.require(person, "promote")
    model = store.get(Model, model_id)
    if model.kind == "external":
        raise CannotPromote(
            "This model stands for imported answers or for a remote engine; there is nothing here to put live.",
            "imported_model",
        )
    _verify(models_dir, model)
    with store.write():
        model = store.get(Model, model_id)
        if model.stage == "live":
            raise CannotPromote("This model is live already.", "live_already")
        return _put_live(store, person, model, action="promote", reason=reason.strip() or "promoted")


def roll_back(store: Store, models_dir: Path, person: Person, model_id: int) -> Model:
    """Put the model that was live before this one back. Returns the model that is live now. Raises CannotPromote."""
    access.require(person, "promote")
    model = store.get(Model, model_id)
    if model.stage != "live":
        raise CannotPromote("Only the live model can be rolled back.", "not_live")
    former = models.live_before(store, model)
    if former is None:
        raise CannotPromote("No model was live before this one.", "no_former")
    _verify(models_dir, former)
    with store.write():
        return _put_live(store, person, former, action="roll_back", reason=f"rolled back from {model.name}")


def _put_live(store: Store, person: Person, model: Model, *, action: str, reason: str) -> Model:
    former = models.live(store, model.kind, model.project_id)  # type: ignore[arg-type]
    moved = models.move(store, model, "live", reason=reason, person_id=person.id)
    retired = 0
    if model.kind == "policy" and former is not None and former.id is not None:
        retired = comparisons.retire_unjudged_of(store, former.id)
    facts = {"from": former.id if former else None, "comparisons_retired": retired}
    audit.record(store, person, action, "model", moved.id, facts)
    return moved


def _verify(models_dir: Path, model: Model) -> None:
    if model.adapter is None:
        return
    try:
        manifest = artifacts.verify(models_dir / model.adapter)
    except artifacts.BadArtifact as error:
        raise CannotPromote(f"{model.name} is not whole: {error}", "not_whole", name=model.name, why=error) from error
    if bytes.fromhex(manifest.digest) != model.digest:
        raise CannotPromote(
            f"{model.name} is not the model that was registered: its manifest has another digest.",
            "other_digest",
            name=model.name,
        )


def _view(store: Store, model: Model) -> ModelView:
    assert model.id is not None
    report = next(iter(models.evaluations(store, model.id)), None)
    snapshot = store.get(Snapshot, report.snapshot_id) if report and report.snapshot_id else None
    return ModelView(
        model=model,
        parent=store.get(Model, model.parent_id) if model.parent_id else None,
        snapshot=snapshot,
        report=report,
        history=models.promotions(store, model.id),
        changed_since=_since(store, snapshot),
    )


def _since(store: Store, snapshot: Snapshot | None) -> int:
    return snapshots.trainable_count(store, snapshot.project_id, snapshot.as_of_judgement_id) if snapshot else 0
