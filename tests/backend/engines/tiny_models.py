"""A tiny tokenizer, models of every way the engine reads one, and adapters written as training writes them. Needs no server."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from backend.registry import artifacts

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
