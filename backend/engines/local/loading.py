"""Loading a base: what is looked at before it, how it is placed, and why it cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from backend.registry import artifacts
from backend.training import families

from . import placing
from .model import Base, ModelProblem

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class Setting(NamedTuple):
    """How a base is placed and computed; backend/settings.py says what each may be."""

    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    quantisation: str = "none"


def load_base(
    source: str,
    setting: Setting | None = None,
    *,
    device: str = "auto",
    chat_template: Path | None = None,
    adapter_limit: int = 8,
    at_rest: bool = False,
) -> Base:
    """A base from a folder or a hub id. Weights only from safetensors; code that comes with a model is never run.

    ``at_rest``: its weights stay in the processor's memory until ``Base.come_back``. Raises ModelProblem.
    """
    setting = setting or Setting(device)
    folder = Path(source).expanduser()
    is_folder = folder.exists()
    name = folder.resolve().name if is_folder else source
    if is_folder:
        _check_folder(folder, name)
    place = placing.device_of(setting.device)
    placing.check_attention(setting.attention, place)
    placing.check_quantisation(setting.quantisation, place)
    options = {"trust_remote_code": False, "local_files_only": is_folder}
    where = str(folder.resolve()) if is_folder else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except Exception as problem:  # the loaders raise a dozen kinds; each means: not this model
        raise ModelProblem(_why(problem, name, "tokenizer")) from problem
    model = _weights(where, name, setting, torch.device("cpu") if at_rest else place, options)
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    files = folder if is_folder else Path(snapshot_download(source, local_files_only=True))
    digest = artifacts.fingerprint(files)
    try:
        return Base(
            model,
            tokenizer,
            name,
            digest,
            adapter_limit=adapter_limit,
            home=place if at_rest else None,
            quantisation=setting.quantisation,
            tokens_digest=artifacts.tokens_digest(files),
        )
    except families.UnsupportedBase as problem:
        raise ModelProblem(str(problem)) from problem


def _weights(where: str, name: str, setting: Setting, place: torch.device, options: dict[str, Any]) -> Any:
    """The model with the head it writes with, in ``place``."""
    try:
        config = AutoConfig.from_pretrained(where, **options)
    except Exception as problem:
        raise ModelProblem(_why(problem, name, "config.json")) from problem
    family = families.family_of(config)
    if family not in families.WRITERS:
        raise ModelProblem(_no_writer(name))
    loader: Any = AutoModelForSeq2SeqLM if family == "encoder_decoder" else AutoModelForCausalLM
    dtype = placing.dtype_of(setting.dtype, place)
    more: dict[str, Any] = {} if setting.attention == "auto" else {"attn_implementation": setting.attention}
    is_quantised_whole = setting.quantisation not in ("none", placing.INT8)
    if is_quantised_whole:
        more |= {"quantization_config": placing.quantised(setting.quantisation, dtype), "device_map": {"": place}}
    try:
        model, found = loader.from_pretrained(
            where, use_safetensors=True, dtype=dtype, output_loading_info=True, **more, **options
        )
        if is_quantised_whole:
            placing.keep_unpacked(model)
        else:
            model = model.to(place)
    except Exception as problem:
        raise ModelProblem(_why(problem, name, "weights")) from problem
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ModelProblem(
            f"The weights of the model {name} lack {len(missing)} tensors that its config.json promises, such as "
            f"{missing[0]}. Copy the model again, or choose another."
        )
    return model


def _check_folder(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise ModelProblem(f"{name} is a file. Give the folder of a model, or its id on the Hugging Face hub.")
    if not (folder / "config.json").is_file():
        raise ModelProblem(
            f"The folder {name} has no config.json, so it is not a model. Give the folder that holds it."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ModelProblem(f"The config.json of {name} is not valid JSON.") from problem
    if "auto_map" in config:
        raise ModelProblem(
            f"The model {name} needs its own code (auto_map in config.json), which is never run here. "
            "Choose a model that transformers knows by itself."
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelProblem(
            f"The folder {name} has no *.safetensors weights. Other formats can hold code and are not read; "
            "save the model with save_pretrained(safe_serialization=True)."
        )
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise ModelProblem(
            f"The folder {name} has no tokenizer ({', '.join(TOKENIZER_FILES[:3])}). Copy it from the original model."
        )


def _why(problem: Exception, name: str, part: str) -> str:
    text = str(problem)
    if "trust_remote_code" in text:
        return f"The model {name} needs its own code, which is never run. Choose one that transformers knows by itself."
    if "safetensors" in text:
        return f"The model {name} has no safetensors weights; other formats can hold code and are not read."
    if "not a local folder" in text or "not a valid model identifier" in text or "Repo id must" in text:
        return f"There is no folder and no model on the hub named {name}. Check the spelling, or download it first."
    if "Unrecognized configuration class" in text:
        return _no_writer(name)
    first_line = text.strip().splitlines()[0] if text.strip() else type(problem).__name__
    return f"The {part} of the model {name} cannot be loaded: {first_line[:300]}"


def _no_writer(name: str) -> str:
    return (
        f"The engine writes with causal language models (Llama, GPT and their like) and with encoder-decoders (T5, BART), and "
        f"{name} is neither. Choose one to write, compare and serve; models that only read, such as BERT, can be trained from "
        "the command line on what was imported."
    )
