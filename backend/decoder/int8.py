"""Products in whole numbers of 8 bits on a processor: a quarter of the memory, and several multiplications in one instruction.

Weights are rounded once, each output's row by its own largest value; what comes in is rounded at every product, each row by its own
largest value (the vector-wise products of Dettmers et al. 2022, arXiv:2208.07339, without outliers of their own). Sums of whole numbers are
exact, so a row's bits do not depend on how many others there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder import quick

MOST = 127  # of either sign
PART = torch.tensor(1 / MOST)
MIDDLE = torch.tensor(
    128, dtype=torch.uint8
)  # inputs go without a sign, up and down from here: the instruction wants it so


class Rounded(NamedTuple):
    """For any number of rows."""

    blocks: Tensor  # the whole numbers (O, I), in the order in which oneDNN reads them
    scale: Tensor  # (O,) what an output's numbers count
    zero: Tensor  # (O,) none is shifted


@torch.no_grad()
def rounded(weight: Tensor, rows: int) -> Rounded:
    """The weight (O, I) in whole numbers, for products of about so many rows."""
    whole, step = whole_weights(weight)
    blocks = torch.ops.onednn.qlinear_prepack.default(whole, [rows, whole.shape[1]])
    return Rounded(blocks, step, torch.zeros(len(whole), dtype=torch.long))


@torch.no_grad()
def whole_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (O, I), and what one of an output's counts (O,)."""
    step = weight.float().abs().amax(1) / MOST  # 0 of weights that are all zero; what they become is multiplied by it
    return (weight.float() / step[:, None]).round_().to(torch.int8), step


def product(x: Tensor, weights: Rounded, more: Tensor | None = None) -> Tensor:
    """x (R, I) times the weight's transpose, and ``more`` (R, O) or (O,). -> (R, O) in x's number format"""
    given = x if x.dtype == torch.float32 else x.float()
    if quick.compiled() is None:
        step = given.abs().amax(-1, keepdim=True).mul_(PART)  # (R, 1)
        whole = (given / step).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(MIDDLE)
        out = _multiplied(whole, weights)
        out = out.mul_(step) if more is None else torch.addcmul(more.float(), out, step)
    else:
        whole, step = quick.whole_numbers(given, MOST)
        out = quick.scaled(_multiplied(whole, weights), step, more)
    return out if out.dtype == x.dtype else out.to(x.dtype)


def _multiplied(whole: Tensor, weights: Rounded) -> Tensor:
    return torch.ops.onednn.qlinear_pointwise.default(
        whole, 1.0, 128, *weights, None, 1.0, 0, torch.float32, "none", [], ""
    )


@lru_cache(maxsize=1)
def is_there() -> bool:
    """Whether this build of torch and this processor compute such products, and exactly: older ones add neighbours in 16 bits,
    where the largest numbers do not fit."""
    try:
        eye, ones = torch.eye(16), torch.ones(16, 16)
        return all(torch.equal(product(one, rounded(one, 16)), one @ one.t()) for one in (eye, ones))
    except (AttributeError, RuntimeError):
        return False
