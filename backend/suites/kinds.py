"""Every check there is, by the name under which suites ask for it: texts, structured and overlap enter theirs here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from backend.problem import Phrase


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a check may look at. ``values`` are the case's variables; what an engine did not tell is None."""

    answer: str
    expected: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    tokens: int | None = None
    mean_logp: float | None = None
    finish_reason: str = "stop"
    told: Mapping[str, Told] = field(default_factory=dict)  # by grading.key_of: what models said of the answer


class Told(NamedTuple):
    """What a model said of an answer: a reward model's own score, or a judge's from 0 to 1 with its verdict."""

    score: float
    passed: bool | None
    reason: str
    problem: str = ""  # why it said nothing; then the rest means nothing


class Outcome(NamedTuple):
    """``score`` 0 to 1."""

    score: float
    passed: bool
    reason: str  # a Phrase, but for what others said


Look = Callable[[Given, Any, "float | None"], Outcome]


@dataclass(frozen=True)
class Kind:
    """``asks`` says what the value must be, for errors; "" where any will do, and where it may be left out the case's expected
    answer stands in."""

    look: Look
    asks: Phrase | Literal[""]
    accepts: Callable[[Any], bool]


KINDS: dict[str, Kind] = {}


def kind(
    name: str, asks: Phrase | Literal[""] = "", accepts: Callable[[Any], bool] = lambda value: True
) -> Callable[[Look], Look]:
    """Enter a check under a name."""

    def entered(look: Look) -> Look:
        KINDS[name] = Kind(look, asks, accepts)
        return look

    return entered


def judged(passed: bool, yes: str, no: str) -> Outcome:
    """Of a check that knows only right and wrong."""
    return Outcome(1.0 if passed else 0.0, passed, yes if passed else no)


def graded(score: float, least: float, what: str) -> Outcome:
    """Of a check that measures: it passes at ``least``. Rounding of the last digits fails nobody."""
    score = 0.0 if math.isnan(score) else min(1.0, max(0.0, score))
    passed = score >= least - 1e-9
    words = f"{what} {score:.3f}, {'at least' if passed else 'below'} {least:g}"
    code = "found_at_least" if passed else "found_below"
    return Outcome(score, passed, Phrase(words, code, what=what, score=f"{score:.3f}", least=f"{least:g}"))


def wanted(given: Given, value: Any) -> str:
    """The text to compare with: the value, or the case's expected answer. Raises ValueError where there is neither."""
    if value is not None:
        return value if isinstance(value, str) else str(value)
    if given.expected is None:
        raise ValueError(Phrase("the case has no expected answer and the check no value", "found_no_expected"))
    return given.expected


def is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def is_text_or_nothing(value: Any) -> bool:
    return value is None or is_text(value)


def is_some(value: Any) -> bool:
    """A list of texts, or a text with commas between."""
    return bool(value) and (isinstance(value, str) or (isinstance(value, list) and all(is_text(v) for v in value)))


def is_limit(value: Any) -> bool:
    """A number, or {"min": ..., "max": ...}."""
    if isinstance(value, dict):
        return bool(value) and set(value) <= {"min", "max"} and all(is_number(v) for v in value.values())
    return is_number(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
