"""Which engine answers for which model: the engine process of this data folder, or a remote one that an admin added."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from backend.engines import keys
from backend.engines.address import Refused, target_of
from backend.engines.answers import Client
from backend.engines.client import EngineClient
from backend.engines.guarded import Guarded, client_of
from backend.engines.process import EngineProcess
from backend.engines.remote import RemoteClient
from backend.problem import Phrase
from feedback_db import Store
from feedback_db.types import Model, RemoteEngine


class Engines:
    """Handed to whoever needs answers. ``allowed`` are the hosts that may be called (address.py)."""

    def __init__(self, local: EngineProcess, store: Store, data_dir: Path, allowed: Sequence[str]) -> None:
        self.local = local
        self.allowed = tuple(allowed)
        self.secrets = data_dir / "secrets"
        self._store = store
        self._lock = threading.Lock()
        self._remote: dict[int, RemoteClient] = {}

    @property
    def last_event(self) -> Phrase | None:
        return self.local.last_event

    def health(self) -> dict[str, Any] | None:
        """What the engine process says of itself; None when it does not run. Starts nothing."""
        return self.local.health()

    def client(self) -> EngineClient:
        """The engine process; it is started if it does not run. Raises EngineError."""
        return self.local.client()

    def client_for(self, model: Model) -> Client:
        """Whoever answers for this model. Raises EngineError, Refused."""
        return self.client() if model.engine_id is None else self.remote(self._store.get(RemoteEngine, model.engine_id))

    def remote(self, engine: RemoteEngine) -> RemoteClient:
        """The client of a remote engine. Raises Refused when it was removed, or the operator allows its host no longer."""
        assert engine.id is not None
        if engine.removed_at is not None:
            raise Refused(
                f"The engine {engine.name} was removed. Choose another model.", "engine_gone", name=engine.name
            )
        with self._lock:
            if engine.id not in self._remote:
                target = target_of(engine.base_url, self.allowed)
                key = partial(keys.read, engine.key_reference, self.secrets)
                http = client_of(target, Guarded(target))
                self._remote[engine.id] = RemoteClient(http, key, engine.context_tokens)
            return self._remote[engine.id]

    def forget(self, engine: RemoteEngine) -> None:
        """Close the connections to a removed engine."""
        with self._lock:
            client = self._remote.pop(engine.id or 0, None)
        if client is not None:
            client.close()

    def stop(self) -> None:
        """End the engine process if it is ours, and close all connections."""
        with self._lock:
            for client in self._remote.values():
                client.close()
            self._remote.clear()
        self.local.stop()
