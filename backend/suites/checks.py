"""What is asked of an answer, as people write it: ``{"type": "not-contains", "value": "sorry", "weight": 2}``.

The types, weights and thresholds are promptfoo's wherever it has the check, so that its files mean the same here. Values may
name the case's variables and ``expected`` in double braces; they are filled in once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.problem import Phrase, Problem, words_of
from backend.prompts.problem import TemplateProblem
from backend.prompts.template import compile_template, render
from backend.suites import grading, overlap, structured, texts
from backend.suites.kinds import KINDS, Given, Kind, Outcome
from backend.suites.place import Misplaced, Place

NOT = "not-"
MOST_CHECKS = 64
KEYS = ("type", "value", "threshold", "weight", "metric")
ENTERED = (grading, overlap, structured, texts)  # the files whose checks there are


class BadCheck(Misplaced):
    """A check that cannot be read; the message says which, what is wrong, and what to write instead."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """``threshold`` None is the kind's own. A weight of 0 tells its score and never fails a case."""

    type: str
    value: Any = None
    threshold: float | None = None
    weight: float = 1.0
    metric: str = ""
    is_negated: bool = False

    @property
    def kind(self) -> Kind:
        return KINDS[self.type]

    @property
    def name(self) -> str:
        return f"{NOT if self.is_negated else ''}{self.type}"

    def as_row(self) -> dict[str, Any]:
        """The shortest that ``parse`` reads back as this check."""
        row: dict[str, Any] = {"type": self.name}
        if self.value is not None:
            row["value"] = self.value
        if self.threshold is not None:
            row["threshold"] = self.threshold
        if self.weight != 1.0:
            row["weight"] = self.weight
        if self.metric:
            row["metric"] = self.metric
        return row


@dataclass(frozen=True)
class Result:
    """What one check found: ``score`` 0 to 1. ``is_known`` is False where something kept it from saying anything."""

    check: Check = field(repr=False)
    score: float
    passed: bool
    reason: str
    is_known: bool = True


def parse(rows: Sequence[Mapping[str, Any]]) -> tuple[Check, ...]:
    """Raises BadCheck at the first that cannot be read."""
    if len(rows) > MOST_CHECKS:
        raise BadCheck(
            f"A suite takes at most {MOST_CHECKS} checks; there are {len(rows)}. Leave some out.", "checks_many",
            most=MOST_CHECKS, n=len(rows),
        )  # fmt: skip
    return tuple(_parsed(row, place) for place, row in enumerate(rows, 1))


def look(check: Check, given: Given) -> Result:
    """What the check says of an answer. What keeps it from saying anything is a failure with the reason."""
    try:
        value = filled(check.value, given)
        outcome = check.kind.look(given, value, check.threshold)
    except (Problem, ValueError) as problem:
        return Result(check, 0.0, check.weight == 0, words_of(problem), is_known=False)
    if check.is_negated:
        turned = Phrase(f"not: {outcome.reason}", "found_not", reason=outcome.reason)
        outcome = Outcome(1.0 - outcome.score, not outcome.passed, turned)
    return Result(check, outcome.score, outcome.passed or check.weight == 0, outcome.reason)


def _parsed(row: Mapping[str, Any], place: int) -> Check:
    at = Place("check", place)
    if not isinstance(row, Mapping):
        raise BadCheck('this is no table. Write it as {"type": "contains", "value": "..."}.', "check_no_table", at)
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        names, known = ", ".join(map(str, unknown)), ", ".join(KEYS)
        raise BadCheck(f"it has no setting {names}. It knows {known}.", "check_setting", at, names=names, known=known)
    type_, is_negated = str(row.get("type", "")), False
    if type_.startswith(NOT):
        type_, is_negated = type_.removeprefix(NOT), True
    kind = KINDS.get(type_)
    if kind is None:
        name, known = row.get("type", ""), ", ".join(sorted(KINDS))
        raise BadCheck(
            f'there is no check "{name}". Choose one of {known}.', "check_unknown", at, name=name, known=known
        )
    at = at._replace(type=type_)
    check = Check(
        type=type_,
        value=row.get("value"),
        threshold=_number(row.get("threshold"), "threshold", at),
        weight=_number(row.get("weight", 1.0), "weight", at) or 0.0,
        metric=str(row.get("metric") or ""),
        is_negated=is_negated,
    )
    if check.weight < 0:
        least = f"{check.weight:g}"
        raise BadCheck(f"weight is {least}; it must not be below 0.", "check_weight", at, value=least)
    if not kind.accepts(check.value):
        raise BadCheck(
            f"the value is {check.value!r}; it must be {kind.asks}.", "check_value", at,
            value=repr(check.value), asks=kind.asks,
        )  # fmt: skip
    for text in _texts(check.value):
        try:
            compile_template(text)
        except TemplateProblem as cause:
            raise BadCheck(str(cause), "check_template", at, problem=cause) from None
    return check


def filled(value: Any, given: Given) -> Any:
    """The value with the case's variables; texts inside lists and tables too, once."""
    if isinstance(value, str) and "{{" in value:
        return render(compile_template(value), {**given.values, "expected": given.expected or ""})
    if isinstance(value, list):
        return [filled(item, given) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, given) for key, item in value.items()}
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if "{{" in value else []
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return [text for item in inner for text in _texts(item)]


def _number(value: Any, name: str, at: Place) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadCheck(f"{name} is {value!r}; it must be a number.", "check_number", at, name=name, value=repr(value))
    return float(value)
