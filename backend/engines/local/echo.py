"""What a model makes of the prompts themselves: the log-probability of each of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .admission import Job
from .asking import PromptScores, TokenLogp
from .model import ALIGNED, Base
from .reading import last_states
from .writing import token_logps

HELD_LOGITS = 1 << 26  # float32 logits held at once: 256 MB


def prompt_scores(base: Base, jobs: Sequence[Job]) -> Iterator[tuple[Job, PromptScores]]:
    """Of every prompt under the adapter that is in use, a few prompts at a time. A first token has none."""
    by_length = sorted(jobs, key=lambda job: len(job.tokens))
    while by_length:
        size = max(1, HELD_LOGITS // (len(by_length[-1].tokens) * base.vocabulary))
        part, by_length = by_length[-size:], by_length[:-size]
        for job, listed in zip(part, _listed(base, part), strict=True):
            yield job, PromptScores(job.prompt, [TokenLogp(job.tokens[0], None, []), *listed])


def _listed(base: Base, jobs: Sequence[Job]) -> Iterator[list[TokenLogp]]:
    """Of each prompt all tokens but the first."""
    longest = max(len(job.tokens) for job in jobs)
    if base.stack is not None and longest * base.vocabulary > HELD_LOGITS:  # its head is a plain product
        for job in jobs:
            yield list(_in_parts(base, job))
        return
    logps = base.logits([job.tokens for job in jobs]).log_softmax(-1)  # (B, T, V)
    for row, job in zip(logps, jobs, strict=True):
        yield _told(row[: len(job.tokens) - 1], job, 0)


def _in_parts(base: Base, job: Job) -> Iterator[TokenLogp]:
    """Of a long prompt with a large vocabulary the logits alone would be gigabytes; so few of its tokens at a time."""
    states = last_states(base, [job.tokens])[0][:-1]
    head, size = base.model.get_output_embeddings(), max(ALIGNED, HELD_LOGITS // base.vocabulary)
    for start in range(0, len(states), size):
        yield from _told(head(states[start : start + size]).float().log_softmax(-1), job, start)


def _told(logps: torch.Tensor, job: Job, start: int) -> list[TokenLogp]:
    """From log-probabilities (T', V) behind the prompt's tokens from ``start`` on."""
    said = torch.tensor(job.tokens[start + 1 : start + 1 + len(logps)], device=logps.device)
    return token_logps(logps, said, job.ticket.request.top_logps or 0)
