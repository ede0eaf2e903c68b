"""The queue: nobody too often, nobody twice, nothing lost; whatever threads and leases do."""

from __future__ import annotations

import random
import threading
import uuid
from dataclasses import replace

import pytest
from sqlite_utils.utils import sqlite3

from backend import labelling
from backend.labelling import Answer, LabellingProblem
from feedback_db import Store, judgements
from feedback_db.types import Assignment, Comparison, Person
from tests.ui.house import add_comparisons, build

SECOND = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=6, clock=clock)
    yield made
    made.store.close()


def answer(*ranks: int) -> Answer:
    return Answer(ranks=ranks or (1, 2), strength=1 if ranks in ((), (1, 2), (2, 1)) else None, seconds=2.0)


def key() -> bytes:
    return uuid.uuid4().bytes


def counters_equal_assignments(store: Store) -> bool:
    wrong = store.rows(
        "select c.id from comparisons c where c.gold is null and (c.judged <> (select count(*) from assignments a"
        " where a.comparison_id = c.id and a.purpose = 'label' and a.state = 'submitted') or c.slots_left <> c.overlap -"
        " (select count(*) from assignments a where a.comparison_id = c.id and a.purpose = 'label'"
        " and a.state in ('leased', 'submitted')) or (c.status = 'done') <> (c.judged >= c.overlap))"
    )
    return not wrong


def test_many_threads_give_each_comparison_exactly_its_overlap(tmp_path):
    house = build(tmp_path, comparisons=30, overlap=3)
    store, project = house.store, house.project
    with store.write():
        people = [store.add(Person(pseudonym=f"t{n}", name=f"t{n}", role="annotator")) for n in range(8)]

    def work(person: Person, seed: int) -> None:
        draw = random.Random(seed)
        while (desk := labelling.next_desk(store, person, project.id)) is not None:
            if draw.random() < 0.1:
                labelling.skip(store, person, desk.assignment)
            elif draw.random() < 0.1:
                labelling.release(store, person, desk.assignment, desk.lease)
            else:
                once = key()
                first = labelling.submit(store, person, desk.assignment, once, answer()).judgement
                assert labelling.submit(store, person, desk.assignment, once, answer()).judgement == first
        store.close_reader() if hasattr(store, "close_reader") else store.db.close()

    threads = [threading.Thread(target=work, args=(person, n)) for n, person in enumerate(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    judged = store.rows("select judged, overlap, slots_left from comparisons")
    skipped = store.value("select count(*) from assignments where state = 'skipped'")
    assert all(row["judged"] <= 3 for row in judged)
    assert sum(row["judged"] for row in judged) == store.value("select count(*) from judgements")
    assert skipped > 0 and counters_equal_assignments(store)
    assert store.value("select max(n) from (select count(*) n from judgements group by comparison_id, person_id)") == 1
    assert sum(row["judged"] < 3 for row in judged) == 0  # 8 people, 3 wanted: skips leave enough
    store.close()


def test_nobody_gets_a_comparison_twice(house):
    seen = []
    while (desk := labelling.next_desk(house.store, house.ann, house.project.id)) is not None:
        seen.append(desk.assignment)
        labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert len(seen) == len(set(seen)) == 6


def test_a_reload_shows_the_same_comparison_in_the_same_order(house):
    first = labelling.next_desk(house.store, house.ann, house.project.id)
    again = labelling.next_desk(house.store, house.ann, house.project.id)
    assert (first.assignment, first.answers) == (again.assignment, again.answers)
    labelling.release(house.store, house.ann, again.assignment, first.lease if first.lease != again.lease else 0)
    assert (
        labelling.heartbeat(house.store, house.ann, again.assignment) > 0
    )  # the late release of the old page does nothing


def test_leaving_and_coming_back_shows_the_same_comparison(house, clock):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    labelling.release(house.store, house.ann, desk.assignment, desk.lease)
    assert house.store.get(Assignment, desk.assignment).state == "released"
    back = labelling.next_desk(house.store, house.ann, house.project.id)
    assert (back.assignment, back.answers) == (desk.assignment, desk.answers)


def test_an_expired_lease_goes_to_somebody_else_and_a_comparison_returns_to_its_only_annotator(house, clock):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    comparison = house.store.get(Assignment, desk.assignment).comparison_id
    clock.now += 301 * SECOND
    others = []
    while (theirs := labelling.next_desk(house.store, house.eve, house.project.id)) is not None:
        others.append(house.store.get(Assignment, theirs.assignment).comparison_id)
        labelling.skip(house.store, house.eve, theirs.assignment)
    assert comparison in others and house.store.get(Assignment, desk.assignment).state == "expired"
    mine = []
    while (again := labelling.next_desk(house.store, house.ann, house.project.id)) is not None:
        mine.append(house.store.get(Assignment, again.assignment).comparison_id)
        labelling.submit(house.store, house.ann, again.assignment, key(), answer())
    assert comparison in mine and len(mine) == 6
    assert counters_equal_assignments(house.store)


def test_a_late_answer_is_counted_when_the_slot_is_free_and_kept_when_it_is_taken(house, clock):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    clock.now += 301 * SECOND
    assert labelling.submit(house.store, house.ann, desk.assignment, key(), answer()).counted
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    comparison = house.store.get(Assignment, desk.assignment).comparison_id
    clock.now += 301 * SECOND
    for _ in range(5):
        theirs = labelling.next_desk(house.store, house.eve, house.project.id)
        labelling.submit(house.store, house.eve, theirs.assignment, key(), answer())
    late = labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert not late.counted and late.judgement
    assert house.store.get(Comparison, comparison).judged == 1
    assert house.store.get(Assignment, desk.assignment).purpose == "surplus"
    assert counters_equal_assignments(house.store)


def test_a_heartbeat_keeps_a_lease_for_half_an_hour_at_most(house, clock):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    for _ in range(40):
        clock.now += 60 * SECOND
        try:
            labelling.heartbeat(house.store, house.ann, desk.assignment)
        except LabellingProblem as problem:
            assert problem.code == "lease_lost"
            break
    lasted = (clock.now - desk.lease) // (60 * SECOND)
    assert 29 <= lasted <= 31


def test_the_second_person_sees_the_reverse_of_the_first(tmp_path):
    house = build(tmp_path, comparisons=20, overlap=2)
    shown = {}
    for person in (house.ann, house.eve):
        while (desk := labelling.next_desk(house.store, person, house.project.id)) is not None:
            found = house.store.get(Assignment, desk.assignment)
            shown.setdefault(found.comparison_id, []).append(found.shown)
            labelling.submit(house.store, person, desk.assignment, key(), answer())
    assert all(first == tuple(reversed(second)) for first, second in shown.values())
    assert 4 <= sum(first == (0, 1) for first, _ in shown.values()) <= 16  # neither side is always first
    house.store.close()


def test_what_is_chosen_lands_on_the_completion_that_was_shown_there(house):
    for _ in range(6):
        desk = labelling.next_desk(house.store, house.ann, house.project.id)
        place = next(i for i, text in enumerate(desk.answers) if "restart function" in text)
        ranks = (1, 2) if place == 0 else (2, 1)
        labelling.submit(house.store, house.ann, desk.assignment, key(), answer(*ranks))
    assert {row["verdict"] for row in house.store.rows("select verdict from current_judgements")} == {"a"}


def test_work_added_behind_the_cursor_is_found(house):
    for _ in range(6):
        desk = labelling.next_desk(house.store, house.ann, house.project.id)
        labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert labelling.next_desk(house.store, house.ann, house.project.id) is None
    (added,) = add_comparisons(house.store, house.project, 1, first=50)
    with house.store.write() as db:
        db.conn.execute("update comparisons set queue_key = -5 where id = ?", [added.id])
    assert labelling.next_desk(house.store, house.ann, house.project.id) is not None


def test_a_judgement_cannot_be_changed_and_its_hash_finds_a_changed_row(house):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    once = key()
    labelling.submit(house.store, house.ann, desk.assignment, once, answer())
    stored = judgements.by_key(house.store, once)
    assert stored.row_hash == judgements.row_hash(stored)
    assert judgements.row_hash(replace(stored, ranks=(2, 1))) != stored.row_hash
    assert judgements.row_hash(replace(stored, rationale="redacted")) == stored.row_hash
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), house.store.write() as db:
        db.conn.execute("update judgements set ranks = '[2,1]' where id = ?", [stored.id])
