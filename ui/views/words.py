"""Numbers, times and texts as pages write them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from backend.problem import read_back
from ui.context import Ui

CLIPPED = 90  # characters of a text in a picker


def clock(at: int | None) -> str:
    """Local time of the server, to the minute; empty for never."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1_000_000)) if at else ""


def duration(seconds: float | None) -> str:
    """12 s, 3:05 min, 2:10 h; empty when it is not known."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"


def in_words(ui: Ui, kept: Any) -> str:
    """A reason that was stored, in the reader's language: by its code, or as it stands where it has none."""
    return ui.text.problem(read_back(kept), ui.guard.language())


def engine_event(ui: Ui) -> str:
    """That the engine was started again, and when; empty when it was not."""
    return ui.text.problem(ui.engine.last_event or "", ui.guard.language())


def clipped(text: str, most: int = CLIPPED) -> str:
    """On one line, shortened with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def percent(interval: Mapping[str, Any] | None) -> str:
    """A share with its 95 % interval and n: 72 % (64 to 79, n = 120)."""
    if not interval or not interval.get("n"):
        return "–"
    value, low, high = (round(100 * interval[name]) for name in ("value", "low", "high"))
    return f"{value} % ({low}–{high}, n = {interval['n']})"


def spread(interval: Mapping[str, Any] | None) -> str:
    """The interval and n of a share, to stand below it: 64–79 %, n = 120."""
    if not interval or not interval.get("n"):
        return ""
    return f"{round(100 * interval['low'])}–{round(100 * interval['high'])} %, n = {interval['n']}"


def share(value: float) -> str:
    return f"{round(100 * value)} %"


def figure(value: float) -> str:
    return f"{value:.3g}"
