"""What many tests start from: an empty store, one person of each role, an engine that answers from a function."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backend import opening, starting
from backend.engines.scripted import ScriptedEngine
from backend.registry.bases import Base
from feedback_db import Store
from feedback_db.types import Person, Project

# The same examples every time, however long a busy machine takes: nobody's work waits because of a draw. New ones are looked for
# with `pytest --hypothesis-profile=explore`.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "feedback.db")
    yield opened
    opened.close()


def person(store: Store, role: str) -> Person:
    return store.add(Person(pseudonym=f"p-{role}", name=role, role=role))  # type: ignore[arg-type]


@pytest.fixture
def admin(store: Store) -> Person:
    return person(store, "admin")


@pytest.fixture
def engineer(store: Store) -> Person:
    return person(store, "engineer")


@pytest.fixture
def annotator(store: Store) -> Person:
    return person(store, "annotator")


@pytest.fixture
def base(store: Store) -> Base:
    """A base that is registered but has no weights; for activities that never load it."""
    made = Base("tiny", Path("/nowhere"), hashlib.sha256(b"tiny").digest())
    opening.register_base(store, made)
    return made


@pytest.fixture
def project(store: Store, base: Base) -> Project:
    return starting.ensure_sample(store)


@pytest.fixture
def engine() -> ScriptedEngine:
    """Answers tell model, seed and place, so that no two are alike."""
    return ScriptedEngine(lambda messages, model, seed: f"{model} says {seed} to {messages[-1]['content'][:20]}")
