"""A Llama of a few thousand weights with a tokenizer of its own, two adapters, and the engine's server in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backend.engines.local.loading import load_base
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.tiny import KEY, Served, TableResolver, make_tokenizer, save_adapter, served


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.25,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> dict[str, Resolved]:
    models_dir = tmp_path_factory.mktemp("adapters")
    saved = [save_adapter(models_dir, base_folder, seed) for seed in (1, 2)]
    return {f"model-{at}": Resolved(f"model-{at}", models_dir / it.folder, it.digest) for at, it in enumerate(saved, 1)}


@pytest.fixture
def load(base_folder: Path) -> Callable[[], Base]:
    return lambda: load_base(str(base_folder), device="cpu")


@pytest.fixture(scope="session")
def engine(base_folder: Path, adapters: dict[str, Resolved]) -> Iterator[Served]:
    base = load_base(str(base_folder), device="cpu")
    scheduler = Scheduler(base, row_limit=16, waiting_limit=4)
    resolver = TableResolver(base, adapters)
    with served(base, scheduler, resolver) as url:
        yield Served(url, base, scheduler, resolver)
    scheduler.close()


@pytest.fixture
def api(engine: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def raw(engine: Served) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=engine.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
    ) as made:
        yield made
