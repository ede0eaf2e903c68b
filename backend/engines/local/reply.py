"""From the scheduler's events to an answer, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from . import asking as work
from . import wire
from .model import Base
from .scheduler import Scheduler
from .wire import ApiProblem

TOLD_EVERY_SECONDS = 1.0  # how often a stream that waits is told its place; our choice
REST_RETRY_SECONDS = 30  # a training takes minutes; our choice
Scores = dict[int, list[work.TokenLogp]]  # of prompts, by their number


class Reply(Response):
    """Runs the request while it answers, whole or as a stream; a client that hangs up frees its rows at once."""

    def __init__(
        self,
        base: Base,
        scheduler: Scheduler,
        request: work.Request,
        body: wire.ChatBody | wire.CompletionBody,
        *,
        is_chat: bool,
        echo: list[str] | None,
    ) -> None:
        self.background = None
        self._base = base
        self._request = request
        self._echo = echo
        self._envelope = wire.Envelope(is_chat=is_chat, model=request.model, base_digest=base.digest)
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._prompt_tokens = sum(len(tokens) for tokens in request.prompts)
        self._events: asyncio.Queue[work.Event | None] = asyncio.Queue()
        self._has_news = asyncio.Event()
        self._scheduler = scheduler
        self._ticket = self._submit()
        self._own_headers = {"X-Queue-Position": str(scheduler.place(self._ticket))}

    def _submit(self) -> work.Ticket:
        loop = asyncio.get_running_loop()

        def emit(event: work.Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._hear, event)

        try:
            return self._scheduler.submit(self._request, emit)
        except (work.QueueFull, work.Resting) as refusal:
            raise refusal_problem(refusal) from refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        try:
            await (self._send_stream(send) if self._request.is_streamed else self._send_whole(scope, receive, send))
        except _HungUp:
            pass
        finally:
            self._ticket.cancel()
            watch.cancel()

    def _hear(self, event: work.Event | None) -> None:
        self._events.put_nowait(event)
        self._has_news.set()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._ticket.cancel()
        self._hear(None)

    async def _next(self) -> work.Piece | work.PromptScores:
        event = await self._events.get()
        if event is None:
            raise _HungUp
        if isinstance(event, work.Failed):
            raise ApiProblem(
                500, event.message, "model_unusable" if event.is_fault_of_model else "internal_error", param="model"
            )
        return event

    # whole

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response: Response = await self._whole()
        except ApiProblem as problem:
            response = JSONResponse(problem.body, problem.status, self._own_headers)
        await response(scope, receive, send)

    async def _whole(self) -> Response:
        wanted = len(self._request.prompts) * self._request.n
        pieces: dict[int, work.Piece] = {}
        scores: Scores = {}
        while len(pieces) < wanted:
            event = await self._next()
            if isinstance(event, work.PromptScores):
                scores[event.prompt] = event.tokens
            else:
                pieces[event.sample] = event
        if self._request.top_logps is None:
            return self._answer(pieces, scores)
        return await run_in_threadpool(self._answer, pieces, scores)  # a long prompt's scores would hold all streams up

    def _answer(self, pieces: dict[int, work.Piece], scores: Scores) -> Response:
        choices = [self._choice(self._echoed(pieces[at], scores)) for at in range(len(pieces))]
        usage = wire.usage_of(self._prompt_tokens, sum(piece.tokens_so_far for piece in pieces.values()))
        return JSONResponse(self._envelope.answer(choices, usage), headers=self._own_headers)

    def _choice(self, piece: work.Piece) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": piece.sample, "finish_reason": piece.finish_reason, **wire.timing_of(piece)}
        choice["logprobs"] = self._logprobs(piece.tokens, 0)
        if self._envelope.is_chat:
            return choice | {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
        return choice | {"text": piece.text}

    def _echoed(self, piece: work.Piece, scores: Scores) -> work.Piece:
        """An answer's first piece, with the prompt before it where that was asked for."""
        if self._echo is None:
            return piece
        prompt = piece.sample // self._request.n
        return piece._replace(text=self._echo[prompt] + piece.text, tokens=scores.get(prompt, []) + piece.tokens)

    def _logprobs(self, tokens: list[work.TokenLogp], offset: int) -> dict[str, Any] | None:
        if self._request.top_logps is None:
            return None
        if self._envelope.is_chat:
            return wire.chat_logprobs(self._base.tokenizer, tokens)
        return wire.completion_logprobs(self._base.tokenizer, tokens, offset)

    # stream

    async def _send_stream(self, send: Send) -> None:
        wanted = len(self._request.prompts) * self._request.n
        ended, tokens, offsets = 0, 0, [0] * wanted
        begun: set[int] = set()
        scores: Scores = {}
        has_begun = await self._tell_place(send)
        has_roles = not self._envelope.is_chat
        try:
            while ended < wanted:
                piece = await self._next()
                if isinstance(piece, work.PromptScores):
                    scores[piece.prompt] = piece.tokens
                    continue
                if piece.sample not in begun:
                    begun.add(piece.sample)
                    piece = self._echoed(piece, scores)
                if not has_begun:
                    has_begun = True
                    await self._begin(send)
                if not has_roles:
                    has_roles = True
                    for at in range(wanted):
                        await _say(send, self._envelope.chunk([_delta(at, {"role": "assistant", "content": ""})]))
                await _say(send, self._envelope.chunk([self._part(piece, offsets[piece.sample])]))
                if self._request.top_logps is not None:
                    offsets[piece.sample] += wire.width_of(self._base.tokenizer, piece.tokens)
                if piece.finish_reason:
                    ended, tokens = ended + 1, tokens + piece.tokens_so_far
        except ApiProblem as problem:
            if not has_begun:
                await self._begin(send, problem.status, "application/json")
                await send({"type": "http.response.body", "body": json.dumps(problem.body).encode()})
                return
            await _say(send, problem.body)
        else:
            if self._wants_usage:
                await _say(send, self._envelope.chunk([], wire.usage_of(self._prompt_tokens, tokens)))
        await _say(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell_place(self, send: Send) -> bool:
        """While the request waits for room, comments of the stream say its place; True if the stream was begun for that.

        Until then an error can still be an answer of its own, with its status.
        """
        has_begun = False
        while not self._has_news.is_set():
            try:
                await asyncio.wait_for(self._has_news.wait(), TOLD_EVERY_SECONDS)
            except TimeoutError:
                place = self._scheduler.place(self._ticket)
                if place and not has_begun:
                    has_begun = True
                    await self._begin(send)
                if place:
                    comment = f": queue position {place}\n\n".encode()
                    await send({"type": "http.response.body", "body": comment, "more_body": True})
        return has_begun

    async def _begin(self, send: Send, status: int = 200, kind: str = "text/event-stream; charset=utf-8") -> None:
        headers = {"content-type": kind, "cache-control": "no-store", **self._own_headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})

    def _part(self, piece: work.Piece, offset: int) -> dict[str, Any]:
        if self._envelope.is_chat:
            choice = _delta(piece.sample, {"content": piece.text} if piece.text else {})
        else:
            choice = {"index": piece.sample, "text": piece.text}
        choice |= {"finish_reason": piece.finish_reason, "logprobs": self._logprobs(piece.tokens, offset)}
        return choice | wire.timing_of(piece) if piece.finish_reason else choice


def refusal_problem(refusal: work.QueueFull | work.Resting) -> ApiProblem:
    """Why the request was not taken, and when to come again."""
    if isinstance(refusal, work.Resting):
        return ApiProblem(503, str(refusal), "resting", headers={"Retry-After": str(REST_RETRY_SECONDS)})
    return ApiProblem(429, str(refusal), "queue_full", headers={"Retry-After": str(refusal.retry_after_seconds)})


class _HungUp(Exception):
    """The client has gone; nobody needs an answer."""


def _delta(index: int, delta: dict[str, str]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


async def _say(send: Send, data: dict[str, Any] | str) -> None:
    await send({"type": "http.response.body", "body": wire.server_sent(data), "more_body": True})
