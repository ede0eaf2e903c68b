"""The client every caller uses for any OpenAI-compatible server: our engine process, or another one by its base URL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.problem import Problem

Messages = Sequence[Mapping[str, str]]


class EngineError(Problem):
    """An engine did not answer as asked; the message can be shown to people as it stands."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or ""


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


@dataclass(frozen=True)
class Piece:
    """New text of one answer of a stream; the last piece of each answer has no text and carries the whole Answer."""

    index: int
    text: str
    answer: Answer | None = None


@dataclass(frozen=True)
class TokenCount:
    count: int
    max_model_len: int


@dataclass
class _Growing:
    """What a stream has told about one answer so far."""

    text: str = ""
    logps: list[float] = field(default_factory=list)
    finish_reason: str = ""
    chunks: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0


class EngineClient:
    """Safe to share between threads."""

    def __init__(self, base_url: str, key: str, *, timeout_seconds: float = 300.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        return self._ask("GET", "/health")

    def models(self) -> list[str]:
        return [model["id"] for model in self._ask("GET", "/v1/models")["data"]]

    def tokenize(self, messages: Messages, model: str) -> TokenCount:
        counted = self._ask("POST", "/tokenize", {"model": model, "messages": list(messages)})
        return TokenCount(counted["count"], counted["max_model_len"])

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
    ) -> list[Answer]:
        """n answers to a conversation; the i-th depends on the seed and i alone."""
        body = _body(messages, model, n, seed, temperature, top_p, top_k, max_tokens, stop)
        started = time.monotonic()
        reply = self._ask("POST", "/v1/chat/completions", body)
        seconds = time.monotonic() - started
        try:
            return [
                _answer_of(reply, choice, n, seconds) for choice in sorted(reply["choices"], key=lambda it: it["index"])
            ]
        except (KeyError, TypeError) as problem:
            raise EngineError("The engine sent an answer that cannot be read.") from problem

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
    ) -> Iterator[Piece]:
        """The same answers as complete() gives, as they grow. Closing the generator frees the engine."""
        body = _body(messages, model, n, seed, temperature, top_p, top_k, max_tokens, stop)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        started = time.monotonic()
        growing: dict[int, _Growing] = {}
        last: dict[str, Any] = {}
        for chunk in self._events("/v1/chat/completions", body):
            last = {**last, **{key: value for key, value in chunk.items() if value is not None}}
            for choice in chunk.get("choices", []):
                text = _grow(growing.setdefault(choice["index"], _Growing()), choice, time.monotonic() - started)
                if text:
                    yield Piece(choice["index"], text)
        if not growing or not all(item.finish_reason for item in growing.values()):
            raise EngineError("The engine stopped in the middle of an answer. Ask again.")
        for index in sorted(growing):
            yield Piece(index, "", _answer_grown(growing[index], last, len(growing)))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
            _raise_for(response)
            return response.json()
        except httpx.HTTPError as problem:
            raise _unreachable(problem) from problem
        except ValueError as problem:
            raise EngineError("The engine sent an answer that cannot be read.") from problem

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    _raise_for(response)
                for line in _lines(response):
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:"):
                        continue
                    if data == "[DONE]":
                        return
                    event = json.loads(data)
                    if "error" in event:
                        raise EngineError(str(event["error"].get("message", "The engine failed on this request.")))
                    yield event
        except httpx.HTTPError as problem:
            raise _unreachable(problem) from problem
        except ValueError as problem:
            raise EngineError("The engine sent an answer that cannot be read.") from problem


def _body(
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


def _answer_of(reply: dict[str, Any], choice: dict[str, Any], n: int, seconds: float) -> Answer:
    logps = _logps(choice)
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
    )


def _grow(growing: _Growing, choice: dict[str, Any], seconds: float) -> str:
    """Take in one chunk; returns its text."""
    text = choice.get("delta", {}).get("content") or ""
    if text and not growing.text:
        growing.first_token_seconds = seconds
    growing.text += text
    growing.chunks += bool(text)
    growing.logps += _logps(choice)
    growing.seconds = choice.get("seconds", seconds)
    growing.first_token_seconds = choice.get("first_token_seconds", growing.first_token_seconds)
    growing.finish_reason = choice.get("finish_reason") or growing.finish_reason
    return text


def _answer_grown(growing: _Growing, last: dict[str, Any], n: int) -> Answer:
    usage = last.get("usage") or {}
    return Answer(
        text=growing.text,
        finish_reason=growing.finish_reason,
        tokens=len(growing.logps) or usage.get("completion_tokens", growing.chunks * n) // n,
        prompt_tokens=usage.get("prompt_tokens", 0),
        seconds=growing.seconds,
        first_token_seconds=growing.first_token_seconds,
        mean_logp=sum(growing.logps) / len(growing.logps) if growing.logps else None,
        model=last.get("model", ""),
        fingerprint=last.get("system_fingerprint") or "",
    )


def _logps(choice: dict[str, Any]) -> list[float]:
    return [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []]


def _lines(response: httpx.Response) -> Iterator[str]:
    """Lines of a stream, split at newlines only: httpx's own splitter also cuts at U+2028, which JSON may hold."""
    rest = b""
    for part in response.iter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode()


def _raise_for(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"The engine answered with status {response.status_code}.", None
    raise EngineError(message, status=response.status_code, code=code)


def _unreachable(problem: httpx.HTTPError) -> EngineError:
    if isinstance(problem, httpx.TimeoutException):
        return EngineError(
            "The engine took too long to answer. Ask for fewer tokens, or try again when it is less busy."
        )
    return EngineError("The engine cannot be reached: it has stopped or is starting. Try again in a moment.")
