"""What a model makes of the prompts themselves: the log-probability of each of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .admission import Job
from .asking import PromptScores, TokenLogp
from .model import Base
from .writing import token_logps

HELD_LOGITS = 1 << 26  # float32 logits held at once: 256 MB


def prompt_scores(base: Base, jobs: Sequence[Job]) -> Iterator[tuple[Job, PromptScores]]:
    """Of every prompt under the adapter that is in use, a few prompts at a time. A first token has none."""
    by_length = sorted(jobs, key=lambda job: len(job.tokens))
    while by_length:
        size = max(1, HELD_LOGITS // (len(by_length[-1].tokens) * base.vocabulary))
        part, by_length = by_length[-size:], by_length[:-size]
        logps = base.logits([job.tokens for job in part]).log_softmax(-1)  # (B, T, V)
        for row, job in zip(logps, part, strict=True):
            own = row[: len(job.tokens)]
            wanted = job.ticket.request.top_logps or 0
            listed = token_logps(own[:-1], torch.tensor(job.tokens[1:], device=own.device), wanted)
            yield job, PromptScores(job.prompt, [TokenLogp(job.tokens[0], None, []), *listed])
