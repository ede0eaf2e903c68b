"""How answers begin that join a running batch: their prompts are read, and their first tokens chosen and handed on.

That touches no row, so it may come in the middle of a step, or on another thread than the one that writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from . import echo
from .admission import Job
from .groups import Joining
from .mixed import MixedRows
from .model import Base
from .prompts import Prompt
from .resolver import Resolved
from .writing import Writer, rows_of

READ_BESIDE = 1_024  # prompt tokens read at one time while rows are being written; our choice


class Beginner:
    """Used by one thread; each that begins answers has its own."""

    def __init__(self, base: Base, batch: Callable[[], MixedRows]) -> None:
        self._base, self._batch, self._writer = base, batch, Writer(base)

    @torch.inference_mode()  # calls take a seventh less than where no gradient is wanted
    def begin(self, jobs: Sequence[Job]) -> Joining:
        """Read their prompts, each once, and hand their first tokens on."""
        prompts = list(dict.fromkeys(prompt_of(job) for job in jobs))
        sources = [prompts.index(prompt_of(job)) for job in jobs for _ in range(job.ticket.request.n)]
        rows = rows_of(self._base, jobs)
        read, logits = self._batch().begin(prompts, sources)
        return Joining(rows, read, self._writer.chosen(rows, logits))

    @torch.inference_mode()
    def read_ahead(self, jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
        """Those that can begin now, and those that are for later: of a long prompt a part is read."""
        ready: list[Job] = []
        later: list[Job] = []
        left, batch = READ_BESIDE, self._batch()
        for job in jobs:
            unread = batch.unread(prompt_of(job))
            if unread <= left or (left == READ_BESIDE and not batch.read_part(prompt_of(job), READ_BESIDE)):
                ready.append(job)
            else:
                later.append(job)
            left = max(0, left - unread)
        return ready, later

    def first_within(self, jobs: Sequence[Job], tokens: int) -> list[Job]:
        """The first ones, as many as need nothing but that so many tokens are read."""
        unread = itertools.accumulate(
            self._batch().unread(prompt_of(job)) if is_only_to_be_read(self._base, job) else tokens + 1 for job in jobs
        )
        return [job for job, count in zip(jobs, unread, strict=True) if count <= tokens]


def goes_beside(base: Base, model: Resolved) -> bool:
    """Whether the model, which is in memory, can be read beside others."""
    return model.adapter is None or base.stands_beside(model.digest)


def is_only_to_be_read(base: Base, job: Job) -> bool:
    """Whether the prompt has but to be read beside others: its model is here, and no more is asked of it."""
    request = job.ticket.request
    is_here = request.model.adapter is None or request.model.digest in base.adapters
    return is_here and request.max_tokens > 0 and echo.is_scored(job) and goes_beside(base, request.model)


def prompt_of(job: Job) -> Prompt:
    model = job.ticket.request.model
    return Prompt(tuple(job.tokens), model.digest if model.adapter else None, model.digest)
