"""A transport for httpx that calls one target only, at an address that was checked for this very request.

The name is looked up once, every address is checked, and the connection is made to a checked one; the name goes along for
TLS and the Host header. So a name that leads elsewhere the second time gains nothing. Redirects are not followed, bodies
are bounded and must come uncompressed, and a request has a deadline however slowly its answer trickles, its first lines too:
then the connection is cut, whatever reads from it. Each request has a connection of its own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from .address import Lookup, Refused, Target, addresses_of
from .answers import EngineError

BODY_LIMIT = 10 * 1024 * 1024  # bytes
DEADLINE_SECONDS = 300.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0  # between two parts of an answer: a large model may think before its first word


class Guarded(httpx.BaseTransport):
    """``lookup`` is socket.getaddrinfo, ``inner`` what makes the connections."""

    def __init__(
        self,
        target: Target,
        *,
        lookup: Lookup = socket.getaddrinfo,
        inner: httpx.BaseTransport | None = None,
        body_limit: int = BODY_LIMIT,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._target = target
        self._lookup = lookup
        self._inner = inner or httpx.HTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._body_limit = body_limit
        self._deadline_seconds = deadline_seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, target = request.url, self._target
        port = url.port or (443 if url.scheme == "https" else 80)
        if (url.scheme, url.host, port) != (target.scheme, target.host, target.port):
            raise Refused("A request to another server than the configured one was refused.")
        deadline = _Deadline(self._deadline_seconds)
        try:
            response = self._reached(request, deadline)
        except BaseException:
            deadline.end()
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        bounded = _Bounded(response.stream, self._body_limit, deadline)
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            bounded.close()
            raise EngineError(
                "The engine sent a compressed answer although it was asked not to. It is not read.", "engine_compressed"
            )
        return httpx.Response(
            response.status_code, headers=response.headers, stream=bounded, extensions=response.extensions
        )

    def close(self) -> None:
        self._inner.close()

    def _reached(self, request: httpx.Request, deadline: _Deadline) -> httpx.Response:
        """From the first of the addresses that takes the connection."""
        try:
            addresses = addresses_of(self._target, self._lookup)
        except OSError as problem:
            raise httpx.ConnectError("the name could not be looked up", request=request) from problem
        extensions = {**request.extensions, "sni_hostname": self._target.host, "trace": deadline.watch}
        for at, address in enumerate(addresses, 1):
            there = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                with deadline.kept():
                    return self._inner.handle_request(there)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if at == len(addresses):
                    raise
        raise AssertionError("there is at least one address")


class _Deadline:
    """Cuts the connection of one request when its time is over."""

    def __init__(self, seconds: float) -> None:
        self._is_over = False
        self._connection: Any = None  # httpcore's stream
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, event: str, told: dict[str, Any]) -> None:
        """A trace of httpcore, which tells of the connection as soon as there is one, and again when it has become a secure one."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._connection = told["return_value"]
            if self._is_over:
                self._cut()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What breaks off within because it was cut is told as that."""
        try:
            yield
        except httpx.TransportError as problem:
            self.check(problem)
            raise

    def check(self, problem: Exception | None = None) -> None:
        """Raises EngineError when the time is over."""
        if self._is_over:
            raise EngineError(
                "The engine took too long to answer. Ask for fewer tokens, or try again later.", "engine_slow"
            ) from problem

    def end(self) -> None:
        """The request is over."""
        self._timer.cancel()

    def _cut(self) -> None:
        self._is_over = True
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it is closed already, or just being made a secure one
                # Not the secure socket's own shutdown, which first turns it into a plain one.
                socket.socket.shutdown(self._connection.get_extra_info("socket"), socket.SHUT_RDWR)


class _Bounded(httpx.SyncByteStream):
    """The body up to so many bytes and until so late; then an error."""

    def __init__(self, stream: httpx.SyncByteStream, limit: int, deadline: _Deadline) -> None:
        self._stream, self._left, self._deadline = stream, limit, deadline

    def __iter__(self) -> Iterator[bytes]:
        with self._deadline.kept():
            for part in self._stream:
                self._left -= len(part)
                if self._left < 0:
                    raise EngineError("The engine's answer is larger than 10 MB. It is not read.", "engine_large")
                yield part
        self._deadline.check()  # a body without a length ends where its connection does

    def close(self) -> None:
        self._deadline.end()
        self._stream.close()


def client_of(target: Target, transport: Guarded) -> httpx.Client:
    """An httpx client that has no way to the network but this transport; requests are given relative to the base URL."""
    return httpx.Client(
        base_url=target.url,
        transport=transport,
        headers={"Accept-Encoding": "identity", "User-Agent": "whetstone"},
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
        follow_redirects=False,
    )
