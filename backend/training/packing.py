"""Attention over a packed line: the tokens of many texts stand in one row without padding, and each sees only its own.

A line is cut into pieces. A piece is causal within itself and may also see one earlier stretch of the line: an answer sees its
prompt, the second part of a long text the first. What a token may not see is hardly ever computed, where a mask over the
whole row would compute it and throw it away. Everything but attention works on tokens one by one and does not notice.

transformers' models ask for their attention by name (AttentionInterface), so a packed line goes through a model's own forward.
A piece is a few plain matrix products: on a processor, at the lengths of answers, forward and backward take a half and a third
of the time of PyTorch's fused attention (measured at 160 tokens: 480 and 790 us against 900 and 2,680 us).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "whetstone_packed"  # under which transformers finds ``attention``
LONGEST = 128  # tokens of a piece: their scores stay in the processor's cache; our choice
KEPT = 1024  # a piece that sees more computes its attention again in the backward, or long texts would fill the memory


class Piece(NamedTuple):
    """Columns of a line: ``start`` to ``end`` are the piece's own, ``seen_from`` to ``seen_to`` what all of it sees besides."""

    start: int
    end: int
    seen_from: int
    seen_to: int


class Asked(NamedTuple):
    """A piece and the rows of the queries that are its own."""

    piece: Piece
    rows: slice
    mask: Tensor  # (Q, S + L) added to the scores

    @property
    def is_kept(self) -> bool:
        return self.mask.shape[1] <= KEPT


class Line(NamedTuple):
    """What attention is told: every piece with all of its tokens asking, and, for a last layer, only some (llama.py)."""

    every: list[Asked]
    some: list[Asked]
    columns: Tensor | None  # (W,) of the line that ask in ``some``, ascending; None: all do


def pieces_of(start: int, end: int, seen_from: int, seen_to: int) -> list[Piece]:
    """A stretch of a line that is causal within itself and behind another one, cut into pieces.

    Where the two touch, each piece sees one stretch; where they do not, what it sees is two, and the stretch stays whole.
    """
    if seen_to > seen_from and seen_to != start:
        return [Piece(start, end, seen_from, seen_to)]
    first = seen_from if seen_to > seen_from else start
    return [Piece(at, min(at + LONGEST, end), first, at) for at in range(start, end, LONGEST)]


def line_of(pieces: Sequence[Piece], dtype: torch.dtype, columns: Tensor | None = None) -> Line:
    """``columns``: the only ones whose states are wanted of the last layer, ascending. (W,)"""
    made: dict[tuple[int, int], Tensor] = {}
    every = []
    for piece in pieces:
        own, seen = piece.end - piece.start, piece.seen_to - piece.seen_from
        if (own, seen) not in made:
            hidden = torch.full((own, own), torch.finfo(dtype).min, dtype=dtype).triu(1)
            made[own, seen] = torch.cat([torch.zeros(own, seen, dtype=dtype), hidden], 1)
        every.append(Asked(piece, slice(piece.start, piece.end), made[own, seen]))
    return Line(every, every if columns is None else _asking(every, columns), columns)


def _asking(every: Sequence[Asked], columns: Tensor) -> list[Asked]:
    found = []
    for asked in every:
        start, end = torch.searchsorted(columns, torch.tensor([asked.piece.start, asked.piece.end])).tolist()
        if end > start:
            mask = asked.mask[columns[start:end] - asked.piece.start]
            found.append(Asked(asked.piece, slice(start, end), mask))
    return found


class _Attention(torch.autograd.Function):
    """query (H, W, D), key and value (H, N, D) -> (W, H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, line: Sequence[Asked], scale: float) -> Tensor:
        out = torch.empty_like(query.transpose(0, 1), memory_format=torch.contiguous_format)  # (W, H, D)
        kept = []
        for asked in line:
            shares = _shares(query, key, asked, scale)  # (H, Q, S + L)
            out[asked.rows] = torch.bmm(shares, _seen(value, asked.piece)).transpose(0, 1)
            if asked.is_kept:
                kept.append(shares)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.line, ctx.scale = line, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        grad = grad.transpose(0, 1)  # (H, W, D)
        for_query, for_key, for_value = (torch.zeros_like(x) for x in (query, key, value))
        shares_of = iter(kept)
        for asked in ctx.line:
            shares = next(shares_of) if asked.is_kept else _shares(query, key, asked, ctx.scale)
            own = grad[:, asked.rows]  # (H, Q, D)
            towards = torch.bmm(own, _seen(value, asked.piece).transpose(1, 2))
            towards = torch._softmax_backward_data(towards, shares, -1, shares.dtype).mul_(ctx.scale)  # (H, Q, S + L)
            for_query[:, asked.rows] = torch.bmm(towards, _seen(key, asked.piece))
            _add(for_key, asked.piece, torch.bmm(towards.transpose(1, 2), query[:, asked.rows]))
            _add(for_value, asked.piece, torch.bmm(shares.transpose(1, 2), own))
        return for_query, for_key, for_value, None, None


def _shares(query: Tensor, key: Tensor, asked: Asked, scale: float) -> Tensor:
    """How much each asking token takes from each that it sees. (H, Q, S + L)"""
    own = query[:, asked.rows]
    added = asked.mask.expand(len(own), *asked.mask.shape)
    return torch.baddbmm(added, own, _seen(key, asked.piece).transpose(1, 2), alpha=scale).softmax(-1)


def _seen(x: Tensor, piece: Piece) -> Tensor:
    """Keys or values of all that the piece sees. (H, N, D) -> (H, S + L, D)"""
    if piece.seen_to == piece.start:
        return x[:, piece.seen_from : piece.end]
    return torch.cat([x[:, piece.seen_from : piece.seen_to], x[:, piece.start : piece.end]], 1)


def _add(whole: Tensor, piece: Piece, part: Tensor) -> None:
    """The gradient of what the piece sees. part (H, S + L, D)"""
    seen = piece.seen_to - piece.seen_from
    whole[:, piece.start : piece.end] += part[:, seen:]
    whole[:, piece.seen_from : piece.seen_to] += part[:, :seen]


def attend(query: Tensor, key: Tensor, value: Tensor, line: Sequence[Asked], scale: float) -> Tensor:
    """query (H, W, D), key and value (H or a divisor of it, N, D) -> (W, H, D)"""
    groups = query.shape[0] // key.shape[0]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    found: Tensor = _Attention.apply(query, key, value, line, scale)
    return found


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    line: Line,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer. query (1, H, N, D), key and value with as many heads or a divisor of them."""
    if attention_mask is not None or softcap is not None:
        raise ValueError("A packed line takes neither a mask nor capped scores.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query[0], key[0], value[0], line.every, scale)[None], None


AttentionInterface.register(NAME, attention)
