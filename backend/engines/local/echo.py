"""What a model makes of the prompts themselves: the log-probability of each of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from .admission import Job
from .asking import PromptScores, TokenLogp
from .model import ALIGNED, Base
from .reading import last_states
from .writing import token_logps

AT_ONCE = 1_024  # tokens of a longer prompt that are scored between two steps; our choice
HELD_LOGITS = 1 << 26  # float32 logits held at once: 256 MB


@dataclass(eq=False)
class Echo:
    """How far a prompt is scored. A long one is scored a part at a time, so that no stream stands still."""

    job: Job
    listed: list[TokenLogp] = field(default_factory=list)
    cache: DynamicCache | None = None

    @property
    def is_whole(self) -> bool:
        return len(self.listed) == len(self.job.tokens)

    def go_on(self, base: Base) -> None:
        """Score the next part under the adapter that is in use. A first token has none."""
        if self.cache is None:
            self.listed, self.cache = [TokenLogp(self.job.tokens[0], None, [])], DynamicCache()
        start = len(self.listed) - 1
        tokens = self.job.tokens[start : start + min(AT_ONCE, max(ALIGNED, HELD_LOGITS // base.vocabulary))]
        logps = logits_behind(base, tokens, self.cache)[: len(self.job.tokens) - 1 - start].log_softmax(-1)
        self.listed += _told(logps, self.job, start)
        if self.is_whole:
            self.cache = None


def logits_behind(base: Base, tokens: Sequence[int], cache: DynamicCache) -> torch.Tensor:
    """Float32 logits at every token of one text's next part, (T, V), of which the cache holds what came before."""
    part = torch.tensor([tokens], device=base.device)
    logits: torch.Tensor = base.model(input_ids=part, past_key_values=cache, use_cache=True).logits
    return logits[0].float()


def is_scored(job: Job) -> bool:
    """Or need not be."""
    echo = job.ticket.echoes.get(job.prompt)
    return not job.ticket.request.wants_prompt_scores or (echo is not None and echo.is_whole)


def score(base: Base, jobs: Sequence[Job], *, in_parts: bool) -> tuple[int, list[Job]]:
    """Score prompts of the model that is in use, and tell who asked. How many tokens were read, and who has to wait on: of long
    prompts the first goes on by a part, where the base can read in parts, which follows from its cache."""
    long = [job for job in jobs if in_parts and len(job.tokens) > AT_ONCE]
    short = [job for job in jobs if job not in long]
    for job, found in prompt_scores(base, short):
        job.ticket.echoes[job.prompt] = Echo(job, found.tokens)
        job.ticket.emit(found)
    for job in long[:1]:
        echo = job.ticket.echoes.setdefault(job.prompt, Echo(job))
        echo.go_on(base)
        if echo.is_whole:
            job.ticket.emit(PromptScores(job.prompt, echo.listed))
    read = sum(len(job.tokens) for job in short) + AT_ONCE * len(long[:1])
    return read, [job for job in long if not is_scored(job)]


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
