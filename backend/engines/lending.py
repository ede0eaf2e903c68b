"""How a job has the GPU to itself: it says so in the data folder, and asks the engine to let its memory go. Imports no torch.

``engine/jobs/<pid>.json`` stands there as long as a job computes on the GPU, so that an engine that starts meanwhile knows of it.
The job writes it before it looks for an engine, and an engine announces itself before it looks for jobs: one sees the other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .client import EngineClient, EngineError
from .process import engine_folder, is_running, process_started_at, read_engine_file

log = logging.getLogger(__name__)
SECONDS = 180.0  # for the model to leave or come back, what was under way included


@contextlib.contextmanager
def engine_at_rest(data_dir: Path, *, asks: bool = True) -> Iterator[bool]:
    """Within: this process has the GPU. ``asks``: the engine that runs lets its memory go. Yields whether it did.

    An engine that does not run, or does not listen, is no reason for a job to fail: it goes on with what memory there is.
    """
    with _written_down(data_dir):
        is_at_rest = False
        if asks:
            try:
                is_at_rest = _told(data_dir, lambda engine: engine.rest(os.getpid()))
            except EngineError as problem:
                log.warning("the engine keeps its memory: %s", problem)
        yield is_at_rest
    with contextlib.suppress(EngineError):  # it has ended, or sees for itself that we have
        _told(data_dir, lambda engine: engine.wake(os.getpid()))  # also one that has started since


def holders(data_dir: Path) -> dict[int, float]:
    """The processes that compute on the GPU now, each with when it was started. Files of dead ones are removed."""
    found = {}
    for path in engine_folder(data_dir).glob("jobs/*.json"):
        try:
            pid, started_at = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):  # just removed, or not yet whole: its writer is about to look for us
            continue
        if process_started_at(pid) == started_at:
            found[int(pid)] = float(started_at)
        else:
            path.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def _written_down(data_dir: Path) -> Iterator[None]:
    folder = engine_folder(data_dir) / "jobs"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{os.getpid()}.json"
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps([os.getpid(), process_started_at(os.getpid())]), encoding="utf-8")
    beside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _told(data_dir: Path, say: Callable[[EngineClient], object]) -> bool:
    """Whether an engine runs, which was told then."""
    file = read_engine_file(data_dir)
    if file is None or not is_running(file):
        return False
    client = EngineClient(file.url, file.key, timeout_seconds=SECONDS)
    try:
        say(client)
    finally:
        client.close()
    return True
