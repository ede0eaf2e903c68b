"""Asking the engine of a data folder to let its GPU memory go while a job runs. Imports no torch."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from .client import EngineClient, EngineError
from .process import is_running, read_engine_file

log = logging.getLogger(__name__)
SECONDS = 180.0  # for the model to leave or come back, what was under way included


@contextlib.contextmanager
def engine_at_rest(data_dir: Path) -> Iterator[bool]:
    """Within: the engine's model is out of the GPU. Yields whether there was one that could be asked.

    An engine that does not run, or does not listen, is no reason for a job to fail: it goes on with what memory there is.
    """
    file = read_engine_file(data_dir)
    if file is None or not is_running(file):
        yield False
        return
    client = EngineClient(file.url, file.key, timeout_seconds=SECONDS)
    try:
        client.rest(os.getpid())
        is_at_rest = True
    except EngineError as problem:
        log.warning("the engine keeps its memory: %s", problem)
        is_at_rest = False
    try:
        yield is_at_rest
    finally:
        with contextlib.suppress(EngineError):  # it has ended, or sees for itself that we have
            client.wake(os.getpid())
        client.close()
