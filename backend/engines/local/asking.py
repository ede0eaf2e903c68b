"""What is asked of the engine's model and what comes of it: requests, their tickets, and the events that tickets are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .resolver import Resolved
from .sampling import Sampling


class QueueFull(Exception):
    def __init__(self, waiting: int, retry_after_seconds: int) -> None:
        super().__init__(f"{waiting} prompts are waiting already. Try again in {retry_after_seconds} s.")
        self.retry_after_seconds = retry_after_seconds


class Resting(Exception):
    """No request is taken for a while; the message says why."""


class TokenLogp(NamedTuple):
    token: int
    logp: float | None  # None: the first token of a prompt has no log-probability
    top: list[tuple[int, float]]


class Piece(NamedTuple):
    """A part of one answer; the last part has a finish reason. Samples are counted over all prompts of the request."""

    sample: int
    text: str
    tokens: list[TokenLogp]
    finish_reason: str | None
    tokens_so_far: int
    seconds: float
    first_token_seconds: float


class PromptScores(NamedTuple):
    prompt: int
    tokens: list[TokenLogp]


class Failed(NamedTuple):
    message: str
    is_fault_of_model: bool


Event = Piece | PromptScores | Failed


@dataclass(frozen=True)
class Request:
    model: Resolved
    prompts: list[list[int]]
    max_tokens: int
    seed: int
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    top_logps: int | None = None  # None: no log-probabilities; k: those of the k most likely tokens as well
    wants_prompt_scores: bool = False
    is_streamed: bool = False


@dataclass(eq=False)
class Ticket:
    """A request on its way. Cancelled, its rows leave before the next token."""

    request: Request
    emit: Callable[[Event], None]
    arrived: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False
    echoes: dict[int, Any] = field(default_factory=dict)  # by prompt, how far its own tokens are scored (echo.py)

    def cancel(self) -> None:
        self.is_cancelled = True


def longest_of(request: Request) -> int:
    """Tokens that the longest of its rows may come to."""
    return max(len(prompt) for prompt in request.prompts) + request.max_tokens
