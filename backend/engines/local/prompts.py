"""Prompts that are read for their rows: keys and values of all but the last token, those known already from the prefix cache.

Each is read under its own adapter, several of them in one call. A token's numbers depend neither on the others nor on how much of
its own prompt was known: attention is computed for each text by itself (attention.py), and no product has few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder import beside
from backend.decoder.stack import Stack

from . import attention
from .attention import ROOM
from .prefixes import Prefixes
from .prepared import Prepared, indices


class Prompt(NamedTuple):
    """A prompt to be read under one adapter; None is the bare base. `model` names the two together in the prefix cache."""

    tokens: Sequence[int]
    adapter: str | None
    model: str


class Reader:
    """Used by the model's thread alone."""

    def __init__(self, stack: Stack, prefixes: Prefixes, prepared: Prepared, fewest: int) -> None:
        self._stack, self._prefixes, self._prepared, self._fewest = stack, prefixes, prepared, fewest

    def read(self, prompts: Sequence[Prompt]) -> list[Tensor]:
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
        first = {prompts[place].adapter: at for at, place in reversed(list(enumerate(unread)))}
        unread.sort(key=lambda place: first[prompts[place].adapter])  # an adapter's side by side
        if unread:
            self._read_rest([prompts[at] for at in unread], [found[at] for at in unread], [begun[at] for at in unread])
            for at in unread:
                self._prefixes.put(prompts[at].model, prompts[at].tokens[:-1], found[at])
        return found

    def _read_rest(self, prompts: Sequence[Prompt], rooms: Sequence[Tensor], begun: Sequence[int]) -> None:
        """Fill in keys and values from the places on that were not known. An adapter's prompts stand side by side."""
        device = self._stack.device
        tokens: list[int] = []
        positions: list[int] = []
        owner: list[str | None] = []
        spans: list[slice] = []
        for at, (prompt, start) in enumerate(zip(prompts, begun, strict=True)):
            spans.append(slice(len(tokens), len(tokens) + len(prompt.tokens) - 1 - start))
            tokens += prompt.tokens[start:-1]
            positions += range(start, len(prompt.tokens) - 1)
            owner += [prompt.adapter] * (len(tokens) - len(owner))
            is_last = at + 1 == len(prompts) or prompts[at + 1].adapter != prompt.adapter
            spare = max(0, self._fewest - owner.count(prompt.adapter)) if is_last else 0
            tokens, positions, owner = tokens + [0] * spare, positions + [0] * spare, owner + [prompt.adapter] * spare

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = query.new_zeros(query.shape)
            for room, start, own in zip(rooms, begun, spans, strict=True):
                places = slice(start, start + own.stop - own.start)
                room[layer, 0, :, places] = key[own].transpose(0, 1)
                room[layer, 1, :, places] = value[own].transpose(0, 1)
                if len(query):
                    seen[own] = attention.causal(query[own], room[layer, 0], room[layer, 1], start)
            return seen.flatten(1)

        adapters = self._prepared.of(self._stack, list(dict.fromkeys(name for name in owner if name is not None)))
        shares = adapters.shares(lambda names: beside.spans_of(indices(owner, names)))
        nobody = torch.zeros(0, dtype=torch.long, device=device)  # the last layer's states are asked of no token
        self._stack.read(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            adapters,
            shares,
            attend,
            nobody,
        )


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
