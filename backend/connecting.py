"""What admins do with remote engines: add one, see what it offers, take its models, remove it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from backend import access
from backend.engines import address, keys
from backend.engines.choosing import Engines
from backend.problem import Problem
from feedback_db import Store, audit
from feedback_db import engines as engine_table
from feedback_db.types import Model, Person, RemoteEngine

NAME = re.compile(r"[\w][\w .-]{0,39}")
MODEL = re.compile(r"[\w][\w ./:@+-]{0,119}")
LONGEST_CONTEXT = 10_000_000


class CannotConnect(Problem):
    """This engine or model cannot be added; the message says why."""


class Connected(NamedTuple):
    """A remote engine as an admin sees it."""

    engine: RemoteEngine
    models: list[Model]
    trouble: Problem | None  # why it could not be called now: its host, or its key


def engines(store: Store, engines: Engines, person: Person) -> list[Connected]:
    """Every remote engine with its models, and whether its host is allowed and its key is there; nobody is called."""
    access.require(person, "administer")
    return [
        Connected(engine, engine_table.models_of(store, engine.id or 0), _trouble(engines, engine))
        for engine in engine_table.active(store)
    ]


def health(engines: Engines, person: Person) -> dict[str, Any] | None:
    """What the engine of this machine says of itself; None when it does not run. It is not started for it."""
    access.require(person, "administer")
    return engines.health()


def _trouble(engines: Engines, engine: RemoteEngine) -> Problem | None:
    try:
        address.target_of(engine.base_url, engines.allowed)
        keys.read(engine.key_reference, engines.secrets)
    except (address.Refused, keys.NoKey) as problem:
        return problem
    return None


def add_engine(
    store: Store,
    engines: Engines,
    person: Person,
    *,
    name: str,
    base_url: str,
    key_reference: str = "",
    context_tokens: int = 8192,
) -> RemoteEngine:
    """Add a remote engine. Its host must be on the operator's list; only a reference to the key is stored.

    Raises CannotConnect, address.Refused, keys.NoKey.
    """
    access.require(person, "administer")
    name = name.strip()
    if not NAME.fullmatch(name):
        raise CannotConnect(
            "A name has 1 to 40 letters, digits, spaces, dots or hyphens, and begins with a letter or digit.",
            "engine_name",
        )
    if not 256 <= context_tokens <= LONGEST_CONTEXT:
        raise CannotConnect(
            f"The context must be between 256 and {LONGEST_CONTEXT} tokens.", "engine_context", most=LONGEST_CONTEXT
        )
    target = address.target_of(base_url.strip(), engines.allowed)
    made = RemoteEngine(
        name=name,
        base_url=target.url,
        key_reference=keys.checked(key_reference),
        context_tokens=context_tokens,
        person_id=person.id,
    )

    def act() -> RemoteEngine:
        if engine_table.named(store, name) is not None:
            raise CannotConnect(
                f"There is already an engine named {name}. Choose another name.", "engine_taken", name=name
            )
        kept = store.add(made)
        audit.record(store, person, "add_engine", "engine", kept.id)
        return kept

    return store.commit(act)


def offered(store: Store, engines: Engines, person: Person, engine_id: int) -> list[str]:
    """The models an engine offers now, by name: the one call that shows that address and key are right.

    Raises EngineError, address.Refused, keys.NoKey.
    """
    access.require(person, "administer")
    return engines.remote(store.get(RemoteEngine, engine_id)).models()


def take_model(store: Store, person: Person, engine_id: int, model: str) -> Model:
    """Make a model of a remote engine one that can be chosen where answers are compared. Raises CannotConnect."""
    access.require(person, "administer")
    model = model.strip()
    if not MODEL.fullmatch(model):
        raise CannotConnect("Choose a model, or type its name as the engine knows it.", "engine_model")

    def act() -> Model:
        engine = store.get(RemoteEngine, engine_id)
        if engine.removed_at is not None:
            raise CannotConnect(f"The engine {engine.name} was removed.", "engine_gone", name=engine.name)
        known = next((one for one in engine_table.models_of(store, engine_id) if one.base == model), None)
        if known is not None:
            return known
        name = f"{engine.name}/{model}"
        if engine_table.model_named(store, name) is not None:
            name = f"{name} #{engine_id}"
        kept = store.add(Model(name=name, kind="external", base=model, source=engine.name, engine_id=engine_id))
        audit.record(store, person, "take_model", "model", kept.id, {"engine": engine_id})
        return kept

    return store.commit(act)


def remove_engine(store: Store, engines: Engines, person: Person, engine_id: int) -> RemoteEngine:
    """Remove an engine and retire its models. What they answered stays, and says whose it was."""
    access.require(person, "administer")

    def act() -> RemoteEngine:
        engine = store.get(RemoteEngine, engine_id)
        if engine.removed_at is not None:
            return engine
        audit.record(store, person, "remove_engine", "engine", engine_id)
        return engine_table.remove(store, engine, person.id)

    removed = store.commit(act)
    engines.forget(removed)
    return removed
