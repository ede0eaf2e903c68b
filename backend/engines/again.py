"""Work that nobody watches outlives the end of our engine process: what was asked when it ended is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from backend.engines.answers import EngineError

ENDED = frozenset(
    {"engine_ended", "engine_restarted", "engine_unreachable"}
)  # of our own engine; the next question starts it
PAUSES_SECONDS = (0.5, 2.0)  # a process that ends lets its memory go first, and looks alive meanwhile; our choice

T = TypeVar("T")


def asked_again(ask: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """What ``ask`` gives; it must get its client anew each time. One that ends the engine every time is told after a few times.

    Raises what the last ``ask`` raises.
    """
    for seconds in PAUSES_SECONDS:
        try:
            return ask()
        except EngineError as problem:
            if problem.code not in ENDED:
                raise
        pause(seconds)
    return ask()
