"""T5 and BART in the engine: transformers' greedy text, the same text in any company, scores of the training code, and a
policy that our own training made."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from backend import opening, promoting
from backend.engines.client import EngineClient
from backend.engines.local import encoder_decoder, reading
from backend.engines.local.asking import Piece, Request
from backend.engines.local.encoder_decoder import JoinedRows, Known, StartedRows
from backend.engines.local.loading import load_base
from backend.engines.local.model import Base, ModelProblem
from backend.engines.local.resolver import Resolved, StoreResolver
from backend.engines.local.sampling import Sampling
from backend.engines.local.scheduler import Scheduler
from backend.registry import bases
from backend.training import judge, shared_base
from backend.training.data import Tokens
from feedback_db import Store
from feedback_db.types import Model
from tests.backend.engines.test_reading import save_judge
from tests.backend.engines.test_scheduler import GREEDY, SAMPLINGS, STOPS, Asked, draw_prompt, request, told
from tests.backend.engines.tiny import KEY, TableResolver, save_adapter, served
from tests.backend.jobs.test_jobs import as_it_was, in_this_process, job_folder
from tests.backend.training import tiny as words
from tests.conftest import person

HELLO = [{"role": "user", "content": "where is my parcel"}]
__all__ = ["as_it_was"]  # a fixture
SHAPE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
KINDS = ("t5", "t5-tied", "mt5", "bart")


def make(kind: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {
        **SHAPE,
        "vocab_size": len(tokenizer),
        "decoder_start_token_id": tokenizer.pad_token_id,
        "n_positions": 128,
    }
    torch.manual_seed(3)
    if kind == "bart":
        size = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128}
        start = {"decoder_start_token_id": tokenizer.eos_token_id, "bos_token_id": None, "forced_eos_token_id": None}
        return BartForConditionalGeneration(
            BartConfig(vocab_size=len(tokenizer), **size, **heads, **ids, **start, init_std=0.3)
        )
    if kind == "mt5":
        return loud(MT5ForConditionalGeneration(MT5Config(**shape, **ids)))
    is_tied = kind == "t5-tied"
    feed = {"feed_forward_proj": "relu" if is_tied else "gated-gelu", "tie_word_embeddings": is_tied}
    return loud(T5ForConditionalGeneration(T5Config(**shape, **ids, **feed)))


def loud(model: Any) -> Any:
    """Layers that say more than the embedding they add to: T5's own beginning repeats one token for ever."""
    for name, weight in model.named_parameters():
        if "norm" not in name:
            std = 1.0 if "relative" in name else 0.25 if "shared" in name else 0.12 if "lm_head" in name else 0.3
            torch.nn.init.normal_(weight, std=std)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    found = {}
    for kind in KINDS:
        found[kind] = tmp_path_factory.mktemp("models") / kind
        make(kind, tokenizer).save_pretrained(found[kind])
        tokenizer.save_pretrained(found[kind])
    return found


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> dict[str, Resolved]:
    models_dir = tmp_path_factory.mktemp("adapters")
    saved = [save_adapter(models_dir, folders["t5"], seed, target_modules=["q", "v", "wo"]) for seed in (1, 2)]
    return {f"model-{at}": Resolved(f"model-{at}", models_dir / it.folder, it.digest) for at, it in enumerate(saved, 1)}


@pytest.fixture
def scheduler(folders: dict[str, Path]) -> Iterator[Scheduler]:
    made = Scheduler(load_base(str(folders["t5"]), device="cpu"), row_limit=48, waiting_limit=100)
    yield made
    made.close()


def reference(folder: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


def generated(model: Any, prompt: list[int], count: int, **more: Any) -> list[int]:
    """transformers' greedy answer to a prompt that ends with the end token."""
    found = model.generate(
        input_ids=torch.tensor([[*prompt, 1]]),
        do_sample=False,
        num_beams=1,
        max_new_tokens=count,
        eos_token_id=1,
        **more,
    )
    return found[0, 1:].tolist()


def adapted(folder: Path, adapter: Path | None) -> Any:
    with warnings.catch_warnings():  # peft 0.21 asks transformers for a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(reference(folder), str(adapter)).eval()


def tokens_of(piece: Piece) -> list[int]:
    return [item.token for item in piece.tokens]


# what is written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_equals_generate_token_for_token(folders: dict[str, Path], kind: str, penalty: float):
    base, draw = load_base(str(folders[kind]), device="cpu"), random.Random(0)
    scheduler = Scheduler(base, row_limit=32)
    prompts = [draw_prompt(draw) for _ in range(6)]
    sampling = Sampling(temperature=0, repetition_penalty=penalty)
    asked = Asked(scheduler, Request(Resolved("base", None, base.digest), prompts, 30, 0, 2, sampling, top_logps=0))
    got = {piece.sample: tokens_of(piece) for piece in asked.pieces()}
    scheduler.close()
    model = reference(folders[kind])
    expected = [generated(model, prompt, 30, repetition_penalty=penalty) for prompt in prompts]
    for at in range(6):
        assert got[2 * at] == got[2 * at + 1] == expected[at]
    assert len({tuple(tokens) for tokens in expected}) > 3


def test_greedy_with_an_adapter_equals_generate_with_it(
    scheduler: Scheduler, folders: dict[str, Path], adapters: dict[str, Resolved]
):
    draw = random.Random(4)
    prompts = [draw_prompt(draw) for _ in range(4)]
    texts = []
    for found in adapters.values():
        asked = Asked(scheduler, Request(found, prompts, 24, 0, sampling=GREEDY, top_logps=0))
        got = {piece.sample: tokens_of(piece) for piece in asked.pieces()}
        model = adapted(folders["t5"], found.adapter)
        assert [got[at] for at in range(4)] == [generated(model, prompt, 24) for prompt in prompts]
        texts.append(got)
    assert texts[0] != texts[1]


def test_logprobs_are_those_of_the_models_own_forward(scheduler: Scheduler, folders: dict[str, Path]):
    prompt = [5, 9, 30, 31]
    asked = request(scheduler.base, prompt, top_logps=3, sampling=Sampling(temperature=0.8, top_k=20), max_tokens=12)
    piece = Asked(scheduler, asked).pieces()[0]
    labels = torch.tensor([tokens_of(piece)])
    with torch.no_grad():
        logps = (
            reference(folders["t5"])(input_ids=torch.tensor([[*prompt, 1]]), labels=labels).logits[0].log_softmax(-1)
        )
    for at, item in enumerate(piece.tokens):
        assert item.logp == pytest.approx(float(logps[at, item.token]), abs=1e-4)
        best = logps[at].topk(3)
        assert [token for token, _ in item.top] == best.indices.tolist()
        assert [logp for _, logp in item.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(scheduler: Scheduler, adapters: dict[str, Resolved]):
    base, draw = scheduler.base, random.Random(1)
    models = [None, adapters["model-1"], adapters["model-2"]]
    requests = [
        request(
            base,
            draw_prompt(draw),
            models[at % 3],
            seed=at,
            n=1 + at % 4,
            top_logps=at % 3,
            sampling=SAMPLINGS[at % len(SAMPLINGS)],
            stop=draw.choice(STOPS),
            max_tokens=draw.choice([1, 8, 20, 30]),
        )
        for at in range(30)
    ]
    alone = [told(Asked(scheduler, item)) for item in requests]
    assert len({text for answers in alone for text, *_ in answers}) > 12
    order = list(range(30))
    draw.shuffle(order)
    together = {at: Asked(scheduler, requests[at]) for at in order}
    for at, asked in together.items():
        for one, other in zip(told(asked), alone[at], strict=True):
            assert one[:3] == other[:3]
            assert one[3] == pytest.approx(other[3], abs=1e-4)


def test_a_rows_logits_are_equal_to_the_last_bit_in_any_company(folders: dict[str, Path]):
    base = load_base(str(folders["t5"]), device="cpu")
    draw = random.Random(2)
    prompts = [draw_prompt(draw) for _ in range(5)]

    def alone(prompt: list[int], steps: int) -> list[torch.Tensor]:
        rows = JoinedRows(base, Known(0), "base")
        last, found = rows.add([prompt], [0]), []
        for _ in range(steps):
            found.append(rows.step(last)[0])
            last = found[-1].argmax()[None]
        return found

    with torch.inference_mode(), base.scope(None):
        rows = JoinedRows(base, Known(0), "base")
        last = rows.add(prompts[:2], [0, 1, 1])
        got: list[list[torch.Tensor]] = [[], [], []]
        for turn in range(80):
            if turn == 3:
                last, got = torch.cat([last, rows.add(prompts[2:], [0, 2, 1])]), [*got, [], [], []]
            if turn == 6:
                rows.keep([0, 2, 3, 5])
                last, got = last[torch.tensor([0, 2, 3, 5])], [got[at] for at in (0, 2, 3, 5)]
            logits = rows.step(last)
            for own, row in zip(got, logits, strict=True):
                own.append(row)
            last = logits.argmax(-1)
        for own, at in zip(got, (0, 1, 2, 3), strict=True):
            expected = alone(prompts[at], len(own))
            assert all(torch.equal(one, other) for one, other in zip(own, expected, strict=True))


def test_a_late_request_joins_a_running_batch_of_its_model(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    step = JoinedRows.step
    late: list[Asked] = []

    def watched(rows: JoinedRows, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        if len(sizes) == 4:
            late.append(Asked(scheduler, request(scheduler.base, [7, 8, 9], n=2, max_tokens=4, stop=())))
        return step(rows, tokens)

    monkeypatch.setattr(JoinedRows, "step", watched)
    Asked(scheduler, request(scheduler.base, [5, 6], n=3, max_tokens=30)).pieces()
    late[0].pieces()
    assert max(sizes) == 5 and len([size for size in sizes if size == 5]) >= 1


def test_a_prompt_is_encoded_once_for_all_its_samples_and_for_later_requests(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
):
    read, counts = encoder_decoder.read, []
    monkeypatch.setattr(encoder_decoder, "read", lambda base, rows: (counts.append(len(rows)), read(base, rows))[1])
    first = Asked(scheduler, request(scheduler.base, [5, 6, 7], n=4)).texts()
    assert Asked(scheduler, request(scheduler.base, [5, 6, 7], n=2)).texts() == first[:2]
    assert sum(counts) == 1
    assert scheduler.health()["cache_hits"] == 0.5
    Asked(scheduler, request(scheduler.base, [5, 6, 7, 8])).texts()
    assert sum(counts) == 2, "a longer prompt is another one: every token of it sees the new one"


def test_what_is_known_of_prompts_stays_within_its_room():
    known = Known(limit_bytes=3 * 4 * 8 * 4)
    states = {at: torch.full((4, 8), float(at)) for at in range(4)}
    for at in range(3):
        known.put("a", [at], states[at])
    assert known.find("a", [0]) is not None and known.find("b", [0]) is None
    known.put("a", [3], states[3])
    assert known.find("a", [1]) is None and torch.equal(known.find("a", [0]), states[0])
    assert known.held_bytes == known.limit_bytes
    known.put("a", [3], states[3])
    assert known.find("a", [2]) is not None, "what is there is not kept twice"
    known.put("a", [9], torch.zeros(400, 8))
    assert known.find("a", [9]) is None
    known.clear()
    assert known.held_bytes == 0 and known.find("a", [0]) is None


def test_answers_of_a_family_that_cannot_join_are_the_same_alone_and_in_company(folders: dict[str, Path]):
    base, draw = load_base(str(folders["bart"]), device="cpu"), random.Random(5)
    scheduler = Scheduler(base, row_limit=48, waiting_limit=100)
    requests = [request(base, draw_prompt(draw), seed=at, n=1 + at % 3, stop=draw.choice(STOPS)) for at in range(12)]
    alone = [Asked(scheduler, item).texts() for item in requests]
    together = [Asked(scheduler, item) for item in requests]
    assert [asked.texts() for asked in together] == alone
    scheduler.close()


def test_rows_of_a_family_that_cannot_join_go_on_when_others_leave(folders: dict[str, Path]):
    base = load_base(str(folders["bart"]), device="cpu")
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    with torch.inference_mode(), base.scope(None):
        alone = StartedRows(base, Known(0), "base", prompts, [1])
        both = StartedRows(base, Known(0), "base", prompts, [0, 1, 0])
        one, several = alone.last, both.last
        for turn in range(10):
            if turn == 4:
                both.keep([1])
                several = several[1:2]
            left, right = alone.step(one), both.step(several)
            torch.testing.assert_close(left[0], right[0 if turn >= 4 else 1], rtol=1e-4, atol=1e-4)
            one, several = left.argmax(-1), right.argmax(-1)


def test_memory_counts_the_tokens_of_prompt_and_answer(folders: dict[str, Path]):
    base = load_base(str(folders["t5"]), device="cpu")
    rows = JoinedRows(base, Known(0), "base")
    with torch.inference_mode(), base.scope(None):
        rows.add([[5] * 63], [0] * 16)
        rows.step(torch.zeros(16, dtype=torch.long))
    assert rows._prompt.nbytes + rows._answer.nbytes == 16 * (64 + 64) * encoder_decoder.place_bytes(base)


def test_requests_that_would_take_too_much_memory_together_wait_for_one_another(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    base, sizes, step = load_base(str(folders["t5"]), device="cpu"), [], JoinedRows.step
    monkeypatch.setattr(JoinedRows, "step", lambda rows, tokens: (sizes.append(len(tokens)), step(rows, tokens))[1])
    scheduler = Scheduler(base, memory_limit=3 * (3 + 20) * encoder_decoder.place_bytes(base))
    asked = [Asked(scheduler, request(base, [5, 6, at], stop=("never",), max_tokens=20)) for at in range(7, 15)]
    assert all(len(one.texts()) == 1 for one in asked)
    scheduler.close()
    assert max(sizes) == 3


def test_a_row_that_left_needs_no_more_places(folders: dict[str, Path]):
    base = load_base(str(folders["t5"]), device="cpu")
    with torch.inference_mode(), base.scope(None):
        rows = JoinedRows(base, Known(0), "base")
        last = rows.add([[5, 6, 7]], [0])
        for _ in range(encoder_decoder.ROOM + 5):
            last = rows.step(last).argmax(-1)
        rows.add([[8, 9]], [0])
        rows.keep([1])
        fresh = JoinedRows(base, Known(0), "base")
        assert torch.equal(rows.step(torch.zeros(1).long()), fresh.step(fresh.add([[8, 9]], [0])))


# over HTTP


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path], adapters: dict[str, Resolved]) -> Iterator[tuple[str, Base, TableResolver]]:
    base = load_base(str(folders["t5"]), device="cpu")
    scheduler, resolver = Scheduler(base), TableResolver(base, adapters)
    with served(base, scheduler, resolver) as url:
        yield url, base, resolver
    scheduler.close()


@pytest.fixture
def api(engine: tuple[str, Base, TableResolver]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine[0]}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["base", "model-1"])
def test_the_openai_client_chats_and_streams(api: openai.OpenAI, engine: tuple[str, Base, TableResolver], model: str):
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "n": 3, "seed": 5, "max_tokens": 25, "logprobs": True}
    whole = api.chat.completions.create(**asked, top_logprobs=2)
    texts = [choice.message.content for choice in whole.choices]
    assert whole.usage.prompt_tokens == len(engine[1].chat_tokens(HELLO))
    streamed = [""] * 3
    for chunk in api.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts and len(set(texts)) == 3
    told = whole.choices[0].logprobs.content
    assert all(len(item.top_logprobs) == 2 and item.logprob <= 0 for item in told)
    assert len(told) <= 25 and whole.model == model


def test_a_text_and_its_tokens_ask_the_same_also_when_they_are_closed(api: openai.OpenAI):
    asked: dict[str, Any] = {"model": "base", "max_tokens": 12, "temperature": 0}
    from_text = api.completions.create(prompt="where is my parcel", **asked)
    tokens = api.post("/../tokenize", body={"model": "base", "prompt": "where is my parcel"}, cast_to=object)["tokens"]
    found = api.completions.create(prompt=[tokens, [*tokens, 1]], **asked)
    assert {choice.text for choice in found.choices} == {from_text.choices[0].text}
    assert found.usage.prompt_tokens == 2 * from_text.usage.prompt_tokens
    echoed = api.completions.create(prompt="where is my parcel", echo=True, **asked).choices[0].text
    assert echoed == "where is my parcel" + from_text.choices[0].text


def test_a_stop_string_ends_the_answer_before_it(api: openai.OpenAI):
    asked: dict[str, Any] = {"model": "base", "prompt": "the film", "max_tokens": 40, "seed": 2}
    text = api.completions.create(**asked).choices[0].text
    stop = text[6:8]
    cut = api.completions.create(**asked, stop=stop).choices[0]
    assert cut.text == text[: text.index(stop)] and cut.finish_reason == "stop"


def test_prompt_scores_are_refused_with_the_reason(api: openai.OpenAI):
    with pytest.raises(openai.BadRequestError, match="encoder reads the prompt whole and says nothing of how likely"):
        api.completions.create(model="base", prompt="the film", echo=True, logprobs=0, max_tokens=0)


def test_prompt_and_answer_have_a_room_each(api: openai.OpenAI):
    longest = api.completions.create(model="base", prompt=[[5] * 127], max_tokens=128)
    assert longest.usage.prompt_tokens == 127
    for prompt, count in (([5] * 128, 1), ([5], 129)):
        with pytest.raises(openai.BadRequestError, match="reads prompts of up to 127 tokens and writes up to 128"):
            api.completions.create(model="base", prompt=[prompt], max_tokens=count)
    with pytest.raises(openai.BadRequestError, match="up to 127 tokens .* a text has 128"):
        api.embeddings.create(model="base", input=[[5] * 128])


def test_embeddings_are_the_means_of_the_encoders_states(api: openai.OpenAI, folders: dict[str, Path]):
    texts = ["where is my parcel", "the film"]
    found = [one.embedding for one in api.embeddings.create(model="base", input=texts, encoding_format="float").data]
    model, tokenizer = reference(folders["t5"]), load_base(str(folders["t5"]), device="cpu").tokenizer
    for text, embedding in zip(texts, found, strict=True):
        with torch.no_grad():
            states = model.encoder(input_ids=torch.tensor([[*tokenizer.encode(text), 1]])).last_hidden_state[0]
        mean = torch.nn.functional.normalize(states.mean(0), dim=0)
        assert embedding == pytest.approx(mean.tolist(), abs=1e-5)


@pytest.mark.parametrize("members", [1, 3])
def test_scores_and_credit_are_those_of_the_training_code(
    api: openai.OpenAI,
    engine: tuple[str, Base, TableResolver],
    folders: dict[str, Path],
    tmp_path: Path,
    members: int,
    monkeypatch: pytest.MonkeyPatch,
):
    trained = shared_base.load_base(str(folders["t5"]))
    saved = save_judge(trained, tmp_path, folders["t5"], members)
    engine[2].rewards["model-9"] = Resolved("model-9", tmp_path / saved.folder, saved.digest)
    body: dict[str, Any] = {"model": "model-9", "messages": HELLO, "answer": ["please help me", "a b"], "credit": True}
    told: Any = api.post("/rewards", body=body, cast_to=object)
    plain: Any = api.post("/rewards", body={**body, "credit": False}, cast_to=object)
    loaded = judge.load(trained, tmp_path / saved.folder, adapter="again")
    tokens = Tokens(trained.tokenizer, 128)
    for one, other, text in zip(told["data"], plain["data"], body["answer"], strict=True):
        prefix, own = tokens.prefix(HELLO), tokens.answer(text, True)
        cuts = [[*prefix, *own[: at + 1]] for at in range(len(own))]
        expected = judge.scores(trained, loaded, cuts, 4096).mean(0).tolist()
        assert [item["value"] for item in one["credit"]] == pytest.approx(expected, abs=1e-5)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5) == pytest.approx(expected[-1], abs=1e-5)
    monkeypatch.setattr(reading, "CUTS_READ", 3)
    with pytest.raises(openai.BadRequestError, match="reads a text once for every token .* at most 3"):
        api.post("/rewards", body=body, cast_to=object)


# loading


def test_a_conversation_without_a_template_is_read_as_in_training(folders: dict[str, Path]):
    base = load_base(str(folders["t5"]), device="cpu")
    base.tokenizer.chat_template = None
    assert base.chat_tokens(HELLO) == Tokens(base.tokenizer, 100).prefix(HELLO)
    spelt = base.chat_tokens([{"role": "user", "content": "a <|end|>"}])
    assert not set(base.tokenizer.all_special_ids) & set(spelt), "what spells a control token is data"


def test_a_base_whose_decoder_cannot_begin_is_refused(folders: dict[str, Path], tmp_path: Path, tokenizer: Any):
    model = make("t5", tokenizer)
    model.config.decoder_start_token_id = None
    model.generation_config.decoder_start_token_id = None
    model.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelProblem, match="names no decoder_start_token_id"):
        load_base(str(tmp_path / "t5"), device="cpu")


# the whole way


def test_a_t5_that_our_training_made_answers_once_it_is_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = words.folder(tmp_path / "t5-tied", "t5-tied")
    learn = {"lora_r": 8, "lora_alpha": 16, "learning_rate": 1e-2, "threads": 1}
    answers = [words.answer_row(i) for i in range(50)]
    tuned = in_this_process(
        job_folder(tmp_path, folder, "sft", answers, {**learn, "num_train_epochs": 4, "batch_size": 8}), monkeypatch
    )
    likes = in_this_process(
        job_folder(tmp_path, folder, "reward", words.separable_rows(60), {**learn, "num_train_epochs": 3}, number=2),
        monkeypatch,
    )
    prompts = [words.prompt_row(i) for i in range(15)]
    more = {"start": tuned["artifact"], "reward": likes["artifact"]}
    steps = {**learn, "learning_rate": 1e-3, "total_episodes": 32, "batch_size": 16, "response_length": 5}
    followed = in_this_process(job_folder(tmp_path, folder, "ift", prompts, steps, number=3, **more), monkeypatch)
    assert [done["kind"] for done in (tuned, likes, followed)] == ["done"] * 3, (tuned, likes, followed)

    store = Store(tmp_path / "feedback.db")
    admin = person(store, "admin")
    located = bases.locate(str(folder), folder)
    opening.register_base(store, located)
    rows = {}
    for name, kind, done in (("sft", "policy", tuned), ("ift", "policy", followed), ("likes", "reward", likes)):
        digest = bytes.fromhex(done["digest"])
        made = Model(name=name, kind=kind, base=located.name, base_fingerprint=located.fingerprint, source="sft")
        rows[name] = store.add(replace(made, adapter=done["artifact"], digest=digest))
    base = load_base(str(folder), device="cpu")
    scheduler, resolver = Scheduler(base), StoreResolver(tmp_path, base.digest)
    with served(base, scheduler, resolver) as url:
        client = EngineClient(url, KEY)

        def answer(case: int) -> tuple[str, str, str]:
            said = client.complete(words.prompt_row(case)["messages"], model="live", temperature=0, max_tokens=8)[0]
            return said.text, said.finish_reason, said.model

        before = answer(3)
        assert before[2] == "base" and before[0] != "good please"
        for name in ("sft", "ift"):
            promoting.promote(store, tmp_path / "models", admin, rows[name].id or 0, reason="a test")
            assert [answer(case) for case in (3, 8)] == [("good please", "stop", f"model-{rows[name].id}")] * 2
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as api:
            body = {"model": f"model-{rows['likes'].id}", "messages": HELLO, "answer": ["good please", "bad please"]}
            good, bad = (one["score"] for one in api.post("/rewards", body=body, cast_to=object)["data"])
        assert good > bad
        client.close()
    scheduler.close()
    resolver.close()
    store.close()
