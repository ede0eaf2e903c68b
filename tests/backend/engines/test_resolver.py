"""From a model's name to its adapter, as the database says at that moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.engines.local.resolver import Resolved, StoreResolver
from feedback_db import Store, models
from feedback_db.types import Model

DIGEST = bytes(range(32))


def test_without_a_database_there_is_the_base_and_it_is_live(tmp_path: Path):
    resolver = StoreResolver(tmp_path, "d")
    assert resolver.resolve("live") == resolver.resolve("base") == Resolved("base", None, "d")
    assert resolver.names() == ["base", "live"]
    assert resolver.resolve("model-1") is None


def test_a_promotion_counts_from_the_next_question_on(tmp_path: Path):
    store = Store(tmp_path / "feedback.db")
    base = store.add(Model(name="starter", kind="policy", base="starter", source="base", stage="live"))
    tuned = store.add(
        Model(name="tuned", kind="policy", base="starter", source="ppo", adapter=DIGEST.hex()[:16], digest=DIGEST)
    )
    resolver = StoreResolver(tmp_path, "d")
    wanted = Resolved(f"model-{tuned.id}", tmp_path / "models" / DIGEST.hex()[:16], DIGEST.hex())
    assert resolver.resolve(f"model-{base.id}") == Resolved("base", None, "d")
    assert resolver.resolve(f"model-{tuned.id}") == wanted
    assert resolver.resolve("live") == Resolved("base", None, "d")
    assert resolver.names() == ["base", "live", wanted.name]
    models.move(store, tuned, "live", reason="a test", person_id=None)
    assert resolver.resolve("live") == wanted
    store.close()
    resolver.close()


@pytest.mark.parametrize(
    "name",
    ["model-", "model-0", "model--1", "model-1 ", "model-٣", "model-99999999999999999999", "model-" + "9" * 5000],
)
def test_a_name_that_no_row_can_have_is_nobodys(tmp_path: Path, name: str):
    store = Store(tmp_path / "feedback.db")
    store.add(Model(name="starter", kind="policy", base="starter", source="base", stage="live"))
    resolver = StoreResolver(tmp_path, "d")
    assert resolver.resolve(name) is None
    assert resolver.resolve_reward(name) is None
    assert resolver.resolve_reward(name.replace("model", "live")) is None
    resolver.close()
    store.close()
