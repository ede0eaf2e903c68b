"""What was read of earlier prompts, so that a beginning two prompts share is read once: few-shot prompts share nearly all.

Keys and values of a token depend on the tokens before it and on the model alone. Kept by model and by whole blocks of tokens;
the ones not asked for longest leave when the room is full.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch

BLOCK = 32  # a shared beginning is found in whole blocks; our choice


class Prefixes:
    """Used by the model's thread alone."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.asked_tokens = 0
        self.found_tokens = 0
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()  # by the key of its longest block
        self._longest: dict[bytes, bytes] = {}  # the key of every block -> the key of an entry that begins so

    def find(self, model: str, tokens: Sequence[int]) -> tuple[torch.Tensor | None, int]:
        """Keys and values, (layers, 2, H, T, D), of which the first ones returned as a number are of these tokens."""
        self.asked_tokens += len(tokens)
        keys = list(_keys(model, tokens))
        for number in range(len(keys), 0, -1):
            entry = self._longest.get(keys[number - 1])
            if entry is not None:
                self._kept.move_to_end(entry)
                self.found_tokens += number * BLOCK
                return self._kept[entry], number * BLOCK
        return None, 0

    def known(self, model: str, tokens: Sequence[int]) -> int:
        """How many of these tokens ``find`` would find."""
        known = (number for number, key in enumerate(_keys(model, tokens), 1) if key in self._longest)
        return max(known, default=0) * BLOCK

    def put(self, model: str, tokens: Sequence[int], read: torch.Tensor) -> None:
        """Keep what was read of these tokens, whole blocks of it, where it is: nobody may write to it. (layers, 2, H, T, D)"""
        keys = list(_keys(model, tokens))
        if not keys or keys[-1] in self._longest:
            return
        kept = read[:, :, :, : len(keys) * BLOCK]
        if _taken(kept) > self.limit_bytes:
            return
        while self.held_bytes + _taken(kept) > self.limit_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[keys[-1]] = kept
        self.held_bytes += _taken(kept)
        for key in keys:
            self._longest[key] = keys[-1]

    def clear(self) -> None:
        self._kept.clear()
        self._longest.clear()
        self.held_bytes = 0

    def _drop(self, entry: bytes) -> None:
        self.held_bytes -= _taken(self._kept.pop(entry))
        self._longest = {key: of for key, of in self._longest.items() if of != entry}


def _taken(kept: torch.Tensor) -> int:
    """Bytes that it keeps from being given back."""
    return kept.untyped_storage().nbytes()


def _keys(model: str, tokens: Sequence[int]) -> Iterator[bytes]:
    """One key for each whole block, of the model and all tokens up to its end."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        digest.update(torch.tensor(tokens[start : start + BLOCK], dtype=torch.int32).numpy().tobytes())
        yield digest.copy().digest()
