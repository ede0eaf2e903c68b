"""The memory that prompts' keys and values lie in: what one prompt has left is used for the next.

New memory comes dear (cells.py), and a prompt whose beginning is known takes hardly longer to read than a system takes to hand out its
room. So on a processor a room goes back here when nobody looks at it any more, neither rows nor the prefix cache.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque

import torch
from torch import Tensor

from backend.decoder.stack import Stack

from .attention import ROOM


class Rooms:
    """Safe to share between threads, without a lock: a room may come back wherever Python lets something go."""

    def __init__(self, stack: Stack, kept_bytes: int = 0) -> None:
        """``kept_bytes``: how much stays that nobody looks at."""
        self._like, self._kept_bytes = stack.room(1, 0)[:, :, 0], kept_bytes  # (layers, 2, H, 0, D)
        self._free: defaultdict[int, deque[Tensor]] = defaultdict(deque)  # by bytes

    @property
    def free_bytes(self) -> int:
        return sum(size * len(free) for size, free in list(self._free.items()))

    def room(self, tokens: int) -> Tensor:
        """For so many tokens, (layers, 2, H, T or more, D). Behind them are zeros; where they go may be anything."""
        layers, both, heads, _, width = self._like.shape
        shape = layers, both, heads, max(1, -(-tokens // ROOM)) * ROOM, width
        if self._like.device.type == "cpu":
            found = self._lent(math.prod(shape) * self._like.itemsize).view(self._like.dtype).view(shape)
        else:
            found = self._like.new_empty(shape)
        found[:, :, :, tokens:] = 0
        return found

    def _lent(self, size: int) -> Tensor:
        try:
            memory = self._free[size].pop()
        except IndexError:
            memory = torch.empty(size, dtype=torch.uint8)
        loan = memory.numpy()  # lives as long as anything that looks at it
        weakref.finalize(loan, self._take_back, memory).atexit = False
        return torch.from_numpy(loan)

    def _take_back(self, memory: Tensor) -> None:
        self._free[memory.nbytes].append(memory)
        for free in list(self._free.values()):
            while self.free_bytes > self._kept_bytes:
                try:
                    free.popleft()
                except IndexError:
                    break
