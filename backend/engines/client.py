"""The client of our own engine process. Remote servers have their own (remote.py), with what strangers call for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from .answers import (
    Answer,
    Client,
    Embedded,
    EngineError,
    Growing,
    Likelihood,
    Messages,
    Piece,
    TokenCount,
    answer_grown,
    answer_of,
    body_of,
    grow,
    lines_of,
    raise_for,
)

EMBEDDED_AT_ONCE = 64  # texts of one request
PLACE = ": queue position "  # a comment of the stream, which other clients pass over

__all__ = [
    "Answer",
    "Client",
    "Embedded",
    "EngineClient",
    "EngineError",
    "Likelihood",
    "Messages",
    "Piece",
    "TokenCount",
]


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

    def health(self, seconds: float | None = None) -> dict[str, Any]:
        """``seconds`` to wait for it at most; unless given as long as for any other answer."""
        return self._ask("GET", "/health", seconds=seconds)

    def rest(self, pid: int) -> int:
        """Have the engine let its GPU memory go until ``wake`` or the end of this process; returns the bytes it freed."""
        return int(self._ask("POST", "/rest", {"pid": pid})["freed_bytes"])

    def wake(self, pid: int) -> None:
        self._ask("POST", "/wake", {"pid": pid})

    def models(self) -> list[str]:
        return [model["id"] for model in self._ask("GET", "/v1/models")["data"]]

    def tokenize(self, messages: Messages, model: str) -> TokenCount:
        counted = self._ask("POST", "/tokenize", {"model": model, "messages": list(messages)})
        return TokenCount(counted["count"], counted["max_model_len"])

    def rewards(self, messages: Messages, answers: Sequence[str], *, model: str) -> list[float]:
        """What a reward model gives each answer to a conversation, in the order of the answers."""
        body = {"model": model, "messages": [dict(message) for message in messages], "answer": list(answers)}
        try:
            data = self._ask("POST", "/v1/rewards", body)["data"]
            return [float(one["score"]) for one in sorted(data, key=lambda one: one["index"])]
        except (KeyError, TypeError) as problem:
            raise EngineError("The engine sent scores that cannot be read.", "engine_unreadable") from problem

    def embeddings(self, texts: Sequence[str]) -> Embedded:
        """The base's features of each text, in their order."""
        try:
            base, found = None, []
            for start in range(0, len(texts), EMBEDDED_AT_ONCE):
                body = {"model": "base", "input": list(texts[start : start + EMBEDDED_AT_ONCE])}
                said = self._ask("POST", "/v1/embeddings", body)
                base = str(said["base_digest"])
                found += [list(one["embedding"]) for one in sorted(said["data"], key=lambda one: one["index"])]
            return Embedded(base, found)
        except (KeyError, TypeError) as problem:
            raise EngineError("The engine sent features that cannot be read.", "engine_unreadable") from problem

    def likelihoods(
        self, conversations: Sequence[Messages], answers: Sequence[str], *, model: str
    ) -> list[list[Likelihood]]:
        """By conversation, by answer. What the conversations begin with alike is read once: send those that share it together."""
        asked = [[dict(message) for message in messages] for messages in conversations]
        body = {"model": model, "conversations": asked, "answers": list(answers)}
        try:
            data = self._ask("POST", "/v1/likelihoods", body)["data"]
            return [
                [Likelihood(tuple(it["tokens"]), tuple(it["logprobs"]), it["straddles"]) for it in one["answers"]]
                for one in sorted(data, key=lambda one: one["index"])
            ]
        except (KeyError, TypeError) as problem:
            raise EngineError("The engine sent likelihoods that cannot be read.", "engine_unreadable") from problem

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
        body = body_of(messages, model, n, seed, temperature, top_p, top_k, max_tokens, stop)
        started = time.monotonic()
        reply = self._ask("POST", "/v1/chat/completions", body)
        seconds = time.monotonic() - started
        try:
            return [
                answer_of(reply, choice, n, seconds) for choice in sorted(reply["choices"], key=lambda it: it["index"])
            ]
        except (KeyError, TypeError) as problem:
            raise EngineError("The engine sent an answer that cannot be read.", "engine_unreadable") from problem

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
        body = body_of(messages, model, n, seed, temperature, top_p, top_k, max_tokens, stop)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        started = time.monotonic()
        growing: dict[int, Growing] = {}
        last: dict[str, Any] = {}
        for chunk in self._events("/v1/chat/completions", body):
            if isinstance(chunk, int):
                yield Piece(0, "", place=chunk)
                continue
            last = {**last, **{key: value for key, value in chunk.items() if value is not None}}
            for choice in chunk.get("choices", []):
                text = grow(growing.setdefault(choice["index"], Growing()), choice, time.monotonic() - started)
                if text:
                    yield Piece(choice["index"], text)
        if not growing or not all(item.finish_reason for item in growing.values()):
            raise EngineError("The engine stopped in the middle of an answer. Ask again.", "engine_cut_off")
        for index in sorted(growing):
            yield Piece(index, "", answer_grown(growing[index], last, len(growing)))

    def _must_be_open(self) -> None:
        """Somebody may have started the engine again, and closed the way to the dead one, while we held it."""
        if self._http.is_closed:
            raise EngineError("The engine was started again meanwhile. Ask again.", "engine_restarted")

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> dict[str, Any]:
        try:
            self._must_be_open()
            timeout = self._http.timeout if seconds is None else httpx.Timeout(seconds)
            response = self._http.request(method, path, json=body, timeout=timeout)
            raise_for(response)
            return response.json()
        except httpx.HTTPError as problem:
            raise _unreachable(problem) from problem
        except ValueError as problem:
            raise EngineError("The engine sent an answer that cannot be read.", "engine_unreadable") from problem

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any] | int]:
        """Chunks of a stream; a number is the request's place in the queue."""
        try:
            self._must_be_open()
            with self._http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise_for(response)
                for line in lines_of(response):
                    data = line.removeprefix("data:").strip()
                    if line.startswith(PLACE) and line[len(PLACE) :].strip().isdigit():
                        yield int(line[len(PLACE) :])
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
            raise EngineError("The engine sent an answer that cannot be read.", "engine_unreadable") from problem


def _unreachable(problem: httpx.HTTPError) -> EngineError:
    if isinstance(problem, httpx.TimeoutException):
        return EngineError(
            "The engine took too long to answer. Ask for fewer tokens, or try again when it is less busy.",
            "engine_slow",
        )
    if isinstance(problem, httpx.ReadError | httpx.RemoteProtocolError):
        return EngineError(
            "The engine ended while it answered. It is started again when it is next asked: ask again.", "engine_ended"
        )
    return EngineError(
        "The engine cannot be reached: it has stopped or is starting. Try again in a moment.", "engine_unreachable"
    )
