"""What the rows of a step look at: the tokens in their own slots, and prompts that stand elsewhere.

A processor's loops go to wherever a prompt was read. Products want a row's keys side by side, so for them a prompt is copied to its
rows' slots, but for one of many samples: these sit on a bench and look at it in one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder.quick import Loops
from backend.decoder.stack import Attend

from . import attention
from .attention import Places


class Beginning(NamedTuple):
    """Where the first tokens of prompts stand that begin alike. Rows that look at one copy read it from memory once."""

    room: Tensor  # (layers, 2, H, T or more, D)
    tokens: int


class Held(NamedTuple):
    """A prompt where it was read: its samples look at it, and so do later requests with the same beginning."""

    room: Tensor  # (layers, 2, H, T or more, D)
    length: int  # T
    beginning: Beginning  # which is in the room too


NOTHING = torch.zeros(0, 0, 0, 0, 0)
NOBODY = Held(NOTHING, 0, Beginning(NOTHING, 0))  # of a slot without a prompt


@dataclass(eq=False)
class Bench:
    """Slots side by side, whose rows are samples of one prompt that is held once."""

    slots: slice
    prompt: Tensor  # (layers, 2, H, T, D)
    hidden: Tensor  # (T,), 0 where there is a token and the least number behind the last one


class Prompts(NamedTuple):
    """For loops, by slot."""

    held: Sequence[Held | None]  # nobody may put them away before the last step
    places: Tensor  # (S, 2) where each is in memory, and where its beginning
    shape: Tensor  # (S, 5): tokens in the slot, tokens of the prompt, for how many it has places, and both of its beginning


class Part(NamedTuple):
    """For products: slots side by side whose rows see what they see in one, a bench's or those between the benches."""

    slots: slice
    bench: Bench | None
    layers: list[Places]


def prompts_of(held: Sequence[Held | None]) -> Prompts:
    """By slot, what ``by_loops`` is given."""
    places, shapes = [], []
    for one in held:
        room, length, (beginning, tokens) = one or NOBODY
        places.append((room.data_ptr(), beginning.data_ptr()))
        shapes.append((0, length, room.shape[3], tokens, beginning.shape[3]))
    of_all = torch.tensor(places, dtype=torch.long).view(-1, 2)
    return Prompts(list(held), of_all, torch.tensor(shapes, dtype=torch.long).view(-1, 5))


def parts_of(kept: Tensor, benches: Sequence[Bench], slots: int) -> list[Part]:
    """All slots, what ``by_products`` is given. ``kept``: (layers, 2, S or more, H, places, D)"""
    found: list[Part] = []
    start = 0

    def add(slots: slice, bench: Bench | None) -> None:
        if slots.start < slots.stop:
            found.append(Part(slots, bench, [attention.places_of(layer, slots) for layer in kept]))

    for bench in sorted(benches, key=lambda one: one.slots.start):
        add(slice(start, bench.slots.start), None)
        add(bench.slots, bench)
        start = bench.slots.stop
    add(slice(start, slots), None)
    return found


def by_loops(loops: Loops, kept: Tensor, prompts: Prompts, read: Tensor) -> Attend:
    """A step of slots that have read so many tokens, (S,): one loop a layer, which looks at no place that holds nothing yet."""
    prompts.shape[:, 0] = read
    heads, places, width = kept.shape[3:]

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(len(query), query.shape[1] * width)
        own = kept[layer]
        given = query, key, value, out, own[0], own[1], prompts.places, prompts.shape
        sizes = query.stride(0), places, layer, len(query), heads, query.shape[1] // heads, width
        loops.attend(tuple(one.data_ptr() for one in given), sizes)
        return out

    return attend


def by_products(kept: Tensor, parts: Sequence[Part], read: Tensor, together: int | None) -> Attend:
    """The same in torch's own products. ``together``: how much each slot has read, if it is the same for all."""
    slots, heads, places = len(read), kept.shape[3], kept.shape[4]
    every = torch.arange(slots, device=read.device)
    hidden = torch.zeros(slots, 1, places, dtype=kept.dtype, device=read.device)
    is_behind = torch.arange(places, device=read.device) > read[:, None, None]
    hidden.masked_fill_(is_behind, torch.finfo(hidden.dtype).min)
    hidden = hidden.repeat_interleave(heads, 0)  # (S * H, 1, places)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = kept[layer, 0], kept[layer, 1]
        if together is None:
            keys[every, :, read], values[every, :, read] = key, value
        else:  # a slice is written in a third of the time
            keys[:slots, :, together], values[:slots, :, together] = key, value
        own = query.reshape(slots * heads, -1, query.shape[2])  # (S * H, G, D)
        seen = []
        for part in parts:
            at = slice(part.slots.start * heads, part.slots.stop * heads)
            if part.bench is None:
                seen.append(attention.to_own(own[at], part.layers[layer], hidden[at]))
            else:
                bench = part.bench
                prompt = bench.prompt[layer]
                seen.append(attention.to_both(own[at], prompt, bench.hidden, part.layers[layer], hidden[at]))
        return (seen[0] if len(seen) == 1 else torch.cat(seen)).view(slots, -1)

    return attend
