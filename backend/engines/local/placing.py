"""Where a base computes and in which numbers: device, number format, attention, quantisation, and why one cannot be had."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from backend.decoder import int8

INT8 = "int8"  # ours, for writing on a processor; the others are those of bitsandbytes


class ModelProblem(Exception):
    """Something about a model that whoever chose it can put right."""


def device_of(wanted: str) -> torch.device:
    """auto: the first NVIDIA GPU where there is one, else the processor. Raises ModelProblem."""
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as problem:
        raise ModelProblem(f"{wanted} is not a device. Use auto, cpu, cuda, cuda:1 or mps.") from problem
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise ModelProblem(
            f"There is no device {wanted} that torch can use here. Set 'device' to auto or cpu, or install torch for it."
        )
    return torch.device("cuda:0") if device.type == "cuda" and device.index is None else device


def dtype_of(wanted: str, device: torch.device) -> Any:
    """auto: the file's own on an accelerator, float32 on a CPU, where half precision is slower and less exact."""
    if wanted == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    found = getattr(torch, wanted, None)
    if not isinstance(found, torch.dtype):
        raise ModelProblem(f"{wanted} is not a number format. Use auto, float32, bfloat16 or float16.")
    return found


def check_attention(wanted: str, device: torch.device) -> None:
    """Raises ModelProblem where this way of computing attention cannot be had here."""
    if wanted == "flash_attention_2" and (device.type != "cuda" or find_spec("flash_attn") is None):
        raise ModelProblem(
            "flash_attention_2 needs an NVIDIA GPU and the package flash-attn, and one of them is missing. Install it with "
            "pip install flash-attn, or set 'attention' to auto, sdpa or eager."
        )


def check_quantisation(wanted: str, device: torch.device) -> None:
    """Raises ModelProblem where there is nothing that would quantise."""
    if wanted == INT8:
        if device.type != "cpu" or not int8.is_there():
            raise ModelProblem(
                "int8 weights are for a processor that multiplies whole numbers exactly (AVX-512 VNNI and its like) and a torch "
                "that uses it, and this is none. Set 'quantisation' to 8bit, 4bit or none."
            )
    elif wanted != "none" and find_spec("bitsandbytes") is None:
        raise ModelProblem(
            f"{wanted} weights need the package bitsandbytes, which is not installed. Install it with "
            "pip install bitsandbytes, or set 'quantisation' to none."
        )


def quantised(wanted: str, dtype: Any) -> Any:
    """8 bits as Dettmers et al. 2022 (arXiv:2208.07339), or 4 as NF4 of Dettmers et al. 2023 (arXiv:2305.14314), which compute
    in ``dtype``; "auto" is bfloat16."""
    from transformers import BitsAndBytesConfig

    if wanted == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def keep_unpacked(model: torch.nn.Module) -> None:
    """On a processor bitsandbytes 0.50 rearranges 4-bit weights at the first pass, and leaves them in disorder when an adapter
    is loaded afterwards, which asks for the state dict; so it is told not to begin."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  not a name of torch's own Module
