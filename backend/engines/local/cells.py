"""The memory that a batch's keys and values lie in: what was used once is used again, since new memory comes dear.

A system hands out memory page by page when it is first written, zeroed, and inside a virtual machine that takes as long as the
products of a step. So each layer's keys, and its values, have a region of their own that begins where it began, however
many slots and places they come to: what is written lies at the regions' beginnings, in pages that were written before.
"""

from __future__ import annotations

import numpy
import torch
from torch import Tensor


class Memory:
    """Used by the model's thread alone."""

    def __init__(self, like: Tensor, kept_bytes: int) -> None:
        """``like``: keys and values of no slot, (layers, 2, 0, H, 0, D). ``kept_bytes``: how much stays while there are no rows."""
        self._like, self._kept_bytes = like, kept_bytes
        self._regions = like.new_empty(like.shape[0] * 2, 0)
        self._written_bytes = 0

    def bytes(self, slots: int, places: int) -> int:
        """What so many slots of so many places take."""
        return self._regions.shape[0] * self._cells(slots, places) * self._like.itemsize

    def laid_out(self, slots: int, places: int) -> Tensor:
        """Room for them, each layer's without a gap: products are slower over gaps. (layers, 2, slots, H, places, D)

        What is there may be anything where it was used before, and is lost where there was too little memory.
        """
        layers, both, _, heads, _, width = self._like.shape
        needed = self._cells(slots, places)
        if needed > self._regions.shape[1]:
            self._regions = _zeros(self._regions.shape[0], needed, self._like)
            self._written_bytes = 0
        return self._regions[:, :needed].view(layers, both, slots, heads, places, width)

    def enlarged(self, kept: Tensor, used: int, slots: int, places: int) -> Tensor:
        """As ``laid_out``, with the first slots of ``kept``, which are in use, as they are."""
        before = kept[:, :, :used].flatten(0, 1)
        found = self.laid_out(slots, places)
        for region, old in zip(found.flatten(0, 1), before, strict=True):  # one at a time, in little memory
            region[:used, :, : old.shape[2]] = old.clone()  # it may lie where the new ones will
        return found

    def write(self, slots: int, places: int) -> None:
        """So many will be written to. Memory that is only laid out is not taken from the system, where it is a processor's."""
        self._written_bytes = max(self._written_bytes, self.bytes(slots, places))

    def have_ready(self, slots: int, places: int) -> None:
        """Write so many now, before somebody waits for them."""
        self.write(slots, places)
        self._regions[:, : self._cells(slots, places)] = 0

    def settle(self) -> None:
        """There are no rows: too much is given back."""
        taken = self._written_bytes if self._like.device.type == "cpu" else self._regions.nbytes
        if taken > self._kept_bytes:
            self._regions = self._regions[:, :0].clone()

    @property
    def nbytes(self) -> int:
        """What is laid out at most."""
        return self._regions.nbytes

    def _cells(self, slots: int, places: int) -> int:
        """Numbers in a region."""
        return slots * self._like.shape[3] * places * self._like.shape[5]


def _zeros(regions: int, cells: int, like: Tensor) -> Tensor:
    """On a CPU they are zeroed by the system as they are first used, and not all at once while rows wait."""
    if like.device.type != "cpu":
        return torch.zeros(regions, cells, dtype=like.dtype, device=like.device)
    memory = torch.from_numpy(numpy.zeros(regions * cells * like.itemsize, dtype=numpy.uint8))
    return memory.view(like.dtype).view(regions, cells)
