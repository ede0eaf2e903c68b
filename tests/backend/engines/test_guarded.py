"""What a remote engine cannot make us do: read without end, follow, call elsewhere, or tell the key."""

from __future__ import annotations

import gzip
import logging
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.engines import guarded
from backend.engines.address import Refused, Target, target_of
from backend.engines.answers import EngineError
from backend.engines.guarded import Guarded, client_of
from backend.engines.remote import RemoteClient
from tests.backend.engines.stub import HELLO, KEY, Calling, Stub, chat, deltas, events, reply, stub


def test_a_huge_body_is_not_read_to_its_end():
    flood = [b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", *[b"x" * 100_000] * 50, 30.0]
    with stub(flood) as server:
        began = time.monotonic()
        with pytest.raises(EngineError, match="larger than"):
            Calling(server, body_limit=1_000_000).complete()
        assert time.monotonic() - began < 25
    with stub(events([b"data: " + b"x" * 100_000] * 30, is_whole=False)) as server:
        with pytest.raises(EngineError, match="larger than"):
            list(Calling(server, body_limit=1_000_000).stream())
    assert guarded.BODY_LIMIT == 10 * 1024 * 1024


def test_a_compressed_body_is_not_unpacked():
    with stub(reply(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")) as server:
        with pytest.raises(EngineError, match="compressed"):
            Calling(server).complete()


OK = b"HTTP/1.1 200 OK\r\n"
TRICKLES: dict[str, tuple[bytes, bytes]] = {
    "events": (OK + b"Connection: close\r\n\r\n", b": still here\n\n"),
    "a body": (OK + b"Content-Length: 9000\r\n\r\n", b" "),
    "the head of a part": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x"),
    "headers": (OK, b"X-More: to come\r\n"),
    "other answers before the answer": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("what", TRICKLES)
def test_whatever_trickles_has_a_deadline(what: str):
    first, again = TRICKLES[what]
    with stub([first, *[part for _ in range(300) for part in (again, 0.01)]]) as server:
        for ask in (lambda: Calling(server, deadline_seconds=0.2).complete(), lambda: _all(server)):
            began = time.monotonic()
            with pytest.raises(EngineError, match="took too long"):
                ask()
            assert time.monotonic() - began < 2
        assert len(server.requests) == 2, "it is not tried again"


def _all(server: Stub) -> list[Any]:
    return list(Calling(server, deadline_seconds=0.2).stream())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_key_along(status: int):
    with stub(reply(chat("stolen"))) as elsewhere:
        with stub(reply(b"", status, Location=f"http://127.0.0.1:{elsewhere.port}/v1/chat/completions")) as server:
            with pytest.raises(EngineError, match="elsewhere, which is not followed"):
                Calling(server).complete()
        assert elsewhere.requests == []


def test_a_refused_key_is_told_without_a_letter_of_it():
    told = {"error": {"message": f"Incorrect API key provided: {KEY[:7]}****{KEY[-4:]}"}}
    with stub(reply(told, 401)) as server:
        with pytest.raises(EngineError, match=r"refused the key \(status 401\)") as refused:
            Calling(server).complete()
    assert KEY[:7] not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_key_is_neither_logged_nor_shown_in_errors_or_objects(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    echo = {"error": {"message": f"I was told {KEY} by you."}}
    with stub(reply(chat()), reply(echo, 400)) as server:
        calling = Calling(server)
        calling.complete()
        with pytest.raises(EngineError, match=r"I was told \[key\] by you") as refused:
            calling.complete()
    shown = [
        repr(refused.value.args),
        repr(calling.client.__dict__),
        repr(calling.http.headers),
        repr(calling.http.__dict__),
    ]
    assert KEY not in caplog.text + "".join(shown)
    assert caplog.records


def test_a_stream_that_is_closed_closes_the_connection():
    parts = events([chunk for at in range(400) for chunk in deltas("word " * 400)[:1]])
    with stub([part for one in parts for part in (one, 0.005)]) as server:
        stream = Calling(server).stream()
        next(stream)
        stream.close()
        assert server.hung_up.wait(60)


# names that lead elsewhere


def test_a_name_that_leads_inside_the_second_time_is_refused_the_second_time():
    with stub(reply(chat())) as inside:
        answers = iter(["93.184.215.14", "127.0.0.1"])
        called: list[httpx.Request] = []

        def connect(request: httpx.Request) -> httpx.Response:
            called.append(request)
            return httpx.Response(200, json=chat())

        target = Target("https", "api.example.com", inside.port, "/v1", may_be_private=False)
        transport = Guarded(
            target, lookup=lambda *_, **__: [(2, 1, 6, "", (next(answers), 443))], inner=httpx.MockTransport(connect)
        )
        client = RemoteClient(client_of(target, transport), lambda: KEY, 8192)
        assert client.complete(HELLO, model="big-1")
        with pytest.raises(Refused, match="leads to an address inside"):
            client.complete(HELLO, model="big-1")
        assert inside.requests == []
    assert len(called) == 1
    assert called[0].url.host == "93.184.215.14"
    assert called[0].headers["host"] == f"api.example.com:{inside.port}"
    assert called[0].extensions["sni_hostname"] == "api.example.com"


def test_the_connection_is_made_to_the_checked_address_without_a_second_look_up(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    usual = socket.getaddrinfo

    def counted(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(str(host))
        return usual("127.0.0.1" if host == "box.example.com" else host, *rest, **more)

    with stub(reply(chat())) as server:
        monkeypatch.setattr(socket, "getaddrinfo", counted)
        target = target_of(f"http://box.example.com:{server.port}/v1", [f"box.example.com:{server.port}"])
        client = RemoteClient(client_of(target, Guarded(target, lookup=counted)), lambda: "", 8192)
        assert client.complete(HELLO, model="big-1")
        assert server.requests[0].headers["host"] == f"box.example.com:{server.port}"
        assert "authorization" not in server.requests[0].headers
    assert asked.count("box.example.com") == 1


def test_the_next_address_is_tried_when_the_first_takes_no_connection():
    target = Target("https", "api.example.com", 443, "", may_be_private=False)
    tried: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (one, port)) for one in ("93.184.215.14", "93.184.215.15")]

    def connect(request: httpx.Request) -> httpx.Response:
        tried.append(request.url.host)
        if len(tried) == 1:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json={"data": []})

    transport = Guarded(target, lookup=lookup, inner=httpx.MockTransport(connect))
    assert RemoteClient(client_of(target, transport), lambda: "", 8192).models() == []
    assert tried == ["93.184.215.14", "93.184.215.15"]


def test_a_transport_calls_its_own_target_only():
    target = Target("https", "api.example.com", 443, "", may_be_private=False)
    http = client_of(target, Guarded(target, inner=httpx.MockTransport(lambda request: httpx.Response(200))))
    for url in ("https://evil.org/x", "http://api.example.com/x", "https://api.example.com:444/x"):
        with pytest.raises(Refused, match="another server"):
            http.get(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of box.example.com, signed by itself, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "box.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        f"{file}.key",
        "-out",
        file,
    ]
    names = ["-subj", "/CN=box.example.com", "-addext", "subjectAltName=DNS:box.example.com"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.key").read_text())
    return file


@pytest.mark.parametrize(("name", "is_its_own"), [("box.example.com", True), ("other.example.com", False)])
def test_tls_is_for_the_name_although_the_connection_is_to_an_address(certificate: Path, name: str, is_its_own: bool):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with stub(reply(chat()), tls=serving) as server:
        target = target_of(f"https://{name}:{server.port}/v1", [f"{name}:{server.port}"])
        transport = Guarded(
            target,
            lookup=lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", server.port))],
            inner=httpx.HTTPTransport(verify=trusting, trust_env=False),
        )
        client = RemoteClient(client_of(target, transport), lambda: KEY, 8192, pause=lambda _: None)
        if is_its_own:
            assert client.complete(HELLO, model="big-1")[0].text == "It is on its way."
            server.script[:] = [[OK, *[part for _ in range(300) for part in (b"X-More: to come\r\n", 0.01)]]]
            transport._deadline_seconds = 0.2
            began = time.monotonic()
            with pytest.raises(EngineError, match="took too long"):
                client.complete(HELLO, model="big-1")
            assert time.monotonic() - began < 2
            return
        with pytest.raises(EngineError, match="cannot be reached"):
            client.complete(HELLO, model="big-1")
        assert server.requests == [], "the key never left"
