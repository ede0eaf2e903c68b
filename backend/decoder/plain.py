"""What stands between a decoder's products, in torch's own operations: on any device, in any number format (quick.py: the same in loops)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Norm(NamedTuple):
    """One of the model's, as it is asked for in every step: a module's attributes take a microsecond each."""

    gain: Tensor  # (D,)
    least: float  # added to the mean square


def normed(norm: Norm, x: Tensor) -> Tensor:
    """RMS normalisation, Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4, in float32 and rounded before the gain. (..., D)"""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.addcmul(_scalar(norm.least, x.device), length, length, value=1 / x.shape[-1]).rsqrt_()
    found = x * scale
    return (found if found.dtype == x.dtype else found.to(x.dtype)).mul_(norm.gain)


@lru_cache(maxsize=8)
def _scalar(value: float, device: torch.device) -> Tensor:
    return torch.tensor(value, device=device)


def gated(activation: Callable[[Tensor], Tensor], both: Tensor) -> Tensor:
    """The first half's activation times the second half. (R, 2 W) -> (R, W)"""
    gate, up = both.chunk(2, -1)
    return activation(gate).mul_(up)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the first half of a head is turned against the second, in the fewest calls without a gradient.

    Of ``sin`` the first half is negated already. x (R, heads, D), cos and sin (R, 1, D)
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)
