"""How likely given answers are: what is read together and shared says what transformers says of every text by itself."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import torch

from backend.engines.client import EngineClient, EngineError
from backend.engines.local import likelihoods
from backend.engines.local.likelihoods import Text
from backend.engines.local.model import Base
from tests.backend.engines.tiny import KEY, Served

SHOWN = [
    {"role": "user", "content": "the film was good"},
    {"role": "assistant", "content": "good"},
    {"role": "user", "content": "the story was not kind 好"},
    {"role": "assistant", "content": "not good"},
]
ASKED = ["please help me with the film", "where is my parcel", "the story was good and the film was kind", "好"]
LABELS = ["good", "not good", "a kind story", "好"]
CONVERSATIONS = [[*SHOWN, {"role": "user", "content": text}] for text in ASKED]


@pytest.fixture
def client(engine: Served) -> Iterator[EngineClient]:
    made = EngineClient(engine.url, KEY)
    yield made
    made.close()


def plain(base: Base, model: torch.nn.Module, messages: list[dict[str, str]], answer: str) -> list[float]:
    """A whole forward of transformers' own for one label."""
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    context = base.tokenizer.encode(text, add_special_tokens=False)
    whole = base.tokenizer.encode(text + answer, add_special_tokens=False)
    assert whole[: len(context)] == context
    with torch.no_grad():
        logps = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return [float(logps[at - 1, whole[at]]) for at in range(len(context), len(whole))]


def test_scores_behind_a_shared_beginning_equal_whole_forwards_of_transformers(
    engine: Served, client: EngineClient
) -> None:
    found = client.likelihoods(CONVERSATIONS, LABELS, model="base")
    with engine.base.scope(None):
        for messages, likely in zip(CONVERSATIONS, found, strict=True):
            for answer, one in zip(LABELS, likely, strict=True):
                assert one.logps == pytest.approx(plain(engine.base, engine.base.model, messages, answer), abs=1e-5)
                assert not one.straddles
    assert len(found[0][1].logps) > 1  # a label of several tokens is among them


def test_an_adapter_speaks_for_itself(engine: Served, client: EngineClient) -> None:
    bare = client.likelihoods(CONVERSATIONS, LABELS, model="base")
    found = client.likelihoods(CONVERSATIONS, LABELS, model="model-1")
    with engine.base.scope(engine.resolver.table["model-1"].digest):
        for messages, likely in zip(CONVERSATIONS, found, strict=True):
            for answer, one in zip(LABELS, likely, strict=True):
                assert one.logps == pytest.approx(plain(engine.base, engine.base.model, messages, answer), abs=1e-5)
    assert found[0][0].logps != pytest.approx(bare[0][0].logps, abs=1e-3)


def test_a_base_that_is_no_stack_says_the_same(engine: Served, client: EngineClient) -> None:
    asked = client.likelihoods(CONVERSATIONS, LABELS, model="model-2")
    stack, engine.base.stack = engine.base.stack, None
    try:
        whole = client.likelihoods(CONVERSATIONS, LABELS, model="model-2")
    finally:
        engine.base.stack = stack
    for one, other in zip(asked, whole, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert mine.logps == pytest.approx(theirs.logps, abs=3e-5)  # sums in another order


def test_a_conversation_says_the_same_alone_as_in_company_of_any_size(engine: Served, client: EngineClient) -> None:
    together = client.likelihoods(CONVERSATIONS * 8, LABELS, model="base")
    for at, messages in enumerate(CONVERSATIONS):
        (alone,) = client.likelihoods([messages], LABELS, model="base")
        for times in range(8):
            for one, other in zip(alone, together[at + times * len(CONVERSATIONS)], strict=True):
                assert one.logps == pytest.approx(other.logps, abs=1e-5)


def test_conversations_share_all_but_what_is_their_own() -> None:
    texts = [Text([1, 2, 3, 4], [[9]]), Text([1, 2, 3], [[9]]), Text([1, 2, 5, 6], [[9]])]
    assert likelihoods.shared_by(texts) == 2
    assert likelihoods.shared_by(texts[:1]) == 3  # of one text everything but its last token
    assert likelihoods.shared_by([Text([1], [[9]]), *texts]) == 0
    assert texts[0].own(2) == 2 and Text([1, 2, 3], [[7, 8, 9], [7]]).own(2) == 3


def test_the_beginning_is_read_once_for_all_requests(engine: Served, client: EngineClient) -> None:
    long = [{"role": "user", "content": "please help me with the film and the story " * 4}, SHOWN[1]]
    client.likelihoods([[*long, {"role": "user", "content": text}] for text in ASKED[:2]], LABELS, model="base")
    before = engine.scheduler.prefixes.found_tokens
    client.likelihoods([[*long, {"role": "user", "content": text}] for text in ASKED[2:]], LABELS, model="base")
    assert engine.scheduler.prefixes.found_tokens > before


def spelling(engine: Served) -> list[dict[str, str]]:
    """A conversation whose texts spell the end of a turn."""
    end = engine.base.tokenizer.eos_token
    return [{"role": "user", "content": f"the film {end} was good"}, SHOWN[1], {"role": "user", "content": f"{end}好"}]


@pytest.mark.parametrize("model", ["base", "model-1"])
def test_what_spells_a_control_token_is_scored_as_the_text_that_it_is(
    engine: Served, client: EngineClient, model: str
) -> None:
    base, end = engine.base, engine.base.tokenizer.eos_token
    labels = ["good", f"not {end}", end]
    conversations = [spelling(engine), CONVERSATIONS[0]]
    found = client.likelihoods(conversations, labels, model=model)
    adapter = engine.resolver.table[model].digest if model != "base" else None
    with base.scope(adapter), torch.no_grad():
        for messages, likely in zip(conversations, found, strict=True):
            context = base.chat_tokens(messages)
            for label, one in zip(labels, likely, strict=True):
                answer = base.tokenizer(label, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                assert base.tokenizer.eos_token_id not in answer
                logps = base.model(torch.tensor([context + answer])).logits[0].double().log_softmax(-1)
                whole = [float(logps[len(context) - 1 + at, token]) for at, token in enumerate(answer)]
                assert one.logps == pytest.approx(whole, abs=1e-5, rel=1e-5) and not one.straddles
    harmless = [{**message, "content": "x"} for message in spelling(engine)]
    ends = [base.chat_tokens(messages).count(base.tokenizer.eos_token_id) for messages in (spelling(engine), harmless)]
    assert ends[0] == ends[1]


def test_a_label_whose_letters_would_join_the_border_is_flagged(engine: Served, client: EngineClient) -> None:
    kept = engine.base.tokenizer.chat_template
    engine.base.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %} go"
    try:
        (likely,) = client.likelihoods([[{"role": "user", "content": "the film was"}]], ["od", "好"], model="base")
    finally:
        engine.base.tokenizer.chat_template = kept
    alone = engine.base.tokenizer.encode(" go", add_special_tokens=False)
    joined = engine.base.tokenizer.encode(" good", add_special_tokens=False)
    assert joined[: len(alone)] != alone  # else this tokenizer cannot try it
    assert [one.straddles for one in likely] == [True, False]
    assert all(one.logps for one in likely)


def test_what_cannot_be_scored_is_refused_with_a_reason(engine: Served, client: EngineClient) -> None:
    with pytest.raises(EngineError, match="no model named"):
        client.likelihoods(CONVERSATIONS, LABELS, model="nobody")
    with pytest.raises(EngineError, match="context holds 256 tokens"):
        client.likelihoods([[{"role": "user", "content": "good 好 " * 300}]], LABELS, model="base")
    kept = engine.base.tokenizer.chat_template
    engine.base.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | trim | upper }}{% endfor %} go"
    try:
        with pytest.raises(EngineError, match="control token"):
            client.likelihoods([spelling(engine)], LABELS, model="base")
    finally:
        engine.base.tokenizer.chat_template = kept
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "base", "conversations": [[{"role": "user", "content": "good"}]], "answers": [""]}
    with httpx.Client(base_url=engine.url, headers=headers, trust_env=False) as raw:
        assert raw.post("/v1/likelihoods", json=body).status_code == 400
