"""What other people's clients may expect of the engine: OpenAI's own, and Hugging Face's, which shares no code with it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from backend.engines.client import EngineClient
from backend.engines.local import reply
from backend.engines.local.server import build_app
from tests.backend.engines.tiny import KEY, Served, wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def hugging(engine: Served) -> InferenceClient:
    return InferenceClient(base_url=f"{engine.url}/v1", api_key=KEY, timeout=60)


@contextmanager
def stopped(engine: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The model makes no step until the event is set, at the latest at the end."""
    may_go_on = threading.Event()
    step = engine.scheduler._step
    monkeypatch.setattr(engine.scheduler, "_step", lambda group: (may_go_on.wait(60), step(group)))
    try:
        yield may_go_on
    finally:
        may_go_on.set()


# OpenAI's client


def test_a_stream_that_the_openai_client_cuts_off_midway_frees_its_rows(
    api: openai.OpenAI, engine: Served, monkeypatch: pytest.MonkeyPatch
):
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "n": 4, "max_tokens": 200, "seed": 1}
    all_tokens = api.chat.completions.create(**asked).usage.completion_tokens
    steps: list[int] = []
    step, is_cut_off = engine.scheduler._step, threading.Event()

    def slow(group: Any) -> None:
        """As far as is listened to; then with time for the engine to hear that nobody does any more."""
        steps.append(len(group.rows))
        if len(steps) > 20:
            is_cut_off.wait(60)
            time.sleep(0.05)
        step(group)

    monkeypatch.setattr(engine.scheduler, "_step", slow)
    stream = api.chat.completions.create(**asked, stream=True)
    heard = [next(iter(stream)) for _ in range(6)]
    assert heard[0].choices[0].delta.role == "assistant"
    stream.close()
    is_cut_off.set()
    wait_until(lambda: engine.scheduler.health()["active"] == 0)
    assert sum(steps) < all_tokens / 2
    assert api.chat.completions.create(model="base", messages=HELLO, max_tokens=3).choices


def test_completions_stream_to_the_text_of_the_whole_answer(api: openai.OpenAI):
    asked: dict[str, Any] = {
        "model": "model-1",
        "prompt": ["the film was", "where is"],
        "max_tokens": 12,
        "seed": 3,
        "n": 2,
    }
    whole = [choice.text for choice in api.completions.create(**asked).choices]
    texts = [""] * 4
    for chunk in api.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == whole
    assert len(set(whole)) > 1


def test_settings_that_openai_does_not_know_are_taken_as_extra_ones(api: openai.OpenAI):
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "max_tokens": 20, "seed": 11}
    plain = api.chat.completions.create(**asked)
    narrow = api.chat.completions.create(**asked, extra_body={"min_p": 1.0})
    greedy = api.chat.completions.create(**asked, temperature=0)
    penal = api.chat.completions.create(**asked, temperature=0, extra_body={"repetition_penalty": 3.0, "top_k": 5})
    texts = [reply.choices[0].message.content for reply in (plain, narrow, greedy, penal)]
    assert texts[1] == texts[2]
    assert len(set(texts)) == 3


def test_a_model_is_found_by_its_name_with_its_digests(api: openai.OpenAI, engine: Served):
    one = api.models.retrieve("model-1")
    known = engine.resolver.table["model-1"]
    assert (one.id, one.object, one.owned_by) == ("model-1", "model", "whetstone")
    assert one.model_extra == {
        "system_fingerprint": known.digest,
        "adapter_digest": known.digest,
        "base_digest": engine.base.digest,
    }
    assert api.models.retrieve("live").model_extra["adapter_digest"] is None
    with pytest.raises(openai.NotFoundError, match="There is no model named 'model-99' here"):
        api.models.retrieve("model-99")


def test_every_answer_and_every_chunk_names_the_exact_model(api: openai.OpenAI, engine: Served):
    known = engine.resolver.table["model-2"]
    whole = api.chat.completions.create(model="model-2", messages=HELLO, max_tokens=4, seed=1)
    chunks = list(api.chat.completions.create(model="model-2", messages=HELLO, max_tokens=4, seed=1, stream=True))
    older = api.completions.create(model="model-2", prompt="the", max_tokens=2)
    for told in (whole, older, *chunks):
        assert told.system_fingerprint == told.model_extra["adapter_digest"] == known.digest
        assert told.model_extra["base_digest"] == engine.base.digest


BAD_CHATS: dict[str, dict[str, Any]] = {
    "seed": {"seed": "one"},
    "stop": {"stop": ["x"] * 17},
    "max_tokens": {"max_tokens": -1},
    "max_completion_tokens": {"max_completion_tokens": 0},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "response_format": {"response_format": {"type": "json_object"}},
    "n": {"n": 65},
    "top_logprobs": {"logprobs": True, "top_logprobs": 21},
    "messages": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
    "model": {"model": 7},
    "logit_bias": {"extra_body": {"logit_bias": {"5": 1}}},
    "repetition_penalty": {"extra_body": {"repetition_penalty": -1}},
    "min_p": {"extra_body": {"min_p": 2}},
}


@pytest.mark.parametrize("param", BAD_CHATS)
def test_a_bad_chat_is_a_bad_request_error_that_names_the_setting(api: openai.OpenAI, param: str):
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(**{"model": "base", "messages": HELLO, **BAD_CHATS[param]})
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code
    assert len(refused.value.body["message"]) > 10


def test_of_a_setting_with_several_kinds_the_reason_is_of_the_kind_that_was_given(api: openai.OpenAI):
    for stop, reason in ((["x"] * 17, "at most 16 items"), (["x", 5], "valid string"), (5, "valid string")):
        with pytest.raises(openai.BadRequestError, match=reason):
            api.chat.completions.create(model="base", messages=HELLO, stop=stop)


def test_a_client_that_reads_nothing_does_not_hold_up_the_others(api: openai.OpenAI, engine: Served):
    """The server's side of a connection into which nothing more fits: every further send waits for ever."""
    app = build_app(engine.base, engine.scheduler, engine.resolver, KEY)
    body = json.dumps(
        {"model": "base", "messages": HELLO, "n": 3, "max_tokens": 60, "seed": 4, "stream": True}
    ).encode()
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}", "content-length": str(len(body))}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": raw}

    async def others_go_on() -> None:
        is_full, never = asyncio.Event(), asyncio.Event()
        bodies = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            return bodies.pop() if bodies else await never.wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                is_full.set()
                await never.wait()

        idle = asyncio.create_task(app(scope, receive, send))
        await asyncio.wait_for(is_full.wait(), 60)
        asked = partial(api.chat.completions.create, model="base", messages=HELLO, max_tokens=20, seed=1)
        told = await asyncio.wait_for(asyncio.to_thread(asked), 20)
        assert told.choices[0].message.content
        await asyncio.to_thread(wait_until, lambda: engine.scheduler.health()["active"] == 0, 20)
        assert not idle.done(), "what it does not read is written all the same"
        idle.cancel()

    asyncio.run(others_go_on())


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [5, 100_000]}, "prompt"),
        ({"prompt": [[5], []]}, "prompt"),
        ({"prompt": "a", "logprobs": 50}, "logprobs"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "max_tokens": 256}, "prompt"),
    ],
)
def test_a_bad_completion_is_a_bad_request_error_that_names_the_setting(api: openai.OpenAI, asked: dict, param: str):
    with pytest.raises(openai.BadRequestError) as refused:
        api.completions.create(model="base", **asked)
    assert refused.value.param == param


def test_what_is_not_served_is_told_in_openais_format(api: openai.OpenAI, raw: httpx.Client):
    with pytest.raises(openai.NotFoundError) as nothing:
        api.images.generate(prompt="a parcel")
    assert nothing.value.code == "unknown_url"
    wrong = raw.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["code"] == "unknown_url"


def test_a_full_engine_is_a_rate_limit_error_and_the_client_gets_its_answer_when_it_tries_again(
    api: openai.OpenAI, engine: Served, monkeypatch: pytest.MonkeyPatch
):
    with ThreadPoolExecutor(3) as pool, stopped(engine, monkeypatch) as may_go_on:
        waiting = fill(engine, api, pool)
        with pytest.raises(openai.RateLimitError, match="are waiting already. Try again in") as refused:
            api.completions.create(model="base", prompt="a", max_tokens=2, n=16)
        assert refused.value.code == "queue_full"
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
        patient = pool.submit(api.with_options(max_retries=3).completions.create, model="base", prompt="a", n=16)
        time.sleep(0.1)
        may_go_on.set()
        assert len(patient.result(60).choices) == 16
        assert all(len(one.result(60).choices) for one in waiting)


def fill(engine: Served, api: openai.OpenAI, pool: ThreadPoolExecutor) -> list[Future[Any]]:
    """A batch with every row taken, and a queue with every place taken."""
    running = pool.submit(api.chat.completions.create, model="base", messages=HELLO, n=16, max_tokens=3)
    wait_until(lambda: engine.scheduler.health()["active"] == 16)
    waiting = pool.submit(api.completions.create, model="base", prompt=["a"] * 4, n=16, max_tokens=2)
    wait_until(lambda: engine.scheduler.health()["waiting"] == 4)
    return [running, waiting]


def test_who_waits_is_told_the_place_in_the_queue(
    api: openai.OpenAI, raw: httpx.Client, engine: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reply, "TOLD_EVERY_SECONDS", 0.05)
    engine.scheduler.waiting_limit, limit = 8, engine.scheduler.waiting_limit
    lines: list[str] = []

    def listen() -> None:
        body = {"model": "base", "messages": HELLO, "n": 16, "max_tokens": 2, "stream": True}
        with raw.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines.append(stream.headers["x-queue-position"])
            lines.extend(stream.iter_lines())

    with ThreadPoolExecutor(4) as pool, stopped(engine, monkeypatch) as may_go_on:
        fill(engine, api, pool)
        listening = pool.submit(listen)
        wait_until(lambda: len(lines) > 3)
        may_go_on.set()
        listening.result(60)
    engine.scheduler.waiting_limit = limit
    assert lines[0] == "2", "of the four prompts that came before it one is before it: requests take turns"
    assert lines[1] == ": queue position 2"
    assert lines[-2] == "data: [DONE]"
    first = next(line for line in lines[1:] if line.startswith("data:"))
    assert '"role": "assistant"' in first
    at_once = raw.post("/v1/chat/completions", json={"model": "base", "messages": HELLO, "max_tokens": 2})
    assert at_once.headers["x-queue-position"] in ("0", "1")


def test_the_openai_client_reads_a_stream_that_had_to_wait(
    api: openai.OpenAI, engine: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reply, "TOLD_EVERY_SECONDS", 0.02)
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "n": 2, "max_tokens": 9, "seed": 3}
    expected = [choice.message.content for choice in api.chat.completions.create(**asked).choices]
    texts = ["", ""]
    with ThreadPoolExecutor(1) as pool, stopped(engine, monkeypatch) as may_go_on:
        running = pool.submit(api.chat.completions.create, model="base", messages=HELLO, n=16, max_tokens=3)
        wait_until(lambda: engine.scheduler.health()["active"] == 16)
        threading.Timer(0.3, may_go_on.set).start()
        for chunk in api.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        running.result(60)
    assert texts == expected


def test_our_client_hears_its_place_in_the_queue_before_the_first_word(
    api: openai.OpenAI, engine: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reply, "TOLD_EVERY_SECONDS", 0.02)
    client = EngineClient(engine.url, KEY)
    expected = client.complete(HELLO, model="base", seed=3, max_tokens=9)[0].text
    with ThreadPoolExecutor(1) as pool, stopped(engine, monkeypatch) as may_go_on:
        running = pool.submit(api.chat.completions.create, model="base", messages=HELLO, n=16, max_tokens=3)
        wait_until(lambda: engine.scheduler.health()["active"] == 16)
        stream = client.stream(HELLO, model="base", seed=3, max_tokens=9)
        assert next(stream).place == 1
        may_go_on.set()
        pieces = [piece for piece in stream if not piece.place]
        running.result(60)
    client.close()
    assert "".join(piece.text for piece in pieces) == expected == pieces[-1].answer.text


# Hugging Face's client


def test_hugging_faces_client_chats_with_samples_seed_stop_and_logprobs(hugging: InferenceClient, engine: Served):
    asked: dict[str, Any] = {
        "model": "model-1",
        "max_tokens": 12,
        "seed": 5,
        "n": 3,
        "logprobs": True,
        "top_logprobs": 2,
    }
    told = hugging.chat_completion(HELLO, **asked)
    texts = [choice.message.content for choice in told.choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in hugging.chat_completion(HELLO, **asked).choices] == texts
    assert told.system_fingerprint == engine.resolver.table["model-1"].digest
    assert all(len(token.top_logprobs) == 2 for token in told.choices[0].logprobs.content)
    stop = texts[0][2:4]
    cut = hugging.chat_completion(HELLO, **asked, stop=[stop]).choices[0]
    assert cut.message.content == texts[0][: texts[0].index(stop)]
    assert cut.finish_reason == "stop"


def test_hugging_faces_client_streams_the_text_of_the_whole_answer(hugging: InferenceClient):
    asked: dict[str, Any] = {"model": "live", "max_tokens": 15, "seed": 2}
    whole = hugging.chat_completion(HELLO, **asked).choices[0].message.content
    chunks = list(hugging.chat_completion(HELLO, **asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_hugging_faces_client_is_told_what_was_wrong(hugging: InferenceClient):
    with pytest.raises(HfHubHTTPError, match="temperature: Input should be greater") as refused:
        hugging.chat_completion(HELLO, model="base", temperature=-1)
    assert refused.value.response.status_code == 400
    with pytest.raises(HfHubHTTPError, match="404"):
        hugging.chat_completion(HELLO, model="model-99")
