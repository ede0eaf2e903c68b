"""What is sent to an OpenAI-compatible server and read from it, for our engine process and for remote ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple, Protocol

import httpx

from backend.problem import Problem

Messages = Sequence[Mapping[str, str]]
NAN = float("nan")
LARGEST = 2**31  # no count, no time and no log-probability is as large


class EngineError(Problem):
    """An engine did not answer as asked; the message can be shown to people as it stands."""

    def __init__(self, message: str, code: str | None = None, *, status: int | None = None, **values: object) -> None:
        super().__init__(message, code or "", **values)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """One sampled answer. `mean_logp`: nats per token under the model itself (temperature 1), end token included."""

    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int
    seconds: float
    first_token_seconds: float
    mean_logp: float | None
    model: str
    fingerprint: str
    token_logps: tuple[tuple[str, float], ...] = ()  # each token's text and its log-probability, where the server tells


class Likelihood(NamedTuple):
    """How likely a given answer is after a conversation."""

    tokens: tuple[str, ...]
    logps: tuple[float, ...]  # nats of each token
    straddles: bool  # a tokenizer given the whole text would join its first letters with what stands before them

    @property
    def mean_logp(self) -> float:
        return sum(self.logps) / len(self.logps)


class Embedded(NamedTuple):
    """Features of texts, and the fingerprint of the base whose they are, in hexadecimal (None: the engine does not say)."""

    base: str | None
    vectors: list[list[float]]  # (N, D), each of length 1


@dataclass(frozen=True)
class Piece:
    """New text of one answer of a stream; the last piece of each answer has no text and carries the whole Answer.

    While the request waits for room, pieces without text tell its place in the engine's queue; 1 is next.
    """

    index: int
    text: str
    answer: Answer | None = None
    place: int = 0


@dataclass(frozen=True)
class TokenCount:
    count: int
    max_model_len: int
    is_estimate: bool = False


@dataclass
class Growing:
    """What a stream has told about one answer so far."""

    text: str = ""
    token_logps: list[tuple[str, float]] = field(default_factory=list)
    finish_reason: str = ""
    chunks: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0


class Client(Protocol):
    """What an engine can be asked, whichever it is. Safe to share between threads."""

    def models(self) -> list[str]: ...

    def tokenize(self, messages: Messages, model: str) -> TokenCount: ...

    def complete(
        self,
        messages: Messages,
        *,
        model: str,
        n: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> list[Answer]: ...

    def stream(
        self,
        messages: Messages,
        *,
        model: str,
        n: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]: ...


def body_of(
    messages: Messages,
    model: str,
    n: int,
    seed: int | None,
    temperature: float,
    top_p: float,
    top_k: int | None,
    max_tokens: int | None,
    stop: Sequence[str],
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "n": n,
        "temperature": temperature,
        "top_p": top_p,
        "logprobs": True,
    }
    optional = {"seed": seed, "top_k": top_k, "max_tokens": max_tokens, "stop": list(stop) or None}
    return body | {key: value for key, value in optional.items() if value is not None}


def answer_of(reply: dict[str, Any], choice: dict[str, Any], n: int, seconds: float) -> Answer:
    """Raises KeyError, TypeError, AttributeError for what is no answer, as ``grow`` and ``answer_grown`` do."""
    growing = Growing(seconds=seconds, first_token_seconds=seconds)
    _take(growing, choice, choice["message"]["content"])
    growing.chunks = 0  # a whole answer says nothing of its tokens by its parts
    return answer_grown(growing, reply, n)


def grow(growing: Growing, choice: dict[str, Any], seconds: float) -> str:
    """Take in one chunk; returns its text."""
    text = (choice.get("delta") or {}).get("content")
    if text and not growing.text:
        growing.first_token_seconds = seconds
    growing.seconds = seconds
    return _take(growing, choice, text)


def _take(growing: Growing, choice: dict[str, Any], text: Any) -> str:
    reason = choice.get("finish_reason") or growing.finish_reason
    if not isinstance(text, str | None) or not isinstance(reason, str):
        raise TypeError("a text and why it ended are strings")
    growing.text += text or ""
    growing.chunks += bool(text)
    growing.token_logps += token_logps_of(choice)
    growing.seconds = _number(choice.get("seconds"), growing.seconds)
    growing.first_token_seconds = _number(choice.get("first_token_seconds"), growing.first_token_seconds)
    growing.finish_reason = reason
    return text or ""


def answer_grown(growing: Growing, last: dict[str, Any], n: int) -> Answer:
    """What a server tells beside the text is passed over where it is no number of its kind: the text counts."""
    usage = last.get("usage")
    told = growing.token_logps if all(isfinite(logp) for _, logp in growing.token_logps) else []
    model, fingerprint = last.get("model"), last.get("system_fingerprint")
    counted = _count(usage, "completion_tokens", growing.chunks * n) // n
    return Answer(
        text=growing.text,
        finish_reason=growing.finish_reason,
        tokens=len(growing.token_logps) or counted,
        prompt_tokens=_count(usage, "prompt_tokens", 0),
        seconds=growing.seconds,
        first_token_seconds=growing.first_token_seconds,
        mean_logp=sum(logp for _, logp in told) / len(told) if told else None,
        model=model if isinstance(model, str) else "",
        fingerprint=fingerprint if isinstance(fingerprint, str) else "",
        token_logps=tuple(told),
    )


def token_logps_of(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Each token's text and log-probability, as far as the server tells them; NaN where it is none."""
    told = (choice.get("logprobs") or {}).get("content") or []
    return [(str(token.get("token") or ""), _number(token.get("logprob"), NAN)) for token in told]


def _number(value: Any, otherwise: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < LARGEST else otherwise


def _count(usage: Any, name: str, otherwise: int) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST
    return value if is_count and value is not None else otherwise


def lines_of(response: httpx.Response) -> Iterator[str]:
    """Lines of a stream, split at newlines only: httpx's own splitter also cuts at U+2028, which JSON may hold."""
    rest = b""
    for part in response.iter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode()


def raise_for(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    message, code = _told(response)
    raise EngineError(message, code, status=response.status_code)


def _told(response: httpx.Response) -> tuple[str, str | None]:
    """What an error's body says, and its code: OpenAI's shape, or that of other servers: a text, or the message alone."""
    nothing = f"The engine answered with status {response.status_code}."
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return nothing, None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return error or nothing, None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return nothing, None
    code = error.get("code")
    return error["message"] or nothing, code if isinstance(code, str) else None
