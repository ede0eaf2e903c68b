"""How likely each label word is after the exact prompt of a case: what a closed set of answers is measured by.

The conversations are those of ``build_messages``, so what is scored is what would be sent. Those with the same demonstrations begin
alike, and the engine reads that beginning once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from backend.engines.answers import Likelihood, Messages
from feedback_db.types import Case, Demonstration, Message, Template

from .chat import INPUT, build_messages
from .fewshot import FewShot, normalised
from .rows import ask_of

AT_ONCE = 64  # conversations of one request; our choice


class Scorer(Protocol):
    def likelihoods(
        self, conversations: Sequence[Messages], answers: Sequence[str], *, model: str
    ) -> list[list[Likelihood]]: ...


class Scored(NamedTuple):
    """Scores of labels, and which of them a tokenizer would have joined with the end of some prompt."""

    logps: list[list[float]]  # (N, L) nats per token
    straddling: list[str]


def score(client: Scorer, conversations: Sequence[Messages], labels: Sequence[str], model: str) -> Scored:
    """Raises EngineError."""
    found: list[list[Likelihood]] = []
    for start in range(0, len(conversations), AT_ONCE):
        found += client.likelihoods(conversations[start : start + AT_ONCE], labels, model=model)
    straddling = [label for at, label in enumerate(labels) if any(likely[at].straddles for likely in found)]
    return Scored([[one.mean_logp for one in likely] for likely in found], straddling)


def asked(template: Template, case: Case, demonstrations: Sequence[Demonstration]) -> tuple[Message, ...]:
    """The prompt of a case with these demonstrations in this order, as it is sent."""
    shape = FewShot.parse(template.few_shot).shape
    return build_messages(template, case.values or {}, demonstrations, shape, conversation=case.conversation or ())


def saying(case: Case, text: str) -> Case:
    """The case with another text in the place of its own: the variable ``input``, or all of them where it has none; the last
    turn of a conversation."""
    if case.conversation:
        return replace(case, conversation=(*case.conversation[:-1], {**case.conversation[-1], "content": text}))
    values = case.values or {}
    if INPUT in values:
        return replace(case, values={**values, INPUT: text})
    return replace(case, values=dict.fromkeys(values, text))


def stub_of(template: Template) -> str:
    """What stands between the case and the answer, such as "Output:"."""
    return re.split(r"[}%]}", ask_of(template))[-1].strip()


def truth_of(case: Case, labels: Sequence[str]) -> int | None:
    """Which label the case expects; None where it expects none of them."""
    if case.expected is None:
        return None
    wanted = normalised(case.expected)
    return next((at for at, label in enumerate(labels) if normalised(label) == wanted), None)
