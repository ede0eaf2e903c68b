"""Decoders whose layers take no attention of ours: each method reads their texts as the plain model does, or refuses them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    GPTNeoConfig,
    MambaConfig,
    RwkvConfig,
    StableLmConfig,
)

from backend.training import kto, pretrain, sft
from backend.training.answers import Written, answer_logp
from backend.training.data import read_answers, read_texts, read_unpaired
from backend.training.families import UnsupportedBase
from backend.training.run import Run
from backend.training.settings import KTOSettings, PretrainSettings, SFTSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

IDS = {"vocab_size": len(tiny.WORDS), "bos_token_id": 1, "eos_token_id": 1}
DECODERS: dict[str, Callable[[], Any]] = {
    "gptj": lambda: GPTJConfig(n_embd=32, n_layer=2, n_head=2, n_positions=96, rotary_dim=8, initializer_range=0.2, **IDS),
    "gpt_neo": lambda: GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], max_position_embeddings=96,
        intermediate_size=64, initializer_range=0.2, **IDS,
    ),
    "stablelm": lambda: StableLmConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64,
        max_position_embeddings=96, initializer_range=0.2, **IDS,
    ),
}  # fmt: skip
SOME = [Written([2, 7, 9, 3], [11, 12, 1]), Written([2, 8, 3], [13, 14, 15, 1]), Written([2, 20, 21, 22, 3], [16, 1])]
QUICK: dict[str, Any] = {"lora_r": 4, "lora_alpha": 8, "num_train_epochs": 1, "batch_size": 16, "learning_rate": 1e-3}


def model(kind: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(DECODERS[kind]()).eval()


def rows(folder: Path, make: Callable[[int], dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(make(i)) + "\n" for i in range(20)))
    return path


def by_sft(base: SharedBase, folder: Path) -> None:
    sft.train(base, read_answers(rows(folder, tiny.answer_row)), SFTSettings(**QUICK, min_answers=2), 0, Run(folder))


def by_kto(base: SharedBase, folder: Path) -> None:
    kto.train(base, read_unpaired(rows(folder, tiny.unpaired_row)), KTOSettings(**QUICK, min_of_each=2), 0, Run(folder))


def by_pretraining(base: SharedBase, folder: Path) -> None:
    texts = read_texts(rows(folder, tiny.text_row))
    pretrain.train(base, texts, PretrainSettings(**QUICK, min_texts=2), 0, Run(folder))


@torch.no_grad()
def plainly(causal: Any, one: Written) -> torch.Tensor:
    logp = causal(input_ids=torch.tensor([one.prefix + one.answer])).logits[0].log_softmax(-1)
    return logp[-len(one.answer) - 1 : -1].gather(-1, torch.tensor(one.answer)[:, None])[:, 0]


@pytest.mark.parametrize("train", [by_sft, by_kto, by_pretraining])
@pytest.mark.parametrize("kind", DECODERS)
def test_no_text_sees_another_whichever_method_reads_it(
    kind: str, train: Callable[[SharedBase, Path], None], tmp_path: Path
) -> None:
    expected = [plainly(model(kind), one) for one in SOME]
    base = SharedBase(model(kind), tiny.tokenizer())
    base.add("policy", Shape(4, 8), seed=0)
    train(base, tmp_path)
    told = [event.get("text", "") for event in map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())]
    assert sum(text.startswith("Texts are padded: in one line") for text in told) == 1
    base.remove("policy")
    base.add("fresh", Shape(4, 8), seed=0)  # B is zero: the base's own numbers
    with torch.no_grad(), base.scope("fresh"):
        logp, is_answer = answer_logp(base, SOME)
    for found, where, plain in zip(logp, is_answer, expected, strict=True):
        torch.testing.assert_close(found[where], plain, rtol=1e-5, atol=1e-5)


def test_a_recurrent_base_is_refused_since_padding_is_a_part_of_its_text() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 96}
    with pytest.raises(UnsupportedBase, match="padding before a text"):
        SharedBase(AutoModelForCausalLM.from_config(RwkvConfig(**shape, **IDS)), tiny.tokenizer())


def test_a_base_that_takes_no_adapter_is_refused_with_a_sentence() -> None:
    mamba = MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **IDS)
    with pytest.raises(UnsupportedBase, match="type mamba"):
        SharedBase(AutoModelForCausalLM.from_config(mamba), tiny.tokenizer()).add("policy", Shape(4, 8), seed=0)
