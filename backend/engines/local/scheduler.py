"""The one thread that owns the model: it gathers waiting requests into groups and moves every group one token per turn.

A group is a batch of rows of one model. Requests of one model that wait together start together; a prompt is read once
for all its samples, and for all requests that share it. Groups of different models take turns, one token each, so two
models stream side by side. Rows that start while their model is running join its rows where its cache allows it (rows.py).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from .model import Base, ModelProblem
from .resolver import Resolved
from .rows import FixedRows, PaddedRows, can_be_fixed
from .sampling import Sampling, Seen, choose, penalised, seen_of, settings_of, uniforms
from .text import TextStream

log = logging.getLogger(__name__)

ROW_LIMIT = 64  # rows in the batch at one time
WAITING_LIMIT = 256  # prompts that may wait
PREFILL_TOKENS = 16_384  # padded prompt tokens read in one turn
SCORED_LOGITS = 1 << 26  # float32 logits held at once while prompts are scored: 256 MB


class QueueFull(Exception):
    def __init__(self, waiting: int, retry_after_seconds: int) -> None:
        super().__init__(f"{waiting} prompts are waiting already. Try again in {retry_after_seconds} s.")
        self.retry_after_seconds = retry_after_seconds


class Resting(Exception):
    """No request is taken for a while; the message says why."""


class TokenLogp(NamedTuple):
    token: int
    logp: float | None  # None: the first token of a prompt has no log-probability
    top: list[tuple[int, float]]


class Piece(NamedTuple):
    """A part of one answer; the last part has a finish reason. Samples are counted over all prompts of the request."""

    sample: int
    text: str
    tokens: list[TokenLogp]
    finish_reason: str | None
    tokens_so_far: int
    seconds: float
    first_token_seconds: float


class PromptScores(NamedTuple):
    prompt: int
    tokens: list[TokenLogp]


class Failed(NamedTuple):
    message: str
    is_fault_of_model: bool


Event = Piece | PromptScores | Failed


@dataclass(frozen=True)
class Request:
    model: Resolved
    prompts: list[list[int]]
    max_tokens: int
    seed: int
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    top_logps: int | None = None  # None: no log-probabilities; k: those of the k most likely tokens as well
    wants_prompt_scores: bool = False
    is_streamed: bool = False


@dataclass(eq=False)
class Ticket:
    """A request on its way. Cancelled, its rows leave before the next token."""

    request: Request
    emit: Callable[[Event], None]
    arrived: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class _Job(NamedTuple):
    ticket: Ticket
    prompt: int

    @property
    def tokens(self) -> list[int]:
        return self.ticket.request.prompts[self.prompt]


@dataclass(eq=False)
class _Row:
    """One answer being written."""

    ticket: Ticket
    sample: int
    text: TextStream
    uniform: Iterator[float]
    seen: Seen | None  # only where tokens that were there already are to be less likely
    tokens: int = 0
    unsent: list[TokenLogp] = field(default_factory=list)
    first_token_seconds: float = 0.0
    written: str = ""
    has_ended: bool = False

    @property
    def is_watched(self) -> bool:
        return self.ticket.request.is_streamed or bool(self.ticket.request.stop)


@dataclass(eq=False)
class _Group:
    """Rows of one model with what the model has read of them. `last` are the tokens that were chosen but not yet read."""

    model: Resolved
    rows: list[_Row]
    held: FixedRows | PaddedRows
    last: torch.Tensor  # (B,)

    def keep(self, kept: list[int]) -> None:
        """Only these rows stay."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        self.last = self.last[torch.tensor(kept, dtype=torch.long, device=self.last.device)]
        if kept:
            self.held.keep(kept)


class Scheduler:
    """Requests go in from any thread; events come out through each ticket's `emit`, called on the model's thread."""

    def __init__(
        self,
        base: Base,
        *,
        row_limit: int = ROW_LIMIT,
        waiting_limit: int = WAITING_LIMIT,
    ) -> None:
        self.base = base
        self.row_limit = row_limit
        self.waiting_limit = waiting_limit
        self._can_be_fixed = can_be_fixed(base)
        self._waiting: deque[_Job] = deque()
        self._groups: list[_Group] = []
        self._errands: deque[tuple[Callable[[Collection[str]], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._refusal: str | None = None
        self._steps: deque[tuple[int, float]] = deque(maxlen=200)  # (tokens, seconds)
        self._thread = threading.Thread(target=self._run, name="engine-model", daemon=True)
        self._thread.start()

    # from any thread

    def submit(self, request: Request, emit: Callable[[Event], None]) -> Ticket:
        ticket = Ticket(request, emit)
        with self._changed:
            if self._is_closed:
                raise QueueFull(0, 1)
            if self._refusal:
                raise Resting(self._refusal)
            if self._waiting and len(self._waiting) + len(request.prompts) > self.waiting_limit:
                raise QueueFull(len(self._waiting), self._seconds_until_free())
            self._waiting.extend(_Job(ticket, at) for at in range(len(request.prompts)))
            self._changed.notify()
        return ticket

    def do(self, act: Callable[[Collection[str]], Any], *, is_own: bool = False) -> Future[Any]:
        """Have the model's thread do something short between two steps. `act` is given the adapters that are in use.

        `is_own`: the engine's own errand, also while requests are refused. Raises QueueFull, Resting.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._refusal and not is_own:
                raise Resting(self._refusal)
            if self._is_closed or len(self._errands) >= self.waiting_limit:
                raise QueueFull(len(self._errands), self._seconds_until_free())
            self._errands.append((act, future))
            self._changed.notify()
        return future

    def refuse(self, reason: str | None) -> None:
        """Take no request from now on, for this reason; None takes them again."""
        with self._changed:
            self._refusal = reason

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether everything under way came to its end in this time."""
        until = time.monotonic() + seconds
        while self._waiting or self._groups or self._errands:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def place(self, ticket: Ticket) -> int:
        """Where a request stands in the queue: 1 is next; 0 has begun, or is over."""
        with self._changed:
            waiting = [job.ticket for job in self._waiting if not job.ticket.is_cancelled]
        return next((at for at, other in enumerate(waiting, 1) if other is ticket), 0)

    def health(self) -> dict[str, Any]:
        steps = list(self._steps)
        seconds = sum(step[1] for step in steps)
        with self._changed:
            waiting = sum(not job.ticket.is_cancelled for job in self._waiting)
        return {
            "loaded": True,
            "adapters": len(self.base.adapters),
            "tokens_per_second": round(sum(step[0] for step in steps) / seconds, 1) if seconds else 0.0,
            "waiting": waiting,
            "active": sum(len(group.rows) for group in list(self._groups)),
        }

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _seconds_until_free(self) -> int:
        seconds = sum(step[1] for step in list(self._steps)[-20:])
        return max(1, min(30, round(seconds)))

    # on the model's thread

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        while True:
            with self._changed:
                while not (self._waiting or self._groups or self._errands or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    break
                starting = self._take_waiting()
                errand = self._errands.popleft() if self._errands else None
            if errand:
                self._run_errand(*errand)
            if starting:
                self._guarded(partial(self._start, starting), [job.ticket for job in starting])
            for group in list(self._groups):
                self._guarded(partial(self._step, group), [row.ticket for row in group.rows])
            self._groups = [group for group in self._groups if any(not row.ticket.is_cancelled for row in group.rows)]
        self.end_all("The engine is stopping.")

    def _run_errand(self, act: Callable[[Collection[str]], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(act({group.model.digest for group in self._groups}))
        except Exception as problem:
            if not isinstance(problem, ModelProblem):
                log.exception("an errand failed")
            future.set_exception(problem)

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
        for _, future in self._errands:
            future.cancel()

    def _take_waiting(self) -> list[_Job]:
        """The first in the queue and all of its model that fit with it. Nobody overtakes a first one that must wait."""
        self._waiting = deque(job for job in self._waiting if not job.ticket.is_cancelled)
        free = self.row_limit - sum(len(group.rows) for group in self._groups)
        taken: list[_Job] = []
        rest: deque[_Job] = deque()
        longest, is_full = 0, False
        for job in self._waiting:
            fits_model = not taken or job.ticket.request.model.digest == taken[0].ticket.request.model.digest
            longest_now = max(longest, len(job.tokens))
            fits = job.ticket.request.n <= free and (not taken or longest_now * (len(taken) + 1) <= PREFILL_TOKENS)
            if fits_model and fits and not is_full:
                taken.append(job)
                longest, free = longest_now, free - job.ticket.request.n
                continue
            is_full = is_full or fits_model
            rest.append(job)
        self._waiting = rest
        return taken

    def _start(self, jobs: list[_Job]) -> None:
        model = jobs[0].ticket.request.model
        if model.adapter is not None:
            in_use = {group.model.digest for group in self._groups}
            self.base.ensure_adapter(model.digest, model.adapter, keep=in_use)
        with self.base.scope(model.digest if model.adapter else None):
            self._score([job for job in jobs if job.ticket.request.wants_prompt_scores])
            generating = [job for job in jobs if job.ticket.request.max_tokens > 0]
            for job in jobs:
                if job.ticket.request.max_tokens == 0:
                    self._emit_empty(job)
            if generating:
                self._prefill(model, generating)

    def _emit_empty(self, job: _Job) -> None:
        seconds = time.monotonic() - job.ticket.arrived
        for sample in range(job.ticket.request.n):
            job.ticket.emit(Piece(job.prompt * job.ticket.request.n + sample, "", [], "length", 0, seconds, seconds))

    def _score(self, jobs: list[_Job]) -> None:
        """The log-probability of every prompt token, a few prompts at a time."""
        by_length = sorted(jobs, key=lambda job: len(job.tokens))
        while by_length:
            size = max(1, SCORED_LOGITS // (len(by_length[-1].tokens) * self.base.vocabulary))
            part, by_length = by_length[-size:], by_length[:-size]
            logps = self.base.logits([job.tokens for job in part]).log_softmax(-1)  # (B, T, V)
            for row, job in zip(logps, part, strict=True):
                own = row[: len(job.tokens)]
                wanted = job.ticket.request.top_logps or 0
                listed = _token_logps(own[:-1], torch.tensor(job.tokens[1:], device=own.device), wanted)
                job.ticket.emit(PromptScores(job.prompt, [TokenLogp(job.tokens[0], None, []), *listed]))

    def _prefill(self, model: Resolved, jobs: list[_Job]) -> None:
        """Read each prompt once; its rows join those of the same model, and the group's next step writes their first token."""
        prompts = list(dict.fromkeys(tuple(job.tokens) for job in jobs))
        rows = [self._row(job, sample) for job in jobs for sample in range(job.ticket.request.n)]
        sources = [prompts.index(tuple(job.tokens)) for job in jobs for _ in range(job.ticket.request.n)]
        if not self._can_be_fixed:
            padded = PaddedRows(self.base, prompts, sources)
            self._groups.append(_Group(model, rows, padded, padded.last))
            return
        for group in self._groups:
            if group.model.digest == model.digest and isinstance(group.held, FixedRows):
                group.last = torch.cat([group.last, group.held.add(prompts, sources)])
                group.rows = group.rows + rows
                return
        held = FixedRows(self.base)
        self._groups.append(_Group(model, rows, held, held.add(prompts, sources)))

    def _row(self, job: _Job, sample: int) -> _Row:
        request = job.ticket.request
        text = TextStream(self.base.tokenizer, job.tokens, request.stop)
        seen = seen_of(request.sampling, job.tokens, self.base.vocabulary, self.base.device)
        return _Row(job.ticket, job.prompt * request.n + sample, text, uniforms(request.seed, sample), seen)

    def _step(self, group: _Group) -> None:
        group.keep([at for at, row in enumerate(group.rows) if not row.ticket.is_cancelled])
        if not group.rows:
            return
        started = time.monotonic()
        with self.base.scope(group.model.digest if group.model.adapter else None):
            logits = group.held.step(group.last)
        rows = len(group.rows)
        self._advance(group, logits)
        self._steps.append((rows, time.monotonic() - started))

    def _advance(self, group: _Group, logits: torch.Tensor) -> None:
        """Choose each row's next token, hand it on, and let the rows go that have ended."""
        requests = [row.ticket.request for row in group.rows]
        settings = settings_of([request.sampling for request in requests], logits.shape[1], logits.device)
        wished = penalised(logits, [row.seen for row in group.rows])
        tokens = choose(wished, settings, [next(row.uniform) for row in group.rows])
        wanted = [request.top_logps for request in requests if request.top_logps is not None]
        listed = _token_logps(logits.log_softmax(-1), tokens, max(wanted)) if wanted else itertools.repeat(None)
        for row, token, logp in zip(group.rows, tokens.tolist(), listed, strict=False):
            self._hand_on(row, token, logp)
        group.last = tokens
        group.keep([at for at, row in enumerate(group.rows) if not row.has_ended])

    def _hand_on(self, row: _Row, token: int, logp: TokenLogp | None) -> None:
        request = row.ticket.request
        row.tokens += 1
        if row.seen is not None:
            row.seen.add(token)
        if row.tokens == 1:
            row.first_token_seconds = time.monotonic() - row.ticket.arrived
        if logp is not None and request.top_logps is not None:
            row.unsent.append(logp._replace(top=logp.top[: request.top_logps]))
        text, reason = "", None
        if token in self.base.end_tokens:
            reason = "stop"
        elif row.is_watched:
            text = row.text.add(token)
        else:
            row.text.add_later(token)
        if reason is None:
            reason = "stop" if row.text.has_stopped else "length" if row.tokens >= request.max_tokens else None
        if reason is not None:
            text += row.text.finish()
            reason = "stop" if row.text.has_stopped else reason
            row.has_ended = True
        if request.is_streamed and (text or reason):
            self._emit(row, text, reason)
        elif not request.is_streamed:
            row.written += text
            if reason:
                self._emit(row, row.written, reason)

    def _emit(self, row: _Row, text: str, reason: str | None) -> None:
        seconds = time.monotonic() - row.ticket.arrived
        tokens, row.unsent = row.unsent, []
        row.ticket.emit(Piece(row.sample, text, tokens, reason, row.tokens, seconds, row.first_token_seconds))


def _token_logps(logps: torch.Tensor, tokens: torch.Tensor, top: int) -> list[TokenLogp]:
    """From log-probabilities (B, V) and the chosen tokens (B,) to one record per row."""
    chosen = logps.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
    if top == 0:
        return [TokenLogp(token, logp, []) for token, logp in zip(tokens.tolist(), chosen, strict=True)]
    best = logps.topk(min(top, logps.shape[1]), -1)
    ids, values = best.indices.tolist(), best.values.tolist()
    tops = [list(zip(row_ids, row_values, strict=True)) for row_ids, row_values in zip(ids, values, strict=True)]
    return [TokenLogp(token, logp, listed) for token, logp, listed in zip(tokens.tolist(), chosen, tops, strict=True)]
