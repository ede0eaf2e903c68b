"""The engine's door and routes: OpenAI's protocol on loopback, one bearer key."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from . import scheduler as work
from . import wire
from .model import Base, ModelProblem
from .resolver import Resolved, Resolver
from .sampling import Sampling
from .wire import ApiProblem

BODY_LIMIT = 2 * 1024 * 1024
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
OPEN_PATHS = {"/health"}


def build_app(base: Base, scheduler: work.Scheduler, resolver: Resolver, key: str) -> ASGIApp:
    """The whole server as one ASGI application."""
    app = FastAPI(title="Whetstone engine", openapi_url=None, docs_url=None, redoc_url=None)
    service = _Service(base, scheduler, resolver)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return scheduler.health()

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        names = await run_in_threadpool(resolver.names)
        return {"object": "list", "data": [_model_card(name) for name in names]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        return _model_card((await service.resolve(name)).name)

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        return await service.tokenize(wire.parse(wire.TokenizeBody, await request.body()))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await service.chat(wire.parse(wire.ChatBody, await request.body()))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await service.complete(wire.parse(wire.CompletionBody, await request.body()))

    @app.exception_handler(ApiProblem)
    async def answer_problem(_: Request, problem: ApiProblem) -> Response:
        return JSONResponse(problem.body, problem.status, problem.headers)

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def answer_no_route(request: Request, problem: HTTPException) -> Response:
        message = f"{request.method} {request.url.path} is not served here."
        return JSONResponse(wire.error_body(problem.status_code, message, "unknown_url"), problem.status_code)

    @app.exception_handler(Exception)
    async def answer_fault(_: Request, __: Exception) -> Response:
        message = "The engine failed on this request; its log says why."
        return JSONResponse(wire.error_body(500, message, "internal_error"), 500)

    return Door(app, key)


def _model_card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "whetstone"}


class Door:
    """Host, key and size are checked before anything is read or parsed."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            body = await _read_body(scope, receive) if scope["method"] == "POST" else None
        except ApiProblem as problem:
            await JSONResponse(problem.body, problem.status, problem.headers)(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _replay(body, receive), send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host.rsplit(":", 1)[0].lower() not in LOOPBACK and host.lower() not in LOOPBACK:
            raise ApiProblem(421, "This engine answers to loopback host names only.", "misdirected_request")
        is_known = secrets.compare_digest(headers.get(b"authorization", b""), self._key)
        if not is_known and scope["path"] not in OPEN_PATHS:
            raise ApiProblem(401, "The key is missing or wrong.", "invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            raise ApiProblem(413, f"The body may have at most {BODY_LIMIT} bytes.", "body_too_large")


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise ApiProblem(413, f"The body may have at most {BODY_LIMIT} bytes.", "body_too_large")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Any:
        return parts.pop() if parts else await receive()

    return replayed


class _Service:
    """From a parsed body to a request for the scheduler, and from its events to an answer."""

    def __init__(self, base: Base, scheduler: work.Scheduler, resolver: Resolver) -> None:
        self._base = base
        self._scheduler = scheduler
        self._resolver = resolver

    async def resolve(self, name: str) -> Resolved:
        found = await run_in_threadpool(self._resolver.resolve, name)
        if found is None:
            raise ApiProblem(404, f"There is no model named {name!r} here.", "model_not_found", param="model")
        return found

    async def tokenize(self, body: wire.TokenizeBody) -> dict[str, Any]:
        await self.resolve(body.model)
        if (body.messages is None) == (body.prompt is None):
            raise ApiProblem(400, "Give either messages or prompt.", "invalid_value", param="messages")
        if body.messages is not None:
            tokens = self._chat_tokens(body.messages, body.add_generation_prompt)
        else:
            tokens = self._base.text_tokens(body.prompt or "")
        names = self._base.tokenizer.convert_ids_to_tokens(tokens)
        return {"count": len(tokens), "max_model_len": self._base.context, "tokens": tokens, "token_strs": names}

    async def chat(self, body: wire.ChatBody) -> Response:
        model = await self.resolve(body.model)
        tokens = self._chat_tokens(body.messages)
        if body.top_logprobs and not body.logprobs:
            raise ApiProblem(400, "top_logprobs needs logprobs: true.", "invalid_value", param="top_logprobs")
        asked = body.max_completion_tokens or body.max_tokens
        if body.max_tokens == 0:
            raise ApiProblem(
                400, "max_tokens: a chat answer needs at least 1 token.", "invalid_value", param="max_tokens"
            )
        top = (body.top_logprobs or 0) if body.logprobs else None
        request = self._request(body, model, [tokens], asked, top, wants_prompt_scores=False)
        return _Reply(self._base, self._scheduler, request, body, is_chat=True, echo=None)

    async def complete(self, body: wire.CompletionBody) -> Response:
        model = await self.resolve(body.model)
        prompts = self._prompt_tokens(body.prompt)
        echo = (
            [_decoded(self._base, tokens, body.prompt, at) for at, tokens in enumerate(prompts)] if body.echo else None
        )
        if body.echo and body.stream:
            raise ApiProblem(400, "echo is answered whole; leave stream out.", "invalid_value", param="echo")
        asked = 16 if body.max_tokens is None else body.max_tokens
        scores = bool(body.echo) and body.logprobs is not None
        request = self._request(body, model, prompts, asked, body.logprobs, wants_prompt_scores=scores)
        return _Reply(self._base, self._scheduler, request, body, is_chat=False, echo=echo)

    def _request(
        self,
        body: wire.ChatBody | wire.CompletionBody,
        model: Resolved,
        prompts: list[list[int]],
        asked: int | None,
        top_logps: int | None,
        *,
        wants_prompt_scores: bool,
    ) -> work.Request:
        longest = max(len(tokens) for tokens in prompts)
        context = self._base.context
        max_tokens = context - longest if asked is None else asked
        if longest + max_tokens > context or (asked is None and max_tokens < 1):
            wish = f"{longest} prompt tokens" + (f" and {asked} new ones" if asked else " and at least 1 new one")
            message = (
                f"This model's context holds {context} tokens; the request needs {wish}. "
                "Shorten the prompt or lower max_tokens."
            )
            param = "messages" if isinstance(body, wire.ChatBody) else "prompt"
            raise ApiProblem(400, message, "context_length_exceeded", param=param)
        if (body.n or 1) > self._scheduler.row_limit:
            message = f"n: this engine answers with at most {self._scheduler.row_limit} samples at once."
            raise ApiProblem(400, message, "invalid_value", param="n")
        return work.Request(
            model=model,
            prompts=prompts,
            max_tokens=max_tokens,
            seed=body.seed if body.seed is not None else secrets.randbits(62),
            n=body.n or 1,
            sampling=Sampling(
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=1.0 if body.top_p is None else body.top_p,
                top_k=max(0, body.top_k or 0),
            ),
            stop=body.stops,
            top_logps=top_logps,
            wants_prompt_scores=wants_prompt_scores,
            is_streamed=bool(body.stream),
        )

    def _chat_tokens(self, messages: Sequence[wire.Message], add_generation_prompt: bool = True) -> list[int]:
        try:
            return self._base.chat_tokens(
                [message.plain() for message in messages], add_generation_prompt=add_generation_prompt
            )
        except ModelProblem as problem:
            raise ApiProblem(400, str(problem), "invalid_messages", param="messages") from problem

    def _prompt_tokens(self, prompt: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
        if isinstance(prompt, str):
            rows = [self._base.text_tokens(prompt)]
        elif isinstance(prompt[0], int):
            rows = [prompt]
        else:
            rows = [self._base.text_tokens(item) if isinstance(item, str) else item for item in prompt]
        if not all(rows):
            raise ApiProblem(400, "An empty prompt has no tokens to go on from.", "invalid_value", param="prompt")
        if not all(0 <= token < self._base.vocabulary for row in rows for token in row):
            raise ApiProblem(
                400, f"Token ids go from 0 to {self._base.vocabulary - 1}.", "invalid_value", param="prompt"
            )
        return rows


def _decoded(base: Base, tokens: list[int], prompt: Any, at: int) -> str:
    given = prompt if isinstance(prompt, str) else prompt[at]
    return given if isinstance(given, str) else base.tokenizer.decode(tokens)


class _Reply(Response):
    """Runs the request while it answers, whole or as a stream; a client that hangs up frees its rows at once."""

    def __init__(
        self,
        base: Base,
        scheduler: work.Scheduler,
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
        self._envelope = wire.Envelope(is_chat=is_chat, model=request.model.name, digest=request.model.digest)
        self._wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._prompt_tokens = sum(len(tokens) for tokens in request.prompts)
        self._events: asyncio.Queue[work.Event | None] = asyncio.Queue()
        self._ticket = self._submit(scheduler)

    def _submit(self, scheduler: work.Scheduler) -> work.Ticket:
        loop = asyncio.get_running_loop()

        def emit(event: work.Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        try:
            return scheduler.submit(self._request, emit)
        except work.QueueFull as full:
            raise ApiProblem(
                429, str(full), "queue_full", headers={"Retry-After": str(full.retry_after_seconds)}
            ) from full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        try:
            await (self._send_stream(send) if self._request.is_streamed else self._send_whole(scope, receive, send))
        except _HungUp:
            pass
        finally:
            self._ticket.cancel()
            watch.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._ticket.cancel()
        self._events.put_nowait(None)

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
            response = JSONResponse(await self._whole())
        except ApiProblem as problem:
            response = JSONResponse(problem.body, problem.status)
        await response(scope, receive, send)

    async def _whole(self) -> dict[str, Any]:
        wanted = len(self._request.prompts) * self._request.n
        pieces: dict[int, work.Piece] = {}
        scores: dict[int, list[work.TokenLogp]] = {}
        while len(pieces) < wanted:
            event = await self._next()
            if isinstance(event, work.PromptScores):
                scores[event.prompt] = event.tokens
            else:
                pieces[event.sample] = event
        choices = [self._choice(pieces[at], scores.get(at // self._request.n, [])) for at in range(wanted)]
        usage = wire.usage_of(self._prompt_tokens, sum(piece.tokens_so_far for piece in pieces.values()))
        return self._envelope.answer(choices, usage)

    def _choice(self, piece: work.Piece, prompt_scores: list[work.TokenLogp]) -> dict[str, Any]:
        echoed = self._echo[piece.sample // self._request.n] if self._echo else ""
        choice: dict[str, Any] = {"index": piece.sample, "finish_reason": piece.finish_reason, **wire.timing_of(piece)}
        choice["logprobs"] = self._logprobs(prompt_scores + piece.tokens, 0 if prompt_scores else len(echoed))
        if self._envelope.is_chat:
            return choice | {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
        return choice | {"text": echoed + piece.text}

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
        has_begun = False
        try:
            while ended < wanted:
                piece = await self._next()
                if not isinstance(piece, work.Piece):
                    continue
                if not has_begun:
                    has_begun = True
                    await _begin(send)
                    for at in range(wanted) if self._envelope.is_chat else ():
                        await _say(send, self._envelope.chunk([_delta(at, {"role": "assistant", "content": ""})]))
                await _say(send, self._envelope.chunk([self._part(piece, offsets[piece.sample])]))
                offsets[piece.sample] += len(piece.text)
                if piece.finish_reason:
                    ended, tokens = ended + 1, tokens + piece.tokens_so_far
        except ApiProblem as problem:
            if not has_begun:
                await _begin(send, problem.status, "application/json")
                await send({"type": "http.response.body", "body": json.dumps(problem.body).encode()})
                return
            await _say(send, problem.body)
        else:
            if self._wants_usage:
                await _say(send, self._envelope.chunk([], wire.usage_of(self._prompt_tokens, tokens)))
        await _say(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _part(self, piece: work.Piece, offset: int) -> dict[str, Any]:
        if self._envelope.is_chat:
            choice = _delta(piece.sample, {"content": piece.text} if piece.text else {})
        else:
            choice = {"index": piece.sample, "text": piece.text}
        choice |= {"finish_reason": piece.finish_reason, "logprobs": self._logprobs(piece.tokens, offset)}
        return choice | wire.timing_of(piece) if piece.finish_reason else choice


class _HungUp(Exception):
    """The client has gone; nobody needs an answer."""


def _delta(index: int, delta: dict[str, str]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


async def _begin(send: Send, status: int = 200, kind: str = "text/event-stream; charset=utf-8") -> None:
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _say(send: Send, data: dict[str, Any] | str) -> None:
    await send({"type": "http.response.body", "body": wire.server_sent(data), "more_body": True})
