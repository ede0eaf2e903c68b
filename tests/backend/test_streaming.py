"""Columns that answer at the same time: stopped one by one, judged at any moment, parts kept as parts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backend import comparing, prompting, starting, streaming
from backend.engines.client import EngineError, Piece
from backend.engines.kept import SamplingSettings
from backend.engines.scripted import ScriptedEngine
from backend.labels.turns import CannotGoOn
from backend.labels.voting import CannotVote
from backend.streaming import Column, Run, Runs
from feedback_db import Store, comparisons, models, priorities, prompts, snapshots
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
                    self.go_on.wait(60)
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
        assert engine.begun.acquire(timeout=60)
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
    assert last[0].completion_id is None and engine.closed.acquire(timeout=60)
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
    assert run.whole() == [], "parts are not sent to labelling"
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


# ---- answers that are word for word the same


def alike(texts: str) -> ScriptedEngine:
    """By seed from 0, each text a letter of ``texts``."""
    return ScriptedEngine(lambda messages, model, seed: f"answer {texts[seed]}")


def many(columns: list[Column], seeds: Sequence[int]) -> list[Column]:
    return [replace(columns[0], seed=seed) for seed in seeds]


def ran(store: Store, engine: ScriptedEngine, person: Person, case_id: int, columns: list[Column]) -> Run:
    run = Run(store, engine, person, case_id=case_id, columns=columns, seed=0)
    list(run.watched())
    return run


def test_the_best_of_eight_is_judged_where_two_of_them_wrote_the_same(store, engineer, project, case_id, columns):
    run = ran(store, alike("abcadefg"), engineer, case_id, many(columns, range(8)))
    said = streaming.vote(store, engineer, run, [1, 2, 2, 2, 2, 2, 2, 2])
    assert said.ranks == (1, 2, 2, 1, 2, 2, 2, 2), "a vote for one of two equal texts is one for that text"
    kept = [pane.completion_id for pane in run.panes()]
    assert len(set(kept)) == 8 and comparisons.completions_of(store, said.comparison_id)[3].id == kept[3]
    assert streaming.best_places(store, run, said) == [0, 3]
    case, prompt_ids = comparing.next_turn(store, engineer, said.id, "And then?", kept)
    assert len(prompt_ids) == 8 and case.conversation[-2]["content"] == "answer a"
    frozen = snapshots.freeze_preferences(store, project.id, "eight", None)
    (row,) = [json.loads(line) for line in snapshots.rows_text(store, frozen).splitlines()]
    assert [one["completion"] for one in row["answers"]] == kept and row["ranks"] == [1, 2, 2, 1, 2, 2, 2, 2]


def test_columns_that_asked_the_same_are_one_answer_that_is_judged_once(store, engineer, case_id, columns):
    run = ran(store, alike("ab"), engineer, case_id, many(columns, [0, 1, 0]))
    said = streaming.vote(store, engineer, run, [2, 2, 1])
    made = store.get(Comparison, said.comparison_id)
    assert (made.kind, made.size, said.ranks) == ("pair", 2, (1, 2))
    assert streaming.best_places(store, run, said) == [0, 2]
    ids = [pane.completion_id for pane in run.panes()]
    assert len(comparing.next_turn(store, engineer, said.id, "And then?", ids)[1]) == 3, "each column goes on"
    with pytest.raises(CannotGoOn):
        comparing.next_turn(store, engineer, said.id, "And then?", [*ids[:2], ids[0] + 900])


def test_where_all_wrote_the_same_there_is_nothing_to_judge_and_it_says_so(store, engineer, case_id, columns):
    run = ran(store, alike("aaa"), engineer, case_id, many(columns, range(3)))
    with pytest.raises(CannotVote, match="nothing to choose between"):
        streaming.vote(store, engineer, run, [1, 2, 2])
    assert store.find(Comparison) == []


def test_equal_texts_are_sent_to_labelling_once(store, engineer, case_id, columns):
    run = ran(store, alike("abac"), engineer, case_id, many(columns, range(4)))
    ids = [pane.completion_id for pane in run.panes()]
    made = comparing.send_to_labelling(store, engineer, ids)
    assert [one.id for one in comparisons.completions_of(store, made.id)] == [ids[0], ids[1], ids[3]]


# ---- what can be stopped, and what stands there to be judged


def test_only_what_was_under_way_is_told_to_have_stopped(store, engineer, case_id, columns):
    engine = Held()
    run, shown = begun(store, engine, engineer, case_id, columns)
    assert run.stop(1) == [1] and run.stop(1) == []
    engine.go_on.set()
    *_, last = shown
    assert [pane.state for pane in last] == ["done", "stopped"]
    assert run.stop() == [] and [pane.state for pane in run.panes()] == ["done", "stopped"]


class OneFails(ScriptedEngine):
    """Whoever asks with seed 1 gets nothing, and the reason."""

    def stream(self, *args: Any, **settings: Any) -> Iterator[Piece]:
        if settings["seed"] == 1:
            raise EngineError("The engine took too long to answer.", "engine_slow")
        yield from super().stream(*args, **settings)


def test_a_column_that_failed_keeps_no_other_from_being_judged(store, engineer, case_id, columns):
    engine = OneFails(lambda messages, model, seed: f"answer {seed}")
    run = ran(store, engine, engineer, case_id, many(columns, range(3)))
    assert [pane.problem and pane.problem.code for pane in run.panes()] == [None, "engine_slow", None]
    said = streaming.vote(store, engineer, run, [2, 2, 1])
    assert said.ranks == (2, 1) and not said.partial and streaming.best_places(store, run, said) == [2]
    alone = ran(store, engine, engineer, case_id, many(columns, range(2)))
    with pytest.raises(CannotVote, match="Fewer than two"):
        streaming.vote(store, engineer, alone, [1, 2])


class BreaksOff(ScriptedEngine):
    """Says how many tokens were wanted; of whoever wants 7 only two words come, then an error."""

    def stream(self, *args: Any, **settings: Any) -> Iterator[Piece]:
        most = settings["max_tokens"]
        for at, piece in enumerate(ScriptedEngine(lambda *_: f"one two of {most}").stream(*args, **settings)):
            if most == 7 and at == 2:
                raise EngineError("The engine stopped in the middle of an answer. Ask again.", "engine_cut_off")
            yield piece


def broken(columns: list[Column], places: str) -> list[Column]:
    """A column for each letter, x for one that breaks off; all with one seed."""
    return [
        replace(columns[0], seed=5, sampling=SamplingSettings(max_tokens=7 if one == "x" else 90 + at))
        for at, one in enumerate(places)
    ]


def test_what_a_column_wrote_before_it_failed_is_no_answer(store, engineer, case_id, columns):
    engine = BreaksOff(lambda *_: "")
    run = ran(store, engine, engineer, case_id, broken(columns, "xaxb"))
    assert [(pane.state, pane.text, pane.is_void) for pane in run.panes()][:2] == [
        ("failed", "one two", True),
        ("done", "one two of 91", False),
    ]
    kept = [pane.completion_id for pane in run.panes()]
    assert kept[0] is None and run.whole() == [[kept[1], kept[3]]], "the others can be sent to labelling"
    with pytest.raises(CannotVote, match="no answer to judge") as told:
        streaming.vote(store, engineer, run, [1, 2, 2, 2])
    assert told.value.code == "void_best" and store.find(Comparison) == []
    said = streaming.vote(store, engineer, run, [2, 1, 2, 2])
    assert said.ranks == (1, 2) and not said.partial and store.find(Completion, "finish_reason = 'cancelled'") == []
    alone = ran(store, engine, engineer, case_id, broken(columns, "xxa"))
    with pytest.raises(CannotVote, match="Fewer than two"):
        streaming.vote(store, engineer, alone, [1, 1, 1])


def test_a_column_that_fails_while_others_are_judged_is_left_out(store, engineer, case_id, columns, monkeypatch):
    engine = Held()
    run, shown = begun(store, engine, engineer, case_id, [*columns, replace(columns[0], seed=3)])
    stop, reader = run.stop, run._readers[2]

    def fails_then_stops() -> list[int]:
        reader._show(state="failed", problem=EngineError("gone"))
        reader.stopped.set()  # its thread has ended
        return stop()

    monkeypatch.setattr(run, "stop", fails_then_stops)
    said = streaming.vote(store, engineer, run, [2, 1, 2])
    engine.go_on.set()
    list(shown)
    assert said.ranks == (2, 1) and run.panes()[2].completion_id is None


def test_a_column_that_was_stopped_before_its_first_word_keeps_no_other_from_being_sent(
    store, engineer, case_id, columns
):
    run = Run(
        store, alike("ab"), engineer, case_id=case_id, columns=[replace(one, seed=0) for one in columns], seed=0
    )  # fmt: skip
    assert run.stop(0) == [0]
    *_, last = run.watched()
    assert last[0].is_void and not last[1].is_void and run.whole() == [[last[1].completion_id]]
    with pytest.raises(CannotVote, match="Fewer than two"):
        streaming.vote(store, engineer, run, [1, 1])


def test_a_vote_that_comes_too_early_stops_nothing(store, engineer, case_id, columns):
    engine = Held()
    run = Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0)
    with pytest.raises(CannotVote, match="written nothing"):
        streaming.vote(store, engineer, run, [1, 2])
    engine.go_on.set()
    *_, last = run.watched()
    assert [pane.state for pane in last] == ["done", "done"]


def test_what_is_replaced_in_its_tab_is_stopped_and_shows_no_more(store, engineer, case_id, columns):
    engine, runs = Held(), Runs()
    first, shown = begun(store, engine, engineer, case_id, columns)
    runs.add(first, "tab")
    other = Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0)
    runs.add(other, "another tab")
    assert not first.is_replaced
    runs.add(Run(store, engine, engineer, case_id=case_id, columns=columns, seed=0), "tab")
    assert first.is_replaced and not other.is_replaced
    assert [pane.state for pane in first.panes()] == ["stopped", "stopped"]
    engine.go_on.set()
    assert list(shown) == [] and store.find(Completion) == []
    assert engine.closed.acquire(timeout=60)
