"""The engine's door: host, key and size are checked before anything is read or parsed."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .wire import ApiProblem

BODY_LIMIT = 2 * 1024 * 1024  # bytes
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
OPEN_PATHS = {"/health"}  # which says little to who has no key
KNOWN = "whetstone.is_known"  # of a request's scope: it came with the key


class Door:
    """Host, key and size are checked before anything is read or parsed."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

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
        await self._app(
            {**scope, KNOWN: self._is_known(scope)}, receive if body is None else _replay(body, receive), send
        )

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host.rsplit(":", 1)[0].lower() not in LOOPBACK and host.lower() not in LOOPBACK:
            raise ApiProblem(421, "This engine answers to loopback host names only.", "misdirected_request")
        if not self._is_known(scope) and scope["path"] not in OPEN_PATHS:
            raise ApiProblem(401, "The key is missing or wrong.", "invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            raise ApiProblem(413, f"The body may have at most {BODY_LIMIT} bytes.", "body_too_large")

    def _is_known(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(key.strip(), self._key)


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
