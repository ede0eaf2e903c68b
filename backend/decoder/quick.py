"""What stands between a decoder's products, as loops of this processor (loops.py), a written token's attention, and products of few
rows (tiles.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
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
    look_back: Callable[[tuple[int, ...], tuple[int, ...]], None]
    add_adapter: Callable[[tuple[int, ...], tuple[int, ...]], None] | None  # to many rows; where there are tiles

    def have_ready(self) -> None:
        """Have them compiled, or what was compiled before, and do nothing with them: it takes seconds the first time."""
        nowhere, nothing = (0,) * 8, (0,) * 5
        self.norm(*nowhere[:3], 0, 0, 0.0)
        self.gate(*nowhere[:2], 0, 0)
        self.turn(*nowhere[:4], 0, 0, 0, 0)
        self.add_adapters(nowhere[:5], (*nothing, 0))
        self.attend(nowhere, (*nothing, 1, 1))
        self.look_back(nowhere[:6], (*nothing, 0, 0, 1, 1))
        compiled().drawn(*nowhere[:4], 0, 0)
        if self.add_adapter is not None:
            self.add_adapter(nowhere[:4], (0,) * 8)

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

    def reads_prompts(self) -> bool:
        """Whether a prompt's tokens are better looked at in a loop: with fewer registers, or shared by threads, products are quicker."""
        return self.add_adapter is not None and torch.get_num_threads() == 1

    def see(self, query: Tensor, key: Tensor, value: Tensor, kept: Tensor, start: int, out: Tensor) -> None:
        """Tokens of one text from the place ``start`` on: their keys and values (T, H, D), whose tokens may stand apart, are put
        among those ``kept`` (2, H, places, D), and the last ones, whose queries are given (Q, heads, D), see what comes before them and
        themselves. ``out`` (Q, heads * D)"""
        (given, queries, width), (tokens, heads, _) = query.shape, key.shape
        memory = tuple(one.data_ptr() for one in (query, key, value, out, kept[0], kept[1]))
        apart, places = key.stride(0), kept.shape[2]
        sizes = query.stride(0), apart, places, start, tokens, given, heads, queries // heads, width
        self.look_back(memory, sizes)

    def add(self, out: Tensor, x: Tensor, a: Tensor, owner: Tensor, runs: Tensor, rank: int) -> None:
        """Add to each row's outputs (R, O) what its own adapter makes of x (R, I): as ``beside.add`` of rows with seats.

        a (K, I, M), owner (R,) with -1 for none, runs as ``beside.Adapted.places``. Inner values are not rounded.
        """
        x = x.contiguous()
        memory = x.data_ptr(), out.data_ptr(), a.data_ptr(), owner.data_ptr(), runs.data_ptr()
        self.add_adapters(memory, (*x.shape, out.shape[1], a.shape[2], rank, len(runs)))

    def takes_spans(self, outputs: Iterable[int]) -> bool:
        """Whether there are tiles for layers of so many outputs, and no other threads that products would share."""
        is_there = self.add_adapter is not None and torch.get_num_threads() == 1
        return is_there and all(count % tiled().LANES == 0 for count in outputs)

    def add_to_span(
        self, out: Tensor, x: Tensor, a: Tensor, adapter: int, rows: slice, runs: Tensor, rank: int
    ) -> None:
        """The same for many rows side by side of one adapter."""
        assert self.add_adapter is not None
        x = x.contiguous()
        first, end, _ = rows.indices(len(x))
        memory = x.data_ptr(), out.data_ptr(), a.data_ptr(), runs.data_ptr()
        self.add_adapter(memory, (adapter, first, end - first, x.shape[1], out.shape[1], a.shape[2], rank, len(runs)))


class Blocks(NamedTuple):
    """A product's weights for few rows: sixteen outputs side by side, input by input."""

    numbers: Tensor  # (blocks, I, 16), behind the last output zeros
    outputs: int


def blocked(weight: Tensor) -> Blocks:
    """A copy of the weight (O, I), whose inputs are contiguous. In half the bytes where they hold every number as it is, as those of
    a base that was published in bfloat16: products are the same to the bit."""
    half = weight.to(torch.bfloat16)
    if torch.equal(half.to(weight.dtype), weight):
        weight = half
    outputs, inputs = weight.shape
    side = tiled().LANES
    count = -(-outputs // (side * tiled().GROUP)) * tiled().GROUP
    numbers = weight.new_zeros(count, inputs, side)
    whole = outputs // side
    numbers[:whole] = weight[: whole * side].view(whole, side, inputs).transpose(1, 2)
    if outputs > whole * side:
        numbers[whole, :, : outputs - whole * side] = weight[whole * side :].t()
    return Blocks(numbers, outputs)


def product(x: Tensor, weights: Blocks, more: Tensor | None = None) -> Tensor:
    """x (R, I) times the weight's transpose, and ``more``, (R, O) or (O,). Sums are in float32. -> (R, O)"""
    numbers, outputs = weights
    x, more = x.contiguous(), None if more is None else more.contiguous()
    out = x.new_empty(len(x), outputs)
    stride = 0 if more is None or more.dim() == 1 else outputs
    memory = x.data_ptr(), out.data_ptr(), numbers.data_ptr(), 0 if more is None else more.data_ptr()
    if x.dtype == torch.bfloat16:
        act = tiled().product_bfloat16
    else:
        act = tiled().product_float32 if numbers.dtype == torch.float32 else tiled().product_float32_by_bfloat16
    act(memory, (*x.shape, outputs, numbers.stride(0) * numbers.element_size(), stride))
    return out


class ByteBlocks(NamedTuple):
    """The same in whole numbers of 8 bits."""

    numbers: Tensor  # (blocks, I / 4, 16, 4), 128 up, so that none has a sign; what is not there is 128
    scale: Tensor  # (O,) what one of an output's counts
    inputs: int


def byte_blocked(whole: Tensor, scale: Tensor) -> ByteBlocks:
    """A copy of whole numbers (O, I) from -127 to 127."""
    outputs, inputs = whole.shape
    side, four = tiled().LANES, byte_tiled().FOUR
    count, fours = -(-outputs // (side * tiled().GROUP)) * tiled().GROUP, -(-inputs // four)
    numbers = torch.full((count * side, fours * four), 128, dtype=torch.uint8)
    numbers[:outputs, :inputs] = (whole.short() + 128).to(torch.uint8)
    turned = numbers.view(count, side, fours, four).transpose(1, 2).contiguous()
    return ByteBlocks(turned, scale.float().contiguous(), inputs)


def byte_product(x: Tensor, weights: ByteBlocks, more: Tensor | None = None) -> Tensor:
    """As ``product``; each row of x is rounded by its own largest number."""
    numbers, scale, _ = weights
    x, more, outputs = x.contiguous(), None if more is None else more.contiguous(), len(scale)
    out = x.new_empty(len(x), outputs)
    stride = 0 if more is None or more.dim() == 1 else outputs
    added = 0 if more is None else more.data_ptr()
    memory = x.data_ptr(), out.data_ptr(), numbers.data_ptr(), added, scale.data_ptr()
    act = byte_tiled().product_float32 if x.dtype == torch.float32 else byte_tiled().product_bfloat16
    act(memory, (*x.shape, outputs, numbers.stride(0), stride))
    return out


@lru_cache(maxsize=1)
def byte_tiled() -> Any:
    """The module of tiles of whole numbers; None where the processor has no instruction for them."""
    if tiled() is None:
        return None
    from backend.decoder import vectors, whole_tiles

    return whole_tiles if vectors.MULTIPLIES_BYTES else None


@lru_cache(maxsize=1)
def tiled() -> Any:
    """The module of tiles; None where there are no loops, or the processor lacks the registers."""
    if compiled() is None:
        return None
    from backend.decoder import tiles, vectors

    return tiles if vectors.IS_THERE else None


def whole_numbers(x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Each row's numbers (R, I) as whole ones up to ``most`` either way of 128, and what one counts, (R,)."""
    x = x.contiguous()
    whole, step = x.new_empty(x.shape, dtype=torch.uint8), x.new_empty(len(x))
    compiled().whole_numbers(x.data_ptr(), whole.data_ptr(), step.data_ptr(), *x.shape, most)
    return whole, step


def drawn(logits: Tensor, temperature: Tensor, uniform: Tensor) -> Tensor:
    """A token for each row of logits (R, V) in float32 by its number of ``uniform`` (R,) in float64; at a temperature (R,) of 0 the
    likeliest. (R,)"""
    logits, out = logits.contiguous(), torch.empty(len(logits), dtype=torch.long)
    pointers = (one.data_ptr() for one in (logits, temperature, uniform, out))
    compiled().drawn(*pointers, *logits.shape)
    return out


def scaled(out: Tensor, step: Tensor, more: Tensor | None) -> Tensor:
    """Each row of ``out`` (R, O) times its step, and ``more``, (R, O) or (O,), in place."""
    if more is not None:
        more = more.float().contiguous()
    stride = 0 if more is None or more.dim() == 1 else out.shape[1]
    compiled().scaled(out.data_ptr(), step.data_ptr(), 0 if more is None else more.data_ptr(), stride, *out.shape)
    return out


def passed(are_bytes: bool) -> Any:
    """What takes texts through layers whose weights are ``Blocks`` of float32, or ``ByteBlocks`` (layers.py)."""
    from backend.decoder import layers

    return layers.passed_by_bytes if are_bytes else layers.passed_by_blocks


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
    from backend.decoder import adding, attending

    norm, gate, turn = (getattr(loops, f"{kind}_{name}") for kind in ("norm", "gated", "turn"))
    add_adapters = getattr(adding, f"add_adapters_{name}")
    attend, look_back = (getattr(attending, f"{kind}_{name}") for kind in ("attend", "look_back"))
    to_many = None if tiled() is None else getattr(tiled(), f"add_to_span_{name}")
    return Loops(norm, gate, turn, add_adapters, attend, look_back, to_many)


if __name__ == "__main__":  # `make setup` has them compiled, so that nobody waits for it later
    nothing_there = torch.zeros(64, dtype=torch.long)
    nowhere = nothing_there.data_ptr()
    for dtype in (torch.float32, torch.bfloat16):
        ready = loops_for(dtype, "cpu")
        if ready is not None:
            ready.have_ready()
            if tiled() is not None:
                for number in (0.0, 0.1):  # one that bfloat16 holds, one that it does not
                    product(torch.zeros(1, 1, dtype=dtype), blocked(torch.full((1, 1), number, dtype=dtype)))
                passed(are_bytes=False)((nowhere,) * 9, (0,) * 8)
            if byte_tiled() is not None:
                nothing = byte_blocked(torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1))
                byte_product(torch.zeros(1, 1, dtype=dtype), nothing)
                passed(are_bytes=True)((nowhere,) * 9, (0,) * 8)
