"""What stands between a decoder's products, as loops of this processor (loops.py), and a written token's attention."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.decoder.plain import Norm

log = logging.getLogger(__name__)


class Loops(NamedTuple):
    """Those for one format of numbers."""

    norm: Callable[..., None]
    gate: Callable[..., None]
    turn: Callable[..., None]
    add_adapters: Callable[[tuple[int, ...], tuple[int, ...]], None]
    attend: Callable[[tuple[int, ...], tuple[int, ...]], None]

    def have_ready(self) -> None:
        """Have them compiled, or what was compiled before, and do nothing with them: it takes seconds the first time."""
        nowhere, nothing = (0,) * 8, (0,) * 5
        self.norm(*nowhere[:3], 0, 0, 0.0)
        self.gate(*nowhere[:2], 0, 0)
        self.turn(*nowhere[:4], 0, 0, 0, 0)
        self.add_adapters(nowhere[:5], (*nothing, 0))
        self.attend(nowhere, (*nothing, 1, 1))

    def normed(self, norm: Norm, x: Tensor) -> Tensor:
        """As ``plain.normed`` of rows, (R, D)."""
        x = x.contiguous()
        out = torch.empty_like(x)
        self.norm(x.data_ptr(), norm.gain.data_ptr(), out.data_ptr(), *x.shape, norm.least)
        return out

    def gated(self, both: Tensor) -> Tensor:
        """As ``plain.gated`` with SiLU (Hendrycks & Gimpel 2016, arXiv:1606.08415). (R, 2 W) -> (R, W)"""
        both, rows, width = both.contiguous(), both.shape[0], both.shape[1] // 2
        out = both.new_empty(rows, width)
        self.gate(both.data_ptr(), out.data_ptr(), rows, width)
        return out

    def turn_in_place(self, heads: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> None:
        """As ``plain.turned`` of these heads (R, heads, D), whose rows may stand apart. cos and sin (T, 1, D), positions (R,)"""
        rows, turned, _ = heads.shape
        pointers = heads.data_ptr(), cos.data_ptr(), sin.data_ptr(), positions.data_ptr()
        self.turn(*pointers, rows, heads.stride(0), turned, heads.shape[2])

    def add(self, out: Tensor, x: Tensor, a: Tensor, owner: Tensor, runs: Tensor, rank: int) -> None:
        """Add to each row's outputs (R, O) what its own adapter makes of x (R, I): as ``beside.add`` of rows with seats.

        a (K, M, I), owner (R,) with -1 for none, runs as ``beside.Adapted.places``. Inner values are not rounded.
        """
        x = x.contiguous()
        memory = x.data_ptr(), out.data_ptr(), a.data_ptr(), owner.data_ptr(), runs.data_ptr()
        self.add_adapters(memory, (*x.shape, out.shape[1], a.shape[1], rank, len(runs)))


def whole_numbers(x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Each row's numbers (R, I) as whole ones up to ``most`` either way of 128, and what one counts, (R,)."""
    x = x.contiguous()
    whole, step = x.new_empty(x.shape, dtype=torch.uint8), x.new_empty(len(x))
    compiled().whole_numbers(x.data_ptr(), whole.data_ptr(), step.data_ptr(), *x.shape, most)
    return whole, step


def scaled(out: Tensor, step: Tensor, more: Tensor | None) -> Tensor:
    """Each row of ``out`` (R, O) times its step, and ``more``, (R, O) or (O,), in place."""
    if more is not None:
        more = more.float().contiguous()
    stride = 0 if more is None or more.dim() == 1 else out.shape[1]
    compiled().scaled(out.data_ptr(), step.data_ptr(), 0 if more is None else more.data_ptr(), stride, *out.shape)
    return out


@lru_cache(maxsize=1)
def compiled() -> Any:
    """The module of loops; None where Numba is not there, or has no place to keep what it compiles."""
    try:
        from backend.decoder import loops
    except (ImportError, RuntimeError) as problem:  # the latter: no folder to write to
        log.warning("Steps take torch's own operations, which are slower: %s", problem)
        return None
    return loops


@lru_cache(maxsize=4)
def loops_for(dtype: torch.dtype, device: str) -> Loops | None:
    """None where there are none, or for another device or format."""
    name = {torch.float32: "float32", torch.bfloat16: "bfloat16"}.get(dtype)
    loops = compiled() if device == "cpu" and name is not None else None
    if loops is None:
        return None
    return Loops(*(getattr(loops, f"{kind}_{name}") for kind in ("norm", "gated", "turn", "add_adapters", "attend")))


if __name__ == "__main__":  # `make setup` has them compiled, so that nobody waits for it later
    for dtype in (torch.float32, torch.bfloat16):
        ready = loops_for(dtype, "cpu")
        if ready is not None:
            ready.have_ready()
