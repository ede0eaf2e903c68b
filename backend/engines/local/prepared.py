"""Adapters as the stack's products want them, kept while requests come and go: making them ready takes as long as a step."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from backend.decoder.stack import Adapters, Stack

KEPT = 8  # adapters that are kept ready, besides more that are in use at one time; our choice


class Prepared:
    """Safe to share between threads. A name stands for the same weights for as long as they are in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self._stack: Stack | None = None
        self._names: list[str] = []
        self._adapters = Adapters([], None)

    def of(self, stack: Stack, wanted: Collection[str]) -> Adapters:
        """These adapters and perhaps others that were wanted before."""
        with self._lock:
            if self._stack is not stack:
                self.clear()
            if not set(wanted) <= set(self._names):
                before = [name for name in self._names if name not in wanted and stack.holds(name)]
                self._names = [*before[: max(0, KEPT - len(wanted))], *wanted]
                self._adapters, self._stack = stack.adapters(self._names), stack
            return self._adapters


def indices(owner: Sequence[str | None], names: Sequence[str]) -> list[int | None]:
    """Where each one's name stands among these."""
    place = {name: at for at, name in enumerate(names)}
    return [None if name is None else place.get(name) for name in owner]
