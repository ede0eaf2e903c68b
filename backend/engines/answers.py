"""What is sent to an OpenAI-compatible server and read from it, for our engine process and for remote ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import httpx

from backend.problem import Problem

Messages = Sequence[Mapping[str, str]]


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
    told = tuple(token_logps_of(choice))
    logps = [logp for _, logp in told]
    usage = reply.get("usage") or {}
    return Answer(
        text=choice["message"]["content"] or "",
        finish_reason=choice.get("finish_reason") or "",
        tokens=len(logps) or usage.get("completion_tokens", 0) // n,
        prompt_tokens=usage.get("prompt_tokens", 0),
        seconds=choice.get("seconds", seconds),
        first_token_seconds=choice.get("first_token_seconds", seconds),
        mean_logp=sum(logps) / len(logps) if logps else None,
        model=reply.get("model", ""),
        fingerprint=reply.get("system_fingerprint") or "",
        token_logps=told,
    )


def grow(growing: Growing, choice: dict[str, Any], seconds: float) -> str:
    """Take in one chunk; returns its text."""
    text = choice.get("delta", {}).get("content") or ""
    if text and not growing.text:
        growing.first_token_seconds = seconds
    growing.text += text
    growing.chunks += bool(text)
    growing.token_logps += token_logps_of(choice)
    growing.seconds = choice.get("seconds", seconds)
    growing.first_token_seconds = choice.get("first_token_seconds", growing.first_token_seconds)
    growing.finish_reason = choice.get("finish_reason") or growing.finish_reason
    return text


def answer_grown(growing: Growing, last: dict[str, Any], n: int) -> Answer:
    usage = last.get("usage") or {}
    logps = [logp for _, logp in growing.token_logps]
    return Answer(
        text=growing.text,
        finish_reason=growing.finish_reason,
        tokens=len(logps) or usage.get("completion_tokens", growing.chunks * n) // n,
        prompt_tokens=usage.get("prompt_tokens", 0),
        seconds=growing.seconds,
        first_token_seconds=growing.first_token_seconds,
        mean_logp=sum(logps) / len(logps) if logps else None,
        model=last.get("model", ""),
        fingerprint=last.get("system_fingerprint") or "",
        token_logps=tuple(growing.token_logps),
    )


def token_logps_of(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Each token's text and log-probability, as far as the server tells them."""
    told = (choice.get("logprobs") or {}).get("content") or []
    return [(str(token.get("token") or ""), token["logprob"]) for token in told]


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
