"""Answers of several columns at the same time: each a template and a model, on one case."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

from backend import access
from backend.engines.client import Answer, Client
from backend.engines.kept import SamplingSettings, engine_name, keep_answer, keep_partial, keep_prompt, keep_sampling
from backend.labels.form import Answer as Said
from backend.labels.voting import CannotVote, vote_on
from backend.problem import Problem
from feedback_db import Store, audit, comparisons, engines, judgements, models
from feedback_db.types import Case, Completion, Judgement, Model, Person, Prompt, Template

LOOK_SECONDS = 0.05  # panes are redrawn at most twenty times a second
PANES_MOST = 16  # columns times seeds: as many as one comparison may hold
UNDER_WAY = ("waiting", "streaming")
RUNS_KEPT = 200  # runs that can still be judged; the oldest are forgotten first


class Engine(Protocol):
    def client(self) -> Any: ...

    def client_for(self, model: Model) -> Client: ...


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the compare page: which template is answered by which model, from which seed."""

    template_id: int
    model_id: int
    sampling: SamplingSettings = SamplingSettings()
    seed: int | None = None  # its own; None: the seed of the run
    prompt_id: int | None = None  # what it reads, where that is stored already: the next turn of a conversation


class Pane(NamedTuple):
    """What one column shows at this moment."""

    text: str = ""
    state: Literal["waiting", "streaming", "done", "stopped", "failed"] = "waiting"
    tokens: int = 0
    seconds: float = 0.0
    completion_id: int | None = None  # once it is stored
    problem: Problem | None = None  # why there is no whole answer
    place: int = 0  # in the engine's queue while it waits for room; 1 is next
    first_seconds: float = 0.0  # until the first text came
    mean_logp: float | None = None  # nats per token, once it has ended
    token_logps: tuple[tuple[str, float], ...] = ()

    @property
    def is_void(self) -> bool:
        """It ended without an answer: it failed, whatever it had written by then, or was stopped before its first word. It takes no
        part in what is said of the columns: neither judged, nor compared, nor sent."""
        return self.state == "failed" or (self.state == "stopped" and not self.text)


def policies(store: Store, person: Person) -> list[Model]:
    """Models that can answer: policies on the base that is served, newest first, then those of remote engines."""
    access.require(person, "see_models")
    base = models.live(store, "policy")
    served = [m for m in models.policies(store) if base is None or m.base_fingerprint == base.base_fingerprint]
    return served + engines.answering(store)


def seeded(columns: Sequence[Column], seed: int, seeds: int) -> list[Column]:
    """Each column once per seed, from ``seed`` on; columns of one seed stand together. Raises TooManyPanes."""
    if not 1 <= seeds <= PANES_MOST or len(columns) * seeds > PANES_MOST:
        raise TooManyPanes(
            f"{len(columns)} columns with {seeds} seeds are more than {PANES_MOST} answers. Take fewer of either.",
            "many_panes",
            columns=len(columns),
            seeds=seeds,
            most=PANES_MOST,
        )
    return [replace(column, seed=seed + n) for n in range(seeds) for column in columns]


def side_by_side(
    store: Store, engine: Engine, person: Person, *, case_id: int, columns: list[Column], seed: int
) -> Iterator[tuple[Pane, ...]]:
    """Stream one answer per column at the same time; the last panes carry the ids of the stored completions.

    Closing the generator closes the streams, so that the engine stops working for nobody. Texts that were stopped are
    not stored.
    """
    access.require(person, "compare")
    yield from Run(store, engine, person, case_id=case_id, columns=columns, seed=seed).watched()


class TooManyPanes(Problem):
    """More answers were asked for than stand side by side."""


class Run:
    """Columns that answer one case now. Whoever began it may stop one or all, and judge at any moment."""

    def __init__(
        self, store: Store, engine: Engine, person: Person, *, case_id: int, columns: Sequence[Column], seed: int
    ):
        access.require(person, "compare")
        case = store.get(Case, case_id)
        self.key, self.person_id, self.case_id, self.began = uuid.uuid4().hex, person.id, case_id, time.monotonic()
        self._readers = [_Reader(store, engine, case, column, seed, person) for column in columns]
        self._kept = threading.Lock()
        self.was_judged = self.is_replaced = False

    def panes(self) -> tuple[Pane, ...]:
        return tuple(reader.pane for reader in self._readers)

    def watched(self) -> Iterator[tuple[Pane, ...]]:
        """Start, and show the panes whenever one of them changed; closing this stops all. One that was replaced shows no more."""
        try:
            for reader in self._readers:
                reader.start()
            panes = self.panes()
            yield panes
            while any(reader.is_alive() and not reader.stopped.is_set() for reader in self._readers):
                time.sleep(LOOK_SECONDS)
                now = self.panes()
                if now != panes and not self.is_replaced:
                    panes = now
                    yield panes
            if self.is_replaced:
                return
            with self._kept:
                last = tuple(reader.kept() for reader in self._readers)
            yield last
        finally:
            self.stop()

    def stop(self, place: int | None = None) -> list[int]:
        """Stop the column at this place, or all of them; a text that has ended stays as it is. Returns the places that stopped."""
        return [at for at, reader in enumerate(self._readers) if place in (None, at) and reader.stop()]

    def whole(self) -> list[list[int]]:
        """Ids of the stored answers by seed, of those seeds whose columns all ended; void ones are left out."""
        seeds: dict[int, list[int | None]] = {}
        for reader in self._readers:
            pane = reader.pane
            if not pane.is_void:
                seeds.setdefault(reader.seed, []).append(pane.completion_id if pane.state == "done" else None)
        return [[i for i in ids if i is not None] for ids in seeds.values() if None not in ids]

    def kept_as_shown(self) -> tuple[dict[int, Completion], bool]:
        """Everything as it stands now, stored, by column; and whether any of it is only part of an answer. Void columns are left
        out. Raises CannotVote."""
        if any(not reader.pane.text and reader.pane.state in UNDER_WAY for reader in self._readers):
            raise CannotVote("One of the columns has written nothing yet. Wait for its first words.", "nothing_to_read")
        self._not_void()
        self.stop()
        there = self._not_void()  # once more: one may have failed just before it was stopped
        with self._kept:
            kept = {at: self._readers[at].kept_as_shown() for at in there}
        self.was_judged = True
        return kept, any(self._readers[at].is_partial for at in there)

    def _not_void(self) -> list[int]:
        there = [at for at, pane in enumerate(self.panes()) if not pane.is_void]
        if len(there) < 2:
            raise CannotVote("Fewer than two columns have an answer. Run the columns again.", "one_answer")
        return there


class Runs:
    """The runs that can still be stopped and judged, by key; each belongs to the person who began it."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._in_tab: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, run: Run, tab: str | None = None) -> Run:
        """``tab``: where the run is shown. What was shown there before is stopped, and shows no more."""
        with self._lock:
            before = self._in_tab.pop(tab, None) if tab else None
            self._runs[run.key] = run
            if tab:
                self._in_tab[tab] = run
            for kept in (self._runs, self._in_tab):
                while len(kept) > RUNS_KEPT:
                    kept.popitem(last=False)
        if before is not None:
            before.is_replaced = True
            before.stop()
        return run

    def of(self, person: Person, key: str) -> Run:
        """Raises CannotVote when this person has no such run."""
        access.require(person, "compare")
        with self._lock:
            run = self._runs.get(key)
        if run is None or run.person_id != person.id:
            raise CannotVote("These answers are not at hand any more. Run the columns again.", "no_such_run")
        return run


def vote(store: Store, person: Person, run: Run, ranks: Sequence[int], *, both_bad: bool = False) -> Judgement:
    """Judge what a run shows at this moment; columns that still write are stopped, and their texts kept as parts.

    ``ranks`` by column, 1 is best. Names were in sight, so figures that rest on blind judgements leave it out; a judgement of
    parts is never trained on. The same run again gives the same judgement. Raises CannotVote.
    """
    access.require(person, "compare")
    panes, best = run.panes(), min(ranks, default=1)
    if all(pane.is_void for pane, rank in zip(panes, ranks, strict=True) if rank == best):
        raise CannotVote("That column has no answer to judge. Judge the others, or run the columns again.", "void_best")
    kept, is_partial = run.kept_as_shown()
    key = uuid.UUID(run.key).bytes
    given = tuple(ranks[at] for at in kept)
    said = Said(ranks=given, both_bad=both_bad, seconds=time.monotonic() - run.began)
    with store.write():
        stored = judgements.by_key(store, key)
        if stored is None:
            ids = [one.id or 0 for one in kept.values()]
            stored = vote_on(
                store,
                person,
                ids,
                said,
                key,
                reason="judged side by side",
                client="compare",
                arm="priority",
                partial=is_partial,
            )
            audit.record(store, person, "judge_side_by_side", "comparison", stored.comparison_id, {"completions": ids})
        return stored


def best_places(store: Store, run: Run, said: Judgement) -> list[int]:
    """The columns of a run that this judgement of it calls the best: one, or several where they wrote the same; none where it
    says so of all, or of different texts."""
    answers = comparisons.completions_of(store, said.comparison_id)
    best = [answers[position] for position, rank in zip(said.shown, said.ranks or (), strict=False) if rank == 1]
    if said.both_bad or len({one.text for one in best}) != 1:
        return []
    ids = {one.id for one in best}
    return [at for at, pane in enumerate(run.panes()) if pane.completion_id in ids]


class _Reader(threading.Thread):
    """Reads one stream; ``pane`` is replaced whole, so that it can be looked at from outside at any time."""

    def __init__(self, store: Store, engine: Engine, case: Case, column: Column, seed: int, person: Person):
        super().__init__(daemon=True, name=f"column-{column.template_id}-{column.model_id}")
        self.store, self.column, self.seed = store, column, seed if column.seed is None else column.seed
        self.model = store.get(Model, column.model_id)
        self.client = engine.client_for(self.model)
        if column.prompt_id is not None:
            self.prompt = store.get(Prompt, column.prompt_id)
        else:
            template = store.get(Template, column.template_id)
            self.prompt = keep_prompt(store, engine, self.client, template, case, column.sampling.max_tokens, person.id)
        self.stopped = threading.Event()
        self._pane_lock = threading.Lock()
        self.pane = Pane()
        self.answer: Answer | None = None
        self.is_partial = False

    def _show(self, **values: Any) -> bool:
        """Show this, unless somebody stopped the column: then what stood there stays."""
        with self._pane_lock:
            if not self.stopped.is_set():
                self.pane = self.pane._replace(**values)
            return not self.stopped.is_set()

    def stop(self) -> bool:
        """Whether there was anything to stop."""
        with self._pane_lock:
            is_under_way = self.pane.state in UNDER_WAY
            if is_under_way:
                self.stopped.set()
                self.pane = self.pane._replace(state="stopped", place=0)
            return is_under_way

    def run(self) -> None:
        sampling = self.column.sampling
        began = time.monotonic()
        try:
            stream = self.client.stream(
                list(self.prompt.messages),
                model=engine_name(self.model),
                seed=self.seed,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
            )
            for piece in stream:
                if self.stopped.is_set():
                    return  # closes the stream, and with it the request
                if piece.place:
                    self._show(place=piece.place)
                    continue
                self.answer = piece.answer or self.answer
                seconds = time.monotonic() - began
                whole = self.answer
                self._show(
                    text=self.pane.text + piece.text,
                    state="done"
                    if whole
                    else "streaming",  # the end and the last words at once: a whole text is no part
                    place=0,
                    tokens=whole.tokens if whole else self.pane.tokens + 1,
                    seconds=seconds,
                    first_seconds=self.pane.first_seconds or seconds,
                    **({"mean_logp": whole.mean_logp, "token_logps": whole.token_logps} if whole else {}),
                )
            self._show(state="done")
        except Problem as error:  # of the engine, its address or its key
            self._show(state="failed", problem=error)

    def kept(self) -> Pane:
        if self.pane.state != "done" or self.answer is None or self.pane.completion_id is not None:
            return self.pane
        sampling = keep_sampling(self.store, self.column.sampling)
        completion = keep_answer(self.store, self.prompt, self.model, sampling, self.answer, seed=self.seed, repeat=0)
        self.pane = self.pane._replace(completion_id=completion.id)
        return self.pane

    def kept_as_shown(self) -> Completion:
        """The whole answer, or the part of it that stands there; the same row each time it is asked for."""
        if self.pane.completion_id is None and self.pane.state == "stopped":
            part = Answer(
                text=self.pane.text, finish_reason="cancelled", tokens=self.pane.tokens, prompt_tokens=self.prompt.tokens or 0,
                seconds=self.pane.seconds, first_token_seconds=self.pane.first_seconds, mean_logp=None,
                model=engine_name(self.model), fingerprint="",
            )  # fmt: skip
            sampling = keep_sampling(self.store, self.column.sampling)
            made = keep_partial(self.store, self.prompt, self.model, sampling, part, seed=self.seed)
            self.is_partial = True
            self.pane = self.pane._replace(completion_id=made.id)
        return self.store.get(Completion, self.kept().completion_id or 0)
