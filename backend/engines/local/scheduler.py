"""The one thread that owns the model: it gathers waiting requests into groups and moves every group one token per turn.

Where the base can be read as a stack all rows are one batch, whatever their adapters (mixed.py). Elsewhere a group is a batch
of rows of one model, and groups take turns, one token each, so two models stream side by side; rows that start while their
model is running join its rows where its cache allows it (rows.py). Requests that wait together start together; a prompt is
read once for all its samples, and for all requests that share it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from . import alone, beginning, echo, errands
from .admission import Job, Room, by_turn, taken
from .asking import Event, Failed, Piece, QueueFull, Request, Resting, Ticket
from .beginning import Beginner, goes_beside, is_only_to_be_read
from .encoder_decoder import Known, can_join, place_bytes
from .errands import Errand
from .groups import Group, Joining
from .mixed import MixedRows, fewest_rows
from .model import Base, ModelProblem
from .pace import Pace
from .prefixes import Prefixes
from .prompts import Fewest
from .rows import can_be_fixed
from .second import Second, has_a_core
from .writing import Row, Writer

log = logging.getLogger(__name__)

ROW_LIMIT = 64  # rows in the batch at one time
WAITING_LIMIT = 256  # prompts that may wait


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
        has_second: bool | None = None,
    ) -> None:
        """``threads`` of a processor; 0 as torch is set. Whoever gives a number is to have computed nothing on several threads:
        OpenMP counts the threads of all, and lets them look around less before they sleep when they are more than processors.
        ``has_second``: whether a second thread begins answers while others are written (second.py); None: where it has a core."""
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
        self._begun: list[Joining] = []  # in the middle of a step, or by the second thread
        self._between_seconds = 0.0  # that this took of the step
        self._read_tokens = 0  # of prompts since the last step began
        self._writer = Writer(base)
        self._beginner, self._beside = (Beginner(base, self._mixed_rows) for _ in range(2))  # a thread each
        self._errands: deque[Errand] = deque()
        self._changed = threading.Condition()
        self._wants_second = has_second
        self._second: Second | None = None
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
        wants = has_a_core(base.device) if self._wants_second is None else self._wants_second
        if self._mixes and wants and self._second is None:
            self._second = Second(self._changed, self._take_beside, self._begin_beside)

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
            self._changed.notify_all()
        return ticket

    @property
    def room(self) -> Room:
        return Room(self.row_limit, self.memory_limit, self._place_bytes, self._mixes)

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
            self._changed.notify_all()
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
            begun = self._begun or (self._second and self._second.jobs)
            return bool(self._waiting or self._starting or begun or self._groups or self._errands)

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
            self._changed.notify_all()
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
                while not (self._is_closed or self._takes_up()):
                    self._changed.wait()
                if self._is_closed:
                    break
                starting = self._starting
                errand = self._errands.popleft() if self._errands else None
            if errand:
                with self._alone():
                    errands.run(errand, self._in_use())
            if starting:
                self._guarded(partial(self._start, starting), [job.ticket for job in starting])
                self._starting = []
                if self._mixes and self._waiting and self._read_tokens < beginning.READ_BESIDE:
                    continue  # a first token that is waited for comes before later ones
            self._read_tokens = 0
            self._step_all()
        if self._second is not None:
            self._second.close()
        self.end_all("The engine is stopping.")

    def _takes_up(self) -> bool:
        """Whether there is anything to do, of what waits that which begins now. For whoever holds the lock."""
        self._starting = self._take_waiting()
        return bool(self._starting or self._begun or self._groups or self._errands)

    @contextmanager
    def _alone(self, is_needed: bool = True) -> Iterator[None]:
        """Within: the second thread does nothing."""
        with self._second.kept_out() if self._second is not None and is_needed else nullcontext():
            yield

    def _step_all(self) -> None:
        """Not in the loop above, whose last group would hold on to its weights while an errand lets them go."""
        for group in list(self._groups):
            self._guarded(partial(self._step, group), [row.ticket for row in group.rows])
        begun = list(self._begun)
        for one in begun:
            self._guarded(partial(self._join, one), [row.ticket for row in one.rows])
        with self._changed:
            del self._begun[: len(begun)]
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
        tickets = [job.ticket for job in self._waiting] + [row.ticket for row in self._rows()]
        self._fail(tickets, Failed(message, is_fault_of_model=False))
        errands.end(self._errands, message)

    def _take_waiting(self) -> list[Job]:
        """What begins now on the model's thread; the rest waits on. For whoever holds the lock.

        Beside rows that are written it leaves to the second thread, if that does nothing, what that can do.
        """
        found, rest = self._that_fit()
        mine = found
        if self._second is not None and self._mixes and self._groups and self._second.is_free:
            mine = [job for job in found if not is_only_to_be_read(self.base, job)]
            if len(mine) < len(found):
                self._changed.notify_all()
        self._waiting = deque([*(job for job in found if job not in mine), *rest])
        return mine

    def _take_beside(self) -> list[Job]:
        """What begins now on the second thread: the first that need nothing else, while the model's thread has something to do."""
        if not (self._mixes and (self._groups or self._starting)):
            return []
        found, rest = self._that_fit()
        ready = list(itertools.takewhile(partial(is_only_to_be_read, self.base), found))
        self._waiting = deque([*found[len(ready) :], *rest])
        return ready

    def _that_fit(self) -> tuple[list[Job], deque[Job]]:
        begun = [*self._starting, *(self._second.jobs if self._second is not None else [])]
        running = [row.ticket.request for row in self._rows()]
        running += [job.ticket.request for job in begun for _ in range(job.ticket.request.n)]
        return taken(self._waiting, running, self.room)

    def _rows(self) -> list[Row]:
        """All that have begun."""
        return [row for rows in [one.rows for one in self._groups] + [one.rows for one in self._begun] for row in rows]

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """They are the next ones again."""
        with self._changed:  # others may be counting who waits
            self._waiting.extendleft(reversed(jobs))

    def _in_use(self) -> set[str]:
        """Digests of the models of all rows."""
        return {row.ticket.request.model.digest for row in self._rows()}

    def _start(self, jobs: list[Job]) -> None:
        """A model that cannot be had fails its own requests and no others."""
        by_model: dict[str, list[Job]] = {}
        for job in jobs:
            by_model.setdefault(job.ticket.request.model.digest, []).append(job)
        for own in by_model.values():
            self._guarded(partial(self._open, own, by_model.keys()), [job.ticket for job in own])
        ready = [
            job
            for job in jobs
            if not job.ticket.is_cancelled and job.ticket.request.max_tokens > 0 and echo.is_scored(job)
        ]
        mixed = [job for job in ready if self._mixes and goes_beside(self.base, job.ticket.request.model)]
        if mixed:
            self._guarded(partial(self._prefill_mixed, mixed), [job.ticket for job in mixed])
        for own in by_model.values():
            rest = [job for job in own if job in ready and job not in mixed]
            if rest:
                act = partial(alone.begin, self.base, self.known, self._groups, rest, self._can_be_fixed)
                self._guarded(act, [job.ticket for job in rest])

    def _open(self, jobs: list[Job], keep: Collection[str]) -> None:
        """Have the model in memory, score the prompts that want it, and answer what asks for no token."""
        model = jobs[0].ticket.request.model
        if model.adapter is not None:
            with self._alone(not self.base.is_settled_with(model.digest)):
                self.base.ensure_adapter(model.digest, model.adapter, keep={*keep, *self._in_use()})
        unscored = [job for job in jobs if not echo.is_scored(job)]
        if unscored:  # switching takes milliseconds, and rows that share steps need none
            with self.base.scope(model.digest if model.adapter else None):
                read, unfinished = echo.score(self.base, unscored, in_parts=self._can_be_fixed)
            self._read_tokens += read
            self._put_back(unfinished)
        for job in jobs:
            if job.ticket.request.max_tokens == 0 and echo.is_scored(job):
                self._emit_empty(job)

    def _emit_empty(self, job: Job) -> None:
        seconds = time.monotonic() - job.ticket.arrived
        for sample in range(job.ticket.request.n):
            job.ticket.emit(Piece(job.prompt * job.ticket.request.n + sample, "", [], "length", 0, seconds, seconds))

    def _prefill_mixed(self, jobs: list[Job]) -> None:
        """Read each prompt once under its own adapter; its rows join all others. Beside rows that are written a long prompt is
        read a part at a time, and waits on."""
        if any(isinstance(group.held, MixedRows) for group in self._groups):
            jobs, later = self._beginner.read_ahead(jobs)
            if later:
                self._put_back(later)
                self._read_tokens = beginning.READ_BESIDE  # now those who write go on
        if jobs:
            self._join(self._begin(jobs))

    def _begin(self, jobs: list[Job]) -> Joining:
        begun = self._beginner.begin(jobs)
        self._read_tokens += begun.read.tokens
        return begun

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

    def _begin_beside(self, jobs: Sequence[Job]) -> None:
        """On the second thread."""

        def begin() -> None:
            ready, later = self._beside.read_ahead(jobs)
            self._put_back(later)
            if ready:
                begun = self._beside.begin(ready)
                with self._changed:
                    self._begun.append(begun)

        self._guarded(begin, [job.ticket for job in jobs])

    def _read_between(self) -> None:
        """In the middle of a step: a first token that is waited for comes before the others' next ones are all there."""
        left = beginning.READ_BESIDE - self._read_tokens
        if not self._waiting or left <= 0:
            return
        with self._changed:
            jobs = self._take_waiting()
            ready = self._beginner.first_within(jobs, left)
            self._put_back(jobs[len(ready) :])
        if ready:
            started = time.monotonic()
            self._guarded(lambda: self._begun.append(self._begin(ready)), [job.ticket for job in ready])
            self._between_seconds += time.monotonic() - started

    def _mixed_rows(self) -> MixedRows:
        """Made once; it keeps its memory while there are no rows."""
        with self._changed:
            if self._mixed is None:
                assert self.base.stack is not None
                self._mixed = MixedRows(
                    self.base.stack, self.base.context, self.prefixes, self.fewest, self.memory_limit
                )
            return self._mixed

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
