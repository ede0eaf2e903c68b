"""Tiny models of every family that is wired like Llama, made once: whoever changes one puts it back."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny.WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96, "eos_token_id": 1,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": None,
}  # fmt: skip


def models() -> Iterator[PreTrainedModel]:
    torch.manual_seed(0)
    yield tiny.causal()
    yield Qwen2ForCausalLM(Qwen2Config(**SHAPE))
    yield Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8))
    yield MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None))


@cache
def bases() -> list[SharedBase]:
    """With adapters "policy" and "second" as if trained, and norms that are not all ones."""
    return [base_of(causal) for causal in models()]


def untouched() -> Iterator[SharedBase]:
    """One base after the other; whatever a test makes of its last layer or its attention is undone before the next."""
    for base in bases():
        layer: Any = base.backbone.layers[-1]  # type: ignore[index, union-attr]
        usual = layer.forward
        try:
            yield base
        finally:  # also where the test has failed
            layer.forward = usual
            base.causal.config._attn_implementation = "sdpa"


def base_of(causal: PreTrainedModel) -> SharedBase:
    """As those of ``bases``."""
    for place, (name, weight) in enumerate(causal.named_parameters()):
        if "norm" in name:
            weight.data.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place)))
    base = SharedBase(causal, tiny.tokenizer())
    for number, (adapter, shape) in enumerate({"policy": Shape(4, 8), "second": Shape(2, 6)}.items()):
        base.add(adapter, shape, seed=1 + number)
        for i, weight in enumerate(base.weights(adapter)):
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(100 * number + i)))
    return base
