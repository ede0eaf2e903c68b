"""Attention over a packed line is plain attention under the mask that its pieces mean, forward and backward."""

from itertools import pairwise

import torch
from torch import Tensor

from backend.training import packing

HEADS, SIZE = 2, 8


def pieces() -> "list[packing.Piece]":
    """A text of 7, an answer of 3 that sees its first 4 tokens, and a text of 5 that is cut after 2."""
    made = [packing.Piece(0, 7, 0, 0), packing.Piece(7, 10, 0, 4)]
    return [*made, packing.Piece(10, 12, 10, 10), packing.Piece(12, 15, 10, 12)]


def plain_mask() -> Tensor:
    may_see = torch.zeros(15, 15, dtype=torch.bool)
    may_see[:7, :7] = torch.ones(7, 7).tril().bool()
    may_see[7:10, :4] = True
    may_see[7:10, 7:10] = torch.ones(3, 3).tril().bool()
    may_see[10:, 10:] = torch.ones(5, 5).tril().bool()
    return may_see


def drawn(heads: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(15, heads, SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.transpose(0, 1).requires_grad_()


def plain(query: Tensor, key: Tensor, value: Tensor, may_see: Tensor, scale: float) -> Tensor:
    groups = len(query) // len(key)
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = (query @ key.transpose(1, 2) * scale).masked_fill(~may_see, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1)


def compare(
    columns: "Tensor | None" = None, key_heads: int = HEADS, kept: int = packing.KEPT, heads: int = HEADS
) -> None:
    line = packing.line_of(pieces(), torch.float32, columns)
    query, key, value = drawn(heads, 1), drawn(key_heads, 2), drawn(key_heads, 3)
    rows = torch.arange(15) if columns is None else columns
    usual, packing.KEPT = packing.KEPT, kept
    try:
        ours = packing.attend(query[:, rows], key, value, line.some, 0.3)
        weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
        mine = torch.autograd.grad((ours * weight).sum(), (query, key, value))
    finally:
        packing.KEPT = usual
    theirs = plain(query[:, rows], key, value, plain_mask()[rows], 0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad((theirs * weight).sum(), (query, key, value))
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_every_token_sees_what_its_piece_says() -> None:
    compare()


def test_only_some_columns_may_ask() -> None:
    compare(torch.tensor([3, 6, 8, 9, 13, 14]))
    compare(torch.tensor([11]))


def test_several_queries_may_share_a_key() -> None:
    compare(key_heads=1)
    compare(key_heads=2, heads=6)


def test_what_is_not_kept_is_computed_again() -> None:
    compare(kept=0)
    compare(torch.tensor([3, 8, 14]), kept=3)


def test_a_stretch_is_cut_where_it_sees_one_stretch_and_stays_whole_where_it_sees_two() -> None:
    most = packing.LONGEST
    alone = packing.pieces_of(10, 10 + 2 * most + 1, 0, 0)
    assert [(p.start - 10, p.end - 10) for p in alone] == [(0, most), (most, 2 * most), (2 * most, 2 * most + 1)]
    assert all((p.seen_from, p.seen_to) == (10, p.start) for p in alone)
    behind = packing.pieces_of(50, 60 + most, 30, 50)
    assert all((p.seen_from, p.seen_to) == (30, p.start) for p in behind) and len(behind) == 2
    assert all(first.end == second.start for first, second in pairwise(behind))
    assert packing.pieces_of(50, 60 + most, 20, 40) == [packing.Piece(50, 60 + most, 20, 40)]


def test_equal_shapes_share_a_mask_and_it_has_the_dtype_of_the_states() -> None:
    line = packing.line_of([packing.Piece(0, 3, 0, 0), packing.Piece(3, 6, 3, 3)], torch.bfloat16)
    assert line.every[0].mask is line.every[1].mask and line.every[0].mask.dtype == torch.bfloat16
    assert line.some is line.every and line.columns is None


def test_capped_scores_and_masks_are_refused() -> None:
    query = drawn(HEADS, 1)[None]
    line = packing.line_of(pieces(), torch.float32)
    for mask, cap in ((torch.zeros(15, 15), None), (None, 30.0)):
        refused = False
        try:
            packing.attention(None, query, query, query, mask, line=line, softcap=cap)
        except ValueError:
            refused = True
        assert refused
    found, _ = packing.attention(None, query, query, query, None, line=line)
    expected = plain(query[0], query[0], query[0], plain_mask(), SIZE**-0.5)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)
