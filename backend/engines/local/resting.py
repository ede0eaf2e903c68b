"""Letting the model's memory go while somebody else needs the accelerator, and taking it back.

A training job on a machine with one GPU asks for it (backend.engines.lending). New requests are refused meanwhile with 503 and a
time to come back; those under way are finished, or ended after a while. The model goes to the processor's memory and comes back
when the last job has said so, or has died: who asked is known by process id and start time, and looked after.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import psutil
import torch

from ..process import process_started_at
from .model import Base
from .scheduler import Scheduler

log = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0  # what is under way may take so long to end by itself; our choice
LOOK_SECONDS = 1.0
REASON = "The engine rests while a model is trained on its GPU. Ask again when the job is over."


class UnknownProcess(Exception):
    """Nobody runs under the process id that asked for rest."""


class CannotRest(Exception):
    """The memory was not let go; requests are taken as before."""


class Rest:
    """All calls may come from any thread."""

    def __init__(self, base: Base, scheduler: Scheduler) -> None:
        self._base = base
        self._scheduler = scheduler
        self._lock = threading.RLock()
        self._for: dict[int, float] = {}  # process id -> when it was started
        self._is_resting = False  # until the model is back and requests are taken

    def health(self) -> dict[str, Any]:
        """Where the model is and what it takes: bytes of this process, and of the accelerator where there is one."""
        base, is_cuda = self._base, self._base.device.type == "cuda"
        return {
            "resting": self._is_resting,
            "device": base.device.type,
            "dtype": str(base.dtype).removeprefix("torch."),
            "attention": base.attention,
            "quantisation": base.quantisation,
            "memory_bytes": psutil.Process().memory_info().rss,
            "gpu_bytes": torch.cuda.memory_allocated(base.device) if is_cuda else 0,
        }

    def begin(self, pid: int) -> int:
        """Let the memory go until ``end(pid)`` or the death of that process; returns the bytes of the accelerator it freed.

        Raises UnknownProcess, CannotRest.
        """
        started_at = process_started_at(pid)
        if started_at is None:
            raise UnknownProcess(f"There is no process {pid} to rest for.")
        with self._lock:
            is_first = not self._for
            self._for[pid] = started_at
            if not is_first:
                return 0
            before = self.health()["gpu_bytes"]
            self._is_resting = True
            try:
                self._scheduler.refuse(REASON)
                self._scheduler.wait_until_idle(DRAIN_SECONDS)
                self._on_the_models_thread(lambda: self._scheduler.end_all(REASON))
                self._on_the_models_thread(self._let_go)
            except Exception as fault:
                self._for.pop(pid)
                self._is_resting = False
                self._scheduler.refuse(None)
                log.exception("the memory was not let go")
                raise CannotRest("The engine could not let its memory go and answers on; its log says why.") from fault
        threading.Thread(target=self._look_after, name="engine-rest", daemon=True).start()
        freed = before - self.health()["gpu_bytes"]
        log.info("resting for process %d: %d bytes of the accelerator are free", pid, freed)
        return int(freed)

    def end(self, pid: int) -> None:
        """That process needs the memory no longer; when it was the last one the model comes back and requests are taken."""
        with self._lock:
            if self._for.pop(pid, None) is None or self._for:
                return
            self._on_the_models_thread(lambda: self._base.move(self._base.device))
            self._scheduler.refuse(None)
            self._is_resting = False
        log.info("answering again")

    def _let_go(self) -> None:
        self._base.move("cpu")
        self._scheduler.prefixes.clear()
        self._scheduler.known.clear()
        gc.collect()
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()

    def _on_the_models_thread(self, act: Callable[[], Any]) -> None:
        self._scheduler.do(lambda _: act(), is_own=True).result(timeout=120)

    def _look_after(self) -> None:
        """A job that was killed says nothing any more."""
        while self._for:
            gone = [pid for pid, started_at in list(self._for.items()) if process_started_at(pid) != started_at]
            for pid in gone:
                self.end(pid)
            threading.Event().wait(LOOK_SECONDS)
