"""Checks that a model answers: the score of a reward model, and a judge that reads a rubric.

What they said is fetched before a check looks (asking.py) and stands in ``Given.told``; a check here only reads it.
"""

from __future__ import annotations

import math
from typing import Any

from backend.problem import Phrase
from backend.suites.kinds import Given, Outcome, Told, is_text, kind

REWARD, JUDGE = "reward", "llm-rubric"
GRADED = (REWARD, JUDGE)
LIVE, OF_RUN = "", "judge"


def key_of(type_: str, value: Any) -> str:
    """Under what ``Given.told`` has the answer to such a check; ``value`` with the case's variables filled in."""
    return f"{type_}:{'' if value is None else value}"


def grader_of(type_: str, value: Any) -> str:
    """Which model answers, by the name under which a run keeps its id: its judge, or ``reward:`` and a name (none: the live one)."""
    return OF_RUN if type_ == JUDGE else f"{REWARD}:{LIVE if value is None else value}"


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value.strip()))


@kind(REWARD, Phrase("the name of a reward model, or nothing: the live one", "asks_reward_model"), _is_name)
def reward(given: Given, value: Any, threshold: float | None) -> Outcome:
    """At least the threshold, 0 unless given. The score is sigmoid(reward - threshold): by the model's own reckoning the chance
    that people prefer this answer to one that just reaches the threshold (Bradley and Terry 1952)."""
    told = _told(given, REWARD, value)
    least = 0.0 if threshold is None else threshold
    passed = told.score >= least
    score = 1 / (1 + math.exp(-max(-60.0, min(60.0, told.score - least))))
    words = f"{told.score:.3f} by {told.reason}, {'at least' if passed else 'below'} {least:g}"
    code = "found_reward" if passed else "found_reward_below"
    told_by = {"score": f"{told.score:.3f}", "model": told.reason, "least": f"{least:g}"}
    return Outcome(score, passed, Phrase(words, code, **told_by))


@kind(
    JUDGE,
    Phrase("a rubric: what a good answer does", "asks_rubric"),
    lambda value: is_text(value) and bool(str(value).strip()),
)
def rubric(given: Given, value: Any, threshold: float | None) -> Outcome:
    """The judge's own verdict; with a threshold its score must reach that too, as promptfoo has it."""
    told = _told(given, JUDGE, value)
    passed = bool(told.passed) and (threshold is None or told.score >= threshold - 1e-9)
    return Outcome(told.score, passed, told.reason)


def _told(given: Given, type_: str, value: Any) -> Told:
    told = given.told.get(key_of(type_, value))
    if told is None:
        raise ValueError(Phrase("no model was asked about this answer", "found_not_asked"))
    if told.problem:
        raise ValueError(told.problem)
    return told
