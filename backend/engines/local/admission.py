"""Which waiting prompts begin: by turns of their requests, as many as rows, memory and one reading have room for."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

from .asking import Request, Ticket, longest_of

FAIR_ROWS = 16  # answers of a length that nobody said fit side by side; our choice
OPEN_TOKENS = 1_024  # such an answer may have so many all the same; our choice
PREFILL_TOKENS = 16_384  # padded prompt tokens read in one turn
READ_TOGETHER = 512  # beside rows: a prompt's first token is there when it is read, not when all are; our choice


class Job(NamedTuple):
    """One prompt of a request."""

    ticket: Ticket
    prompt: int

    @property
    def tokens(self) -> list[int]:
        return self.ticket.request.prompts[self.prompt]


class Room(NamedTuple):
    rows: int  # at one time
    memory_bytes: int  # of keys and values
    place_bytes: int  # of one token; 0 where it is not known
    mixes: bool  # rows of several models share steps

    def fair_length(self, prompt_tokens: int, samples: int) -> int:
        """How many tokens an answer has at most for which nobody said a number: so many that sixteen of them fit into the memory
        side by side, since memory is kept free for all that was admitted. No fewer than ``OPEN_TOKENS``."""
        rows = max(FAIR_ROWS, samples)
        share = self.memory_bytes // (rows * self.place_bytes) if self.place_bytes else sys.maxsize
        return max(OPEN_TOKENS, share - prompt_tokens)

    def never_fits(self, prompt_tokens: int, samples: int, max_tokens: int) -> bool:
        """Whether these answers would need more than all memory that was free at the start, of which the limit is half, though
        their prompt is held once."""
        return (prompt_tokens + samples * max_tokens) * self.place_bytes > 2 * self.memory_bytes


def by_turn(waiting: Iterable[Job]) -> list[Job]:
    """A prompt of each request, in their order, then another of each: one of many prompts does not keep all rows from who comes
    after it. Who has hung up leaves."""
    before: Counter[Ticket] = Counter()
    turns: list[tuple[int, Job]] = []
    for job in waiting:
        if not job.ticket.is_cancelled:
            turns.append((before[job.ticket], job))
            before[job.ticket] += 1
    return [job for _, job in sorted(turns, key=itemgetter(0))]


def taken(waiting: Iterable[Job], running: Sequence[Request], room: Room) -> tuple[list[Job], deque[Job]]:
    """The first in the queue and all that fit with it: of its model, where rows of several cannot share a step. And who waits on.

    ``running``: the request of each row there is. Nobody overtakes a first one that must wait.
    """
    free = room.rows - len(running)
    places = max((longest_of(request) for request in running), default=0)
    together = READ_TOGETHER if running and room.mixes else PREFILL_TOKENS
    found: list[Job] = []
    rest: deque[Job] = deque()
    longest, is_full = 0, False
    for job in by_turn(waiting):
        request = job.ticket.request
        fits_model = not found or room.mixes or request.model.digest == found[0].ticket.request.model.digest
        longest_now, places_now = max(longest, len(job.tokens)), max(places, longest_of(request))
        rows_now = room.rows - free + request.n
        fits_memory = not rows_now > request.n or rows_now * places_now * room.place_bytes <= room.memory_bytes
        fits = request.n <= free and fits_memory and (not found or longest_now * (len(found) + 1) <= together)
        if fits_model and fits and not is_full:
            found.append(job)
            longest, places, free = longest_now, places_now, free - request.n
            continue
        is_full = is_full or fits_model
        rest.append(job)
    return found, rest
