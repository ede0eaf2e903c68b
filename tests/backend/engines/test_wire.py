"""What real clients send besides what was asked for, and how exactly they are told what came of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from backend.engines.local import scheduler as scheduling
from tests.backend.engines.tiny import CHINESE, KEY, Served, wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


# what asks for nothing


@pytest.mark.parametrize("shape", ["object", "dict"])
def test_an_answer_goes_back_into_the_conversation_as_it_came(api: openai.OpenAI, shape: str):
    asked: dict[str, Any] = {"model": "base", "max_tokens": 8, "temperature": 0}
    first = api.chat.completions.create(messages=HELLO, **asked).choices[0].message
    plain = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": "the film"}]
    as_it_came = [HELLO[0], first if shape == "object" else first.model_dump(), plain[2]]
    texts = [
        api.chat.completions.create(messages=one, **asked).choices[0].message.content for one in (plain, as_it_came)
    ]
    assert texts[0] == texts[1]


def test_settings_that_ask_for_nothing_change_nothing(raw: httpx.Client):
    asked = {"messages": HELLO, "model": "base", "max_tokens": 8, "seed": 2}
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "logit_bias": {},
        "service_tier": "auto",
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "safety_identifier": "somebody",
        "reasoning_effort": None,
        "stop": None,
        "stream_options": {"include_usage": None},
    }
    texts = [
        raw.post("/v1/chat/completions", json=asked | more).json()["choices"][0]["message"]["content"]
        for more in ({}, neutral, *({name: None} for name in neutral))
    ]
    assert len(set(texts)) == 1
    older = {"model": "base", "prompt": "the film", "suffix": "", "best_of": 1, "logit_bias": None, "echo": None}
    assert raw.post("/v1/completions", json=older).status_code == 200
    embedded = {"model": "base", "input": "the film", "dimensions": None, "encoding_format": None}
    assert raw.post("/v1/embeddings", json=embedded).status_code == 200


@pytest.mark.parametrize(
    "wish",
    [
        {"tools": [{"type": "function", "function": {"name": "find"}}]},
        {"tool_choice": "required"},
        {"logit_bias": {"5": 1}},
        {"modalities": ["text", "audio"]},
        {"reasoning_effort": "low"},
        {"parallel_tool_calls": 1},
    ],
)
def test_a_wish_that_is_not_built_is_refused_by_its_name(raw: httpx.Client, wish: dict[str, Any]):
    told = raw.post("/v1/chat/completions", json={"messages": HELLO, "model": "base", **wish})
    assert (told.status_code, told.json()["error"]["param"]) == (400, next(iter(wish)))


# what is told of a mistake


@pytest.mark.parametrize(
    ("route", "wrong", "says"),
    [
        ("completions", {"prompt": []}, "prompt: List should have at least 1 item after validation, not 0"),
        ("completions", {"prompt": ["a"] * 257}, "prompt: List should have at most 256 items after validation"),
        ("completions", {"prompt": 5}, "prompt: Input should be a valid string"),
        ("completions", {"prompt": None}, "prompt: Field required"),
        ("completions", {}, "prompt: Field required"),
        ("completions", {"prompt": "a", "stop": {"a": 5}}, "stop: Input should be a valid string"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": None}]},
            "messages.0.content: Input should be a valid string",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0.type: Input should be 'text'",
        ),
    ],
)
def test_a_mistake_is_told_by_where_it_stands_in_the_request(raw: httpx.Client, route: str, wrong: dict, says: str):
    error = raw.post(f"/v1/{route}", json={"model": "base", **wrong}).json()["error"]
    assert error["message"].startswith(says)
    assert error["param"] == says.split(":", maxsplit=1)[0].split(".", maxsplit=1)[0]


def test_a_prompt_may_have_as_many_tokens_as_the_context(api: openai.OpenAI):
    """256 is for prompts, not for the tokens of one."""
    with pytest.raises(openai.BadRequestError) as long:
        api.completions.create(model="base", prompt=[7] * 5000, max_tokens=2)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as long:
        api.embeddings.create(model="base", input=[7] * 5000)
    assert long.value.code == "context_length_exceeded"
    for several in (["a"] * 257, [[7]] * 257):
        with pytest.raises(openai.BadRequestError, match="at most 256 items"):
            api.completions.create(model="base", prompt=several)


def test_what_is_no_request_is_told_so(raw: httpx.Client):
    for body, code in (
        (b"null", "invalid_value"),
        (b"[]", "invalid_value"),
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
    ):
        told = raw.post("/v1/chat/completions", content=body)
        assert (told.status_code, told.json()["error"]["code"]) == (400, code)
        assert told.json()["error"]["message"].startswith("The body is not")


def test_the_word_bearer_may_be_written_in_any_case(raw: httpx.Client):
    for header, status in ((f"bearer {KEY}", 200), (f"BEARER  {KEY}", 200), (KEY, 401), (f"Basic {KEY}", 401)):
        assert raw.get("/v1/models", headers={"Authorization": header}).status_code == status


# echo and offsets


def test_an_echo_streams_to_the_whole_answer(api: openai.OpenAI):
    asked: dict[str, Any] = {"model": "model-1", "prompt": ["the film was", CHINESE[:4]], "n": 2, "echo": True}
    asked |= {"max_tokens": 12, "seed": 3, "logprobs": 2}
    whole = api.completions.create(**asked).choices
    texts, told = [""] * 4, [{"tokens": [], "token_logprobs": [], "text_offset": []} for _ in range(4)]
    for chunk in api.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            for name, found in told[choice.index].items():
                found.extend(getattr(choice.logprobs, name))
    assert texts == [choice.text for choice in whole]
    assert texts[0].startswith("the film was")
    assert texts[3].startswith(CHINESE[:4])
    for choice, one in zip(whole, told, strict=True):
        assert one == {name: getattr(choice.logprobs, name) for name in one}


def test_offsets_count_the_characters_of_the_text(api: openai.OpenAI):
    text = "the film 天气 was good"
    told = api.completions.create(model="base", prompt=text, max_tokens=0, echo=True, logprobs=1).choices[0].logprobs
    assert any(token.startswith("bytes:") for token in told.tokens)
    for token, at in zip(told.tokens, told.text_offset, strict=True):
        assert text[at] in "天气" if token.startswith("bytes:") else text[at:].startswith(token)


def test_a_chosen_token_is_among_the_likeliest_ones(api: openai.OpenAI):
    told = (
        api.completions.create(model="base", prompt="the film", max_tokens=12, seed=1, logprobs=1).choices[0].logprobs
    )
    assert any(len(top) == 2 for top in told.top_logprobs)
    for token, logp, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top[token] == logp == min(top.values())


# nobody waits for somebody else's long text


def test_a_long_text_is_read_as_tokens_beside_the_others(raw: httpx.Client, engine: Served, monkeypatch):
    is_reading, may_go_on = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> list[int]:
        is_reading.set()
        may_go_on.wait(60)
        return [5, 6]

    monkeypatch.setattr(engine.base, "text_tokens", slow)
    monkeypatch.setattr(engine.base, "chat_tokens", slow)
    chat, text = (
        {"model": "base", "messages": HELLO, "max_tokens": 2},
        {"model": "base", "prompt": "a", "max_tokens": 2},
    )
    asked = [("chat/completions", chat), ("completions", text), ("embeddings", {"model": "base", "input": "a"})]
    for path, body in [
        *((f"/v1/{path}", body) for path, body in asked),
        ("/tokenize", {"model": "base", "prompt": "a"}),
    ]:
        is_reading.clear(), may_go_on.clear()
        with ThreadPoolExecutor(1) as pool:
            slowly = pool.submit(raw.post, path, json=body)
            try:
                assert is_reading.wait(60)
                assert httpx.get(f"{engine.url}/health", trust_env=False, timeout=30).status_code == 200
            finally:
                may_go_on.set()
            assert slowly.result().status_code == 200


def test_prompts_that_are_scored_let_the_others_write_in_between(raw: httpx.Client, engine: Served, monkeypatch):
    monkeypatch.setattr(scheduling.beginning, "READ_BESIDE", 40)
    told: list[str] = []
    step, scores, may_begin = engine.scheduler._step, scheduling.echo.prompt_scores, threading.Event()

    def stepped(group: Any) -> None:
        told.append("step")
        may_begin.wait(60)
        step(group)

    def scored(base: Any, jobs: Any) -> Any:
        told.extend("score" for _ in jobs)
        return scores(base, jobs)

    monkeypatch.setattr(engine.scheduler, "_step", stepped)
    monkeypatch.setattr(scheduling.echo, "prompt_scores", scored)
    writing = {"model": "base", "prompt": "the", "max_tokens": 200, "n": 4, "seed": 1}
    reading = {"model": "base", "prompt": [[7] * 250] * 12, "max_tokens": 0, "echo": True, "logprobs": 0}
    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(raw.post, "/v1/completions", json=writing)
        wait_until(lambda: "step" in told)
        reader = pool.submit(raw.post, "/v1/completions", json=reading)
        wait_until(lambda: engine.scheduler.health()["waiting"] == 12)
        may_begin.set()
        assert (writer.result().status_code, reader.result().status_code) == (200, 200)
    first, last = told.index("score"), len(told) - told[::-1].index("score")
    assert told[first:last].count("step") >= 5, "at most two such prompts are scored between two steps"


# memory


def test_a_chat_that_names_no_length_leaves_room_for_fifteen_others(api: openai.OpenAI, engine: Served, monkeypatch):
    place = engine.scheduler._place_bytes
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "temperature": 0}
    whole = api.chat.completions.create(**asked).usage
    assert whole.completion_tokens > 40, "by itself it is longer"
    monkeypatch.setattr("backend.engines.local.admission.OPEN_TOKENS", 7)
    for rows, wanted in ((16 * (whole.prompt_tokens + 20), 20), (16 * 5, 7), (10**6, whole.completion_tokens)):
        monkeypatch.setattr(engine.scheduler, "memory_limit", rows * place)
        assert api.chat.completions.create(**asked).usage.completion_tokens == wanted
        assert api.chat.completions.create(**asked, max_tokens=30).usage.completion_tokens == 30


def test_what_can_never_fit_into_memory_is_refused_with_what_to_lower(api: openai.OpenAI, engine: Served, monkeypatch):
    monkeypatch.setattr(engine.scheduler, "memory_limit", 500 * engine.scheduler._place_bytes)
    with pytest.raises(openai.BadRequestError, match="16 answers of 100 tokens need more memory") as refused:
        api.completions.create(model="base", prompt="a", n=16, max_tokens=100)
    assert refused.value.param == "max_tokens"
    assert len(api.completions.create(model="base", prompt="a", n=16, max_tokens=50).choices) == 16
