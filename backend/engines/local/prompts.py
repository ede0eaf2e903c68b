"""Prompts that are read for their rows: keys and values of all tokens, those known already from the prefix cache, and what the
model makes of the last one.

Each is read under its own adapter, several of them in one call. A token's numbers depend neither on the others nor on how much of
its own prompt was known: attention is computed for each text by itself (attention.py), and no product has few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder import beside
from backend.decoder.passing import Text
from backend.decoder.stack import Stack

from . import attention
from .looking import Beginning, Held
from .prefixes import Prefixes
from .prepared import Prepared, indices
from .rooms import Rooms


class Prompt(NamedTuple):
    """A prompt to be read under one adapter; None is the bare base. `model` names the two together in the prefix cache."""

    tokens: Sequence[int]
    adapter: str | None
    model: str


class Fewest(NamedTuple):
    """From how many rows on this processor's products give a row the same bits as among many."""

    written: int  # of a step
    read: int  # of prompts under one adapter


class Read(NamedTuple):
    """Prompts that were read to their ends."""

    held: list[Held]
    states: Tensor  # after the last token of each, in rows of which no product has too few: (prompts or more, D)
    rows: list[int]  # where each prompt's state stands
    tokens: int  # that were read, of all


class _Text(NamedTuple):
    """A prompt of which the tokens from ``start`` to ``end`` are to be read."""

    prompt: Prompt
    end: int
    room: Tensor
    start: int
    beginning: Beginning


class Reader:
    """Safe to share between threads."""

    def __init__(self, stack: Stack, rooms: Rooms, prefixes: Prefixes, prepared: Prepared, fewest: Fewest) -> None:
        self._stack, self._rooms, self._prefixes = stack, rooms, prefixes
        self._prepared, self._fewest = prepared, fewest

    def read(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """Keys and values of all but the last token of each, (layers, 2, H, T - 1 or more, D)."""
        texts = [self._text(prompt, len(prompt.tokens) - 1) for prompt in prompts]
        unread = [text for text in texts if text.start < text.end]
        if unread:
            self._read_rest(_by_adapter(unread), is_begun=False)
            self._keep(unread)
        return [text.room for text in texts]

    def begin(self, prompts: Sequence[Prompt]) -> Read:
        """All tokens of each are read."""
        texts = [self._text(prompt, len(prompt.tokens)) for prompt in prompts]
        ordered = _by_adapter(texts)
        states = self._read_rest(ordered, is_begun=True)
        self._keep(texts)
        place = {id(text): at for at, text in enumerate(ordered)}
        tokens = sum(text.end - text.start for text in texts)
        held = [Held(text.room, text.end, text.beginning) for text in texts]
        return Read(held, states, [place[id(text)] for text in texts], tokens)

    def _text(self, prompt: Prompt, end: int) -> _Text:
        """With a room for so many tokens, and in it what is known of them."""
        room, found = self._rooms.room(end), self._prefixes.find(prompt.model, prompt.tokens[:-1])
        if found is None:
            return _Text(prompt, end, room, 0, Beginning(room, 0))
        room[:, :, :, : found.tokens] = found.room[:, :, :, : found.tokens]
        return _Text(prompt, end, room, found.tokens, found.beginning)

    def _keep(self, texts: Sequence[_Text]) -> None:
        for text in texts:
            self._prefixes.put(text.prompt.model, text.prompt.tokens[:-1], text.room, text.beginning)

    def _read_rest(self, texts: Sequence[_Text], *, is_begun: bool) -> Tensor:
        """Fill in keys and values from the places on that were not known. An adapter's prompts stand side by side.

        The states after each one's last token, where they are to be begun: (texts or more, D). No product has few rows.
        """
        device = self._stack.device
        tokens: list[int] = []
        positions: list[int] = []
        owner: list[str | None] = []
        spans: list[slice] = []
        for at, (prompt, end, _, start, _) in enumerate(texts):
            spans.append(slice(len(tokens), len(tokens) + end - start))
            tokens += prompt.tokens[start:end]
            positions += range(start, end)
            owner += [prompt.adapter] * (len(tokens) - len(owner))
            is_last = at + 1 == len(texts) or texts[at + 1].prompt.adapter != prompt.adapter
            spare = max(0, self._fewest.read - owner.count(prompt.adapter)) if is_last else 0
            tokens, positions, owner = tokens + [0] * spare, positions + [0] * spare, owner + [prompt.adapter] * spare
        wanted = [span.stop - 1 for span in spans] if is_begun else []
        wanted += wanted[-1:] * max(0, self._fewest.written - len(wanted))

        loops = self._stack.loops
        if loops is not None and not loops.reads_prompts():
            loops = None

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = query.new_zeros(query.shape)
            if loops is not None:
                for at, ((_, _, room, start, _), own) in enumerate(zip(texts, spans, strict=True)):
                    asked = own if layer + 1 < len(room) else slice(at, at + is_begun)
                    loops.see(query[asked], key[own], value[own], room[layer], start, seen[asked])
                return seen.flatten(1)
            for at, ((_, end, room, start, _), own) in enumerate(zip(texts, spans, strict=True)):
                keys, values = room[layer]
                keys[:, start:end] = key[own].transpose(0, 1)
                values[:, start:end] = value[own].transpose(0, 1)
                if layer + 1 < len(room):
                    seen[own] = attention.causal(query[own], keys, values, start)
                elif is_begun:
                    seen[at] = attention.last(query[at], keys, values, end)
            return seen.flatten(1)

        passing = [Text(own, start, room) for (_, _, room, start, _), own in zip(texts, spans, strict=True)]
        adapters = self._prepared.of(self._stack, list(dict.fromkeys(name for name in owner if name is not None)))
        of_wanted = [owner[place] for place in wanted]
        return self._stack.read(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            adapters,
            adapters.shares(lambda names: beside.spans_of(indices(owner, names))),
            attend,
            torch.tensor(wanted, dtype=torch.long, device=device),
            adapters.shares(lambda names: beside.seats_of(indices(of_wanted, names), self._fewest.written, device)),
            texts=passing if loops is not None else None,
        )


def _by_adapter(texts: Sequence[_Text]) -> list[_Text]:
    """An adapter's side by side, in the order in which they come first."""
    first = {text.prompt.adapter: at for at, text in reversed(list(enumerate(texts)))}
    return sorted(texts, key=lambda text: first[text.prompt.adapter])
