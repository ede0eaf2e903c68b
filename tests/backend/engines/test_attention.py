"""A token sees what stands before it, and its numbers do not depend on what stands behind it or was known already."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from backend.engines.local import attention

SHAPES = [
    (4, 1, 16),
    (2, 2, 16),
    (2, 7, 16),
    (2, 2, 8),
    (2, 1, 32),
    (2, 2, 80),
    (2, 4, 128),
]  # heads of keys, queries that share one, width


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(heads: int, sharing: int, width: int, tokens: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(heads + sharing)
    places = -(-tokens // attention.ROOM) * attention.ROOM
    query = torch.randn(tokens, heads * sharing, width, generator=draw)
    return query, *(torch.randn(heads, places, width, generator=draw) for _ in range(2))


def test_a_text_sees_what_torchs_own_attention_sees() -> None:
    for heads, sharing, width in SHAPES:
        query, keys, values = drawn(heads, sharing, width)
        found = attention.causal(query, keys, values, 0)
        expected = scaled_dot_product_attention(
            query.transpose(0, 1)[None], keys[None, :, :400], values[None, :, :400], is_causal=True, enable_gqa=True
        )[0].transpose(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_last_token_of_a_text_sees_what_it_sees_among_all_whatever_stands_behind_it() -> None:
    for heads, sharing, width in SHAPES:
        query, keys, values = drawn(heads, sharing, width)
        whole = attention.causal(query, keys, values, 0)
        for length in (1, 64, 150, 400):
            found = attention.last(query[length - 1], keys, values, length)
            torch.testing.assert_close(found, whole[length - 1], rtol=1e-4, atol=1e-5)
            places = -(-length // attention.ROOM) * attention.ROOM
            shorter = (part[:, :places].contiguous() for part in (keys, values))
            assert torch.equal(attention.last(query[length - 1], *shorter, length), found), "a room of its own size"


def test_neither_a_texts_end_nor_its_known_beginning_changes_a_bit() -> None:
    for heads, sharing, width in SHAPES:
        query, keys, values = drawn(heads, sharing, width)
        whole = attention.causal(query, keys, values, 0)
        for length in (1, 3, 31, 33, 128, 129, 192, 200, 257, 300):
            known = keys.clone()
            known[:, length:] = 7.0
            assert torch.equal(attention.causal(query[:length], known, values, 0), whole[:length])
            for start in (1, 32, 47, 96, 160, 256):
                if start < length:
                    rest = attention.causal(query[start:length], known, values, start)
                    assert torch.equal(rest, whole[start:length]), (length, start)


def test_hidden_places_change_no_bit_of_a_row_however_many_queries_share_its_keys() -> None:
    for heads, sharing, width in SHAPES:
        query, *_ = drawn(heads, sharing, width, tokens=8)
        kept = torch.randn(2, 3, heads, 320, width)
        rows = query[:3].reshape(3 * heads, sharing, width)
        whole = seen_of(rows, kept)
        for places in (192, 208, 256):
            assert torch.equal(seen_of(rows, kept[:, :, :, :places].contiguous()), whole)


def seen_of(rows: Tensor, kept: Tensor) -> Tensor:
    """What rows with 150, 3 and 90 tokens behind them see."""
    _, slots, heads, places, _ = kept.shape
    read = torch.tensor([150, 3, 90]).repeat_interleave(heads)[:, None, None]
    hidden = torch.zeros(slots * heads, 1, places)
    hidden.masked_fill_(torch.arange(places) > read, torch.finfo(torch.float32).min)
    return attention.to_own(rows, attention.places_of(kept, slice(0, slots)), hidden)


def test_products_of_small_heads_are_no_smaller_than_torch_takes_another_path_for() -> None:
    assert all(attention.columns(width) * width >= 400 for width in (8, 16, 24, 25, 64, 128))
    assert attention.columns(64) == 16
