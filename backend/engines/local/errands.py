"""Short things that the model's thread does between two steps: scores, embeddings, an adapter loaded or put out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, NamedTuple

from .asking import Resting
from .model import ModelProblem

log = logging.getLogger(__name__)


class Errand(NamedTuple):
    act: Callable[[Collection[str]], Any]  # is given the adapters that are in use
    future: Future[Any]


def run(errand: Errand, in_use: Collection[str]) -> None:
    """Do it, unless nobody waits for it any more; what it says or raises is the future's."""
    if not errand.future.set_running_or_notify_cancel():
        return
    try:
        errand.future.set_result(errand.act(in_use))
    except Exception as problem:
        if not isinstance(problem, ModelProblem):
            log.exception("an errand failed")
        errand.future.set_exception(problem)


def end(errands: deque[Errand], message: str) -> None:
    """All that wait are told that they will not be done."""
    while errands:
        future = errands.popleft().future
        if future.set_running_or_notify_cancel():
            future.set_exception(Resting(message))
