"""Texts that are read pass through a decoder's layers in one call: what the compiled loop (layers.py) is told, laid out from tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder import quick
from backend.decoder.beside import Adapted, Shares, Spans
from backend.decoder.joined import Weights
from backend.decoder.plain import Norm
from backend.decoder.quick import Blocks, ByteBlocks


class Text(NamedTuple):
    """A text some of whose tokens are read: rows side by side."""

    rows: slice
    start: int  # the first one's place
    room: Tensor  # where its keys and values are kept, (layers, 2, H, T or more, D)


class Passing(NamedTuple):
    """A decoder's layers, as the loop is told of them."""

    act: Callable[[tuple[int, ...], tuple[int, ...]], None]
    layers: Tensor  # (layers, numbers that say where one's gains and products are)
    least: Tensor  # (layers, 2) what is added under each root
    heads: tuple[int, int, int]  # of queries, of keys, numbers of one
    weights: Sequence[
        Sequence[Weights]
    ]  # these and the gains stay, so that nobody else is given the memory that was told of
    gains: list[Tensor]

    def pass_through(
        self,
        x: Tensor,
        positions: Tensor,
        turns: tuple[Tensor, Tensor],
        adapters: Tensor,
        shares: Sequence[Shares],
        texts: Sequence[Text],
        layers: int,
    ) -> None:
        """Rows x (R, D), at their positions (R,), become what comes out of the first ``layers``. ``turns``: cos and sin of all positions;
        ``adapters`` as ``told`` makes it, and by kind of adapters whose rows are whose."""
        owned = [
            (kind, adapter, *_ends(rows, len(x)))
            for kind, spans in enumerate(shares)
            if isinstance(spans, Spans)
            for adapter, rows in spans.of
        ]
        read = [(*_ends(rows, len(x)), start, room.data_ptr(), room.shape[3]) for rows, start, room in texts]
        given = (
            x,
            positions,
            *turns,
            self.layers,
            self.least,
            adapters,
            torch.tensor(owned, dtype=torch.long),
            torch.tensor(read),
        )
        sizes = len(x), layers, len(self.layers), *self.heads, len(owned), len(read)
        self.act(tuple(one.data_ptr() for one in given), sizes)


def passing_of(
    every: Sequence[Sequence[Weights]], norms: Sequence[tuple[Norm, Norm]], heads: tuple[int, int, int]
) -> Passing | None:
    """None where the loop knows no such layers: what is added to x is to have no bias. Weights are tiled; the loop is had ready."""
    if any(four[which].bias is not None for four in every for which in (1, 3)):
        return None
    are_bytes = isinstance(every[0][0].packed, ByteBlocks)
    told = [
        [*(norm.gain.data_ptr() for norm in both), *(number for one in four for number in _told_of(one))]
        for four, both in zip(every, norms, strict=True)
    ]
    least = torch.tensor([[norm.least for norm in both] for both in norms], dtype=torch.float64)
    gains = [norm.gain.detach() for both in norms for norm in both]
    found = Passing(quick.passed(are_bytes), torch.tensor(told), least, heads, every, gains)
    nothing = torch.empty(0)
    found.pass_through(nothing, nothing, (nothing, nothing), nothing, [], [], 0)
    return found


def _told_of(weights: Weights) -> tuple[int, ...]:
    """Where a product's weights are, how far blocks are apart, inputs, outputs, the bias, and how they are kept."""
    blocks, inputs = weights.packed, weights.weight.shape[1]
    bias = 0 if weights.bias is None else weights.bias.data_ptr()
    assert isinstance(blocks, Blocks | ByteBlocks)
    numbers = blocks.numbers
    at, apart = numbers.data_ptr(), numbers.stride(0) * numbers.element_size()
    if isinstance(blocks, Blocks):
        return at, apart, inputs, blocks.outputs, bias, int(numbers.dtype != torch.float32)
    return at, apart, inputs, len(blocks.scale), bias, blocks.scale.data_ptr()


def told(kinds: Sequence[Sequence[Sequence[Adapted | None]]]) -> Tensor | None:
    """Of adapters by kind, layer and product, (kinds, layers, 4, 5). None where there are no tiles for them."""
    runs = [run for layers in kinds for four in layers for one in four if one is not None for run in one.runs]
    if quick.tiled() is None or any(run.b.shape[3] % quick.tiled().LANES != 0 for run in runs):
        return None
    found = [[[_told_of_adapted(one) for one in four] for four in layers] for layers in kinds]
    return torch.tensor(found, dtype=torch.long)


def _told_of_adapted(own: Adapted | None) -> tuple[int, ...]:
    if own is None:
        return (0,) * 5
    return own.a.data_ptr(), own.a.shape[2], own.runs[0].b.shape[2], own.places.data_ptr(), len(own.runs)


def _ends(rows: slice, count: int) -> tuple[int, int]:
    """The first row and how many."""
    first, end, _ = rows.indices(count)
    return first, end - first
