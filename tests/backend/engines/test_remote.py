"""A remote engine as a client meets it: answers, refusals that may pass, and answers that are none."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.engines.answers import Answer, EngineError
from backend.engines.blotting import answer_without
from backend.engines.events import events_of
from backend.engines.remote import pause_seconds, seed_of
from tests.backend.engines.stub import HELLO, KEY, Calling, chat, deltas, events, reply, stub

ERROR = {"error": {"message": "Slow down.", "type": "rate_limit_error", "code": "slow"}}


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
        assert (refused.value.status, refused.value.code) == (429, ""), "its codes are not ours"
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


def test_requests_that_learn_at_the_same_time_what_is_refused_all_go_on():
    refusal = reply({"error": {"message": "logprobs is not supported."}}, 400)
    with stub(*[[0.3, *refusal]] * 4, reply(chat())) as server, ThreadPoolExecutor(4) as pool:
        calling = Calling(server)
        answers = list(pool.map(lambda _: calling.complete()[0].text, range(4)))
    assert answers == ["It is on its way."] * 4
    assert calling.pauses == []


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


def test_a_client_whose_engine_was_removed_meanwhile_says_so():
    with stub(reply(chat())) as server:
        calling = Calling(server)
        calling.client.close()
        with pytest.raises(EngineError, match="removed meanwhile"):
            calling.complete()
    assert server.requests == [] and calling.pauses == []


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
        {"choices": [{"message": {"content": {"a": 1}}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": [{"type": "text", "text": "a"}]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "a"}, "finish_reason": {"why": 1}}]},
        {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": [1]}}]},
    ],
)
def test_an_answer_that_cannot_be_read_is_told_as_a_sentence(body: Any):
    with stub(reply(body)) as server:
        with pytest.raises(EngineError, match="cannot be read"):
            Calling(server).complete()


@pytest.mark.parametrize(
    "chunk",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: \xff\n\n",
        {"choices": ["x"]},
        {"choices": 3},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {}, "finish_reason": {"why": 1}}]},
    ],
)
def test_a_stream_with_a_malformed_event_is_told_as_a_sentence(chunk: Any):
    with stub(events([*deltas("It")[:1], chunk])) as server:
        with pytest.raises(EngineError, match="cannot be read"):
            list(Calling(server).stream())


def test_a_stream_that_breaks_off_is_no_answer_and_not_asked_again():
    begun = deltas("It was on")[:1]
    within = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: " + json.dumps(begun[0]).encode() + b"\n\ndata: {"]
    for reaction in (events(begun, is_whole=False), events(begun), within):
        with stub(reaction) as server:
            stream = Calling(server).stream()
            assert next(stream).text == "It was on"
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


@pytest.mark.parametrize(
    "usage",
    [
        "x",
        {"completion_tokens": "7"},
        {"completion_tokens": None},
        {"completion_tokens": -3},
        {"completion_tokens": 10**30},
    ],
)
def test_a_count_that_is_none_is_passed_over(usage: Any):
    told = {"choices": [], "usage": usage, "model": ["a"], "system_fingerprint": {"b": 1}}
    with stub(events([*deltas("It ", "was"), told])) as server:
        answer = list(Calling(server).stream())[-1].answer
    assert (answer.text, answer.tokens, answer.prompt_tokens, answer.model, answer.fingerprint) == (
        "It was",
        2,
        0,
        "",
        "",
    )


@pytest.mark.parametrize("logp", ["x", None, math.nan, -math.inf, True])
def test_an_answer_with_a_log_probability_that_is_none_has_none_at_all(logp: Any):
    logprobs = {"content": [{"token": "It ", "logprob": -1.0}, {"token": "was", "logprob": logp}]}
    with stub(reply(chat(logprobs=logprobs))) as server:
        answer = Calling(server).complete()[0]
    assert (answer.tokens, answer.mean_logp, answer.token_logps) == (2, None, ())


def test_half_a_character_is_joined_with_its_other_half_or_told_as_one_that_is_unknown():
    halves = [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00 \\ud800."}}]}\n\n',
    ]
    with stub(events([*halves, *deltas("ok")])) as server:
        *pieces, last = list(Calling(server).stream())
    assert last.answer.text == "\U0001f600 \ufffd.ok"
    assert "".join(piece.text for piece in pieces) == last.answer.text


# ways to write a stream


def _lines(*texts: str, end: bytes, indent: int | None = None, between: int = 2) -> bytes:
    written = [json.dumps(one, indent=indent).encode().split(b"\n") for one in deltas(*texts)]
    return b"".join(b"".join(b"data: " + line + end for line in lines) + end * (between - 1) for lines in written)


@pytest.mark.parametrize(
    "body",
    [
        _lines("It ", "was", end=b"\r\n") + b"data: [DONE]\r\n\r\n",
        _lines("It ", "was", end=b"\r"),
        _lines("It ", "was", end=b"\n", between=1),
        _lines("It ", "was", end=b"\n", indent=1),
        _lines("It ", "was", end=b"\r\n", indent=1),
        b": begins\n\nretry: 9\nid: 4\n" + _lines("It ", "was", end=b"\n").replace(b"data: ", b"data:"),
        b"\xef\xbb\xbf" + _lines("It ", "was", end=b"\n").rstrip(),
        _lines("It ", "was", end=b"\n") + b"data: [DONE]\n\ndata: {\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_a_stream_is_read_in_every_way_that_servers_write_one(body: bytes, size: int):
    assert [event.data for event in events_of(body[at : at + size] for at in range(0, len(body), size))] == deltas(
        "It ", "was"
    )


def test_a_server_that_does_not_stream_is_read_whole_and_its_errors_are_told():
    for kind in ("application/json", "text/event-stream"):
        with stub(reply(chat(), Content_Type=kind)) as server:
            assert [piece.text for piece in Calling(server).stream()] == ["It is on its way.", ""]
        with stub(reply(_lines("It ", "was", end=b"\n"), Content_Type=kind)) as server:
            assert list(Calling(server).stream())[-1].answer.text == "It was"
    for body in ({"error": {"message": "No more credit."}}, {"error": "No more credit."}):
        for ask in (Calling.complete, lambda calling: list(calling.stream())):
            with stub(reply(body)) as server, pytest.raises(EngineError, match=r"^No more credit\.$"):
                ask(Calling(server))
    with stub(events([*deltas("It")[:1], b'event: error\ndata: {"message": "No more credit."}\n\n'])) as server:
        with pytest.raises(EngineError, match=r"^No more credit\.$"):
            list(Calling(server).stream())


# the key


def test_an_answer_that_says_the_key_is_shown_and_kept_without_it():
    spoken = ["It is ", KEY[:5], KEY[5:], " indeed, ", KEY[:5], "fully"]
    tokens = [{"token": text, "logprob": -1.0} for text in spoken]
    chunks = [*deltas(*spoken)[:-1], {**deltas()[0], "model": KEY, "system_fingerprint": KEY}]
    with stub(events(chunks), reply(chat("".join(spoken), logprobs={"content": tokens}))) as server:
        calling = Calling(server)
        *pieces, last = list(calling.stream())
        whole = calling.complete()[0]
    assert "".join(piece.text for piece in pieces) == last.answer.text == whole.text == "It is [key] indeed, sk-tefully"
    assert not any(KEY in piece.text for piece in pieces)
    assert KEY not in repr(last.answer) and KEY[5:] not in repr(whole)
    with stub(
        reply({"data": [{"id": KEY}]}),
        reply(chat(finish_reason=KEY)),
        reply({"error": {"message": "x", "code": KEY}}, 400),
    ) as server:
        calling = Calling(server)
        assert calling.client.models() == ["[key]"]
        for _ in range(2):
            with pytest.raises(EngineError) as refused:
                calling.complete()
            assert KEY not in f"{refused.value} {refused.value.code} {refused.value.values}"


def test_a_word_that_stands_in_place_of_a_key_stays_in_answers():
    assert (
        answer_without(Answer("EMPTY or none", "stop", 1, 1, 1.0, 1.0, None, "m", ""), "EMPTY").text == "EMPTY or none"
    )
