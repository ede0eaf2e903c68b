"""What a token sees of the tokens before it: plain products on a CPU, for a batch's rows, for samples of one prompt, for a prompt.

On a CPU the fused attention gives rows of its second thread other bits than those of its first on some (docs/decisions/005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

ROOM = 64  # places are added so many at a time
IN_ONE_GO = 128  # places; from about 192 on a sum is taken in parts, whose ends must not follow from hidden places
BLOCK = 32  # tokens of one text that are read in one product
READ_AT_ONCE = 256  # the same on other devices; our choice


def columns(width: int) -> int:
    """Places that are looked at are a multiple: the last columns of other products have other bits, and torch takes a path of
    its own for products of fewer than 400 numbers, which the smallest heads would come under."""
    return 16 if 16 * width >= 400 else ROOM


class Places(NamedTuple):
    """Keys and values of one layer of some slots, by slot and head, and what of them is behind a row's last token."""

    keys: Tensor  # (S * H, D, places)
    values: Tensor  # (S * H, places, D)


def places_of(kept: Tensor, slots: slice) -> Places:
    """Some slots' part of a layer's keys and values, (2, S, H, places, D)."""
    keys, values = (part[slots].flatten(0, 1) for part in kept)
    return Places(keys.transpose(1, 2), values)


def to_own(query: Tensor, own: Places, hidden: Tensor) -> Tensor:
    """Each row's queries (S * H, G, D) at its own places; hidden (S * H, 1, places) -> (S * H, G, D)"""
    if query.device.type != "cpu":
        keys, values = own.keys.transpose(1, 2)[None], own.values[None]
        return scaled_dot_product_attention(query[None], keys, values, attn_mask=hidden[None])[0]
    scores = torch.baddbmm(hidden, query, own.keys, alpha=query.shape[-1] ** -0.5)
    return _weighted(scores.softmax(-1), own.values)


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """The values' sums by these weights (N, G, T), in parts that do not depend on how many hidden places follow."""
    if weights.shape[1] == 1 or weights.shape[2] <= IN_ONE_GO:
        return torch.bmm(weights, values)
    found = torch.bmm(weights[:, :, :IN_ONE_GO], values[:, :IN_ONE_GO])
    for at in range(IN_ONE_GO, weights.shape[2], IN_ONE_GO):
        found.baddbmm_(weights[:, :, at : at + IN_ONE_GO], values[:, at : at + IN_ONE_GO])
    return found


def to_both(query: Tensor, prompt: Tensor, prompt_hidden: Tensor, own: Places, hidden: Tensor) -> Tensor:
    """Rows of one prompt, which is looked at in one product, and each row's own places. One softmax over both.

    query (S * H, G, D), prompt (2, H, T, D), prompt_hidden (T,), own and hidden as in ``to_own`` -> (S * H, G, D)
    """
    _, sharing, width = query.shape
    heads, split, scale = prompt.shape[1], prompt.shape[2], width**-0.5
    first = torch.baddbmm(prompt_hidden, _beneath(query, heads), prompt[0].transpose(1, 2), alpha=scale)
    second = torch.baddbmm(hidden, query, own.keys, alpha=scale)
    first = first.view(heads, -1, sharing, split).transpose(0, 1)
    scores = torch.cat([first, second.unflatten(0, (-1, heads))], -1).flatten(0, 1).softmax(-1)
    found = _weighted(scores[:, :, split:], own.values)
    shared = torch.bmm(_beneath(scores[:, :, :split], heads), prompt[1]).view(heads, -1, sharing, width)
    found.unflatten(0, (-1, heads)).add_(shared.transpose(0, 1))
    return found


def _beneath(x: Tensor, heads: int) -> Tensor:
    """All rows' queries of a head below one another: (S * H, G, D) -> (H, S * G, D), no copy where G is 1."""
    return x.unflatten(0, (-1, heads)).transpose(0, 1).flatten(1, 2)


def causal(query: Tensor, keys: Tensor, values: Tensor, start: int) -> Tensor:
    """Of one text: its tokens from ``start`` on see what comes before them and themselves.

    query (T', heads, D), keys and values (H, places, D) -> (T', heads, D). A token's numbers depend neither on how many stand
    behind it nor on how many before it were known: tokens are taken in blocks whose borders are places, each block in products
    of the same shape whether all of it is asked for or one token.
    """
    size = BLOCK if query.device.type == "cpu" else READ_AT_ONCE
    end, heads = start + len(query), len(keys)
    sharing = query.shape[1] // heads
    first = start // size * size
    before = start - first
    padded = pad(query.transpose(0, 1), [0, 0, before, -end % size]).unflatten(0, (heads, sharing))  # (H, G, T'', D)
    seen = []
    for at in range(first, end, size):
        until = min(-(-(at + size) // ROOM) * ROOM, keys.shape[1])
        own = Places(keys[:, :until].transpose(1, 2), values[:, :until])
        block = padded[:, :, at - first : at - first + size].flatten(1, 2)
        hidden = _later(at, size, until, sharing, keys.dtype, keys.device)
        seen.append(to_own(block, own, hidden).unflatten(1, (sharing, -1)))
    found = seen[0] if len(seen) == 1 else torch.cat(seen, 2)
    return found[:, :, before : before + len(query)].flatten(0, 1).transpose(0, 1)


def last(query: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """What the last of so many tokens of one text sees. query (heads, D), keys and values (H, places, D) -> (heads, D)"""
    own = query.view(len(keys), -1, query.shape[1])  # (H, G, D)
    return to_own(own, Places(keys.transpose(1, 2), values), _behind(length, keys)).flatten(0, 1)


def _behind(length: int, keys: Tensor) -> Tensor:
    """Hides the places behind so many tokens, (1, 1, places)."""
    hidden = torch.zeros(1, 1, keys.shape[1], dtype=keys.dtype, device=keys.device)
    hidden[:, :, length:] = torch.finfo(keys.dtype).min
    return hidden


@lru_cache(maxsize=64)
def _later(start: int, rows: int, until: int, sharing: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What so many tokens from ``start`` on may not see of the places before ``until``, (1, sharing * rows, until)."""
    is_later = torch.arange(until)[None] > torch.arange(start, start + rows)[:, None]
    hidden = torch.zeros(rows, until, dtype=dtype).masked_fill_(is_later, torch.finfo(dtype).min)
    return hidden.repeat(sharing, 1)[None].to(device)


def products(width: int, dtype: torch.dtype, rows: int) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Those of a prompt's keys and values with the queries of two heads, on random numbers, with rows to try them on."""
    draw = torch.Generator().manual_seed(0)
    for inputs, outputs in ((width, 3 * ROOM), (3 * ROOM, width)):
        other = torch.randn(2, inputs, outputs, generator=draw).to(dtype)
        yield partial(_by_head, other=other), torch.randn(rows, inputs, generator=draw).to(dtype)


def _by_head(x: Tensor, other: Tensor) -> Tensor:
    return torch.bmm(x.expand(2, -1, -1), other).transpose(0, 1)
