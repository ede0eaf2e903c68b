"""What every training run shares: its event file, its heartbeat, and a way to stop it. Imports no torch."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
STOP = "stop"
PAUSE = "pause"
CHECKPOINT = "checkpoint-"  # begins the names of the folders that training/checkpoint.py writes
HEARTBEAT_SECONDS = 5.0
METRICS_SECONDS = 0.5  # at most two points of a curve per second


class Stopped(Exception):
    """Someone asked this run to stop; the unfinished step is dropped."""


class SetAside(Exception):
    """This run ends before it is done and can go on from its checkpoint; the unfinished step is dropped."""


class Paused(SetAside):
    """Someone asked this run to pause; it goes on when they say so."""


class Interrupted(SetAside):
    """A signal from outside, such as a machine that shuts down; the run goes on as soon as there is a place for it."""


class NotFinite(ArithmeticError):
    """A loss or a score became NaN or infinite; the message says where and what to do."""


class GuardStop(RuntimeError):
    """A guard ended the run; the message names the signal, its value, the step and the remedy."""


class TooFewRows(ValueError):
    """There is not enough to train on; the message says how much there is and how much is needed."""


class Run:
    """Appends events, one JSON object per line, each on the disk before the next step begins."""

    def __init__(self, folder: Path, attempt: int = 1, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.attempt = attempt
        self._clock = clock
        self._lock = threading.Lock()
        self._must_end = threading.Event()
        self._waiting: dict[str, Any] | None = None  # the newest point of the curve, not yet written
        self._last_metrics = -math.inf
        self._end_torn_line()

    def event(self, kind: str, **facts: Any) -> None:
        with self._lock:
            self._flush()
            self._append(kind, facts)

    def message(self, text: str) -> None:
        self.event("message", text=text)

    def sample(self, step: int, case: Any, text: str, score: float) -> None:
        self.event("sample", step=step, case=case, text=text, score=round(score, 6))

    def metrics(self, step: int, total_steps: int, values: Mapping[str, float]) -> None:
        """A point of every curve; numbers that are not finite are left out, since JSON has no word for them.

        Points that come faster than two a second give way to the newest; the last one is always written.
        """
        numbers = {name: round(float(value), 6) for name, value in values.items() if math.isfinite(value)}
        with self._lock:
            self._waiting = {"step": step, "total_steps": total_steps, "values": numbers}
            if self._clock() - self._last_metrics >= METRICS_SECONDS:
                self._flush()

    def flush(self) -> None:
        """Write the point that waits; a step that is saved must not lack its point after a kill."""
        with self._lock:
            self._flush()

    def ask_to_end(self) -> None:
        """For signal handlers; ``check`` raises at the next micro-batch."""
        self._must_end.set()

    def check(self) -> None:
        """Call it once per micro-batch. Raises Stopped, Paused or Interrupted when it is time to end."""
        if (self.folder / STOP).exists():
            raise Stopped("Stopped as asked; nothing of this run was kept.")
        if (self.folder / PAUSE).exists():
            raise Paused("Paused as asked.")
        if self._must_end.is_set():
            raise Interrupted("Ended by a signal from outside.")

    @contextmanager
    def heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
        """While inside, a thread says every few seconds that the process lives."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(seconds):
                with self._lock:
                    self._append("heartbeat", {})

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _flush(self) -> None:
        if self._waiting is not None:
            self._append("metrics", self._waiting)
            self._waiting = None
            self._last_metrics = self._clock()

    def _append(self, kind: str, facts: Mapping[str, Any]) -> None:
        record = {"at": int(self._clock() * 1_000_000), "attempt": self.attempt, "kind": kind, **facts}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with (self.folder / EVENTS).open("ab") as stream:
            stream.write(line.encode("utf-8", errors="replace"))
            stream.flush()
            os.fsync(stream.fileno())

    def _end_torn_line(self) -> None:
        """An earlier attempt may have been killed within a line; the next event must not be glued to it."""
        path = self.folder / EVENTS
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            with path.open("ab") as stream:
                stream.write(b"\n")
