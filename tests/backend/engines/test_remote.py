"""A remote engine as a stranger: what it may answer, and what it never learns or makes us do."""

from __future__ import annotations

import gzip
import logging
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.engines import guarded
from backend.engines.address import Refused, Target, target_of
from backend.engines.answers import EngineError
from backend.engines.guarded import Guarded, client_of
from backend.engines.remote import RemoteClient, pause_seconds, seed_of
from tests.backend.engines.stub import Stub, chat, deltas, events, reply, stub

KEY = "sk-test-0123456789abcdef"
HELLO = [{"role": "user", "content": "where is my parcel"}]
ERROR = {"error": {"message": "Slow down.", "type": "rate_limit_error", "code": "slow"}}


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


def test_a_remote_engine_answers_like_our_own():
    with stub(reply(chat(logprobs={"content": [{"logprob": -0.5}, {"logprob": -1.5}]}))) as server:
        answer = Calling(server).complete(seed=4, temperature=0.5, max_tokens=9, stop=["."])[0]
    assert (answer.text, answer.finish_reason, answer.tokens, answer.prompt_tokens) == (
        "It is on its way.",
        "stop",
        2,
        7,
    )
    assert (answer.mean_logp, answer.model, answer.fingerprint) == (-1.0, "big-1", "fp_1")
    asked = server.requests[0]
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.body == {
        "model": "big-1", "messages": HELLO, "n": 1, "temperature": 0.5, "top_p": 1.0, "logprobs": True, "seed": 4,
        "max_tokens": 9, "stop": ["."],
    }  # fmt: skip


def test_several_samples_are_asked_one_by_one_each_with_its_own_seed():
    with stub(reply(chat("a")), reply(chat("b")), reply(chat("c"))) as server:
        assert [answer.text for answer in Calling(server).complete(n=3, seed=4)] == ["a", "b", "c"]
    seeds = [asked.body["seed"] for asked in server.requests]
    assert seeds == [4, seed_of(4, 1), seed_of(4, 2)]
    assert len({seed_of(seed, sample) for seed in range(20) for sample in range(4)}) == 80
    assert 0 <= seed_of(-(2**62), 0) < 2**31 and seed_of(None, 3) is None


def test_a_stream_comes_in_pieces_and_ends_with_the_answer():
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}
    noise = [b": keep alive\n\n", b"event: ping\n\n"]
    with stub(events([*noise, *deltas("It is ", "好", " now."), usage])) as server:
        pieces = list(Calling(server).stream(seed=1))
    assert [piece.text for piece in pieces] == ["It is ", "好", " now.", ""]
    answer = pieces[-1].answer
    assert (answer.text, answer.finish_reason, answer.tokens, answer.prompt_tokens) == ("It is 好 now.", "stop", 4, 7)
    assert server.requests[0].body["stream"] is True


def test_models_are_listed_and_tokens_estimated_on_the_safe_side():
    with stub(reply({"data": [{"id": "small"}, {"id": "big-1"}]})) as server:
        calling = Calling(server)
        assert calling.client.models() == ["big-1", "small"]
    count = calling.client.tokenize([{"role": "user", "content": "hello there" * 10}], "big-1")
    assert count.count > 110 / 4 and count.max_model_len == 8192
    assert calling.client.tokenize([{"role": "user", "content": "天" * 50}], "big-1").count >= 50


# refusals that may pass


def test_429_is_tried_again_after_the_time_the_server_asks_for():
    with stub(reply(ERROR, 429, Retry_After="7"), reply(ERROR, 429), reply(chat())) as server:
        calling = Calling(server)
        assert calling.complete()[0].text == "It is on its way."
    assert calling.pauses[0] == 7
    assert 0.5 <= calling.pauses[1] <= 1.5


def test_tries_are_bounded_and_the_last_refusal_is_told():
    with stub(reply(ERROR, 429)) as server:
        with pytest.raises(EngineError, match=r"Slow down\.") as refused:
            Calling(server).complete()
        assert (refused.value.status, refused.value.code) == (429, "slow")
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_failing_server_is_tried_again_also_for_a_stream(status: int):
    with stub(reply(b"<html>oops</html>", status), events(deltas("fine"))) as server:
        assert list(Calling(server).stream())[-1].answer.text == "fine"
    with stub(reply(b"<html>oops</html>", status)) as server:
        with pytest.raises(EngineError, match=f"answered with status {status}"):
            next(Calling(server).stream())
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_request_the_server_will_never_take_is_not_repeated(status: int):
    with stub(reply({"error": {"message": "No such model."}}, status)) as server:
        with pytest.raises(EngineError, match="No such model"):
            Calling(server).complete()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": "Too long.", "code": 400}}, r"^Too long\.$"),
        ({"error": "model 'big-1' not found"}, "^model 'big-1' not found$"),
        ({"object": "error", "message": "The prompt is too long.", "code": 400}, r"^The prompt is too long\.$"),
        ({"error": ""}, "answered with status 400"),
        ({"error": {"message": ["a"]}}, "answered with status 400"),
        ({"detail": "Not Found"}, "answered with status 400"),
        ([], "answered with status 400"),
        (b"<html>" * 1000, "answered with status 400"),
        (b"[" * 100_000, "answered with status 400"),
    ],
)
def test_errors_are_read_in_the_shapes_that_servers_use(body: Any, says: str):
    with stub(reply(body, 400)) as server:
        with pytest.raises(EngineError, match=says):
            Calling(server).complete()


def test_how_long_a_pause_is():
    assert pause_seconds(1, "3600") == 30
    assert pause_seconds(1, "-5") == pytest.approx(pause_seconds(1, "soon", lambda: 0.5), abs=0.6)
    assert pause_seconds(2, None, lambda: 0.0) == 0.5
    assert pause_seconds(3, None, lambda: 1.0) == 3
    assert pause_seconds(1, "Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_server_that_is_gone_is_told_after_a_few_tries():
    with stub(reply(chat())) as server:
        calling = Calling(server)
    with pytest.raises(EngineError, match="cannot be reached"):
        calling.complete()
    assert len(calling.pauses) == 2


def test_what_a_server_refuses_by_name_is_left_out_from_then_on():
    refusals = [
        reply({"error": {"message": "logprobs is not supported with this model.", "param": "logprobs"}}, 400),
        reply({"error": {"message": "Use max_completion_tokens instead of max_tokens."}}, 400),
    ]
    with stub(*refusals, reply(chat())) as server:
        calling = Calling(server)
        calling.complete(max_tokens=5)
        calling.complete(max_tokens=6)
    assert len(server.requests) == 4
    for asked, tokens in zip(server.requests[2:], (5, 6), strict=True):
        assert "logprobs" not in asked.body and "max_tokens" not in asked.body
        assert asked.body["max_completion_tokens"] == tokens
    assert calling.pauses == []


# answers that are none


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"choices": []},
        {"choices": None},
        {"choices": ["text"]},
        {"choices": [{"index": 0}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": [1]}}]},
    ],
)
def test_an_answer_that_cannot_be_read_is_told_as_a_sentence(body: Any):
    with stub(reply(body)) as server:
        with pytest.raises(EngineError, match="cannot be read"):
            Calling(server).complete()


@pytest.mark.parametrize(
    "chunk", [b"data: {\n\n", b"data: []\n\n", b"data: \xff\n\n", {"choices": ["x"]}, {"choices": 3}]
)
def test_a_stream_with_a_malformed_event_is_told_as_a_sentence(chunk: Any):
    with stub(events([*deltas("It")[:1], chunk])) as server:
        with pytest.raises(EngineError, match="cannot be read"):
            list(Calling(server).stream())


def test_a_stream_that_breaks_off_is_no_answer_and_not_asked_again():
    for reaction in (events(deltas("It is")[:1], is_whole=False), events(deltas("It is")[:1])):
        with stub(reaction) as server:
            stream = Calling(server).stream()
            assert next(stream).text == "It is"
            with pytest.raises(EngineError, match=r"broke off|middle of an answer"):
                list(stream)
            assert len(server.requests) == 1


def test_an_error_within_a_stream_is_told_without_the_key():
    with stub(events([*deltas("It")[:1], {"error": {"message": f"Overloaded\r\n{KEY}."}}])) as server:
        with pytest.raises(EngineError, match=r"Overloaded  \[key\]"):
            list(Calling(server).stream())


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", None, "x" * 500])
def test_an_answer_that_did_not_end_by_itself_or_at_the_limit_is_no_answer(reason: Any):
    with stub(reply(chat(finish_reason=reason))) as server:
        with pytest.raises(EngineError, match="no whole answer") as refused:
            Calling(server).complete()
    assert len(str(refused.value)) < 150


# floods, traps and leaks


def test_a_huge_body_is_not_read_to_its_end():
    flood = [b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", *[b"x" * 100_000] * 50, 5.0]
    with stub(flood) as server:
        began = time.monotonic()
        with pytest.raises(EngineError, match="larger than"):
            Calling(server, body_limit=1_000_000).complete()
        assert time.monotonic() - began < 4
    with stub(events([b"data: " + b"x" * 100_000] * 30, is_whole=False)) as server:
        with pytest.raises(EngineError, match="larger than"):
            list(Calling(server, body_limit=1_000_000).stream())
    assert guarded.BODY_LIMIT == 10 * 1024 * 1024


def test_a_compressed_body_is_not_unpacked():
    with stub(reply(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")) as server:
        with pytest.raises(EngineError, match="compressed"):
            Calling(server).complete()


def test_an_answer_that_trickles_has_a_deadline():
    slow = events([chunk for at in range(40) for chunk in deltas(f"{at}")[:1]])
    with stub([part for one in slow for part in (one, 0.05)]) as server:
        with pytest.raises(EngineError, match="took too long"):
            list(Calling(server, deadline_seconds=0.3).stream())


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
        assert server.hung_up.wait(10)


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
            return
        with pytest.raises(EngineError, match="cannot be reached"):
            client.complete(HELLO, model="big-1")
        assert server.requests == [], "the key never left"
