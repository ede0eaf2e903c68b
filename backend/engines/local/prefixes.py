"""What was read of earlier prompts, so that a beginning two prompts share is read once: few-shot prompts share nearly all.

Keys and values of a token depend on the tokens before it and on the model alone. Kept by model and by whole blocks of tokens;
the ones not asked for longest leave when the room is full.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .looking import Beginning

BLOCK = 32  # a shared beginning is found in whole blocks; our choice


class Found(NamedTuple):
    room: Tensor  # keys and values, (layers, 2, H, T or more, D)
    tokens: int  # that are known of it
    beginning: Beginning  # of those: where others that began so look at them


class _Kept(NamedTuple):
    room: Tensor
    beginning: Beginning
    keys: list[bytes]

    @property
    def storages(self) -> dict[int, int]:
        """Bytes that it keeps from being given back, by where they are."""
        both = [one.untyped_storage() for one in (self.room, self.beginning.room)]
        return {one.data_ptr(): one.nbytes() for one in both}


class Prefixes:
    """Safe to share between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self.held_bytes = 0
        self.asked_tokens = 0
        self.found_tokens = 0
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # by the key of its longest block
        self._longest: dict[bytes, bytes] = {}  # the key of every block -> the key of an entry that begins so
        self._holders: Counter[int] = Counter()  # entries by storage

    def find(self, model: str, tokens: Sequence[int]) -> Found | None:
        """What is known of these tokens from the first on. Who keeps what follows hands the beginning on (``put``): so all that begin
        alike look at one copy, unless it is less than half of what is known."""
        keys = list(_keys(model, tokens))
        with self._lock:
            self.asked_tokens += len(tokens)
            for number in range(len(keys), 0, -1):
                entry = self._longest.get(keys[number - 1])
                if entry is not None:
                    self._kept.move_to_end(entry)
                    count = number * BLOCK
                    self.found_tokens += count
                    room, (first, tokens_there), _ = self._kept[entry]
                    is_enough = 2 * tokens_there >= count
                    return Found(
                        room, count, Beginning(first, min(tokens_there, count)) if is_enough else Beginning(room, count)
                    )
        return None

    def known(self, model: str, tokens: Sequence[int]) -> int:
        """How many of these tokens ``find`` would find."""
        keys = list(enumerate(_keys(model, tokens), 1))
        with self._lock:
            return max((number for number, key in keys if key in self._longest), default=0) * BLOCK

    def put(self, model: str, tokens: Sequence[int], room: Tensor, beginning: Beginning | None = None) -> None:
        """Keep what was read of these tokens, whole blocks of it, where it is: nobody may write to it. (layers, 2, H, T or more, D)"""
        keys = list(_keys(model, tokens))
        new = _Kept(room, beginning or Beginning(room, 0), keys)
        with self._lock:
            if not keys or keys[-1] in self._longest or sum(new.storages.values()) > self.limit_bytes:
                return
            while self.held_bytes + self._more(new) > self.limit_bytes:
                self._drop(next(iter(self._kept)))
            self.held_bytes += self._more(new)
            self._holders.update(new.storages.keys())
            self._kept[keys[-1]] = new
            for key in keys:
                self._longest[key] = keys[-1]

    def clear(self) -> None:
        with self._lock:
            for entry in list(self._kept):
                self._drop(entry)

    def _more(self, new: _Kept) -> int:
        return sum(size for place, size in new.storages.items() if not self._holders[place])

    def _drop(self, entry: bytes) -> None:
        gone = self._kept.pop(entry)
        self._holders.subtract(gone.storages.keys())
        self.held_bytes -= self._more(gone)
        self._holders = +self._holders
        for key in gone.keys:
            if self._longest.get(key) == entry:
                del self._longest[key]


def _keys(model: str, tokens: Sequence[int]) -> Iterator[bytes]:
    """One key for each whole block, of the model and all tokens up to its end."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        digest.update(torch.tensor(tokens[start : start + BLOCK], dtype=torch.int32).numpy().tobytes())
        yield digest.copy().digest()
