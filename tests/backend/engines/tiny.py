"""What the engine's tests share: the engine's server in a thread, names from a table, and the tiny models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import uvicorn

from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved, Resolver
from backend.engines.local.scheduler import Scheduler
from backend.engines.local.server import build_app
from tests.backend.engines.tiny_models import CHINESE, TEMPLATE, TEXT, make_tokenizer, save_adapter, with_lora

__all__ = ["CHINESE", "TEMPLATE", "TEXT", "make_tokenizer", "save_adapter", "with_lora"]
KEY = "a-key-for-tests"


class TableResolver:
    """Names from a table; "live" may be moved while the engine runs."""

    def __init__(self, base: Base, adapters: dict[str, Resolved]) -> None:
        self.table = {"base": Resolved("base", None, base.digest), **adapters}
        self.table["live"] = self.table["base"]
        self.rewards: dict[str, Resolved] = {}

    def resolve(self, name: str) -> Resolved | None:
        return self.table.get(name)

    def resolve_reward(self, name: str) -> Resolved | None:
        return self.rewards.get(name)

    def names(self) -> list[str]:
        return list(self.table)


class Served(NamedTuple):
    url: str
    base: Base
    scheduler: Scheduler
    resolver: TableResolver


@contextmanager
def served(base: Base, scheduler: Scheduler, resolver: Resolver) -> Iterator[str]:
    """The engine's server in a thread; gives its address."""
    app = build_app(base, scheduler, resolver, KEY)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(5)


def wait_until(is_so: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)
