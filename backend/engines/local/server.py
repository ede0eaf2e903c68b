"""The engine's routes: OpenAI's protocol and a few of our own, behind the door."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from . import wire
from .door import KNOWN, Door
from .model import Base
from .resolver import Resolver
from .resting import CannotRest, Rest, UnknownProcess
from .scheduler import Scheduler
from .service import Service
from .wire import ApiProblem


def build_app(base: Base, scheduler: Scheduler, resolver: Resolver, key: str, rest: Rest | None = None) -> ASGIApp:
    """The whole server as one ASGI application. ``rest``: where somebody else has begun one."""
    app = FastAPI(title="Whetstone engine", openapi_url=None, docs_url=None, redoc_url=None)
    service = Service(base, scheduler, resolver)
    rest = rest or Rest(base, scheduler)

    @app.get("/health")
    async def health(request: Request) -> dict[str, Any]:
        whole = {**scheduler.health(), **rest.health()}
        return whole if request.scope[KNOWN] else {name: whole[name] for name in ("loaded", "resting")}

    @app.post("/rest")
    async def begin_rest(request: Request) -> dict[str, Any]:
        body = wire.parse(wire.RestBody, await request.body())
        try:
            return {"freed_bytes": await run_in_threadpool(rest.begin, body.pid)}
        except UnknownProcess as problem:
            raise ApiProblem(400, str(problem), "invalid_value", param="pid") from problem
        except CannotRest as problem:
            raise ApiProblem(500, str(problem), "internal_error") from problem

    @app.post("/wake")
    async def end_rest(request: Request) -> dict[str, Any]:
        await run_in_threadpool(rest.end, wire.parse(wire.RestBody, await request.body()).pid)
        return rest.health()

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        names = await run_in_threadpool(resolver.names)
        return {"object": "list", "data": [wire.model_card(name) for name in names]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        model = await service.resolve(name)
        return wire.model_card(model.name) | wire.digests_of(model, base.digest)

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        return await service.tokenize(wire.parse(wire.TokenizeBody, await request.body()))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await service.chat(wire.parse(wire.ChatBody, await request.body()))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await service.complete(wire.parse(wire.CompletionBody, await request.body()))

    @app.post("/v1/rewards")
    async def rewards(request: Request) -> dict[str, Any]:
        return await service.rewards(wire.parse(wire.RewardBody, await request.body()))

    @app.post("/v1/likelihoods")
    async def likelihoods(request: Request) -> dict[str, Any]:
        return await service.likelihoods(wire.parse(wire.LikelihoodBody, await request.body()))

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> dict[str, Any]:
        return await service.embeddings(wire.parse(wire.EmbeddingBody, await request.body()))

    @app.exception_handler(ApiProblem)
    async def answer_problem(_: Request, problem: ApiProblem) -> Response:
        return JSONResponse(problem.body, problem.status, problem.headers)

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def answer_no_route(request: Request, problem: HTTPException) -> Response:
        message = f"{request.method} {request.url.path} is not served here."
        body = wire.error_body(problem.status_code, message, "unknown_url")
        return JSONResponse(body, problem.status_code, problem.headers)  # of 405: what is allowed

    @app.exception_handler(Exception)
    async def answer_fault(_: Request, __: Exception) -> Response:
        message = "The engine failed on this request; its log says why."
        return JSONResponse(wire.error_body(500, message, "internal_error"), 500)

    return Door(app, key)
