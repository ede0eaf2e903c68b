"""The rows of a running batch where the base can be read as a stack: rows of any adapters share every step.

The base's weights are read once for all rows, and each row's own adapter is added beside them (backend/decoder). As in rows.py
a row's numbers do not depend on its company: its token p stands at place p of a slot of its own, attention is plain
products row by row on a CPU, and a product never has fewer rows than the number from which on this processor's products give
a row the same bits, which is tried when the model is loaded. Nor do they depend on what is known of a prompt already: its
tokens are read in blocks, and the shape of a block's attention follows from where it stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from backend.decoder.stack import Adapters, Stack

from .prefixes import BLOCK, Prefixes

ROOM = 64  # places are added so many at a time, and a product's columns are a multiple: odd ones have other bits
TRIED_ROWS = (2, 4, 8, 16)
MOST_TRIED = 64


class Prompt(NamedTuple):
    """A prompt to be read under one adapter; None is the bare base. `model` names the two together in the prefix cache."""

    tokens: Sequence[int]
    adapter: str | None
    model: str


class MixedRows:
    """Rows that come and go between steps. Row i of ``step`` is the i-th of those that were added and kept."""

    def __init__(self, stack: Stack, context: int, prefixes: Prefixes, fewest: int) -> None:
        self._stack, self._context, self._prefixes, self._fewest = stack, context, prefixes, fewest
        self._slots: list[int] = []  # where each row lives, in the order of the rows
        self._adapter: list[str | None] = []  # of each row
        self._read: list[int] = []  # tokens in the cache, by slot
        self._kept = stack.room(0, 0)  # (layers, 2, S, H, places, D)
        self._prepared: tuple[Adapters, Tensor | None] | None = None  # for the rows as they are

    def add(self, prompts: Sequence[Prompt], sources: Sequence[int]) -> Tensor:
        """Read all but the last token of each prompt once, and add one row for each source: the index of its prompt.

        Returns the prompts' last tokens, (rows,): what the next step is to be given for them.
        """
        read = self._read_prompts(prompts)
        slots = self._take_slots(len(sources), max(len(prompt.tokens) for prompt in prompts))
        for slot, source in zip(slots, sources, strict=True):
            length = len(prompts[source].tokens) - 1
            self._kept[:, :, slot, :, :length] = read[source][:, :, :, :length]
            self._read[slot] = length
        self._slots += slots
        self._adapter += [prompts[source].adapter for source in sources]
        self._prepared = None
        return torch.tensor([prompts[source].tokens[-1] for source in sources], device=self._kept.device)

    def unread(self, prompt: Prompt) -> int:
        """How many tokens of it would have to be read now."""
        return len(prompt.tokens) - 1 - self._prefixes.known(prompt.model, prompt.tokens[:-1])

    def read_part(self, prompt: Prompt, tokens: int) -> bool:
        """Read about so many more of its tokens into the prefix cache; False where that does not keep them."""
        before = self.unread(prompt)
        until = len(prompt.tokens) - 1 - before + tokens
        self._read_prompts([prompt._replace(tokens=prompt.tokens[: until + 1])])
        return self.unread(prompt) < before

    def step(self, tokens: Tensor) -> Tensor:
        """Each row reads its next token, (rows,); returns the float32 logits of the one after it, (rows, V)."""
        places = _rounded(max(self._read[slot] for slot in self._slots) + 1, ROOM)
        if places > self._kept.shape[4]:
            self._resize(len(self._read), places)
        device = self._kept.device
        slot, read = torch.tensor(self._slots, device=device), torch.tensor(self._read, device=device)
        whole = torch.zeros_like(read)
        whole[slot] = tokens
        every = torch.arange(len(read), device=device)
        is_hidden = torch.arange(places, device=device) > read[:, None]
        hidden = torch.zeros(is_hidden.shape, dtype=self._kept.dtype, device=device)
        hidden = hidden.masked_fill_(is_hidden, torch.finfo(hidden.dtype).min)[:, None, None]  # (S, 1, 1, places)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self._kept[layer, 0], self._kept[layer, 1]
            keys[every, :, read], values[every, :, read] = key, value
            own = query.unflatten(1, (key.shape[1], -1))  # (S, H, G, D)
            return _attention(own, keys[:, :, :places], values[:, :, :places], hidden).flatten(1)

        adapters, owners = self._adapters()
        states = self._stack.read(whole, read.clamp(max=self._context - 1), adapters, owners, attend)
        for at in self._slots:
            self._read[at] += 1
        return self._stack.logits(states).float()[slot]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        stay = [self._slots[at] for at in rows]
        for slot in set(self._slots) - set(stay):
            self._read[slot] = 0
        self._slots, self._adapter = stay, [self._adapter[at] for at in rows]
        self._prepared = None
        size = _rounded(len(stay), self._fewest)
        if stay and 2 * size <= len(self._read):  # the others move together, or every step would go on reading them
            self._kept = self._kept[
                :, :, stay + [slot for slot in range(len(self._read)) if slot not in stay][: size - len(stay)]
            ]
            self._read = [self._read[slot] for slot in stay] + [0] * (size - len(stay))
            self._slots = list(range(len(stay)))

    def _adapters(self) -> tuple[Adapters, Tensor | None]:
        """Those of the rows, and whose each slot is, (S, adapters)."""
        if self._prepared is None:
            names = list(dict.fromkeys(name for name in self._adapter if name is not None))
            owners = torch.zeros(len(self._read), len(names), dtype=self._kept.dtype)
            for slot, name in zip(self._slots, self._adapter, strict=True):
                if name is not None:
                    owners[slot, names.index(name)] = 1
            self._prepared = self._stack.adapters(names), owners.to(self._kept.device)
        return self._prepared

    def _read_prompts(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """Keys and values of all but the last token of each, (layers, 2, H, T - 1 or more, D)."""
        found, begun = [], []
        for prompt in prompts:
            known, count = self._prefixes.find(prompt.model, prompt.tokens[:-1])
            room = self._stack.room(1, _rounded(len(prompt.tokens) - 1, ROOM))[:, :, 0]
            if known is not None:
                room[:, :, :, :count] = known[:, :, :, :count]
            found.append(room)
            begun.append(count)
        unread = [place for place, prompt in enumerate(prompts) if begun[place] < len(prompt.tokens) - 1]
        if unread:
            self._read_rest([prompts[at] for at in unread], [found[at] for at in unread], [begun[at] for at in unread])
            for at in unread:
                self._prefixes.put(prompts[at].model, prompts[at].tokens[:-1], found[at])
        return found

    def _read_rest(self, prompts: Sequence[Prompt], rooms: Sequence[Tensor], begun: Sequence[int]) -> None:
        """Fill in keys and values from the places on that were not known."""
        device = self._kept.device
        rest = [list(prompt.tokens[start:-1]) for prompt, start in zip(prompts, begun, strict=True)]
        lengths = [len(one) for one in rest]
        spare = max(0, self._fewest - sum(lengths))
        tokens = torch.tensor([token for one in rest for token in one] + [0] * spare, device=device)
        places = [torch.arange(start, start + length) for start, length in zip(begun, lengths, strict=True)]
        positions = torch.cat([*places, torch.zeros(spare, dtype=torch.long)]).to(device)
        names = list(dict.fromkeys(prompt.adapter for prompt in prompts if prompt.adapter is not None))
        owners = torch.zeros(len(tokens), len(names), dtype=self._kept.dtype)
        ends = torch.tensor(lengths).cumsum(0).tolist()
        for prompt, length, end in zip(prompts, lengths, ends, strict=True):
            if prompt.adapter is not None:
                owners[end - length : end, names.index(prompt.adapter)] = 1

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = [query.new_zeros(0 if not len(query) else spare, query.shape[1], query.shape[2])]
            for room, start, length, end in reversed(list(zip(rooms, begun, lengths, ends, strict=True))):
                own = slice(end - length, end)
                room[layer, 0, :, start : start + length] = key[own].transpose(0, 1)
                room[layer, 1, :, start : start + length] = value[own].transpose(0, 1)
                if len(query):
                    seen.insert(0, _causal(query[own], room[layer, 0], room[layer, 1], start))
            return torch.cat(seen).flatten(1)

        nobody = torch.zeros(0, dtype=torch.long, device=device)  # the last layer's states are asked of no token
        self._stack.read(tokens, positions, self._stack.adapters(names), owners.to(device), attend, nobody)

    def _take_slots(self, count: int, room: int) -> list[int]:
        used = set(self._slots)
        free = [slot for slot in range(len(self._read)) if slot not in used]
        size = max(len(self._read), _rounded(len(used) + count, self._fewest))
        free += range(len(self._read), size)
        self._resize(size, max(_rounded(room, ROOM), self._kept.shape[4]))
        return free[:count]

    def _resize(self, size: int, room: int) -> None:
        """More slots, more places, or both; what is there stays where it is."""
        slots, places = self._kept.shape[2], self._kept.shape[4]
        if (size, room) != (slots, places):
            self._kept = pad(self._kept, [0, 0, 0, room - places, 0, 0, 0, size - slots])
            self._read += [0] * (size - slots)
            self._prepared = None


def _attention(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """query (S, H, Q, D), keys and values (S, H, T, D), hidden (S or 1, 1, Q or 1, T) -> (S, H, Q, D)

    On a CPU plain products: the fused one gives rows of its second thread other bits than those of its first on some.
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, keys, values, attn_mask=hidden)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, keys.transpose(-1, -2)).add_(hidden)
    return torch.matmul(scores.softmax(-1), values)


def _causal(query: Tensor, keys: Tensor, values: Tensor, start: int) -> Tensor:
    """Of one text: its tokens from ``start`` on, which is whole blocks, see what comes before them.

    query (T', heads, D), keys and values (H, places, D) -> (T', heads, D)
    """
    length, sharing = len(query), query.shape[1] // len(keys)
    blocks = pad(query.transpose(0, 1), [0, 0, 0, -length % BLOCK]).unflatten(0, (len(keys), sharing))  # (H, G, T'', D)
    seen = []
    for at in range(0, length, BLOCK):
        until = _rounded(start + at + BLOCK, ROOM)
        places, asking = (torch.arange(n, device=keys.device) for n in (until, BLOCK))
        hidden = torch.zeros(BLOCK, until, dtype=keys.dtype, device=keys.device)
        hidden = hidden.masked_fill_(places > (start + at + asking)[:, None], torch.finfo(keys.dtype).min)
        own = blocks[:, :, at : at + BLOCK].flatten(1, 2)[None]  # (1, H, G x BLOCK, D)
        found = _attention(own, keys[None, :, :until], values[None, :, :until], hidden.repeat(sharing, 1))
        seen.append(found[0].unflatten(1, (sharing, BLOCK)))
    return torch.cat(seen, 2)[:, :, :length].flatten(0, 1).transpose(0, 1)


def fewest_rows(stack: Stack) -> int:
    """From how many rows on a product here gives a row the same bits as among many, tried on the first layer's products, an
    adapter's beside them; the most tried where none does. Other devices: 1, their libraries decide."""
    if stack.device.type != "cpu":
        return 1
    for fewest in TRIED_ROWS:
        sizes = [size for size in (fewest, fewest + 1, 2 * fewest, 16, 24, 48) if size >= fewest]
        if all(_same_bits(product, x, fewest, sizes) for product, x in stack.first_products(MOST_TRIED)):
            return fewest
    return TRIED_ROWS[-1]


def _same_bits(product: Callable[[Tensor], Tensor], x: Tensor, fewest: int, sizes: Sequence[int]) -> bool:
    whole = product(x)[:fewest]
    return all(torch.equal(product(x[:size])[:fewest], whole) for size in sizes)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
