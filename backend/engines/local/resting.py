"""Letting the model's memory go while somebody else needs the accelerator, and taking it back.

A training job on a machine with one GPU asks for it (backend.engines.lending). New requests are refused meanwhile with 503 and a
time to come back; those under way are finished, or ended after a while. The model goes to the processor's memory and comes back
when the last job has said so, or has died: who asked is known by process id and start time, and looked after. An engine that
starts while a job has the GPU comes up resting, its model in the processor's memory.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil
import torch

from backend.training.device import is_short_of_memory

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


def has_no_room(base: Base) -> bool:
    """Whether less than half of the GPU's memory would be free with this model beside what is there."""
    return base.device.type == "cuda" and is_short_of_memory(base.weight_bytes, base.device)


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

    def begin_without(self, holders: Mapping[int, float]) -> None:
        """Rest from the start for these processes, by id and start time: the model has not been on its device yet."""
        with self._lock:
            self._for.update(holders)
            self._is_resting = True
            self._scheduler.refuse(REASON)
        threading.Thread(target=self._look_after, name="engine-rest", daemon=True).start()
        log.info("resting from the start for %d processes", len(holders))

    def join(self, holders: Mapping[int, float]) -> None:
        """Let the memory go for jobs that began while the engine started and could not ask it, where there is little."""
        for pid in holders:
            if pid not in self._for and (self._is_resting or is_short_of_memory(0, self._base.device)):
                try:
                    self.begin(pid)
                except (UnknownProcess, CannotRest) as problem:
                    log.warning("%s", problem)

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
            if not is_first or self._is_resting:
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
                with suppress(Exception):  # a part of the model may have gone
                    self._on_the_models_thread(self._base.come_back)
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
            if self._for.pop(pid, None) is not None and not self._for:
                self._come_back()

    def _come_back(self) -> None:
        """The model to its device. Where there is no room yet it stays at rest, and ``_look_after`` tries again."""
        try:
            self._on_the_models_thread(self._return)
        except Exception as fault:  # most of all: the job's memory is not free yet
            log.warning("the model cannot come back yet: %s", str(fault).splitlines()[0] if str(fault) else type(fault))
            self._on_the_models_thread(self._let_go)
            return
        self._scheduler.refuse(None)
        self._is_resting = False
        log.info("answering again")

    def _return(self) -> None:
        self._base.come_back()
        self._scheduler.settle()

    def _let_go(self) -> None:
        self._base.go_away()
        self._scheduler.forget()
        gc.collect()
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()

    def _on_the_models_thread(self, act: Callable[[], Any]) -> None:
        self._scheduler.do(lambda _: act(), is_own=True).result(timeout=120)

    def _look_after(self) -> None:
        """A job that was killed says nothing any more."""
        while self._is_resting:
            gone = [pid for pid, started_at in list(self._for.items()) if process_started_at(pid) != started_at]
            for pid in gone:
                self.end(pid)
            with self._lock:
                if self._is_resting and not self._for:
                    self._come_back()
            threading.Event().wait(LOOK_SECONDS)
