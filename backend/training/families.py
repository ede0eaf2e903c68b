"""Which family a base model belongs to, what the family can do, and how its model is loaded and asked for logits.

decoder          Llama, GPT-2: a token sees what stands before it. Writes answers, scores texts.
encoder_decoder  T5, BART: an encoder reads the prompt, a decoder writes the answer. Scores texts with its encoder alone.
encoder          BERT, RoBERTa: a token sees the whole text. Scores texts; cannot write.
permutation      XLNet: reads like an encoder, and learns to predict tokens in a random order. Scores texts; cannot write here.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)

from backend.training import precision

Family = Literal["decoder", "encoder_decoder", "encoder", "permutation"]

WRITERS: tuple[Family, ...] = ("decoder", "encoder_decoder")
TASKS: dict[Family, str] = {  # what PEFT writes into an adapter's config
    "decoder": "CAUSAL_LM",
    "encoder_decoder": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
    "permutation": "FEATURE_EXTRACTION",
}
NO_CACHE: dict[Family, dict[str, bool]] = {  # arguments by which a forward keeps nothing for a next one
    "decoder": {"use_cache": False},
    "encoder_decoder": {},  # it is the encoder that is meant
    "encoder": {},
    "permutation": {"use_mems": False},
}
SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


class UnsupportedBase(ValueError):
    """This base model cannot be trained here; the message says what is missing."""


def family_of(config: Any) -> Family:
    if config.is_encoder_decoder:
        return "encoder_decoder"
    if config.model_type == "xlnet":
        return "permutation"
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        return "encoder"
    return "decoder"


def require_writer(family: Family, what: str) -> None:
    """Raise UnsupportedBase when a base of this family cannot write answers. ``what`` needs it, such as "SFT"."""
    if family not in WRITERS:
        raise UnsupportedBase(
            f"The base reads whole texts and cannot write answers (family {family}), which {what} needs. Use it for a "
            "reward model or for pretraining, or choose a decoder such as Llama, or an encoder-decoder such as T5."
        )


def precision_of(folder: Path, wanted: str) -> str:
    """As precision.py chooses it, and float32 for XLNet, which computes in nothing else."""
    if family_of(AutoConfig.from_pretrained(folder, **SAFE)) != "permutation":
        return precision.chosen(folder, wanted)
    if wanted not in (precision.AUTO, "float32"):
        raise UnsupportedBase("XLNet computes in float32 only. Set 'Base weights' to float32 or auto.")
    return "float32"


def load_model(folder: Path, dtype: str) -> PreTrainedModel:
    """With the head of its family; safetensors only, never code from the model's repository."""
    loaders: dict[Family, Any] = {
        "decoder": AutoModelForCausalLM,
        "permutation": AutoModelForCausalLM,
        "encoder_decoder": AutoModelForSeq2SeqLM,
        "encoder": AutoModelForMaskedLM,
    }
    config = AutoConfig.from_pretrained(folder, **SAFE)
    weights = getattr(torch, precision_of(folder, dtype))
    loader = loaders[family_of(config)]
    if type(config) not in loader._model_mapping:
        raise UnsupportedBase(
            f"A model of the type {config.model_type} has no head that predicts tokens. Choose a decoder such as Llama, "
            "an encoder-decoder such as T5, or an encoder such as BERT."
        )
    model: PreTrainedModel = loader.from_pretrained(folder, dtype=weights, use_safetensors=True, **SAFE)
    return model


def load_tokenizer(folder: Path, family: Family) -> Any:
    """An encoder's texts end with its separator where its tokenizer names no end token (BERT)."""
    tokenizer = AutoTokenizer.from_pretrained(folder, **SAFE)
    if tokenizer.eos_token_id is None and family in ("encoder", "permutation"):
        tokenizer.eos_token = tokenizer.sep_token
    return tokenizer


def reader_of(model: PreTrainedModel, family: Family) -> nn.Module:
    """What turns a whole text into states: for an encoder-decoder its encoder."""
    found: nn.Module | None = (
        model.get_encoder() if family == "encoder_decoder" else getattr(model, str(model.base_model_prefix), None)
    )
    if found is None:
        raise UnsupportedBase(f"Models of the type {model.config.model_type} are not supported yet.")
    return found


def opening(tokenizer: Any, family: Family) -> list[int]:
    """Tokens before every text that is read whole: the [CLS] these bases saw in their own pretraining."""
    has_opening = family in ("encoder", "encoder_decoder") and tokenizer.cls_token_id is not None
    return [int(tokenizer.cls_token_id)] if has_opening else []


def width_of(model: Any, family: Family) -> int:
    """Of the last states. A decoder may project them before its output layer, so that layer is asked (OPT)."""
    return int(
        model.get_output_embeddings().weight.shape[1] if family == "decoder" else model.config.hidden_size
    )  # an encoder may project them within its head (ALBERT)


def longest_of(model: Any, family: Family, extra: int) -> int:
    """Tokens of one text that the base can read, its ``extra`` opening and closing tokens left aside."""
    named = getattr(model.config, "max_position_embeddings", None) or 0
    if named <= 0:  # relative positions: T5, XLNet
        return 1 << 30
    if family == "decoder":
        return int(named)
    skipped = [  # RoBERTa counts its positions from behind the padding's
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return int(named) - extra - max(skipped, default=0)


def logits(model: Any, family: Family, states: Tensor) -> Tensor:
    """The path from last states to logits that the model itself takes. (..., D) -> (..., V)"""
    if family == "encoder":  # BERT transforms its states first
        head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
        if head is None:
            raise UnsupportedBase(
                f"Encoders of the type {model.config.model_type} are not supported yet. Use BERT or RoBERTa."
            )
        found: Tensor = head(states)
        return found
    if getattr(model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        states = states * model.config.d_model**-0.5
    found = model.get_output_embeddings()(states)
    return found


def whole_logits(model: Any, family: Family, tokens: Tensor, is_real: Tensor, answer: Tensor) -> Tensor:
    """The model's own forward on texts padded on the right; an encoder-decoder answers with the tokens ``answer``."""
    given: dict[str, Any] = {"input_ids": tokens, "attention_mask": is_real.long()}
    if family == "encoder_decoder":
        given["decoder_input_ids"] = answer
    found: Tensor = model(**given).logits
    return found


def start_id(model: Any) -> int:
    """The token an encoder-decoder's answer begins behind."""
    found = getattr(model.config, "decoder_start_token_id", None)
    if found is None:
        raise UnsupportedBase("The base's config names no decoder_start_token_id: its decoder cannot begin an answer.")
    return int(found)
