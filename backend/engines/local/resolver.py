"""Which adapter folder stands behind a model's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

BASE = "base"
LIVE = "live"


class Resolved(NamedTuple):
    name: str
    adapter: Path | None
    digest: str


class Resolver(Protocol):
    """Names are "base", "live" and "model-<id>"; "live" resolves to the name of the policy that is live now.

    A reward model is "model-<id>" too, or "live-<project id>": the one that is live in that project now.
    """

    def resolve(self, name: str) -> Resolved | None: ...

    def resolve_reward(self, name: str) -> Resolved | None: ...

    def names(self) -> list[str]: ...


class StoreResolver:
    """Asks the database at every request, so a promotion counts from the next request on."""

    def __init__(self, data_dir: Path, base_digest: str) -> None:
        self._database = data_dir / "feedback.db"
        self._models = data_dir / "models"
        self._base = Resolved(BASE, None, base_digest)
        self._store: Any = None

    def resolve(self, name: str) -> Resolved | None:
        if name == BASE:
            return self._base
        model = self._ask("resolve", name)
        if model is None:
            return self._base if name == LIVE else None
        return self._base if model.adapter is None else self._resolved(model)

    def resolve_reward(self, name: str) -> Resolved | None:
        model = self._ask("resolve_reward", name)
        return None if model is None or model.adapter is None else self._resolved(model)

    def _resolved(self, model: Any) -> Resolved | None:
        if Path(model.adapter).name != model.adapter:
            raise ValueError(f"model {model.id} names a folder outside the models folder")
        if model.digest is None:
            return None
        return Resolved(f"model-{model.id}", self._models / model.adapter, model.digest.hex())

    def names(self) -> list[str]:
        adapters = [f"model-{model.id}" for model in self._ask("policies") or [] if model.adapter is not None]
        return [BASE, LIVE, *adapters]

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _ask(self, question: str, *about: str) -> Any:
        if not self._database.exists():
            return None
        from feedback_db import Store, models

        if self._store is None:
            self._store = Store(self._database, read_only=True)
        return getattr(models, question)(self._store, *about)
