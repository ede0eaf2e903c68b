"""From a model's name to its adapter, as the database says at that moment."""

from __future__ import annotations

from pathlib import Path

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
