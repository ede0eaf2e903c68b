"""Remote engines and the models taken from them."""

from __future__ import annotations

from dataclasses import replace

from . import models
from .store import Store
from .types import Model, RemoteEngine


def active(store: Store) -> list[RemoteEngine]:
    """Those that were not removed, oldest first."""
    return store.find(RemoteEngine, "removed_at is null")


def named(store: Store, name: str) -> RemoteEngine | None:
    found = store.find(RemoteEngine, "removed_at is null and name = ?", [name])
    return found[0] if found else None


def models_of(store: Store, engine_id: int) -> list[Model]:
    """The models taken from an engine that were not taken back, oldest first."""
    return store.find(Model, "engine_id = ? and stage <> 'retired'", [engine_id])


def answering(store: Store) -> list[Model]:
    """The models of all remote engines, by name."""
    return store.find(Model, "engine_id is not null and stage <> 'retired'", order_by="name")


def model_named(store: Store, name: str) -> Model | None:
    found = store.find(Model, "name = ?", [name])
    return found[0] if found else None


def remove(store: Store, engine: RemoteEngine, person_id: int | None) -> RemoteEngine:
    """Set its date and retire its models; what they answered stays."""
    with store.write() as db:
        for model in models_of(store, engine.id or 0):
            models.move(store, model, "retired", reason="its engine was removed", person_id=person_id)
        now = store.now()
        db.conn.execute("update engines set removed_at = ? where id = ?", [now, engine.id])
    return replace(engine, removed_at=now)
