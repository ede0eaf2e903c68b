"""The client of a remote engine: any OpenAI-compatible server at a base URL the operator allows.

It is asked with what nearly all such servers take. One sample a request, with a seed of its own, because not all take ``n``;
what a server refuses by name (log-probabilities, usage in streams, the older name of the token limit) is left out from then on.
A refusal that may pass (429, 5xx, no connection) is tried again a few times, never after an answer has begun.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import httpx

from .answers import (
    Answer,
    EngineError,
    Growing,
    Messages,
    Piece,
    TokenCount,
    answer_grown,
    answer_of,
    body_of,
    grow,
    raise_for,
)
from .blotting import Held, answer_without, blotted, said_without
from .events import events_of

TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try, doubled before each next one
LONGEST_PAUSE_SECONDS = 30.0
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
BYTES_PER_TOKEN = 3  # of UTF-8: more tokens than an English text has, about as many as a Chinese one; our choice
TOKENS_PER_MESSAGE = 8  # what a chat template writes around a message, generously; our choice
MESSAGE_LENGTH = 300
OTHER_NAMES = {"eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}  # why it ended
CHAT = "chat/completions"


class RemoteClient:
    """Safe to share between threads. ``key`` gives the key when a request needs it; it is kept nowhere."""

    def __init__(
        self,
        http: httpx.Client,
        key: Callable[[], str],
        context_tokens: int,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = http
        self._key = key
        self._context_tokens = context_tokens
        self._pause = pause
        self._left_out: frozenset[str] = frozenset()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[str]:
        """What the server offers, by name. Raises EngineError."""
        reply, key = self._whole("GET", "models", None), self._key()
        with _read():
            return sorted(said_without(str(model["id"]), key) for model in reply["data"])

    def tokenize(self, messages: Messages, model: str) -> TokenCount:
        """An estimate on the safe side: few servers count tokens for others, and each counts in its own way."""
        size = sum(len(message["content"].encode()) for message in messages)
        count = -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)
        return TokenCount(count, self._context_tokens, is_estimate=True)

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
        """n answers to a conversation, asked one after another. Raises EngineError."""
        found = []
        for sample in range(n):
            own = seed_of(seed, sample)
            body = body_of(messages, model, 1, own, temperature, top_p, top_k, max_tokens, stop)
            started = time.monotonic()
            reply = self._whole("POST", CHAT, body)
            with _read():
                answer = answer_of(reply, reply["choices"][0], 1, time.monotonic() - started)
            found.append(_ended(answer_without(answer, self._key())))
        return found

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
        """The same answers as they grow, one after another. Closing the generator closes the connection. Raises EngineError."""
        for sample in range(n):
            own = seed_of(seed, sample)
            body = body_of(messages, model, 1, own, temperature, top_p, top_k, max_tokens, stop)
            yield from self._streamed(sample, body | {"stream": True, "stream_options": {"include_usage": True}})

    def _streamed(self, sample: int, body: dict[str, Any]) -> Iterator[Piece]:
        started = time.monotonic()
        growing, held = Growing(), Held(self._key())
        last: dict[str, Any] = {}
        for chunk in self._events(body):
            with _read():
                last |= {key: value for key, value in chunk.items() if value is not None}
                texts = [grow(growing, choice, time.monotonic() - started) for choice in chunk.get("choices") or []]
            if text := held.shown("".join(texts)):
                yield Piece(sample, text)
        if not growing.finish_reason:
            raise EngineError("The engine stopped in the middle of an answer. Ask again.", "engine_cut_off")
        if text := held.rest():
            yield Piece(sample, text)
        yield Piece(sample, "", _ended(answer_without(answer_grown(growing, last, 1), self._key())))

    # one request

    def _whole(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        with self._reply(method, path, body) as response:
            return self._object(response.read())

    def _object(self, body: bytes) -> dict[str, Any]:
        with _read():
            reply = json.loads(body)
        if not isinstance(reply, dict):
            raise _unreadable()
        if reply.get("error"):
            raise EngineError(self._told(reply["error"], "The engine failed on this request."))
        return reply

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a stream; of a server that does not stream, its whole answer as one."""
        with self._reply("POST", CHAT, body) as response:
            parts = response.iter_bytes()
            first = next((part for part in parts if part.strip()), b"")
            if first.lstrip().startswith(b"{"):  # no event begins so, whatever kind the server says it is
                whole = self._object(first + b"".join(parts))
                with _read():
                    choice = whole["choices"][0]
                    yield {**whole, "choices": [{**choice, "delta": choice["message"]}]}
                return
            events = events_of(chain([first], parts))
            while True:
                with _read():
                    event = next(events, None)
                if event is None:
                    return
                if not isinstance(event.data, dict):
                    raise _unreadable()
                error = event.data.get("error") or (event.data if event.name == "error" else None)
                if error:
                    raise EngineError(self._told(error, "The engine failed in the middle of an answer."))
                yield event.data

    @contextmanager
    def _reply(self, method: str, path: str, body: dict[str, Any] | None) -> Iterator[httpx.Response]:
        """The response with status 200, still to be read; after a few tries at most, an EngineError that says why not."""
        try:
            response = self._asked(method, path, body)
            try:
                yield response
            finally:
                response.close()
        except httpx.TimeoutException as problem:
            raise EngineError(
                "The engine took too long to answer. Ask for fewer tokens, or try later.", "engine_slow"
            ) from problem
        except httpx.HTTPError as problem:
            raise EngineError(
                "The engine cannot be reached, or broke off. Try again in a moment.", "engine_broke_off"
            ) from problem

    def _asked(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        tries = 0
        while True:
            tries += 1
            headers = {"Authorization": f"Bearer {key}"} if (key := self._key()) else {}
            left_out = self._left_out  # others ask meanwhile, and learn what is refused
            request = self._http.build_request(method, path, json=_without(body, left_out), headers=headers)
            if self._http.is_closed:
                raise EngineError("This engine was removed meanwhile. Choose another model.", "engine_removed")
            try:
                response = self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if tries == TRIES:
                    raise
                self._pause(pause_seconds(tries, None))
                continue
            if response.status_code == 200:
                return response
            problem, wait = self._refusal(response), response.headers.get("retry-after")
            refused = _refused_by_name(problem, body, left_out)
            if refused:
                self._left_out |= {refused}
                tries -= 1
            elif response.status_code in PASSING and tries < TRIES:
                self._pause(pause_seconds(tries, wait))
            else:
                raise problem

    def _refusal(self, response: httpx.Response) -> EngineError:
        status = response.status_code
        if 300 <= status < 400:
            response.close()
            return EngineError(
                "The engine sent us elsewhere, which is not followed. Give its final address.",
                "engine_elsewhere",
                status=status,
            )
        if status in (401, 403):
            response.close()
            return EngineError(
                f"The engine refused the key (status {status}). An admin should check where the key stands.",
                "refused_key",
                status=status,
            )
        try:
            response.read()
            raise_for(response)
        except EngineError as problem:
            told = self._told({"message": str(problem)}, f"The engine answered with status {status}.")
            return EngineError(told, status=status)  # its code is not one of ours
        finally:
            response.close()
        raise AssertionError("only refusals come here")

    def _told(self, error: Any, otherwise: str) -> str:
        """What a server says of an error, clipped, on one line and never with the key in it."""
        message = str(error.get("message") or otherwise) if isinstance(error, dict) else str(error)
        message = blotted(message, self._key())
        message = "".join(letter if letter.isprintable() else " " for letter in message)
        return message if len(message) <= MESSAGE_LENGTH else message[:MESSAGE_LENGTH] + "…"


def _without(body: dict[str, Any] | None, left_out: frozenset[str]) -> dict[str, Any] | None:
    """The body without what a server refused before."""
    if body is None:
        return None
    kept = {name: value for name, value in body.items() if name not in left_out}
    if "max_tokens" in body and "max_tokens" in left_out:
        kept["max_completion_tokens"] = body["max_tokens"]
    return kept


def seed_of(seed: int | None, sample: int) -> int | None:
    """The first sample has the request's own seed, the others one that follows from it; within what servers take."""
    if seed is None:
        return None
    if sample == 0 and 0 <= seed < 2**31:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}:{sample}".encode(), digest_size=4).digest(), "big") >> 1


def pause_seconds(tries: int, retry_after: str | None, draw: Callable[[], float] = random.random) -> float:
    """How long to wait after so many tries: what the server asks, within bounds, else twice as long each time, with jitter."""
    asked = _seconds_of(retry_after) if retry_after else None
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_PAUSE_SECONDS)
    return min(PAUSE_SECONDS * 2 ** (tries - 1) * (0.5 + draw()), LONGEST_PAUSE_SECONDS)


def _seconds_of(retry_after: str) -> float | None:
    """Seconds, or a date, as HTTP has it."""
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after[:9])
    try:
        return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def _refused_by_name(problem: EngineError, body: dict[str, Any] | None, left_out: frozenset[str]) -> str | None:
    """What the answer does not hang on, if the server refuses just that."""
    if body is None or problem.status not in (400, 422):
        return None
    signs = {"logprobs": "logprobs", "stream_options": "stream_options", "max_tokens": "max_completion_tokens"}
    asked = (name for name in signs if name in body and name not in left_out)
    return next((name for name in asked if signs[name] in str(problem)), None)


def _ended(answer: Answer) -> Answer:
    """Only answers that ended by themselves or at the limit are kept: others are no answers."""
    answer = replace(answer, finish_reason=OTHER_NAMES.get(answer.finish_reason, answer.finish_reason))
    if answer.finish_reason not in ("stop", "length"):
        reason = "".join(letter for letter in answer.finish_reason if letter.isprintable())[:40]
        raise EngineError(
            f"The engine gave no whole answer (it says: {reason or 'nothing'}). Ask something else.",
            "engine_no_answer",
            reason=reason or "–",
        )
    return answer


def _unreadable() -> EngineError:
    return EngineError("The engine sent an answer that cannot be read.", "engine_unreadable")


@contextmanager
def _read() -> Iterator[None]:
    """What is found within not to be what the protocol says is told as that."""
    try:
        yield
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as problem:
        raise _unreadable() from problem
