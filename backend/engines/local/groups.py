"""Rows that are written together, and rows that are about to join them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from .encoder_decoder import JoinedRows, StartedRows
from .mixed import Begun, MixedRows
from .resolver import Resolved
from .rows import FixedRows, PaddedRows
from .writing import Row


@dataclass(eq=False)
class Group:
    """Rows with what the model has read of them. `last` are the tokens that were chosen but not yet read."""

    model: Resolved | None  # of all rows; None: each row has its own
    rows: list[Row]
    held: FixedRows | PaddedRows | MixedRows | JoinedRows | StartedRows
    last: torch.Tensor  # (B,)

    def keep(self, kept: list[int]) -> None:
        """Only these rows stay."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        self.last = self.last[torch.tensor(kept, dtype=torch.long, device=self.last.device)]
        if kept or isinstance(self.held, MixedRows):
            self.held.keep(kept)


class Joining(NamedTuple):
    """Rows whose first tokens were handed on, and that join the others between two steps."""

    rows: list[Row]
    read: Begun
    last: torch.Tensor  # (B,)
