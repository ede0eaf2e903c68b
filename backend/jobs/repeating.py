"""A thread that does one thing again and again, until it is told to end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Repeating:
    """Calls ``act`` every so many seconds, and at once when poked. An error is logged and kept in ``problem`` for people."""

    def __init__(self, name: str, act: Callable[[], object], *, every_seconds: float):
        self.act = act
        self.every_seconds = every_seconds
        self.problem = ""
        self._ending = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        self._wake.set()

    def end(self) -> None:
        """Wait for the act that is under way; none follows."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            try:
                self.act()
                self.problem = ""
            except Exception as error:  # the next round may succeed; people see the problem until then
                log.exception("%s failed.", self._thread.name)
                self.problem = str(error)
            self._wake.wait(self.every_seconds)
            self._wake.clear()
