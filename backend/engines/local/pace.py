"""How quickly the last steps went."""

from __future__ import annotations

import statistics
from collections import deque

REMEMBERED, RECENT = 200, 20  # steps; our choice


class Pace:
    """Told by the model's thread, asked by any."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)  # (tokens, seconds)

    def note(self, tokens: int, seconds: float) -> None:
        self._steps.append((tokens, seconds))

    def tokens_per_second(self) -> float:
        """0 before the first step."""
        steps = list(self._steps)
        seconds = sum(step[1] for step in steps)
        return sum(step[0] for step in steps) / seconds if seconds else 0.0

    def mean_tokens(self) -> float:
        """In a step; 0 before the first."""
        steps = list(self._steps)
        return statistics.mean(step[0] for step in steps) if steps else 0.0

    def seconds_until_free(self) -> int:
        """When to come again, from 1 to 30: as long as the last few steps took."""
        return max(1, min(30, round(sum(step[1] for step in list(self._steps)[-RECENT:]))))
