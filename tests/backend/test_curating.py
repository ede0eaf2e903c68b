"""The bank: what was shown never changes, what people preferred is offered, and what a model is tested on is not."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from backend import comparing, curating, labelling, prompting
from backend.access import Denied
from backend.curating import BadDemonstration
from backend.engines.scripted import ScriptedEngine
from backend.labelling import Answer
from backend.prompting import Draft
from feedback_db import Store
from feedback_db.bank import JUDGED
from feedback_db.types import Assignment, Case, Comparison, Completion, Demonstration, Person, Project


def add(
    store: Store, person: Person, project: Project, input: str = "in", output: str = "out", **more: object
) -> Demonstration:
    return curating.add_demonstration(store, person, project.id or 0, input=input, output=output, **more)  # type: ignore[arg-type]


def judged(store: Store, person: Person, project: Project, engine: ScriptedEngine, count: int) -> list[int]:
    """The first answer of each comparison wins; their ids."""
    comparing.refill(store, engine, project_id=project.id or 0, target=count)
    won: list[int] = []
    desk = labelling.next_desk(store, person, project.id or 0)
    for _ in range(count):
        assert desk is not None
        task = store.get(Assignment, desk.assignment)
        left = task.shown[0] == 0
        won.append(
            store.value(
                "select completion_id from comparison_items where comparison_id = ? and position = 0",
                [task.comparison_id],
            )
        )
        answer = Answer(ranks=(1, 2) if left else (2, 1), strength=1, seconds=1.0)
        desk = labelling.submit(store, person, desk.assignment, uuid.uuid4().bytes, answer).desk
    return won


def test_label_and_tags_change_where_they_stand_and_another_text_is_another_demonstration(
    store: Store, engineer: Person, project: Project
) -> None:
    one = add(store, engineer, project, label="a", scenario="s")
    same = curating.change_demonstration(
        store, engineer, one.id or 0, input="in", output="out", label="b", tags=("s", " long ", "s")
    )
    assert (same.id, same.label, same.tags) == (one.id, "b", ("s", "long"))
    other = curating.change_demonstration(
        store, engineer, one.id or 0, input="in", output="better", label="b", tags=same.tags
    )
    assert other.id != one.id and other.output == "better" and other.tags == same.tags
    bank = curating.demonstrations(store, engineer, project.id or 0, scenario="s", language=None)
    assert {d.id for d in bank if d.input == "in"} == {other.id}
    twin = add(store, engineer, project, label="c", scenario="s")
    with pytest.raises(BadDemonstration, match=f"number {twin.id}"):
        curating.change_demonstration(store, engineer, one.id or 0, input="in", output="out", label="c", tags=())
    with pytest.raises(BadDemonstration, match="60"):
        curating.change_demonstration(
            store, engineer, other.id or 0, input="in", output="better", label="b", tags=("x" * 61,)
        )


def test_a_version_shows_what_was_taken_out_of_the_bank_and_nothing_else_draws_it(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine
) -> None:
    one = add(store, engineer, project, "What is in it?", "Nothing.")
    by_hand = Draft(name="t", body="{{input}}", few_shot={"k": 1, "choose": "fixed", "ids": [one.id]})
    curating.remove_demonstration(store, engineer, one.id or 0)
    shown = prompting.preview(store, engine, engineer, project.id or 0, by_hand, {"input": "Who?"})
    assert shown.demonstration_ids == (one.id,)
    nearest = replace(by_hand, few_shot={"k": 1, "choose": "nearest"})
    drawn = prompting.preview(store, engine, engineer, project.id or 0, nearest, {"input": "What is in the box?"})
    assert drawn.demonstration_ids and drawn.demonstration_ids != (one.id,)
    assert add(store, engineer, project, "What is in it?", "Nothing.").id == one.id
    drawn = prompting.preview(store, engine, engineer, project.id or 0, nearest, {"input": "What is in the box?"})
    assert drawn.demonstration_ids == (one.id,)


def test_what_people_preferred_on_training_cases_is_offered_and_taken_in_once(
    store: Store, engineer: Person, annotator: Person, project: Project, engine: ScriptedEngine
) -> None:
    won = judged(store, annotator, project, engine, 30)
    of_training = {
        one for one in won
        if store.value(
            "select k.split from completions c join prompts p on p.id = c.prompt_id join cases k on k.id = p.case_id"
            " where c.id = ?", [one],
        ) == "train"
    }  # fmt: skip
    assert 0 < len(of_training) < len(set(won))
    offered = curating.winners(store, engineer, project.id or 0)
    assert {one.completion_id for one in offered} == of_training
    assert all(one.fared == (1.0, 1) for one in offered)
    first = offered[0]
    kept = curating.keep_winners(store, engineer, project.id or 0, [first.completion_id, 999_999, won[0]])
    assert {one.completion_id for one in kept} == {first.completion_id, won[0]} & of_training
    demonstration = next(one for one in kept if one.completion_id == first.completion_id)
    assert (demonstration.source, demonstration.output) == ("winner", store.get(Completion, first.completion_id).text)
    assert demonstration.judgement_id is not None
    left = {one.completion_id for one in curating.winners(store, engineer, project.id or 0)}
    assert left == of_training - {one.completion_id for one in kept}
    known = curating.known(store, engineer, project.id or 0, scenario=None, language=None, holding="WINNER")
    assert [(one.demonstration.id, one.own) for one in known] == [(one.id, (1.0, 1)) for one in kept]


def test_a_loser_an_answer_all_of_whose_kind_were_bad_and_a_gold_pair_are_not_offered(
    store: Store, engineer: Person, annotator: Person, project: Project, engine: ScriptedEngine
) -> None:
    comparing.refill(store, engine, project_id=project.id or 0, target=3)
    desk = labelling.next_desk(store, annotator, project.id or 0)
    for answer in (Answer(ranks=(1, 1), both_bad=True, seconds=1.0), Answer(ranks=(1, 1), seconds=1.0)):
        assert desk is not None
        desk = labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, answer).desk
    assert curating.winners(store, engineer, project.id or 0) == []


def test_a_demonstration_is_known_by_the_answers_to_prompts_that_showed_it(
    store: Store, engineer: Person, annotator: Person, project: Project, engine: ScriptedEngine
) -> None:
    judged(store, annotator, project, engine, 12)
    known = curating.known(store, engineer, project.id or 0, scenario=None, language=None)
    shown = {one.demonstration.id: one.shown for one in known if one.shown}
    expected: dict[int, list[float]] = {}
    for comparison in store.find(Comparison):
        items = store.rows(
            "select i.position, s.demonstration_id from comparison_items i join completions c on c.id = i.completion_id"
            " join prompt_demonstrations s on s.prompt_id = c.prompt_id where i.comparison_id = ?", [comparison.id],
        )  # fmt: skip
        for row in items:
            expected.setdefault(row["demonstration_id"], []).append(1.0 if row["position"] == 0 else 0.0)
    assert shown.keys() == expected.keys()
    for id, points in expected.items():
        assert shown[id] == (pytest.approx(sum(points) / len(points)), len(points))


def test_points_of_a_ranking_are_the_share_of_the_others_that_were_beaten(
    store: Store, engineer: Person, annotator: Person, project: Project, engine: ScriptedEngine
) -> None:
    comparing.refill(store, engine, project_id=project.id or 0, target=1)
    one = store.find(Completion)[0]
    ids = [store.add(replace(one, id=None, text=f"answer {n}", seed=100 + n)).id or 0 for n in range(4)]
    made = comparing.send_to_labelling(store, engineer, ids)
    desk = labelling.next_desk(store, annotator, project.id or 0)
    while desk is not None and store.get(Assignment, desk.assignment).comparison_id != made.id:
        pair = Answer(ranks=(1, 1), seconds=1.0)
        desk = labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, pair).desk
    assert desk is not None
    ranked = Answer(ranks=(2, 1, 2, 3), seconds=1.0)
    labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, ranked)
    in_order = [ids[position] for position in store.get(Assignment, desk.assignment).shown]
    points = store.db.conn.execute(f"{JUDGED} select completion, points from judged", {"project": project.id})
    found = dict(points.fetchall())
    assert [found[id] for id in in_order] == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_an_annotator_may_do_none_of_it(store: Store, annotator: Person, engineer: Person, project: Project) -> None:
    one = add(store, engineer, project)
    for act in (
        lambda: curating.known(store, annotator, 1, scenario=None, language=None),
        lambda: curating.demonstration(store, annotator, one.id or 0),
        lambda: curating.remove_demonstration(store, annotator, one.id or 0),
        lambda: curating.change_demonstration(
            store, annotator, one.id or 0, input="a", output="b", label=None, tags=()
        ),
        lambda: curating.winners(store, annotator, 1),
        lambda: curating.keep_winners(store, annotator, 1, []),
    ):
        with pytest.raises(Denied):
            act()
    assert store.get(Demonstration, one.id or 0).retired_at is None
    assert store.find(Case)
