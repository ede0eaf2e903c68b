"""Comparing: side by side, to labelling, and the queue that fills itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from backend import comparing, prompting, starting, streaming
from backend.access import Denied
from backend.comparing import CannotCompare
from backend.engines.client import EngineError, Piece
from backend.engines.scripted import ScriptedEngine
from backend.streaming import Column
from feedback_db import Store, comparisons, models, prompts
from feedback_db.types import Case, Comparison, Completion, Model, Person, Project, Template


def service(store: Store, project: Project) -> tuple[Template, Case]:
    template = next(t for t in prompts.templates(store, project.id or 0) if t.name == "customer service")
    return template, prompts.cases(store, project.id or 0, scenario=starting.SERVICE, language="en")[0]


def live(store: Store) -> Model:
    found = models.live(store, "policy")
    assert found is not None
    return found


def two_answers(store: Store, engine: ScriptedEngine, person: Person, project: Project) -> list[int]:
    template, case = service(store, project)
    column = Column(template_id=template.id or 0, model_id=live(store).id or 0)
    kept = []
    for seed in (1, 2):
        *_, panes = streaming.side_by_side(store, engine, person, case_id=case.id or 0, columns=[column], seed=seed)
        kept.append(panes[0].completion_id or 0)
    return kept


def test_columns_stream_and_are_stored_at_the_end(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    template, case = service(store, project)
    columns = [Column(template_id=template.id or 0, model_id=live(store).id or 0)] * 2
    seen = list(streaming.side_by_side(store, engine, engineer, case_id=case.id or 0, columns=columns, seed=3))
    assert [pane.state for pane in seen[0]] == ["waiting", "waiting"] or seen[0][0].text
    last = seen[-1]
    assert [pane.state for pane in last] == ["done", "done"]
    stored = [store.get(Completion, pane.completion_id or 0) for pane in last]
    assert stored[0] == stored[1]  # the same prompt, model, sampling and seed is one completion
    assert stored[0].text == last[0].text and "says 3" in stored[0].text


def test_a_failed_column_says_why_and_stores_nothing(store: Store, engineer: Person, project: Project) -> None:
    def fail(*_: object) -> str:
        raise EngineError("The engine is out of breath.")

    template, case = service(store, project)
    column = Column(template_id=template.id or 0, model_id=live(store).id or 0)
    *_, panes = streaming.side_by_side(
        store, ScriptedEngine(fail), engineer, case_id=case.id or 0, columns=[column], seed=0
    )
    assert (panes[0].state, str(panes[0].problem)) == ("failed", "The engine is out of breath.")
    assert store.find(Completion) == []


def test_sent_answers_become_one_comparison_of_their_case(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    ids = two_answers(store, engine, engineer, project)
    made = comparing.send_to_labelling(store, engineer, ids, overlap=2)
    assert (made.slots_left, made.overlap, made.arm) == (2, 2, "random")
    assert [c.id for c in comparisons.completions_of(store, made.id or 0)] == ids
    assert comparing.send_to_labelling(store, engineer, ids).id == made.id  # once is enough


def test_answers_to_different_cases_are_never_compared(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    template, case = service(store, project)
    other = prompts.cases(store, project.id or 0, scenario=starting.SERVICE, language="en")[1]
    column = Column(template_id=template.id or 0, model_id=live(store).id or 0)
    ids = []
    for one in (case, other):
        *_, panes = streaming.side_by_side(store, engine, engineer, case_id=one.id or 0, columns=[column], seed=0)
        ids.append(panes[0].completion_id or 0)
    with pytest.raises(CannotCompare, match="same case"):
        comparing.send_to_labelling(store, engineer, ids)


def test_equal_texts_make_no_comparison(store: Store, engineer: Person, project: Project) -> None:
    always = ScriptedEngine(lambda *_: "the same")
    ids = two_answers(store, always, engineer, project)
    with pytest.raises(CannotCompare, match="nothing to choose between"):
        comparing.send_to_labelling(store, engineer, ids)
    template, case = service(store, project)
    made = comparing.make_comparisons(
        store, always, engineer, requests=[(template.id or 0, case.id or 0)], model_id=live(store).id or 0
    )
    assert (made.comparisons, made.alike) == ([], 1)


def test_the_queue_is_filled_to_its_target_with_answers_of_the_live_policy(
    store: Store, engine: ScriptedEngine, project: Project
) -> None:
    assert comparing.refill(store, engine, project_id=project.id or 0, target=10) == 10
    assert comparing.refill(store, engine, project_id=project.id or 0, target=10) == 0
    assert {c.model_id for c in store.find(Completion)} == {live(store).id}
    assert len({c.case_id for c in store.find(Comparison)}) == 10  # the least asked first, so no case twice


def test_a_second_round_asks_with_another_seed(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    template, case = service(store, project)
    for _ in range(2):
        comparing.make_comparisons(
            store, engine, engineer, requests=[(template.id or 0, case.id or 0)], model_id=live(store).id or 0
        )
    assert [(c.seed, c.repeat) for c in store.find(Completion)] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_annotator_may_do_none_of_it(
    store: Store, engine: ScriptedEngine, annotator: Person, project: Project
) -> None:
    for act in (
        lambda: streaming.policies(store, annotator),
        lambda: list(streaming.side_by_side(store, engine, annotator, case_id=1, columns=[], seed=0)),
        lambda: comparing.send_to_labelling(store, annotator, [1, 2]),
        lambda: comparing.make_comparisons(store, engine, annotator, requests=[], model_id=1),
    ):
        with pytest.raises(Denied):
            act()


class Full(ScriptedEngine):
    """Lets a request wait, and tells its place, until it may go on."""

    may_go_on = threading.Event()

    def stream(self, *args: Any, **settings: Any) -> Iterator[Piece]:
        yield Piece(0, "", place=4)
        yield Piece(0, "", place=2)
        self.may_go_on.wait(60)
        yield from super().stream(*args, **settings)


def test_a_column_that_waits_shows_its_place_in_the_engines_queue(
    store: Store, engineer: Person, project: Project
) -> None:
    template, case = service(store, project)
    column = Column(template_id=template.id or 0, model_id=live(store).id or 0)
    engine = Full(lambda *_: "It is on its way.")
    shown = streaming.side_by_side(store, engine, engineer, case_id=case.id or 0, columns=[column], seed=0)
    seen = []
    for (pane,) in shown:
        seen.append(pane)
        if pane.place == 2:
            engine.may_go_on.set()
    assert [(pane.state, pane.place) for pane in seen if pane.place][-1] == ("waiting", 2)
    assert (seen[-1].state, seen[-1].place, seen[-1].text) == ("done", 0, "It is on its way.")


def test_a_template_that_asks_for_more_than_the_cases_have_keeps_no_other_from_being_asked(
    store: Store, engine: ScriptedEngine, engineer: Person, project: Project
) -> None:
    prompting.save_template(store, engineer, project.id or 0, prompting.Draft(name="a", body="{{odd}}"))
    assert comparing.refill(store, engine, project_id=project.id or 0, target=3) == 3
