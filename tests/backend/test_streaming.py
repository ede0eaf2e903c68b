"""Columns that answer at the same time: stopped one by one, judged at any moment, parts kept as parts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from backend import comparing, prompting, starting, streaming
from backend.engines.client import Piece
from backend.engines.scripted import ScriptedEngine
from backend.labels.voting import CannotVote
from backend.streaming import Column, Run, Runs
from feedback_db import Store, models, priorities, prompts, snapshots
from feedback_db.types import Case, Comparison, Completion, Person, Project, Prompt


class Held(ScriptedEngine):
    """Streams three words of an answer, then waits until it may go on; knows how many streams were closed before their end."""

    def __init__(self) -> None:
        super().__init__(lambda messages, model, seed: f"answer {seed} begins and then it ends")
        self.go_on, self.begun, self.closed = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def stream(self, *args: Any, **settings: Any) -> Iterator[Piece]:
        has_ended = False
        try:
            for at, piece in enumerate(super().stream(*args, **settings)):
                if at == 3:
                    self.begun.release()
                    self.go_on.wait(20)
                yield piece
            has_ended = True
        finally:
            if not has_ended:
                self.closed.release()


@pytest.fixture
def columns(store: Store, project: Project) -> list[Column]:
    template = next(t for t in prompts.templates(store, project.id or 0) if t.name == "customer service")
    live = models.live(store, "policy")
    assert live is not None
    return [Column(template_id=template.id or 0, model_id=live.id or 0, seed=seed) for seed in (1, 2)]


@pytest.fixture
def case_id(store: Store, project: Project) -> int:
    return prompts.cases(store, project.id or 0, scenario=starting.SERVICE, language="en")[0].id or 0


def begun(store: Store, engine: Held, person: Person, case_id: int, columns: list[Column]) -> tuple[Run, Iterator[Any]]:
    """A run whose columns have all written three words."""
    run = Run(store, engine, person, case_id=case_id, columns=columns, seed=0)
    shown = run.watched()
    next(shown)
    for _ in columns:
        assert engine.begun.acquire(timeout=20)
    return run, shown


def texts(run: Run) -> list[str]:
    return [pane.text for pane in run.panes()]


def test_one_column_is_stopped_and_the_other_goes_on(store, engineer, case_id, columns):
    engine = Held()
    run, shown = begun(store, engine, engineer, case_id, columns)
    run.stop(0)
    engine.go_on.set()
    *_, last = shown
    assert [pane.state for pane in last] == ["stopped", "done"]
    assert last[0].text == "answer 1 begins" and last[1].text.endswith("ends")
    assert last[0].completion_id is None and engine.closed.acquire(timeout=20)
    assert run.whole() == [[last[1].completion_id]], "the seed whose column ended"


def test_a_judgement_in_the_middle_is_about_what_was_shown_and_is_never_trained_on(
    store, engineer, project, case_id, columns
):
    engine = Held()
    run, shown = begun(store, engine, engineer, case_id, columns)
    before = texts(run)
    said = streaming.vote(store, engineer, run, [2, 1])
    engine.go_on.set()
    list(shown)
    assert said.partial and said.ranks == (2, 1) and texts(run) == before == ["answer 1 begins", "answer 2 begins"]
    kept = store.find(Completion, "finish_reason = 'cancelled'")
    assert [(one.text, one.repeat) for one in kept] == [("answer 1 begins", 1), ("answer 2 begins", 1)]
    assert snapshots.trainable_count(store, project.id) == 0
    assert streaming.vote(store, engineer, run, [1, 2]).id == said.id, "once is once"
    whole = Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0)
    *_, last = whole.watched()
    assert store.get(Completion, last[0].completion_id).text == "answer 1 begins and then it ends", (
        "a part never stands for it"
    )
    full = streaming.vote(store, engineer, whole, [1, 2])
    assert not full.partial and snapshots.trainable_count(store, project.id) == 1
    assert store.get(Comparison, full.comparison_id).arm == "priority"
    frozen = snapshots.freeze_queue(store, project.id, "order", None, [])
    (row,) = [json.loads(line) for line in snapshots.rows_text(store, frozen).splitlines()]
    assert row["arm"] == "chosen", "what people chose themselves says nothing of the rule that orders the queue"
    assert priorities.counts(store, project.id)["priority_judged"] == 0


def test_a_chat_template_is_a_column_beside_a_text_template(store, engineer, project, case_id, columns):
    rows = (
        {"role": "system", "text": "Be brief."}, {"role": "user", "text": "Ready?"}, {"role": "assistant", "text": "Yes."},
        {"role": "turns"}, {"role": "user", "text": "Say {{input}}"},
    )  # fmt: skip
    chat = prompting.save_template(store, engineer, project.id, prompting.Draft(name="chat", rows=rows))
    beside = [columns[0], Column(template_id=chat.id, model_id=columns[0].model_id, seed=1)]
    engine = ScriptedEngine(lambda messages, model, seed: f"{len(messages)} turns, {messages[-1]['content']}")
    run = Run(store, engine, engineer, case_id=case_id, columns=beside, seed=0)
    *_, last = run.watched()
    asked = store.get(Case, case_id).values["input"]
    assert [pane.state for pane in last] == ["done", "done"] and last[1].text == f"4 turns, Say {asked}"
    streaming.vote(store, engineer, run, [2, 1])
    kept = [store.get(Prompt, store.get(Completion, pane.completion_id).prompt_id) for pane in last]
    assert kept[1].template_id == chat.id and [one["role"] for one in kept[1].messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert snapshots.trainable_count(store, project.id) == 0, "a win between two templates trains nobody"


def test_nothing_is_judged_before_every_column_has_written_something(store, engineer, case_id, columns):
    run = Run(store, ScriptedEngine(lambda *_: "x"), engineer, case_id=case_id, columns=columns, seed=0)
    with pytest.raises(CannotVote, match="written nothing"):
        streaming.vote(store, engineer, run, [1, 2])
    assert store.find(Completion) == []


def test_a_run_belongs_to_whoever_began_it_and_old_ones_are_forgotten(
    store, engine, engineer, admin, case_id, columns, monkeypatch
):
    runs = Runs()
    first = runs.add(Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0))
    assert runs.of(engineer, first.key) is first
    with pytest.raises(CannotVote, match="not at hand"):
        runs.of(admin, first.key)
    monkeypatch.setattr(streaming, "RUNS_KEPT", 1)
    runs.add(Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0))
    with pytest.raises(CannotVote, match="not at hand"):
        runs.of(engineer, first.key)


def test_the_next_turn_gives_every_column_its_own_scaffolding_and_one_conversation(
    store, engine, engineer, project, case_id, columns
):
    other = next(t for t in prompts.templates(store, project.id) if t.name != "customer service" and t.labels is None)
    columns = [columns[0], Column(template_id=other.id, model_id=columns[0].model_id, seed=2)]
    run = Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0)
    *_, last = run.watched()
    said = streaming.vote(store, engineer, run, [1, 2])
    case, ids = comparing.next_turn(store, engineer, said.id, "And then?")
    first, second = (store.get(Prompt, i) for i in ids)
    assert first.messages[-2:] == second.messages[-2:] == (
        {"role": "assistant", "content": last[0].text}, {"role": "user", "content": "And then?"},
    )  # fmt: skip
    assert first.messages[:-2] != second.messages[:-2] and (first.template_id, second.template_id) == (
        columns[0].template_id,
        other.id,
    )
    assert case.conversation[-2:] == first.messages[-2:] and case.judgement_id == said.id
