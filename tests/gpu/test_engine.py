"""The engine on the processor and, with ``-m gpu``, on an NVIDIA GPU: greedy text, seeds in company, adapters, rest and wake.

Stands alone: no web server and no fixtures of others, so that ``python -m pytest --noconftest -m gpu tests/gpu`` runs it on a
machine that has torch, transformers, peft and pytest.
"""

from __future__ import annotations

import queue
import random
import subprocess
import time
import warnings
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from backend.engines.local.asking import Failed, Piece, Request, Resting
from backend.engines.local.loading import Setting, load_base
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved
from backend.engines.local.resting import Rest
from backend.engines.local.sampling import Sampling
from backend.engines.local.scheduler import Scheduler
from backend.engines.process import process_started_at
from tests.backend.engines.tiny_models import make_tokenizer, save_adapter

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU here"),
]
FAMILIES = ("llama", "gpt2", "t5")  # read as a stack, by transformers' own forward, and behind an encoder
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn"], "t5": ["q", "v", "wo"]}
SAME = {"cpu": 1.0, "cuda": 0.95}  # share of texts that are the same in company; on a GPU a near tie may fall otherwise
GREEDY = Sampling(temperature=0)


class Made(NamedTuple):
    folder: Path
    adapters: list[Resolved]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A model of each family with two adapters."""
    found = {}
    tokenizer = make_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = len(tokenizer)
    for family in FAMILIES:
        torch.manual_seed(0)
        model: Any
        if family == "llama":
            shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
            more = {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.25}
            model = LlamaForCausalLM(LlamaConfig(vocab_size=size, bos_token_id=None, **shape, **more, **ids))
        elif family == "gpt2":
            shape = {"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
            model = GPT2LMHeadModel(GPT2Config(vocab_size=size, bos_token_id=1, **shape, **ids))
        else:
            shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "n_positions": 256}
            feed = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
            model = T5ForConditionalGeneration(T5Config(vocab_size=size, **shape, **feed, **ids))
            for name, weight in model.named_parameters():
                if "norm" not in name:
                    torch.nn.init.normal_(weight, std=0.12 if "lm_head" in name else 0.3)
        folder = tmp_path_factory.mktemp("models") / family
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        models_dir = tmp_path_factory.mktemp("adapters")
        fan_in = {"fan_in_fan_out": True} if family == "gpt2" else {}
        saved = [save_adapter(models_dir, folder, seed, target_modules=TARGETS[family], **fan_in) for seed in (1, 2)]
        adapters = [Resolved(f"model-{at}", models_dir / it.folder, it.digest) for at, it in enumerate(saved, 1)]
        found[family] = Made(folder, adapters)
    return found


@pytest.fixture
def job() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a job on the GPU."""
    started = subprocess.Popen(["sleep", "120"])
    yield started
    started.kill()
    started.wait()


def bare(base: Base) -> Resolved:
    return Resolved("base", None, base.digest)


def prompts_of(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(5, 300) for _ in range(draw.randrange(1, 60))] for _ in range(count)]


class Answers:
    """A request under way, and its answers by sample once they are whole."""

    def __init__(self, scheduler: Scheduler, request: Request) -> None:
        self._wanted = len(request.prompts) * request.n
        self._events: queue.Queue[object] = queue.Queue()
        scheduler.submit(request, self._events.put)

    def whole(self) -> list[Piece]:
        found = {}
        while len(found) < self._wanted:
            event = self._events.get(timeout=120)
            assert not isinstance(event, Failed), event
            if isinstance(event, Piece):
                found[event.sample] = event
        return [found[at] for at in range(self._wanted)]


def tokens_of(piece: Piece) -> list[int]:
    return [item.token for item in piece.tokens]


def generated(
    made: Made, adapter: Resolved | None, prompts: list[list[int]], count: int, device: str
) -> list[list[int]]:
    """transformers' greedy answers, prompt by prompt, on the same device."""
    is_t5 = made.folder.name == "t5"
    loader: Any = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    model: Any = loader.from_pretrained(made.folder, dtype=torch.float32).to(device).eval()
    if adapter is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = PeftModel.from_pretrained(model, str(adapter.adapter)).to(device).eval()
    found = []
    for prompt in prompts:
        tokens = torch.tensor([[*prompt, 1] if is_t5 else prompt], device=device)
        answer = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=count,
            eos_token_id=1, pad_token_id=0,
        )  # fmt: skip
        found.append(answer[0, 1 if is_t5 else len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_of_base_and_adapters_together_equal_generate(made: dict[str, Made], family: str, device: str):
    one = made[family]
    base = load_base(str(one.folder), Setting(device, "float32"))
    assert base.device.type == device
    scheduler = Scheduler(base)
    prompts = prompts_of(5)
    models = [None, *one.adapters]
    asked = [
        Answers(scheduler, Request(model or bare(base), prompts, 24, 0, sampling=GREEDY, top_logps=0))
        for model in models
    ]
    got = [[tokens_of(piece) for piece in answers.whole()] for answers in asked]
    scheduler.close()
    assert got == [generated(one, model, prompts, 24, device) for model in models]
    assert got[0] != got[1] != got[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_text_in_company(made: dict[str, Made], family: str, device: str):
    one = made[family]
    base = load_base(str(one.folder), Setting(device, "float32"))
    scheduler = Scheduler(base, row_limit=64)
    models = [bare(base), *one.adapters]
    settings = [Sampling(), GREEDY, Sampling(temperature=0.7, top_p=0.9), Sampling(top_k=20, repetition_penalty=1.2)]
    requests = [
        Request(models[at % 3], [prompt], 24, at, 1 + at % 3, settings[at % 4], top_logps=0)
        for at, prompt in enumerate(prompts_of(24, seed=1))
    ]
    alone = [piece for request in requests for piece in Answers(scheduler, request).whole()]
    together = [Answers(scheduler, request) for request in requests]
    in_company = [piece for answers in together for piece in answers.whole()]
    scheduler.close()
    same = [left.text == right.text for left, right in zip(alone, in_company, strict=True)]
    print(f"{family} on {device}: {sum(same)} of {len(same)} texts the same in company")
    assert sum(same) >= SAME[device] * len(same)
    assert len({piece.text for piece in alone}) > 20
    for is_same, left, right in zip(same, alone, in_company, strict=True):
        if is_same:
            logps = [[float(item.logp or 0) for item in piece.tokens] for piece in (left, right)]
            assert logps[0] == pytest.approx(logps[1], abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_says_what_float32_says_as_far_as_it_can(made: dict[str, Made], family: str, device: str):
    """How far the log-probabilities of the tokens it wrote are from float32's: not further than transformers' own bfloat16."""
    one = made[family]
    base = load_base(str(one.folder), Setting(device, "bfloat16"))
    scheduler = Scheduler(base)
    prompts = prompts_of(8, seed=2)
    wrote = Answers(scheduler, Request(bare(base), prompts, 24, 3, top_logps=0)).whole()
    scheduler.close()
    assert base.dtype is torch.bfloat16
    told = torch.tensor([float(item.logp or 0) for piece in wrote for item in piece.tokens])
    exact, rounded = (forced(one, prompts, wrote, dtype, device) for dtype in (torch.float32, torch.bfloat16))
    ours, theirs = float((told - exact).abs().mean()), float((rounded - exact).abs().mean())
    print(f"{family} on {device}: bfloat16 is {ours:.4f} nats a token off, transformers' {theirs:.4f}")
    assert 0 < ours < 1.5 * theirs + 0.01


def forced(made: Made, prompts: list[list[int]], wrote: list[Piece], dtype: torch.dtype, device: str) -> torch.Tensor:
    """The log-probabilities that transformers' model gives to the tokens of these answers, one after the other."""
    is_t5 = made.folder.name == "t5"
    loader: Any = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    model: Any = loader.from_pretrained(made.folder, dtype=dtype).to(device).eval()
    found = []
    for prompt, piece in zip(prompts, wrote, strict=True):
        answer = torch.tensor([tokens_of(piece)], device=device)
        with torch.no_grad():
            if is_t5:
                logits = model(input_ids=torch.tensor([[*prompt, 1]], device=device), labels=answer).logits
            else:
                whole = torch.cat([torch.tensor([prompt], device=device), answer], 1)
                logits = model(input_ids=whole).logits[:, len(prompt) - 1 : -1]
        found.append(logits.float().log_softmax(-1).gather(2, answer[..., None])[0, :, 0].cpu())
    return torch.cat(found)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_and_fused_attention_write_the_same_greedy_text(
    made: dict[str, Made], family: str, attention: str, device: str
):
    one = made[family]
    base = load_base(str(one.folder), Setting(device, "float32", attention))
    scheduler = Scheduler(base)
    pieces = Answers(scheduler, Request(bare(base), prompts_of(3, 4), 20, 0, sampling=GREEDY, top_logps=0)).whole()
    scheduler.close()
    assert base.attention == attention
    assert [tokens_of(piece) for piece in pieces] == generated(one, None, prompts_of(3, 4), 20, device)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_has_the_memory_while_the_engine_rests(
    made: dict[str, Made], family: str, device: str, job: subprocess.Popen[bytes]
):
    one = made[family]
    base = load_base(str(one.folder), Setting(device, "float32"))
    scheduler = Scheduler(base)
    rest = Rest(base, scheduler)
    request = Request(one.adapters[0], prompts_of(4, 5), 20, 7, 2)
    before = [piece.text for piece in Answers(scheduler, request).whole()]
    held, stack = rest.health()["gpu_bytes"], weakref.ref(base.stack) if base.stack else lambda: None
    freed = rest.begin(job.pid)
    assert stack() is None  # it holds the weights where they were
    if device == "cuda":
        assert freed >= 0.9 * base.weight_bytes and rest.health()["gpu_bytes"] <= held - freed
    with pytest.raises(Resting, match="rests while a model is trained"):
        scheduler.submit(request, lambda _: None)
    job.kill()
    job.wait()
    _until_awake(rest)
    assert next(base.model.parameters()).device.type == device
    assert [piece.text for piece in Answers(scheduler, request).whole()] == before
    scheduler.close()


def test_an_engine_that_starts_beside_a_job_takes_no_gpu_memory_until_it_is_over(
    made: dict[str, Made], device: str, job: subprocess.Popen[bytes]
):
    one = made["llama"]
    usual = load_base(str(one.folder), Setting(device, "float32"))
    scheduler = Scheduler(usual)
    request = Request(bare(usual), prompts_of(4, 6), 20, 7, 2)
    expected = [piece.text for piece in Answers(scheduler, request).whole()]
    scheduler.close()
    base = load_base(str(one.folder), Setting(device, "float32"), at_rest=True)
    assert {weight.device.type for weight in base.model.parameters()} == {"cpu"} and base.device.type == device
    scheduler = Scheduler(base)
    rest = Rest(base, scheduler)
    rest.begin_without({job.pid: process_started_at(job.pid) or 0.0})
    with pytest.raises(Resting):
        scheduler.submit(request, lambda _: None)
    job.kill()
    job.wait()
    _until_awake(rest)
    assert {weight.device.type for weight in base.model.parameters()} == {device}
    assert [piece.text for piece in Answers(scheduler, request).whole()] == expected
    scheduler.close()


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantised_weights_answer_with_and_without_an_adapter(made: dict[str, Made], bits: str, device: str):
    one = made["llama"]
    base = load_base(str(one.folder), Setting(device, "bfloat16", "auto", bits))
    scheduler = Scheduler(base)
    texts = []
    for model in (bare(base), one.adapters[0], bare(base)):
        pieces = Answers(scheduler, Request(model, prompts_of(2, 8), 16, 0, sampling=GREEDY)).whole()
        texts.append([piece.text for piece in pieces])
    scheduler.close()
    assert texts[0] == texts[2] != texts[1]


def _until_awake(rest: Rest) -> None:
    deadline = time.monotonic() + 20
    while rest.health()["resting"]:
        assert time.monotonic() < deadline, "it did not come back in time"
        time.sleep(0.02)
