"""The LoRA parts of any number of adapters beside a base's products: each row is given its own adapter's and no other's.

y = x W^T + b + s (x A^T) B^T, Hu et al. 2021 (arXiv:2106.09685) eq. 3. The A of all layers that read the same input stand side by
side, and so do their outputs. Rows of several adapters are few when they are written and many when prompts are read. Few are
seated: as many seats for each adapter, and one batched product over all adapters. Many lie in spans: each adapter's rows
side by side, two products for each.

An adapter's products have the same shapes whoever else is there but for the number of rows, so that a row's bits do not
depend on other adapters (docs/decisions/009): adapters of unlike rank are kinds of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from backend.decoder.quick import Loops

RANKS = 16  # a rank is rounded up to a multiple: products of narrower matrices are no quicker


class Run(NamedTuple):
    """The B of N neighbouring layers with as many outputs each."""

    b: Tensor  # (K, N, rank, O), scaled
    inner: slice  # of the inner values of all layers
    outer: slice  # of the outputs of all layers


class Adapted(NamedTuple):
    """What K adapters of one rank add to some layers that read the same input."""

    a: Tensor  # (K, I, M): M is the rank times the layers
    runs: list[Run]
    places: Tensor  # (runs, 5): where a B is in memory, its layers, outputs of each, first inner value, first output


class Seats(NamedTuple):
    """Few rows: the adapters from ``first`` on have as many seats each."""

    first: int
    adapters: int
    rows: Tensor | None  # (adapters * seats,) who sits there; None: the rows in their order
    seat: Tensor | None  # (R,) where each row sits, an adapter's rows; None: in their order
    is_without: Tensor | None  # (R, 1) rows without an adapter of these; None: there is none
    owner: Tensor  # (R,) each row's adapter, -1 for none


class Spans(NamedTuple):
    """Many rows: those of each adapter side by side."""

    of: tuple[tuple[int, slice], ...]  # adapter, rows


Shares = Seats | Spans | None
"""Which rows are whose, among adapters of one kind; None: nobody's."""

EVERY = Spans(((0, slice(None)),))  # there is one adapter and every row is its


def rank_of(layers: Sequence[nn.Module], adapter: str) -> int:
    """The largest rank it has on one of these, rounded up; 0 where it has no part."""
    own = [layer for layer in layers if isinstance(layer, LoraLinear) and adapter in layer.lora_A]
    return max((-(-layer.lora_A[adapter].out_features // RANKS) * RANKS for layer in own), default=0)


@torch.no_grad()
def adapted(layers: Sequence[nn.Module], adapters: Sequence[str], rank: int) -> Adapted | None:
    """The adapters' parts of these layers as they are now, in the base's number format; None where there is none.

    An adapter without a part of some layer leaves that layer alone. ``rank``: at least the largest (``rank_of``).
    """
    inner = [layer.base_layer if isinstance(layer, LoraLinear) else layer for layer in layers]
    weight: Tensor = inner[0].weight  # type: ignore[assignment]
    a = weight.new_zeros(len(adapters), weight.shape[1], rank * len(layers))
    runs, start, first = [], 0, 0
    for size, same in itertools.groupby(int(layer.out_features) for layer in inner):  # type: ignore[arg-type]
        count = len(list(same))
        b = weight.new_zeros(len(adapters), count, rank, size)
        places = slice(first * rank, (first + count) * rank), slice(start, start + count * size)
        runs.append(Run(b, *places))
        for number, name in enumerate(adapters):
            for at, layer in enumerate(layers[first : first + count]):
                if isinstance(layer, LoraLinear) and name in layer.lora_A:
                    own = layer.lora_A[name].out_features
                    column = (first + at) * rank
                    a[number, :, column : column + own] = layer.lora_A[name].weight.t()
                    b[number, at, :own] = layer.lora_B[name].weight.t() * layer.scaling[name]
        first, start = first + count, places[1].stop
    return Adapted(a, runs, places_of(runs)) if any(rank_of(layers, name) for name in adapters) else None


def drawn(adapters: int, inputs: int, outputs: int, dtype: torch.dtype, draw: torch.Generator) -> Adapted:
    """Adapters of random numbers, on the CPU, to try products with."""
    a = torch.randn(adapters, inputs, RANKS, generator=draw).to(dtype)
    b = torch.randn(adapters, 1, RANKS, outputs, generator=draw).to(dtype)
    runs = [Run(b, slice(0, RANKS), slice(0, outputs))]
    return Adapted(a, runs, places_of(runs))


def places_of(runs: Sequence[Run]) -> Tensor:
    """Where an adapter's parts are, for ``Adapted.places``."""
    return torch.tensor(
        [[run.b.data_ptr(), run.b.shape[1], run.b.shape[3], run.inner.start, run.outer.start] for run in runs]
    )


def seats_of(owners: Sequence[int | None], fewest: int, device: torch.device) -> Seats | None:
    """``owners``: each row's adapter, None for none of these. An adapter has a multiple of ``fewest`` seats; None: no row has one."""
    rows: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        if owner is not None:
            rows.setdefault(owner, []).append(row)
    if not rows:
        return None
    first, last = min(rows), max(rows)
    seats = -(-max(map(len, rows.values())) // fewest) * fewest
    sitting = [[*own, *[0] * (seats - len(own))] for own in (rows.get(at, []) for at in range(first, last + 1))]
    seated = list(itertools.chain(*sitting))
    whose = torch.tensor([-1 if owner is None else owner for owner in owners], device=device)
    if seated == list(range(len(owners))) and None not in owners:
        return Seats(first, last - first + 1, None, None, None, whose)
    seat = [0] * len(owners)
    for owner, own in rows.items():
        for place, row in enumerate(own):
            seat[row] = (owner - first) * seats + place
    is_without = torch.tensor([[owner is None] for owner in owners], device=device) if None in owners else None
    return Seats(
        first,
        last - first + 1,
        torch.tensor(seated, device=device),
        torch.tensor(seat, device=device),
        is_without,
        whose,
    )


def spans_of(owners: Sequence[int | None]) -> Spans | None:
    """The same where each adapter's rows stand side by side already."""
    found, start = [], 0
    for owner, run in itertools.groupby(owners):
        end = start + len(list(run))
        if owner is not None:
            found.append((owner, slice(start, end)))
        start = end
    return Spans(tuple(found)) if found else None


def add(out: Tensor, x: Tensor, lora: Adapted, shares: Seats | Spans, loops: Loops | None = None) -> None:
    """Add to each row's outputs (R, O) what its own adapter makes of its inputs (R, I)."""
    if isinstance(shares, Spans):
        if loops is not None and loops.takes_spans(run.b.shape[3] for run in lora.runs):
            for adapter, rows in shares.of:
                loops.add_to_span(out, x, lora.a, adapter, rows, lora.places, lora.runs[0].b.shape[2])
        else:
            _add_to_spans(out, x, lora, shares)
    elif loops is not None:
        loops.add(out, x, lora.a, shares.owner, lora.places, lora.runs[0].b.shape[2])
    else:
        _add_to_seats(out, x, lora, shares)


def _add_to_spans(out: Tensor, x: Tensor, lora: Adapted, spans: Spans) -> None:
    for adapter, rows in spans.of:
        inner = torch.mm(x[rows], lora.a[adapter])  # (R', M)
        for run in lora.runs:
            b = run.b[adapter]
            parts = inner[:, run.inner].chunk(len(b), 1), out[rows, run.outer].chunk(len(b), 1)
            for values, outputs, weight in zip(*parts, b, strict=True):
                outputs.addmm_(values, weight)


def _add_to_seats(out: Tensor, x: Tensor, lora: Adapted, seats: Seats) -> None:
    count, whose = seats.adapters, slice(seats.first, seats.first + seats.adapters)
    seated = x if seats.rows is None else x.index_select(0, seats.rows)
    inner = torch.bmm(seated.view(count, -1, x.shape[1]), lora.a[whose])  # (adapters, seats, M)
    for run in lora.runs:
        b = run.b[whose]  # (adapters, N, rank, O)
        layers, rank, size = b.shape[1:]
        own = inner if len(lora.runs) == 1 else inner[:, :, run.inner]
        outputs = out if len(lora.runs) == 1 else out[:, run.outer]
        if layers == 1:
            given = torch.bmm(own, b[:, 0])
        else:
            values = own.reshape(count, -1, layers, rank).transpose(1, 2).reshape(count * layers, -1, rank)
            given = torch.bmm(values, b.view(-1, rank, size)).view(count, layers, -1, size).transpose(1, 2)
        if seats.seat is None:
            outputs.view(given.shape).add_(given)
            continue
        given = given.reshape(-1, layers * size).index_select(0, seats.seat)
        outputs.add_(given if seats.is_without is None else given.masked_fill_(seats.is_without, 0.0))
