"""From a step's logits to what each client is told: every row's next token is chosen, and handed on as text."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .admission import Job
from .asking import Piece, Ticket, TokenLogp
from .model import Base
from .sampling import Seen, choose, penalised, seen_of, settings_of, uniforms
from .text import TextStream

LEAST = -9999.0  # what OpenAI writes for a token that cannot be


@dataclass(eq=False)
class Row:
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


def rows_of(base: Base, jobs: Sequence[Job]) -> list[Row]:
    """A prompt's samples side by side."""
    return [_row(base, job, sample) for job in jobs for sample in range(job.ticket.request.n)]


def _row(base: Base, job: Job, sample: int) -> Row:
    request = job.ticket.request
    before = base.before_answer(job.tokens)
    text = TextStream(base.tokenizer, before, request.stop)
    seen = seen_of(request.sampling, before, base.vocabulary, base.device)
    return Row(job.ticket, job.prompt * request.n + sample, text, uniforms(request.seed, sample), seen)


class Writer:
    """Used by the model's thread alone."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._settings: tuple[Sequence[Row], Any] = (
            [],
            None,
        )  # of the rows of the last step, which mostly are the next one's

    def chosen(self, rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor:
        """Each row's next token from its logits (B, V), handed on to who asked for it. (B,)"""
        requests = [row.ticket.request for row in rows]
        if self._settings[0] is not rows:
            made = settings_of([request.sampling for request in requests], logits.shape[1], logits.device)
            self._settings = rows, made
        settings = self._settings[1]
        wished = penalised(logits, [row.seen for row in rows])
        tokens = choose(wished, settings, [next(row.uniform) for row in rows])
        wanted = [request.top_logps for request in requests if request.top_logps is not None]
        listed = token_logps(logits.log_softmax(-1), tokens, max(wanted)) if wanted else itertools.repeat(None)
        for row, token, logp in zip(rows, tokens.tolist(), listed, strict=False):
            self._hand_on(row, token, logp)
        return tokens

    def _hand_on(self, row: Row, token: int, logp: TokenLogp | None) -> None:
        request = row.ticket.request
        row.tokens += 1
        if row.seen is not None:
            row.seen.add(token)
        if row.tokens == 1:
            row.first_token_seconds = time.monotonic() - row.ticket.arrived
        if logp is not None and request.top_logps is not None:
            row.unsent.append(logp._replace(top=logp.top[: request.top_logps]))
        text, reason = "", None
        if token in self._base.end_tokens:
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

    def _emit(self, row: Row, text: str, reason: str | None) -> None:
        seconds = time.monotonic() - row.ticket.arrived
        tokens, row.unsent = row.unsent, []
        row.ticket.emit(Piece(row.sample, text, tokens, reason, row.tokens, seconds, row.first_token_seconds))


def token_logps(logps: torch.Tensor, tokens: torch.Tensor, top: int) -> list[TokenLogp]:
    """From log-probabilities (B, V) and the chosen tokens (B,) to one record per row."""
    chosen = _writable(logps.gather(1, tokens.unsqueeze(1)).squeeze(1))
    if top == 0:
        return [TokenLogp(token, logp, []) for token, logp in zip(tokens.tolist(), chosen, strict=True)]
    best = logps.topk(min(top, logps.shape[1]), -1)
    ids, values = best.indices.tolist(), _writable(best.values)
    tops = [list(zip(row_ids, row_values, strict=True)) for row_ids, row_values in zip(ids, values, strict=True)]
    return [TokenLogp(token, logp, listed) for token, logp, listed in zip(tokens.tolist(), chosen, tops, strict=True)]


def _writable(logps: torch.Tensor) -> list[Any]:
    """JSON has no word for what is not finite."""
    return logps.nan_to_num(nan=LEAST, neginf=LEAST).tolist()
