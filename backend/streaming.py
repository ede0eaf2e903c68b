"""Answers of several columns at the same time: each a template and a model, on one case."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from backend import access
from backend.engines.client import Answer, Client
from backend.engines.kept import SamplingSettings, engine_name, keep_answer, keep_prompt, keep_sampling
from backend.problem import Problem
from feedback_db import Store, engines, models
from feedback_db.types import Case, Model, Person, Template

LOOK_SECONDS = 0.05  # panes are redrawn at most twenty times a second


class Engine(Protocol):
    def client_for(self, model: Model) -> Client: ...


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the compare page: which template is answered by which model."""

    template_id: int
    model_id: int
    sampling: SamplingSettings = SamplingSettings()


class Pane(NamedTuple):
    """What one column shows at this moment."""

    text: str = ""
    state: Literal["waiting", "streaming", "done", "stopped", "failed"] = "waiting"
    tokens: int = 0
    seconds: float = 0.0
    completion_id: int | None = None  # once it is stored
    problem: str = ""
    place: int = 0  # in the engine's queue while it waits for room; 1 is next


def policies(store: Store, person: Person) -> list[Model]:
    """Models that can answer: policies on the base that is served, newest first, then those of remote engines."""
    access.require(person, "see_models")
    base = models.live(store, "policy")
    served = [m for m in models.policies(store) if base is None or m.base_fingerprint == base.base_fingerprint]
    return served + engines.answering(store)


def side_by_side(
    store: Store, engine: Engine, person: Person, *, case_id: int, columns: list[Column], seed: int
) -> Iterator[tuple[Pane, ...]]:
    """Stream one answer per column at the same time; the last panes carry the ids of the stored completions.

    Closing the generator closes the streams, so that the engine stops working for nobody. Texts that were stopped are
    not stored.
    """
    access.require(person, "compare")
    case = store.get(Case, case_id)
    readers = [_Reader(store, engine, case, column, seed, person) for column in columns]
    try:
        for reader in readers:
            reader.start()
        panes = tuple(reader.pane for reader in readers)
        yield panes
        while any(reader.is_alive() for reader in readers):
            time.sleep(LOOK_SECONDS)
            now = tuple(reader.pane for reader in readers)
            if now != panes:
                panes = now
                yield panes
        yield tuple(reader.kept() for reader in readers)
    finally:
        for reader in readers:
            reader.stopped.set()


class _Reader(threading.Thread):
    """Reads one stream; ``pane`` is replaced whole, so that it can be looked at from outside at any time."""

    def __init__(self, store: Store, engine: Engine, case: Case, column: Column, seed: int, person: Person):
        super().__init__(daemon=True, name=f"column-{column.template_id}-{column.model_id}")
        self.store, self.column, self.seed = store, column, seed
        self.model = store.get(Model, column.model_id)
        self.client = engine.client_for(self.model)
        self.prompt = keep_prompt(
            store, self.client, store.get(Template, column.template_id), case, column.sampling.max_tokens, person.id
        )
        self.stopped = threading.Event()
        self.pane = Pane()
        self.answer: Answer | None = None

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
                    self.pane = self.pane._replace(state="stopped")
                    return  # closes the stream, and with it the request
                if piece.place:
                    self.pane = self.pane._replace(place=piece.place)
                    continue
                self.answer = piece.answer or self.answer
                self.pane = self.pane._replace(
                    text=self.pane.text + piece.text,
                    state="streaming",
                    place=0,
                    tokens=self.answer.tokens if self.answer else self.pane.tokens + 1,
                    seconds=time.monotonic() - began,
                )
            self.pane = self.pane._replace(state="done")
        except Problem as error:  # of the engine, its address or its key
            self.pane = self.pane._replace(state="failed", problem=str(error))

    def kept(self) -> Pane:
        if self.pane.state != "done" or self.answer is None:
            return self.pane
        sampling = keep_sampling(self.store, self.column.sampling)
        completion = keep_answer(self.store, self.prompt, self.model, sampling, self.answer, seed=self.seed, repeat=0)
        return self.pane._replace(completion_id=completion.id)
