"""The engine over HTTP, as the official openai client and our own client see it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from backend.engines.client import EngineClient, EngineError
from tests.backend.engines.tiny import CHINESE, KEY, Served, wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def client(engine: Served) -> Iterator[EngineClient]:
    made = EngineClient(engine.url, KEY)
    yield made
    made.close()


# the openai client


def test_the_openai_client_chats(api: openai.OpenAI, engine: Served):
    reply = api.chat.completions.create(model="base", messages=HELLO, max_tokens=12, seed=1)
    assert reply.object == "chat.completion"
    assert reply.model == "base"
    assert reply.system_fingerprint == engine.base.digest
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.prompt_tokens == len(engine.base.chat_tokens(HELLO))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_same_seed_gives_the_same_four_texts_and_another_seed_others(api: openai.OpenAI):
    def texts(seed: int) -> list[str]:
        reply = api.chat.completions.create(model="base", messages=HELLO, max_tokens=12, seed=seed, n=4)
        return [choice.message.content for choice in reply.choices]

    assert texts(7) == texts(7)
    assert texts(7) != texts(8)
    assert len(set(texts(7))) == 4


def test_a_stream_gives_the_text_of_the_whole_answer(api: openai.OpenAI):
    asked = {"model": "base", "messages": HELLO, "max_tokens": 30, "seed": 3, "n": 2}
    whole = [choice.message.content for choice in api.chat.completions.create(**asked).choices]
    texts, usage, reasons = ["", ""], None, {}
    for chunk in api.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert texts == whole
    assert set(reasons.values()) <= {"stop", "length"}
    assert usage.completion_tokens <= 60


def test_logprobs_are_those_of_the_full_softmax_whatever_the_sampling(api: openai.OpenAI):
    reply = api.chat.completions.create(
        model="base", messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == reply.usage.completion_tokens
    for token in tokens:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1
    plain = api.chat.completions.create(model="base", messages=HELLO, max_tokens=6, temperature=0)
    assert plain.choices[0].logprobs is None


def test_a_stop_string_ends_the_answer_before_it(api: openai.OpenAI):
    whole = api.chat.completions.create(model="base", messages=HELLO, max_tokens=40, seed=5).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    cut = api.chat.completions.create(model="base", messages=HELLO, max_tokens=40, seed=5, stop=[stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_completions_take_texts_and_tokens_and_keep_their_order(api: openai.OpenAI, engine: Served):
    texts = ["the film was", "where is"]
    asked = {"model": "base", "max_tokens": 8, "temperature": 0}
    both = [choice.text for choice in api.completions.create(prompt=texts, **asked).choices]
    assert both == [api.completions.create(prompt=text, **asked).choices[0].text for text in texts]
    tokens = [engine.base.text_tokens(text) for text in texts]
    assert both == [choice.text for choice in api.completions.create(prompt=tokens, **asked).choices]


def test_echo_scores_a_prompt_without_a_new_token(api: openai.OpenAI, engine: Served):
    reply = api.completions.create(model="base", prompt="the film was good", max_tokens=0, echo=True, logprobs=1)
    choice = reply.choices[0]
    assert choice.text == "the film was good" == "".join(choice.logprobs.tokens)
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logp <= 0 for logp in choice.logprobs.token_logprobs[1:])
    assert choice.logprobs.text_offset[:2] == [0, len(choice.logprobs.tokens[0])]
    assert reply.usage.completion_tokens == 0


def test_models_are_listed_and_adapters_answer_by_name(api: openai.OpenAI, engine: Served):
    assert [model.id for model in api.models.list()] == ["base", "model-1", "model-2", "live"]
    asked = {"messages": HELLO, "max_tokens": 12, "temperature": 0}
    replies = {name: api.chat.completions.create(model=name, **asked) for name in ("base", "model-1", "model-2")}
    assert len({reply.choices[0].message.content for reply in replies.values()}) == 3
    assert replies["model-2"].system_fingerprint == engine.resolver.table["model-2"].digest


def test_live_names_the_model_that_answered(api: openai.OpenAI, engine: Served):
    asked = {"model": "live", "messages": HELLO, "max_tokens": 4}
    assert api.chat.completions.create(**asked).model == "base"
    engine.resolver.table["live"] = engine.resolver.table["model-1"]
    reply = api.chat.completions.create(**asked)
    engine.resolver.table["live"] = engine.resolver.table["base"]
    assert (reply.model, reply.system_fingerprint) == ("model-1", engine.resolver.table["model-1"].digest)


def test_errors_have_the_kind_the_openai_client_expects(api: openai.OpenAI, engine: Served):
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(model="model-99", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        api.chat.completions.create(model="base", messages=HELLO, max_tokens=1000)
    assert long.value.code == "context_length_exceeded"
    assert "256" in str(long.value)
    assert "1000" in str(long.value)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{engine.url}/v1", api_key="wrong", max_retries=0).models.list()


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_a_bad_request_is_answered_with_its_reason(raw: httpx.Client, extra: dict, param: str):
    body = {"model": "base", "messages": HELLO, **extra}
    response = raw.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


# the door


def test_health_tells_figures_to_who_has_the_key_and_others_that_it_runs(raw: httpx.Client, engine: Served):
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        open_health = httpx.get(f"{engine.url}/health", headers=headers, trust_env=False).json()
        assert open_health == {"loaded": True, "resting": False}
    health = raw.get("/health").json()
    own = {"resting", "device", "dtype", "attention", "quantisation", "memory_bytes", "gpu_bytes"}
    assert set(health) == {
        "loaded",
        "adapters",
        "tokens_per_second",
        "waiting",
        "active",
        "batch_fill",
        "cache_hits",
        *own,
    }
    assert health["memory_bytes"] > 50_000_000
    assert (health["resting"], health["device"], health["dtype"]) == (False, "cpu", "float32")


def test_the_door_refuses_foreign_hosts_huge_bodies_and_missing_keys(raw: httpx.Client, engine: Served):
    assert raw.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
    assert raw.get("/v1/models", headers={"Host": "127.0.0.1.evil.example:80"}).status_code == 421
    assert raw.get("/v1/models", headers={"Authorization": ""}).status_code == 401
    assert raw.post("/v1/chat/completions", content=b"x" * (2 * 1024 * 1024 + 1)).status_code == 413
    in_parts = (b"x" * 65536 for _ in range(40))
    assert raw.post("/v1/chat/completions", content=in_parts).status_code == 413
    assert raw.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "invalid_json"
    assert raw.get("/nothing").json()["error"]["code"] == "unknown_url"


def test_a_full_engine_answers_429_with_retry_after(raw: httpx.Client, engine: Served, monkeypatch):
    may_go_on = threading.Event()
    step = engine.scheduler._step
    monkeypatch.setattr(engine.scheduler, "_step", lambda group: (may_go_on.wait(60), step(group)))
    chat = {"model": "base", "messages": HELLO, "n": 16, "max_tokens": 5}
    prompts = {"model": "base", "prompt": ["a"] * 4, "n": 16, "max_tokens": 2}
    with ThreadPoolExecutor(2) as pool:
        try:
            running = pool.submit(raw.post, "/v1/chat/completions", json=chat)
            wait_until(lambda: engine.scheduler.health()["active"] > 0)
            waiting = pool.submit(raw.post, "/v1/completions", json=prompts)
            wait_until(lambda: engine.scheduler.health()["waiting"] == 4)
            refused = raw.post("/v1/completions", json=prompts | {"prompt": "a"})
        finally:
            may_go_on.set()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        assert running.result().status_code == waiting.result().status_code == 200


# our client


def test_a_hung_up_stream_frees_its_rows_at_once(client: EngineClient, engine: Served):
    stream = client.stream(HELLO, model="base", n=8, max_tokens=220, seed=1)
    next(stream)
    wait_until(lambda: engine.scheduler.health()["active"] > 0)
    stream.close()
    wait_until(lambda: engine.scheduler.health()["active"] == 0, 5)


def test_a_hung_up_whole_request_frees_its_rows_at_once(engine: Served):
    impatient = EngineClient(engine.url, KEY, timeout_seconds=0.05)
    with pytest.raises(EngineError, match="too long"):
        impatient.complete(HELLO, model="base", n=16, max_tokens=220)
    wait_until(lambda: engine.scheduler.health()["active"] == 0, 5)


def test_our_client_reads_what_the_engine_knows_about_an_answer(client: EngineClient, engine: Served):
    answers = client.complete(HELLO, model="model-1", n=3, seed=4, max_tokens=15)
    assert len({answer.text for answer in answers}) == 3
    for answer in answers:
        assert answer.model == "model-1"
        assert answer.fingerprint == engine.resolver.table["model-1"].digest
        assert 1 <= answer.tokens <= 15
        assert answer.prompt_tokens == client.tokenize(HELLO, "base").count
        assert answer.mean_logp < 0
        assert 0 < answer.first_token_seconds <= answer.seconds
    assert client.tokenize(HELLO, "live").max_model_len == 256


def test_our_stream_ends_with_the_answers_that_complete_gives(client: EngineClient):
    asked = {"model": "base", "n": 2, "seed": 9, "max_tokens": 15, "stop": ["zzz"]}
    pieces = list(client.stream(HELLO, **asked))
    streamed = [piece.answer for piece in pieces if piece.answer]
    for answer, other in zip(streamed, client.complete(HELLO, **asked), strict=True):
        assert (answer.text, answer.tokens, answer.finish_reason) == (other.text, other.tokens, other.finish_reason)
        assert answer.mean_logp == pytest.approx(other.mean_logp, abs=1e-4)
        assert answer.prompt_tokens == other.prompt_tokens
    texts = ["".join(piece.text for piece in pieces if piece.index == index) for index in (0, 1)]
    assert texts == [answer.text for answer in streamed]


def test_errors_of_the_engine_are_sentences(client: EngineClient):
    with pytest.raises(EngineError, match=r"There is no model named 'model-99' here\."):
        client.complete(HELLO, model="model-99")
    with pytest.raises(EngineError, match="There is no model named"):
        next(client.stream(HELLO, model="model-99"))
    with pytest.raises(EngineError, match="cannot be reached"):
        EngineClient("http://127.0.0.1:9", "k").models()


def test_a_client_that_was_closed_while_somebody_held_it_says_to_ask_again(engine: Served):
    closed = EngineClient(engine.url, KEY)
    closed.close()
    with pytest.raises(EngineError, match="started again meanwhile"):
        closed.complete(HELLO, model="base")
    with pytest.raises(EngineError, match="started again meanwhile"):
        next(closed.stream(HELLO, model="base"))


def test_a_chinese_stream_never_holds_half_a_character(client: EngineClient, engine: Served, monkeypatch):
    tokens = [*engine.base.tokenizer.encode(CHINESE), engine.base.tokenizer.eos_token_id]
    script = iter(tokens)

    def scripted(logits, settings, uniform):
        import torch

        return torch.tensor([next(script)])

    monkeypatch.setattr("backend.engines.local.writing.choose", scripted)
    pieces = list(client.stream([{"role": "user", "content": "天气"}], model="base", max_tokens=100))
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert len(pieces) > 10
    assert pieces[-1].answer.text == CHINESE
    assert pieces[-1].answer.tokens == len(tokens)


def test_a_failure_within_a_stream_is_told(client: EngineClient, engine: Served, monkeypatch):
    stream = client.stream(HELLO, model="base", max_tokens=200, seed=2)
    next(stream)

    def broken(*_: object) -> None:
        raise RuntimeError("a test broke the batch")

    monkeypatch.setattr(engine.scheduler, "_advance", broken)
    with pytest.raises(EngineError, match="failed on this request"):
        list(stream)
    monkeypatch.undo()
    assert client.complete(HELLO, model="base", max_tokens=3)


def test_the_scripted_engine_answers_like_the_client():
    from backend.engines.scripted import ScriptedEngine

    engine = ScriptedEngine(lambda messages, model, seed: f"{messages[-1]['content']} {model} {seed}")
    answers = engine.client().complete(HELLO, model="live", n=2, seed=5, max_tokens=5)
    assert [answer.text for answer in answers] == ["where is my parcel live"] * 2
    pieces = list(engine.stream(HELLO, model="base", seed=5))
    assert "".join(piece.text for piece in pieces) == "where is my parcel base 5" == pieces[-1].answer.text
    with pytest.raises(EngineError):
        engine.complete(HELLO, model="nobody")


def test_server_sent_json_is_ascii_so_that_no_reader_splits_it(raw: httpx.Client):
    body = {"model": "base", "messages": HELLO, "max_tokens": 30, "stream": True, "logprobs": True}
    text = raw.post("/v1/chat/completions", json=body).text
    lines = [line for line in text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in lines[:-1])
    assert text.isascii()
