"""Models and their stages: what may answer, what is live, who moved it there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from .store import Store
from .types import Evaluation, Model, Promotion


def policies(store: Store) -> list[Model]:
    """Policies, newest first."""
    return store.find(Model, "kind = 'policy'", order_by="id desc")


def rewards(store: Store, project_id: int) -> list[Model]:
    """Reward models of one project, newest first."""
    return store.find(Model, "kind = 'reward' and project_id = ?", [project_id], "id desc")


def reward_named(store: Store, project_id: int, name: str) -> Model | None:
    """The newest reward model of a project with this name."""
    return next(
        iter(store.find(Model, "kind = 'reward' and project_id = ? and name = ?", [project_id, name], "id desc", 1)),
        None,
    )


def all_models(store: Store) -> list[Model]:
    return store.find(Model, order_by="id desc")


def live(store: Store, kind: Literal["policy", "reward"], project_id: int | None = None) -> Model | None:
    """The live policy of the app, or the live reward model of a project."""
    found = store.find(Model, "kind = ? and stage = 'live' and coalesce(project_id, 0) = ?", [kind, project_id or 0])
    return found[0] if found else None


def resolve(store: Store, name: str) -> Model | None:
    """The policy behind an engine's model name: ``live``, ``base`` or ``model-<id>``; None when there is none."""
    if name == "live":
        return live(store, "policy")
    if name == "base":
        return next(iter(store.find(Model, "kind = 'policy' and adapter is null", order_by="id desc", limit=1)), None)
    kind, number = _numbered(name)
    found = store.find(Model, "kind = 'policy' and id = ?", [number]) if kind == "model" else []
    return next(iter(found), None)


def resolve_external(store: Store, name: str) -> Model | None:
    """The external model behind ``model-<id>``, whether or not an engine answers for it; None when there is none."""
    kind, number = _numbered(name)
    found = store.find(Model, "kind = 'external' and id = ?", [number]) if kind == "model" else []
    return next(iter(found), None)


def resolve_reward(store: Store, name: str) -> Model | None:
    """The reward model behind an engine's model name: ``model-<id>``, or ``live-<project id>``; None when there is none."""
    kind, number = _numbered(name)
    if kind == "live":
        return live(store, "reward", number)
    found = store.find(Model, "kind = 'reward' and id = ?", [number]) if kind == "model" else []
    return next(iter(found), None)


def _numbered(name: str) -> tuple[str, int]:
    """A name and the number behind it; two of nothing where it is no id that a row may have (SQLite's go to 2^63 - 1)."""
    found = re.fullmatch(r"(model|live)-([0-9]{1,18})", name)
    return (found[1], int(found[2])) if found else ("", 0)


def base_with(store: Store, fingerprint: bytes) -> Model | None:
    """The row of a bare base, by the fingerprint of its weights."""
    return next(
        iter(store.find(Model, "kind = 'policy' and adapter is null and base_fingerprint = ?", [fingerprint])), None
    )


def with_digest(store: Store, digest: bytes) -> Model | None:
    return next(iter(store.find(Model, "digest = ?", [digest])), None)


def move(
    store: Store, model: Model, to_stage: Literal["candidate", "live", "retired"], *, reason: str, person_id: int | None
) -> Model:
    """Change a model's stage and write down who did it and why; a model that becomes live retires the one that was."""
    with store.write() as db:
        if to_stage == "live" and model.kind != "external":
            former = live(store, model.kind, model.project_id)
            if former is not None and former.id != model.id:
                move(store, former, "retired", reason=reason, person_id=person_id)
        assert model.id is not None
        db.conn.execute("update models set stage = ? where id = ?", [to_stage, model.id])
        store.add(
            Promotion(
                model_id=model.id,
                from_stage=model.stage,
                to_stage=to_stage,
                reason=reason,
                person_id=person_id,
                at=store.now(),
            )
        )
    return replace(model, stage=to_stage)


def promotions(store: Store, model_id: int | None = None) -> list[Promotion]:
    """Newest first."""
    return store.find(Promotion, "(? is null or model_id = ?)", [model_id, model_id], "id desc")


def live_before(store: Store, model: Model) -> Model | None:
    """The model of the same kind and project that was live last before this one became live."""
    rows = store.rows(
        "select p.model_id from promotions p join models m on m.id = p.model_id where p.from_stage = 'live' and m.kind = ? "
        "and coalesce(m.project_id, 0) = ? and p.model_id <> ? order by p.id desc limit 1",
        [model.kind, model.project_id or 0, model.id],
    )
    return store.get(Model, rows[0]["model_id"]) if rows else None


def evaluations(store: Store, model_id: int) -> list[Evaluation]:
    """Reports on a model, newest first."""
    return store.find(Evaluation, "model_id = ?", [model_id], "id desc")


def evaluation_of(store: Store, model_id: int, kind: str) -> Evaluation | None:
    return next(iter(store.find(Evaluation, "model_id = ? and kind = ?", [model_id, kind], "id desc", 1)), None)
