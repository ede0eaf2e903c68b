"""A server that answers from a script, byte for byte, and records what it was asked: other people's servers in tests."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backend.engines.address import target_of
from backend.engines.guarded import Guarded, client_of
from backend.engines.remote import RemoteClient

KEY = "sk-test-0123456789abcdef"
HELLO = [{"role": "user", "content": "where is my parcel"}]

Part = bytes | float  # bytes to send, or seconds to wait; the connection is closed after the last one
Reaction = list[Part]


@dataclass
class Recorded:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: Any


@dataclass
class Stub:
    port: int = 0
    script: list[Reaction] = field(default_factory=list)  # the last one answers all further requests
    requests: list[Recorded] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def react(self) -> Reaction:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def reply(body: Any, status: int = 200, **headers: str) -> Reaction:
    """A whole answer; a body that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
    head = f"HTTP/1.1 {status} As Scripted\r\n" + "".join(
        f"{name.replace('_', '-')}: {it}\r\n" for name, it in lines.items()
    )
    return [head.encode() + b"Connection: close\r\n\r\n" + raw]


def events(chunks: Sequence[Any], *, is_whole: bool = True) -> Reaction:
    """A stream of events; one that is not whole breaks off without its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    lines = [
        chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks
    ]
    parts: Reaction = [head, *(f"{len(line):x}\r\n".encode() + line + b"\r\n" for line in lines)]
    return [*parts, b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"] if is_whole else parts


def chat(text: str = "It is on its way.", **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "big-1",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


def deltas(*texts: str, finish_reason: str | None = "stop") -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return [*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}]


@contextmanager
def stub(*script: Reaction, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    made = Stub(script=list(script))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                made.requests.append(_read(self.rfile.readline, self.rfile.read))
                for part in made.react():
                    if isinstance(part, float):
                        time.sleep(part)
                    else:
                        self.wfile.write(part)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                made.hung_up.set()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def get_request(self) -> Any:
            connection, client = super().get_request()
            return (tls.wrap_socket(connection, server_side=True) if tls else connection), client

    server = Server(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def _read(line: Callable[[], bytes], read: Callable[[int], bytes]) -> Recorded:
    first = line().decode().strip()
    headers = {}
    while (text := line().decode().strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    size = int(headers.get("content-length", "0"))
    return Recorded(first, headers, json.loads(read(size)) if size else None)


class Calling:
    """A client of the stub, and how long it paused between its tries."""

    def __init__(self, server: Stub, **options: Any) -> None:
        self.pauses: list[float] = []
        self.transport = Guarded(
            target_of(f"http://127.0.0.1:{server.port}/v1", [f"127.0.0.1:{server.port}"]), **options
        )
        self.http = client_of(self.transport._target, self.transport)
        self.client = RemoteClient(self.http, lambda: KEY, 8192, pause=self.pauses.append)

    def complete(self, **asked: Any) -> list[Any]:
        return self.client.complete(HELLO, model="big-1", **asked)

    def stream(self, **asked: Any) -> Iterator[Any]:
        return self.client.stream(HELLO, model="big-1", **asked)
