"""The starter model's shape and its weights before training."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

# Squared length of a local head's bias per frequency; 8 puts about half of its attention on one place.
LOCAL_SCORE = 8.0


@dataclass(frozen=True)
class StarterSettings:
    """Our choice throughout; the size is what two CPU cores train in half an hour."""

    seed: int = 0
    vocabulary: int = 3072
    width: int = 192
    layers: int = 5
    heads: int = 4
    feed_forward: int = 512
    positions: int = 512
    rope_theta: float = 1000.0
    steps: int = 4800
    batch_tokens: int = 2048
    pool_documents: int = 512  # documents sorted by length together
    curriculum_steps: int = 2200  # so many of pairs and few-shot prompts alone; then the full mixture
    lr: float = 2e-3
    lr_last_share: float = 0.05
    warmup_steps: int = 200
    weight_decay: float = 0.05
    beta2: float = 0.98
    clip: float = 1.0
    bfloat16: bool = True
    threads: int = 2
    compiled: bool = False  # torch.compile: about a third faster after a minute; needs a C++ compiler


def new_model(settings: StarterSettings, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained Llama whose first layer looks back one, two, three ... places from the start."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.positions,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        attention_bias=True,  # a head can look at a place whatever stands there
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # on a CPU and at this length faster than sdpa, whose backward pass is slow
    )
    model = AutoModelForCausalLM.from_config(config)
    _scale(model, settings.layers)
    attention = model.get_submodule("model.layers.0.self_attn")
    _look_back(attention.get_parameter("q_proj.bias"), attention.get_parameter("k_proj.bias"), settings)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
    )
    return model


@torch.no_grad()
def _scale(model: PreTrainedModel, layers: int) -> None:
    """Words outweigh what the layers add at first (GPT-2 scales the same projections), and attention is sharper."""
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.mul_((2 * layers) ** -0.5)
        elif "embed_tokens" in name:
            weight.mul_(3.0)
        elif name.endswith(("q_proj.weight", "k_proj.weight")):
            weight.mul_(2.0)


@torch.no_grad()
def _look_back(query: torch.Tensor, key: torch.Tensor, settings: StarterSettings) -> None:
    """Set the biases so that head h attends to the token h + 1 places back, whatever the tokens are.

    Rotary embedding turns a bias at position p by p times each frequency, so the score of two biases depends on their
    distance alone; the query's is turned by so much that the score is highest at the wanted distance. A model that
    learns to answer from demonstrations has to find such heads first (Olsson et al. 2022, "In-context learning and
    induction heads"), and with this few steps it did not find them by itself: docs/training-log.md.
    """
    size = settings.width // settings.heads
    frequency = settings.rope_theta ** (-torch.arange(0, size, 2) / size)  # (size / 2,)
    strength = torch.zeros(size // 2)
    strength[: size // 4] = LOCAL_SCORE**0.5  # the faster half tells neighbouring places apart
    for head in range(settings.heads):
        angle = -(head + 1) * frequency
        place = slice(head * size, (head + 1) * size)
        key[place] = torch.cat([strength, torch.zeros_like(strength)])
        query[place] = torch.cat([strength * angle.cos(), strength * angle.sin()])
