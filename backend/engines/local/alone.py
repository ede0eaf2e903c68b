"""How rows begin that share steps with rows of their own model alone: what no stack reads, or an adapter that cannot stand beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .admission import Job
from .encoder_decoder import JoinedRows, Known, StartedRows
from .groups import Group
from .model import Base
from .resolver import Resolved
from .rows import FixedRows, PaddedRows
from .writing import rows_of


def begin(base: Base, known: Known, groups: list[Group], jobs: Sequence[Job], can_be_fixed: bool) -> None:
    """Read each prompt of one model's jobs once; its rows join those of the same model, and the group's next step writes their first
    token. ``can_be_fixed``: whether rows can join at all; else those that start together are a group of their own."""
    model = jobs[0].ticket.request.model
    prompts = list(dict.fromkeys(tuple(job.tokens) for job in jobs))
    rows = rows_of(base, jobs)
    sources = [prompts.index(tuple(job.tokens)) for job in jobs for _ in range(job.ticket.request.n)]
    with base.scope(model.digest if model.adapter else None):
        if not can_be_fixed:
            started = _started(base, known, model, prompts, sources)
            groups.append(Group(model, rows, started, started.last))
            return
        for group in groups:
            is_same = group.model is not None and group.model.digest == model.digest
            if is_same and isinstance(group.held, FixedRows | JoinedRows):
                group.last = torch.cat([group.last, group.held.add(prompts, sources)])
                group.rows = group.rows + rows
                return
        held = JoinedRows(base, known, model.digest) if base.is_encoder_decoder else FixedRows(base)
        groups.append(Group(model, rows, held, held.add(prompts, sources)))


def _started(
    base: Base, known: Known, model: Resolved, prompts: list[tuple[int, ...]], sources: list[int]
) -> PaddedRows | StartedRows:
    if base.is_encoder_decoder:
        return StartedRows(base, known, model.digest, prompts, sources)
    return PaddedRows(base, prompts, sources)
