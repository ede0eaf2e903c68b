"""Reviewing: planted habits are found, gold is an order of pairs, and what a project asks changes at once."""

from __future__ import annotations

import json

import pytest

from backend import labelling, reviewing
from backend.access import Denied
from backend.labels.form import BadForm, Form
from backend.reviewing import ReviewProblem
from feedback_db import queue
from feedback_db.queue import Draw
from feedback_db.types import Assignment, Comparison, Person
from tests.feedback_db.test_queue import SECOND, Clock, answer, key
from tests.ui.house import add_comparisons, build


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=24, overlap=3, clock=clock)
    with made.store.write() as db:
        db.conn.execute("update projects set overlap = 3")
    yield made
    made.store.close()


def judge_all(house, person: Person, choose) -> int:
    """``choose(desk, canonical position on the left)`` gives the ranks as shown."""
    count = 0
    while (desk := labelling.next_desk(house.store, person, house.project.id)) is not None:
        left = house.store.get(Assignment, desk.assignment).shown[0]
        labelling.submit(house.store, person, desk.assignment, key(), answer(*choose(desk, left)))
        count += 1
    return count


def by_position(position: int):
    """Always prefers this canonical position."""
    return lambda desk, left: (1, 2) if left == position else (2, 1)


def test_who_always_takes_the_left_is_told_and_who_reads_is_not(house):
    judge_all(house, house.ann, lambda desk, left: (1, 2))
    judge_all(house, house.eve, by_position(0))
    found = reviewing.overview(house.store, house.bob, house.project.id)
    ann, eve = (next(one.own for one in found.judges if one.name == name) for name in ("ann", "eve"))
    assert ann.left.value == 1.0 and ann.left.low > 0.5 and ann.left.n == 24
    assert eve.left.low < 0.5 < eve.left.high and eve.longer.value == 1.0  # position 0 holds the longer text
    assert 0.2 < ann.agrees.value < 0.8 and ann.agrees.n == 24
    assert found.agreement.alpha.n == 24 and found.agreement.alpha.value < 0.5
    assert found.agreement.raw.value == ann.agrees.value
    assert found.cohen.n == 24 and abs(found.cohen.value) < 0.5 and ann.seconds is not None and ann.seconds.n == 24


def test_people_who_judge_alike_agree_and_nothing_is_divided(house):
    for person in (house.ann, house.eve):
        judge_all(house, person, lambda desk, left: (1, 2) if len(desk.answers[0]) % 2 else (2, 1))
    found = reviewing.overview(house.store, house.bob, house.project.id)
    assert found.agreement.raw.value == 1.0 and found.split == []


def test_what_divides_people_is_listed_and_one_more_is_asked_at_once(house):
    judge_all(house, house.ann, by_position(0))
    judge_all(house, house.eve, by_position(1))
    judge_all(house, house.bob, by_position(1))
    found = reviewing.overview(house.store, house.bob, house.project.id)
    assert found.cohen.n == 0, "three people"
    assert len(found.split) == 20 and labelling.next_desk(house.store, house.admin, house.project.id) is None
    asked = reviewing.ask_one_more(house.store, house.bob, found.split[0].id)
    assert asked.overlap == 4
    desk = labelling.next_desk(house.store, house.admin, house.project.id)
    assert house.store.get(Assignment, desk.assignment).comparison_id == asked.id


def test_a_repeat_answered_otherwise_lowers_consistency(house, clock, monkeypatch):
    monkeypatch.setattr(queue, "REPEAT_AFTER", 0)
    judge_all(house, house.ann, by_position(0))
    with house.store.write() as db:
        db.conn.execute("update projects set settings = '{\"repeat_share\": 0.5}'")
    add_comparisons(house.store, house.project, 8, overlap=3, first=500)
    clock.now += 25 * 3600 * SECOND
    monkeypatch.setattr(labelling, "_draw", lambda: Draw(0.1, 0.5, 0.3))
    seen = 0
    while seen < 4:
        desk = labelling.next_desk(house.store, house.ann, house.project.id)
        found = house.store.get(Assignment, desk.assignment)
        assert found.purpose == "repeat"
        ranks = by_position(0 if seen else 1)(desk, found.shown[0])  # the first one otherwise than before
        labelling.submit(house.store, house.ann, desk.assignment, key(), answer(*ranks))
        seen += 1
    own = reviewing.own(house.store, house.ann, house.project.id)
    assert (own.consistency.value, own.consistency.n) == (0.75, 4) and own.judged == 24


def test_gold_passes_when_the_pairs_it_names_are_in_its_order():
    assert reviewing.passes([1, 2], [2, 1], [1, 0])
    assert not reviewing.passes([1, 2], [1, 2], [1, 0])
    assert not reviewing.passes([1, 2], [1, 1], [0, 1]), "a tie is not the order"
    assert reviewing.passes([1, 2, 2], [1, 3, 2], [0, 1, 2]), "gold names no order of the last two"


def test_gold_is_asked_of_others_and_counts_for_them(house, monkeypatch):
    judge_all(house, house.ann, by_position(0))
    first = house.store.find(Comparison)[0]
    for order in ((1, 1), (1,), (2, 3)):
        with pytest.raises(ReviewProblem):
            reviewing.make_gold(house.store, house.bob, first.id, order)
    gold = reviewing.make_gold(house.store, house.bob, first.id, (1, 2))
    assert gold.gold == (1, 2) and house.store.get(Comparison, first.id).gold is None
    with house.store.write() as db:
        db.conn.execute("update projects set gold_every = 1")
    desk = labelling.next_desk(house.store, house.eve, house.project.id)
    found = house.store.get(Assignment, desk.assignment)
    assert (found.purpose, found.comparison_id) == ("gold", gold.id)
    labelling.submit(house.store, house.eve, desk.assignment, key(), answer(*by_position(0)(desk, found.shown[0])))
    own = reviewing.own(house.store, house.eve, house.project.id)
    assert (own.gold.value, own.gold.n) == (1.0, 1)


def test_judgements_of_the_priority_arm_move_no_figure(house):
    with house.store.write() as db:
        db.conn.execute("update comparisons set arm = 'priority'")
    for person in (house.ann, house.eve):
        assert judge_all(house, person, by_position(0)) == 24
    found = reviewing.overview(house.store, house.bob, house.project.id)
    assert found.agreement.alpha.n == 0 and found.judges[0].own.judged == 0


def test_what_a_project_asks_changes_with_the_next_desk_and_is_on_record(house):
    form = Form(steps=6, aspects=("kind",), rationale="required")
    reviewing.save_form(
        house.store, house.bob, house.project.id, form, overlap=2, gold_every=20, repeat_share=0.05, random_share=0.3
    )
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    assert desk.form["steps"] == 6 and desk.form["aspects"] == ["kind"]
    project, kept = reviewing.project(house.store, house.bob, house.project.id)
    assert kept == form and (project.overlap, project.gold_every) == (2, 20)
    facts = house.store.rows("select facts from audit_events where action = 'change_label_form'")
    assert json.loads(facts[0]["facts"])["gold_every"] == 20


@pytest.mark.parametrize(
    "wrong", [{"overlap": 0}, {"overlap": 51}, {"gold_every": -1}, {"repeat_share": 0.6}, {"random_share": 0.05}]
)
def test_settings_out_of_range_are_refused(house, wrong):
    right = {"overlap": 1, "gold_every": 0, "repeat_share": 0.0, "random_share": 0.3}
    with pytest.raises(ReviewProblem):
        reviewing.save_form(house.store, house.bob, house.project.id, Form(), **{**right, **wrong})
    with pytest.raises(BadForm):
        reviewing.save_form(house.store, house.bob, house.project.id, Form(steps=3), **right)


def test_annotators_see_their_own_figures_and_nobody_elses(house):
    assert reviewing.own(house.store, house.ann, house.project.id).judged == 0
    for act in (
        lambda: reviewing.overview(house.store, house.ann, house.project.id),
        lambda: reviewing.project(house.store, house.ann, house.project.id),
        lambda: reviewing.ask_one_more(house.store, house.ann, 1),
        lambda: reviewing.make_gold(house.store, house.ann, 1, (1, 2)),
    ):
        with pytest.raises(Denied):
            act()
