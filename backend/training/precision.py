"""In which precision a base's frozen weights are kept when nobody said, and products are made: exact where it is cheap, quick where
it is dear."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open

from backend.training.draws import generator

AUTO = "auto"
LARGE = 5_000_000  # weights; from about there bfloat16 saves a third of the time (measured at 7 million). Our choice


def chosen(folder: Path, wanted: str) -> str:
    """``auto``: bfloat16 for a base of more than ``LARGE`` weights where the processor or GPU multiplies it, else float32.

    It depends on the machine and the files alone, so that a job that goes on here goes on in the same precision.
    """
    if wanted != AUTO:
        return wanted
    return "bfloat16" if multiplies_bfloat16() and weights_in(folder) > LARGE else "float32"


def multiplies_bfloat16() -> bool:
    """Whether products of bfloat16 are faster here than those of float32; where they are emulated they are slower."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def weights_in(folder: Path) -> int:
    """Numbers in a model's safetensors files, read from their headers."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118 not a mapping
        count += sum(torch.Size(shape).numel() for shape in shapes)
    return count


@contextmanager
def fast_matmul() -> Iterator[None]:
    """For training passes: the quicker matrix product where this processor keeps fp32 accuracy, measured once."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if _medium_is_accurate() else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=1)
def _medium_is_accurate() -> bool:
    draw = generator(0, 0, "matmul")
    a, b = torch.randn(256, 512, generator=draw), torch.randn(512, 256, generator=draw)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        error = ((a @ b).double() - exact).norm() / exact.norm()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(error < 1e-4)  # our choice; bfloat16 products have 2e-3
