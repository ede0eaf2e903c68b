"""One score of several checks, by promptfoo's rules: the weighted mean; passed at the threshold, without one if all passed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from backend.suites.checks import Check, Result, look
from backend.suites.kinds import Given


@dataclass(frozen=True)
class Scored:
    """``metrics`` are the mean scores of checks that name one, by weight."""

    score: float
    passed: bool
    results: tuple[Result, ...]
    metrics: dict[str, float]

    @property
    def reason(self) -> str:
        """Of the first check that failed, or ""."""
        return next((f"{r.check.name}: {r.reason}" for r in self.results if not r.passed), "")


def scored(checks: Sequence[Check], given: Given, threshold: float | None = None) -> Scored:
    """Checks of weight 0 are told and change nothing. Without any that count, a case passes with 1."""
    results = tuple(look(check, given) for check in checks)
    weight = sum(result.check.weight for result in results)
    score = sum(result.score * result.check.weight for result in results) / weight if weight else 1.0
    passed = score >= threshold - 1e-9 if threshold is not None else all(result.passed for result in results)
    return Scored(score, passed, results, _metrics(results))


def _metrics(results: Sequence[Result]) -> dict[str, float]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for result in results:
        if result.check.metric:
            sums[result.check.metric][0] += result.score * (result.check.weight or 1.0)
            sums[result.check.metric][1] += result.check.weight or 1.0
    return {name: total / weight for name, (total, weight) in sums.items()}
