"""A transport for httpx that calls one target only, at an address that was checked for this very request.

The name is looked up once, every address is checked, and the connection is made to a checked one; the name goes along for
TLS and the Host header. So a name that leads elsewhere the second time gains nothing. Redirects are not followed, bodies
are bounded and must come uncompressed, and a request has a deadline however slowly its answer trickles.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._lookup = lookup
        self._inner = inner or httpx.HTTPTransport(trust_env=False)
        self._body_limit = body_limit
        self._deadline_seconds = deadline_seconds
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, target = request.url, self._target
        port = url.port or (443 if url.scheme == "https" else 80)
        if (url.scheme, url.host, port) != (target.scheme, target.host, target.port):
            raise Refused("A request to another server than the configured one was refused.", "engine_address")
        until = self._clock() + self._deadline_seconds
        response = self._reached(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise EngineError(
                "The engine sent a compressed answer although it was asked not to. It is not read.", "engine_compressed"
            )
        assert isinstance(response.stream, httpx.SyncByteStream)
        bounded = _Bounded(response.stream, self._body_limit, until, self._clock)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=bounded, extensions=response.extensions
        )

    def close(self) -> None:
        self._inner.close()

    def _reached(self, request: httpx.Request) -> httpx.Response:
        """From the first of the addresses that takes the connection."""
        try:
            addresses = addresses_of(self._target, self._lookup)
        except OSError as problem:
            raise httpx.ConnectError("the name could not be looked up", request=request) from problem
        extensions = {**request.extensions, "sni_hostname": self._target.host}
        for at, address in enumerate(addresses, 1):
            there = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return self._inner.handle_request(there)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if at == len(addresses):
                    raise
        raise AssertionError("there is at least one address")


class _Bounded(httpx.SyncByteStream):
    """The body up to so many bytes and until so late; then an error."""

    def __init__(self, stream: httpx.SyncByteStream, limit: int, until: float, clock: Callable[[], float]) -> None:
        self._stream, self._left, self._until, self._clock = stream, limit, until, clock

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                raise EngineError("The engine's answer is larger than 10 MB. It is not read.", "engine_large")
            if self._clock() > self._until:
                raise EngineError(
                    "The engine took too long to answer. Ask for fewer tokens, or try again later.", "engine_slow"
                )
            yield part

    def close(self) -> None:
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
