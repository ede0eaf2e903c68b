"""A second thread, which begins answers while the model's thread writes others, where the processor has a core for each.

Without it whoever arrives waits for a step to reach its next layer, and all rows wait while a prompt is read. What the two compute
is the same to the last bit: no product has more than one thread, and none has rows of both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from .admission import Job


def has_a_core(device: torch.device) -> bool:
    """Whether products have one thread, and the processor a core for another. On the thread that computes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return device.type == "cpu" and torch.get_num_threads() == 1 and cores > 1


class Second:
    """``take`` says what to begin, and is called with the lock of ``changed``; ``begin`` does it, and lets nothing be raised."""

    def __init__(
        self, changed: threading.Condition, take: Callable[[], list[Job]], begin: Callable[[Sequence[Job]], None]
    ) -> None:
        self.jobs: list[Job] = []  # that are being begun
        self._changed, self._take, self._begin = changed, take, begin
        self._is_kept_out = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="engine-second", daemon=True)
        self._thread.start()

    @property
    def is_free(self) -> bool:
        """Whether it would begin something. For whoever holds the lock."""
        return not self.jobs and self._thread.is_alive()

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """Within: it begins nothing, and has begun what it had; for what changes adapters, weights or the batch itself."""
        with self._changed:
            self._is_kept_out = True
            while self.jobs:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._is_kept_out = False
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        torch.set_num_threads(1)
        while True:
            with self._changed:
                while not (self._is_closed or self._taken()):
                    self._changed.wait()
                if self._is_closed:
                    return
            self._begin(self.jobs)
            with self._changed:
                self.jobs = []
                self._changed.notify_all()

    def _taken(self) -> bool:
        self.jobs = [] if self._is_kept_out else self._take()
        return bool(self.jobs)
