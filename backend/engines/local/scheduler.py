"""The one thread that owns the model: it gathers waiting requests into groups and moves every group one token per turn.

Where the base can be read as a stack all rows are one batch, whatever their adapters (mixed.py). Elsewhere a group is a batch
of rows of one model, and groups take turns, one token each, so two models stream side by side; rows that start while their
model is running join its rows where its cache allows it (rows.py). Requests that wait together start together; a prompt is
read once for all its samples, and for all requests that share it.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch

from . import echo, errands
from .admission import Job, Room, by_turn, taken
from .asking import (
    Event,
    Failed,
    Piece,
    QueueFull,
    Request,
    Resting,
    Ticket,
)
from .encoder_decoder import JoinedRows, Known, StartedRows, can_join, place_bytes
from .errands import Errand
from .groups import Group, Joining
from .mixed import MixedRows, fewest_rows
from .model import Base, ModelProblem
from .pace import Pace
from .prefixes import Prefixes
from .prompts import Fewest, Prompt
from .resolver import Resolved
from .rows import FixedRows, PaddedRows, can_be_fixed
from .writing import Writer, rows_of

log = logging.getLogger(__name__)

ROW_LIMIT = 64  # rows in the batch at one time
WAITING_LIMIT = 256  # prompts that may wait
FAIR_ROWS = 16  # answers of a length that nobody said fit side by side; our choice
OPEN_TOKENS = 1_024  # such an answer may have so many all the same; our choice
READ_BESIDE = 1_024  # prompt tokens read between two steps while rows are being written; our choice


class Scheduler:
    """Requests go in from any thread; events come out through each ticket's `emit`, called on the model's thread."""

    def __init__(
        self,
        base: Base,
        *,
        row_limit: int = ROW_LIMIT,
        waiting_limit: int = WAITING_LIMIT,
        memory_limit: int | None = None,
        threads: int = 0,
    ) -> None:
        """``threads`` of a processor; 0 as torch is set. Whoever gives a number is to have computed nothing on several threads:
        OpenMP counts the threads of all, and lets them look around less before they sleep when they are more than processors."""
        self.base = base
        self.row_limit = row_limit
        self.waiting_limit = waiting_limit
        self._can_be_fixed = can_join(base) if base.is_encoder_decoder else can_be_fixed(base)
        self._given_limit = memory_limit
        self.prefixes = Prefixes(0)
        self.known = Known(0)  # in its stead where an encoder reads the prompts
        self._waiting: deque[Job] = deque()
        self._starting: list[Job] = []  # taken from the queue, and not yet among the groups
        self._groups: list[Group] = []
        self._begun: list[Joining] = []  # in the middle of a step
        self._between_seconds = 0.0  # that this took of the step
        self._read_tokens = 0  # of prompts since the last step began
        self._writer = Writer(base)
        self._errands: deque[Errand] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._refusal: str | None = None
        self._pace = Pace()
        settled: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(threads, settled), name="engine-model", daemon=True)
        self._thread.start()
        settled.result()

    def settle(self) -> None:
        """What follows from where the model is and what is free there; again when it has come back from elsewhere."""
        base = self.base
        self._mixes = base.stack is not None and self._can_be_fixed
        if base.stack is not None:
            base.stack.tile()
        self.fewest = fewest_rows(base.stack) if base.stack is not None else Fewest(1, 1)
        self._place_bytes = base.stack.room(1, 1).nbytes if base.stack is not None else 0
        if base.is_encoder_decoder:
            self._place_bytes = place_bytes(base)
        self.memory_limit = self._given_limit or base.free_memory() // 2  # bytes of keys and values
        self.prefixes.limit_bytes = self.known.limit_bytes = self.memory_limit // 4
        self._mixed: MixedRows | None = None  # stays while there are no rows

    # from any thread

    def submit(self, request: Request, emit: Callable[[Event], None]) -> Ticket:
        ticket = Ticket(request, emit)
        with self._changed:
            if self._is_closed:
                raise QueueFull(0, 1)
            if self._refusal:
                raise Resting(self._refusal)
            if self._waiting and len(self._waiting) + len(request.prompts) > self.waiting_limit:
                raise QueueFull(len(self._waiting), self._pace.seconds_until_free())
            self._waiting.extend(Job(ticket, at) for at in range(len(request.prompts)))
            self._changed.notify()
        return ticket

    def fair_length(self, prompt_tokens: int, samples: int) -> int:
        """How many tokens an answer has at most for which nobody said a number: so many that sixteen of them fit into the memory
        side by side, since memory is kept free for all that was admitted. No fewer than ``OPEN_TOKENS``."""
        rows = max(FAIR_ROWS, samples)
        share = self.memory_limit // (rows * self._place_bytes) if self._place_bytes else sys.maxsize
        return max(OPEN_TOKENS, share - prompt_tokens)

    def never_fits(self, prompt_tokens: int, samples: int, max_tokens: int) -> bool:
        """Whether these answers would need more than all memory that was free at the start, of which the limit is half, though
        their prompt is held once."""
        return (prompt_tokens + samples * max_tokens) * self._place_bytes > 2 * self.memory_limit

    def do(self, act: Callable[[Collection[str]], Any], *, is_own: bool = False) -> Future[Any]:
        """Have the model's thread do something short between two steps. `act` is given the adapters that are in use.

        `is_own`: the engine's own errand, also while requests are refused. Raises QueueFull, Resting.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._refusal and not is_own:
                raise Resting(self._refusal)
            if self._is_closed or len(self._errands) >= self.waiting_limit:
                raise QueueFull(len(self._errands), self._pace.seconds_until_free())
            self._errands.append(Errand(act, future))
            self._changed.notify()
        return future

    def refuse(self, reason: str | None) -> None:
        """Take no request from now on, for this reason; None takes them again."""
        with self._changed:
            self._refusal = reason

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether everything under way came to its end in this time."""
        until = time.monotonic() + seconds
        while self._is_busy():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _is_busy(self) -> bool:
        with self._changed:  # what leaves the queue is among those that start by then
            return bool(self._waiting or self._starting or self._groups or self._errands)

    def place(self, ticket: Ticket) -> int:
        """Where a request stands in the queue: 1 is next; 0 has begun, or is over."""
        with self._changed:
            waiting = [job.ticket for job in by_turn(self._waiting)]
        return next((at for at, other in enumerate(waiting, 1) if other is ticket), 0)

    def health(self) -> dict[str, Any]:
        cache = self.known if self.base.is_encoder_decoder else self.prefixes
        with self._changed:
            waiting = sum(not job.ticket.is_cancelled for job in self._waiting)
        return {
            "loaded": True,
            "adapters": len(self.base.adapters),
            "tokens_per_second": round(self._pace.tokens_per_second(), 1),
            "waiting": waiting,
            "active": sum(len(group.rows) for group in list(self._groups)),
            "batch_fill": round(self._pace.mean_tokens() / self.row_limit, 3),
            "cache_hits": round(cache.found_tokens / max(1, cache.asked_tokens), 3),
        }

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout=10)

    # on the model's thread

    def _run(self, threads: int, settled: Future[None]) -> None:
        torch.set_grad_enabled(False)
        try:
            if threads:
                torch.set_num_threads(threads)
            self.settle()
        except BaseException as problem:
            settled.set_exception(problem)
            return
        settled.set_result(None)
        if self._mixes:
            self._mixed_rows().have_ready()
        while True:
            with self._changed:
                while not (self._waiting or self._starting or self._groups or self._errands or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    break
                starting = self._starting = self._take_waiting()
                errand = self._errands.popleft() if self._errands else None
            if errand:
                errands.run(errand, self._in_use())
            if starting:
                self._guarded(partial(self._start, starting), [job.ticket for job in starting])
                self._starting = []
                if self._mixes and self._waiting and self._read_tokens < READ_BESIDE:
                    continue  # a first token that is waited for comes before later ones
            self._read_tokens = 0
            self._step_all()
        self.end_all("The engine is stopping.")

    def _step_all(self) -> None:
        """Not in the loop above, whose last group would hold on to its weights while an errand lets them go."""
        for group in list(self._groups):
            self._guarded(partial(self._step, group), [row.ticket for row in group.rows])
        begun, self._begun = self._begun, []
        for one in begun:
            self._guarded(partial(self._join, one), [row.ticket for row in one.rows])
        self._groups = [group for group in self._groups if any(not row.ticket.is_cancelled for row in group.rows)]

    def _guarded(self, act: Callable[[], None], tickets: list[Ticket]) -> None:
        """A failure ends the requests it struck and no others."""
        try:
            act()
        except ModelProblem as problem:
            self._fail(tickets, Failed(str(problem), is_fault_of_model=True))
        except Exception:
            log.exception("a batch failed")
            self._fail(tickets, Failed("The engine failed on this request; its log says why.", is_fault_of_model=False))

    def _fail(self, tickets: list[Ticket], failed: Failed) -> None:
        for ticket in {id(ticket): ticket for ticket in tickets if not ticket.is_cancelled}.values():
            ticket.cancel()
            ticket.emit(failed)

    def end_all(self, message: str) -> None:
        """Fail everything that waits or runs. Only on the model's thread."""
        tickets = [job.ticket for job in self._waiting] + [row.ticket for group in self._groups for row in group.rows]
        self._fail(tickets, Failed(message, is_fault_of_model=False))
        errands.end(self._errands, message)

    def _take_waiting(self) -> list[Job]:
        """What begins now; the rest waits on. For whoever holds the lock."""
        rows = [one.rows for one in self._groups] + [one.rows for one in self._begun]
        running = [row.ticket.request for row in itertools.chain(*rows)]
        room = Room(self.row_limit, self.memory_limit, self._place_bytes, self._mixes)
        found, self._waiting = taken(self._waiting, running, room)
        return found

    def _in_use(self) -> set[str]:
        """Digests of the models of all rows."""
        return {row.ticket.request.model.digest for group in self._groups for row in group.rows}

    def _start(self, jobs: list[Job]) -> None:
        """A model that cannot be had fails its own requests and no others."""
        by_model: dict[str, list[Job]] = {}
        for job in jobs:
            by_model.setdefault(job.ticket.request.model.digest, []).append(job)
        keep = self._in_use() | set(by_model)
        for own in by_model.values():
            self._guarded(partial(self._open, own, keep), [job.ticket for job in own])
        ready = [
            job
            for job in jobs
            if not job.ticket.is_cancelled and job.ticket.request.max_tokens > 0 and echo.is_scored(job)
        ]
        mixed = [job for job in ready if self._goes_beside(job.ticket.request.model)]
        if mixed:
            self._guarded(partial(self._prefill_mixed, mixed), [job.ticket for job in mixed])
        for own in by_model.values():
            alone = [job for job in own if job in ready and job not in mixed]
            if alone:
                self._guarded(partial(self._prefill_alone, alone), [job.ticket for job in alone])

    def _open(self, jobs: list[Job], keep: Collection[str]) -> None:
        """Have the model in memory, score the prompts that want it, and answer what asks for no token."""
        model = jobs[0].ticket.request.model
        if model.adapter is not None:
            self.base.ensure_adapter(model.digest, model.adapter, keep=keep)
        unscored = [job for job in jobs if not echo.is_scored(job)]
        if unscored:  # switching takes milliseconds, and rows that share steps need none
            with self.base.scope(model.digest if model.adapter else None):
                read, unfinished = echo.score(self.base, unscored, in_parts=self._can_be_fixed)
            self._read_tokens += read
            with self._changed:  # others may be counting who waits
                self._waiting.extendleft(reversed(unfinished))
        for job in jobs:
            if job.ticket.request.max_tokens == 0 and echo.is_scored(job):
                self._emit_empty(job)

    def _goes_beside(self, model: Resolved) -> bool:
        return self._mixes and (model.adapter is None or self.base.stands_beside(model.digest))

    def _emit_empty(self, job: Job) -> None:
        seconds = time.monotonic() - job.ticket.arrived
        for sample in range(job.ticket.request.n):
            job.ticket.emit(Piece(job.prompt * job.ticket.request.n + sample, "", [], "length", 0, seconds, seconds))

    @torch.inference_mode()  # calls take a seventh less than where no gradient is wanted
    def _prefill_mixed(self, jobs: list[Job]) -> None:
        """Read each prompt once under its own adapter; its rows join all others."""
        if any(isinstance(group.held, MixedRows) for group in self._groups):
            jobs = self._read_ahead(self._mixed_rows(), jobs)
        if jobs:
            self._join(self._begin(jobs))

    def _begin(self, jobs: list[Job]) -> Joining:
        """Read their prompts, and hand their first tokens on."""
        prompts = list(dict.fromkeys(_prompt_of(job) for job in jobs))
        sources = [prompts.index(_prompt_of(job)) for job in jobs for _ in range(job.ticket.request.n)]
        rows, known = rows_of(self.base, jobs), self.prefixes.found_tokens
        read, logits = self._mixed_rows().begin(prompts, sources)
        self._read_tokens += sum(len(prompt.tokens) for prompt in prompts) - (self.prefixes.found_tokens - known)
        return Joining(rows, read, self._writer.chosen(rows, logits))

    @torch.inference_mode()  # what it writes to may have been laid out in such a mode, and can be written to in no other
    def _join(self, begun: Joining) -> None:
        held = self._mixed_rows()
        group = next((group for group in self._groups if group.held is held), None)
        if group is None:
            held.keep([])  # rows may be left of a batch that everyone has hung up on, or that failed
            group = Group(None, [], held, begun.last[:0])
            self._groups.append(group)
        held.join(begun.read)
        group.rows, group.last = group.rows + begun.rows, torch.cat([group.last, begun.last])
        group.keep([at for at, row in enumerate(group.rows) if not row.has_ended])

    def _read_between(self) -> None:
        """In the middle of a step: a first token that is waited for comes before the others' next ones are all there."""
        left = READ_BESIDE - self._read_tokens
        if not self._waiting or left <= 0:
            return
        with self._changed:
            jobs = self._take_waiting()
            unread = itertools.accumulate(self._unread(job, left) for job in jobs)
            ready = [job for job, tokens in zip(jobs, unread, strict=True) if tokens <= left]
            self._waiting.extendleft(reversed(jobs[len(ready) :]))
        if ready:
            started = time.monotonic()
            self._guarded(lambda: self._begun.append(self._begin(ready)), [job.ticket for job in ready])
            self._between_seconds += time.monotonic() - started

    def _unread(self, job: Job, most: int) -> int:
        """Tokens of its prompt that are not known yet; more than ``most`` where more than these has to be had or done."""
        request = job.ticket.request
        is_here = request.model.adapter is None or request.model.digest in self.base.adapters
        asks_more = request.wants_prompt_scores or request.max_tokens == 0
        if not is_here or asks_more or not self._goes_beside(request.model):
            return most + 1
        return self._mixed_rows().unread(_prompt_of(job))

    def _mixed_rows(self) -> MixedRows:
        """Made once; it keeps its memory while there are no rows."""
        if self._mixed is None:
            assert self.base.stack is not None
            self._mixed = MixedRows(self.base.stack, self.base.context, self.prefixes, self.fewest, self.memory_limit)
        return self._mixed

    def _read_ahead(self, held: MixedRows, jobs: list[Job]) -> list[Job]:
        """Beside rows that are written a long prompt is read a part at a time, and waits on; the jobs that can begin."""
        ready: list[Job] = []
        left = READ_BESIDE
        for job in jobs:
            unread = held.unread(_prompt_of(job))
            if unread <= left or (left == READ_BESIDE and not held.read_part(_prompt_of(job), READ_BESIDE)):
                ready.append(job)
            else:
                with self._changed:
                    self._waiting.appendleft(job)
                self._read_tokens = READ_BESIDE  # now those who write go on
            left = max(0, left - unread)
        return ready

    def _prefill_alone(self, jobs: list[Job]) -> None:
        """Read each prompt once; its rows join those of the same model, and the group's next step writes their first token."""
        model = jobs[0].ticket.request.model
        prompts = list(dict.fromkeys(tuple(job.tokens) for job in jobs))
        rows = rows_of(self.base, jobs)
        sources = [prompts.index(tuple(job.tokens)) for job in jobs for _ in range(job.ticket.request.n)]
        with self.base.scope(model.digest if model.adapter else None):
            if not self._can_be_fixed:
                started = self._started(model, prompts, sources)
                self._groups.append(Group(model, rows, started, started.last))
                return
            for group in self._groups:
                is_same = group.model is not None and group.model.digest == model.digest
                if is_same and isinstance(group.held, FixedRows | JoinedRows):
                    group.last = torch.cat([group.last, group.held.add(prompts, sources)])
                    group.rows = group.rows + rows
                    return
            is_encoded = self.base.is_encoder_decoder
            held = JoinedRows(self.base, self.known, model.digest) if is_encoded else FixedRows(self.base)
            self._groups.append(Group(model, rows, held, held.add(prompts, sources)))

    def _started(self, model: Resolved, prompts: list[tuple[int, ...]], sources: list[int]) -> PaddedRows | StartedRows:
        if self.base.is_encoder_decoder:
            return StartedRows(self.base, self.known, model.digest, prompts, sources)
        return PaddedRows(self.base, prompts, sources)

    @torch.inference_mode()
    def _step(self, group: Group) -> None:
        group.keep([at for at, row in enumerate(group.rows) if not row.ticket.is_cancelled])
        if not group.rows:
            return
        started, self._between_seconds = time.monotonic(), 0.0
        if isinstance(group.held, MixedRows):
            logits = group.held.step(group.last, self._read_between)
        else:
            assert group.model is not None
            with self.base.scope(group.model.digest if group.model.adapter else None):
                logits = group.held.step(group.last)
        rows = len(group.rows)
        self._advance(group, logits)
        self._pace.note(rows, time.monotonic() - started - self._between_seconds)

    def _advance(self, group: Group, logits: torch.Tensor) -> None:
        """Choose each row's next token, hand it on, and let the rows go that have ended."""
        group.last = self._writer.chosen(group.rows, logits)
        group.keep([at for at, row in enumerate(group.rows) if not row.has_ended])

    def forget(self) -> None:
        """Let the memory go that is only kept for the next requests. On the model's thread, while there are no rows."""
        self.prefixes.clear()
        self.known.clear()
        self._mixed = None


def _prompt_of(job: Job) -> Prompt:
    model = job.ticket.request.model
    return Prompt(tuple(job.tokens), model.digest if model.adapter else None, model.digest)
