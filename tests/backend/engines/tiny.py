"""What the engine's tests share: a tiny tokenizer, adapters written as training writes them, names from a table."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import uvicorn
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved, Resolver
from backend.engines.local.scheduler import Scheduler
from backend.engines.local.server import build_app
from backend.registry import artifacts

KEY = "a-key-for-tests"
CHINESE = "今天天气很好，我们一起去公园散步吧。"
TEXT = ["the film was good and the story was kind", "where is my parcel, please help me", "Input: Output: a b c"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<|end|>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def with_lora(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings():  # peft 0.21 asks transformers for a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def save_adapter(models_dir: Path, base_folder: Path, seed: int, **options: object) -> artifacts.Saved:
    """An adapter that changes the answers, written as training writes it."""
    torch.manual_seed(seed)
    is_encoder_decoder = AutoConfig.from_pretrained(base_folder).is_encoder_decoder
    loader = AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM
    model = loader.from_pretrained(base_folder, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], **options}
    peft = with_lora(model, LoraConfig(task_type="SEQ_2_SEQ_LM" if is_encoder_decoder else "CAUSAL_LM", **settings))
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)

    def fill(folder: Path) -> None:
        peft.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)

    return artifacts.save(models_dir, fill, {"base_fingerprint": artifacts.fingerprint(base_folder)})


class TableResolver:
    """Names from a table; "live" may be moved while the engine runs."""

    def __init__(self, base: Base, adapters: dict[str, Resolved]) -> None:
        self.table = {"base": Resolved("base", None, base.digest), **adapters}
        self.table["live"] = self.table["base"]
        self.rewards: dict[str, Resolved] = {}

    def resolve(self, name: str) -> Resolved | None:
        return self.table.get(name)

    def resolve_reward(self, name: str) -> Resolved | None:
        return self.rewards.get(name)

    def names(self) -> list[str]:
        return list(self.table)


class Served(NamedTuple):
    url: str
    base: Base
    scheduler: Scheduler
    resolver: TableResolver


@contextmanager
def served(base: Base, scheduler: Scheduler, resolver: Resolver) -> Iterator[str]:
    """The engine's server in a thread; gives its address."""
    app = build_app(base, scheduler, resolver, KEY)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(5)


def wait_until(is_so: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)
