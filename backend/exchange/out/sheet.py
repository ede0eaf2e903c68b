"""What an export shows: templates, cases, the exact messages of each, checks, and answers where a run gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend.exchange.plan import Note
from feedback_db.types import Case, Demonstration, Message, Template


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A template under a label that no other one of the sheet has."""

    label: str
    template: Template
    demonstrations: tuple[Demonstration, ...] | None = ()  # in order; None: they are chosen anew for every case


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer of a run. ``problem`` says why there is none."""

    label: str  # of the template
    model: str
    case: int  # place in the sheet
    repeat: int
    messages: tuple[Message, ...]
    text: str
    score: float
    passed: bool
    reasons: tuple[str, ...] = ()  # of checks that failed
    problem: str = ""
    temperature: float | None = None  # where the columns of the run have several

    @property
    def title(self) -> str:
        """What tells it from the other answers to its case, as the columns of a run are told apart."""
        parts = [self.label, self.model] + ([] if self.temperature is None else [f"T = {self.temperature:g}"])
        return " · ".join([*parts, str(self.repeat + 1)])


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """``written`` has for each case and label the messages that a model is sent, or nothing where they cannot be built."""

    title: str
    templates: tuple[Shown, ...] = ()
    cases: tuple[Case, ...] = ()
    written: tuple[Mapping[str, tuple[Message, ...]], ...] = ()
    checks: tuple[dict[str, Any], ...] = ()
    threshold: float | None = None
    own: tuple[Mapping[str, Any], ...] = ()  # by case {"checks", "threshold"} that are its own; empty: no case has any
    answers: tuple[Answered, ...] = ()


class Exported(NamedTuple):
    """A file to hand out, and remarks on what it does not say, or says in another way."""

    name: str
    media: str
    data: bytes
    remarks: tuple[Note, ...] = ()
