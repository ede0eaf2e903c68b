"""The parts of the queue: what comes back and what is new are offered at once; gold and repeats come at their rates; no scans."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
import uuid
from pathlib import Path

import pytest

from backend import labelling
from backend.labelling import Answer
from feedback_db import Store, queue
from feedback_db.queue import Draw
from feedback_db.types import Assignment, Person, Project
from tests.feedback_db.test_queue import SECOND, Clock, answer, counters_equal_assignments, key
from tests.ui.house import House, add_comparisons, build

PROCESSES, ITEMS = 16, 10_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=8, clock=clock)
    yield made
    made.store.close()


def take(house: House, person: Person) -> Assignment:
    desk = labelling.next_desk(house.store, person, house.project.id)
    assert desk is not None
    return house.store.get(Assignment, desk.assignment)


def judge_all(house: House, person: Person) -> list[Assignment]:
    done = []
    while (desk := labelling.next_desk(house.store, person, house.project.id)) is not None:
        labelling.submit(house.store, person, desk.assignment, key(), answer())
        done.append(house.store.get(Assignment, desk.assignment))
    return done


def settle(house: House, **values: object) -> Project:
    """Change settings of the project."""
    with house.store.write() as db:
        for name, value in values.items():
            db.conn.execute(f"update projects set {name} = ? where id = ?", [value, house.project.id])
    return house.store.get(Project, house.project.id)


def test_a_skipped_comparison_is_with_somebody_else_at_once_wherever_they_are_in_the_queue(house):
    mine = take(house, house.ann)
    for _ in range(3):  # eve is past it
        labelling.submit(house.store, house.eve, take(house, house.eve).id, key(), answer())
    theirs = take(house, house.eve)
    labelling.skip(house.store, house.ann, mine.id)
    labelling.submit(house.store, house.eve, theirs.id, key(), answer())
    assert take(house, house.eve).comparison_id == mine.comparison_id


def test_a_closed_page_gives_its_comparison_to_somebody_else_at_once(house):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    mine = house.store.get(Assignment, desk.assignment)
    labelling.submit(house.store, house.eve, take(house, house.eve).id, key(), answer())
    theirs = take(house, house.eve)
    labelling.release(house.store, house.ann, desk.assignment, desk.lease)
    labelling.submit(house.store, house.eve, theirs.id, key(), answer())
    assert take(house, house.eve).comparison_id == mine.comparison_id


def test_new_work_and_a_new_priority_come_before_what_is_left(house):
    for _ in range(4):
        labelling.submit(house.store, house.ann, take(house, house.ann).id, key(), answer())
    (added,) = add_comparisons(house.store, house.project, 1, first=100)
    with house.store.write() as db:
        db.conn.execute("update comparisons set queue_key = -7 where id = ?", [added.id])
    labelling.submit(house.store, house.ann, take(house, house.ann).id, key(), answer())
    assert take(house, house.ann).comparison_id == added.id


def test_a_raised_overlap_asks_the_next_person_at_once(house):
    mine = judge_all(house, house.ann)
    assert labelling.next_desk(house.store, house.eve, house.project.id) is None
    with house.store.write() as db:
        db.conn.execute("update comparisons set overlap = 2 where id = ?", [mine[2].comparison_id])
    assert take(house, house.eve).comparison_id == mine[2].comparison_id


def test_a_queue_that_was_passed_from_end_to_end_is_not_read_again(house):
    """A person who has judged everything that still waits for others costs one search, not one per page."""
    with house.store.write() as db:
        db.conn.execute("update comparisons set overlap = 3")
    judge_all(house, house.ann)
    reads: list[str] = []
    house.store.db.conn.set_trace_callback(reads.append)
    assert queue._first_open(house.store, house.ann.id, house.project, 0.0) is None
    house.store.db.conn.set_trace_callback(None)
    assert len(reads) <= 6, reads


def test_the_desk_ahead_is_the_one_that_comes_after_the_submit(house):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    ahead = labelling.ahead(house.store, house.ann, house.project.id)
    again = labelling.ahead(house.store, house.ann, house.project.id)
    assert ahead.assignment == again.assignment != desk.assignment
    done = labelling.submit(house.store, house.ann, desk.assignment, key(), answer())
    assert done.desk.assignment == ahead.assignment and done.desk.answers == ahead.answers
    assert counters_equal_assignments(house.store)


def test_a_heartbeat_keeps_the_desk_ahead_too(house, clock):
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    ahead = labelling.ahead(house.store, house.ann, house.project.id)
    for _ in range(4):
        clock.now += 200 * SECOND
        labelling.heartbeat(house.store, house.ann, desk.assignment)
    assert house.store.get(Assignment, ahead.assignment).expires_at > clock.now


def test_gold_comes_at_its_rate_takes_no_slot_and_looks_like_the_rest(tmp_path, monkeypatch):
    house = build(tmp_path, comparisons=60)
    project = settle(house, gold_every=4)
    gold = {one.id for one in add_comparisons(house.store, project, 10, first=500)}
    with house.store.write() as db:
        db.conn.execute("update comparisons set gold = '[1,2]' where id > 60")
    turns = itertools.cycle([0.0, 0.25, 0.5, 0.75])
    monkeypatch.setattr(labelling, "_draw", lambda: Draw(next(turns), 0.5, 0.5))
    for person in (house.ann, house.eve):
        desk, purposes = labelling.next_desk(house.store, person, project.id), []
        while len(purposes) < 20:
            found = house.store.get(Assignment, desk.assignment)
            purposes.append(found.purpose)
            assert (found.purpose == "gold") == (found.comparison_id in gold)
            desk = labelling.submit(house.store, person, desk.assignment, key(), answer()).desk
        assert purposes.count("gold") == 5
    assert house.store.value("select max(judged) from comparisons where gold is not null") == 0
    twice = "select 1 from assignments where purpose = 'gold' group by comparison_id, person_id having count(*) > 1"
    assert not house.store.rows(twice) and counters_equal_assignments(house.store)
    house.store.close()


def test_who_judged_the_answers_of_a_case_is_not_asked_its_gold(house):
    mine = take(house, house.ann)
    labelling.submit(house.store, house.ann, mine.id, key(), answer())
    case = house.store.value("select case_id from comparisons where id = ?", [mine.comparison_id])
    with house.store.write() as db:
        db.conn.execute(
            "insert into comparisons (project_id, case_id, kind, size, overlap, slots_left, gold, created_at)"
            " values (?, ?, 'pair', 2, 1, 1, '[1,2]', 1)",
            [house.project.id, case],
        )
    assert queue._first(house.store, house.ann.id, house.project, "gold") is None
    assert queue._first(house.store, house.eve.id, house.project, "gold") is not None


def test_a_repeat_comes_a_day_later_with_its_sides_turned_and_never_twice(house, clock, monkeypatch):
    monkeypatch.setattr(queue, "REPEAT_AFTER", 2)
    project = settle(house, settings='{"repeat_share": 1.0}')
    first = [take(house, house.ann) for _ in range(1)]
    for _ in range(5):
        found = take(house, house.ann)
        assert found.purpose == "label", "nothing is a day old"
        labelling.submit(house.store, house.ann, found.id, key(), answer())
        first.append(found)
    clock.now += 25 * 3600 * SECOND
    repeats = []
    for _ in range(3):
        found = house.store.commit(
            lambda: queue.lease_next(house.store, house.ann.id, project, clock.now, Draw(0.5, 0.5, 0.0))
        )
        if found.purpose == "repeat":
            repeats.append(found)
        labelling.submit(house.store, house.ann, found.id, key(), answer())
    before = {one.comparison_id: one.shown for one in first}
    assert len(repeats) == 3 and len({one.comparison_id for one in repeats}) == 3
    assert all(one.shown == tuple(reversed(before[one.comparison_id])) for one in repeats)
    trained = "select count(*) from current_judgements where purpose = 'label'"
    assert house.store.value(trained) == 5 and counters_equal_assignments(house.store)


def test_a_late_repeat_stays_a_repeat(house, clock, monkeypatch):
    monkeypatch.setattr(queue, "REPEAT_AFTER", 0)
    project = settle(house, settings='{"repeat_share": 1.0}')
    labelling.submit(house.store, house.ann, take(house, house.ann).id, key(), answer())
    clock.now += 25 * 3600 * SECOND
    found = house.store.commit(
        lambda: queue.lease_next(house.store, house.ann.id, project, clock.now, Draw(0.5, 0.5, 0.0))
    )
    assert found.purpose == "repeat"
    clock.now += 400 * SECOND
    take(house, house.eve)  # takes back what ran out
    assert house.store.get(Assignment, found.id).state == "expired"
    done = labelling.submit(house.store, house.ann, found.id, key(), answer())
    assert done.counted and house.store.get(Assignment, found.id).purpose == "repeat"


def test_no_query_of_the_hot_path_scans_a_table_or_sorts_more_than_a_handful(house):
    """Every statement of next, submit, skip, undo, draft and heartbeat, as SQLite plans it."""
    settle(house, gold_every=2, settings='{"repeat_share": 0.4}')
    said: list[str] = []
    store = house.store
    plain = store.commit
    store.commit = lambda act: _here(store, act)  # type: ignore[method-assign]
    store.db.conn.set_trace_callback(said.append)
    desk = labelling.next_desk(store, house.ann, house.project.id)
    labelling.save_draft(store, house.ann, desk.assignment, {"rationale": "x"})
    labelling.heartbeat(store, house.ann, desk.assignment)
    labelling.ahead(store, house.ann, house.project.id)
    for _ in range(4):
        desk = labelling.submit(store, house.ann, desk.assignment, key(), answer()).desk
    labelling.skip(store, house.ann, desk.assignment)
    labelling.undo(store, house.ann, house.project.id, key())
    store.db.conn.set_trace_callback(None)
    store.commit = plain  # type: ignore[method-assign]
    statements = {
        sql for sql in said if sql.startswith(("select", "update", "delete"))
    }  # inserts of values read nothing
    assert len(statements) > 40
    for sql in sorted(statements):
        for row in store.rows(f"explain query plan {sql}"):
            assert not _scans(row["detail"]), f"{row['detail']}: {sql}"


def _scans(step: str) -> bool:
    """A scan of a table; constants, a page already fetched, and the last row of the audit are none."""
    return step.startswith("SCAN ") and not step.startswith(
        ("SCAN CONSTANT", "SCAN p", "SCAN old", "SCAN recent", "SCAN (subquery", "SCAN audit_events")
    )


def _here(store: Store, act):
    with store.write():
        return act()


@pytest.mark.slow
def test_sixteen_processes_judge_ten_thousand_comparisons_exactly_once_each(tmp_path):
    house = build(tmp_path, comparisons=2)
    store = house.store
    with store.write() as db:
        db.conn.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) insert into comparisons"
            " (project_id, case_id, kind, size, overlap, slots_left, arm, queue_key, created_at)"
            " select project_id, case_id, 'pair', 2, 1, 1, iif(i % 3, 'random', 'priority'), (i * 7919) % 10007, 1"
            " from n, (select * from comparisons where id = 1)",
            [ITEMS - 2],
        )
        items = "insert into comparison_items select c.id, i.position, i.completion_id from comparisons c, comparison_items i"
        db.conn.execute(f"{items} where c.id > 2 and i.comparison_id = 1")
        people = [store.add(Person(pseudonym=f"w{n}", name=f"w{n}", role="annotator")) for n in range(PROCESSES)]
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    workers = [
        context.Process(target=_work, args=(Path(store.path), person.id, house.project.id, n))
        for n, person in enumerate(people)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert time.monotonic() - began < 240
    counted = "select count(*), count(distinct comparison_id) from current_judgements where purpose = 'label'"
    (row,) = store.db.conn.execute(counted).fetchall()
    assert row == (ITEMS, ITEMS)
    assert not store.rows("select 1 from comparisons where judged <> 1 or slots_left <> 0 or status <> 'done'")
    store.close()


def _work(path: Path, person_id: int, project_id: int, seed: int) -> None:
    """One annotator in a process of their own: most judge, some skip or go away, and come back."""
    store = Store(path)
    person, draw = store.get(Person, person_id), random.Random(seed)
    given = Answer(ranks=(1, 2), seconds=1.0)
    desk = labelling.next_desk(store, person, project_id)
    while desk is not None:
        if draw.random() < 0.02:
            labelling.release(store, person, desk.assignment, desk.lease)
            desk = labelling.next_desk(store, person, project_id)
        else:
            desk = labelling.submit(store, person, desk.assignment, uuid.uuid4().bytes, given).desk
    store.close()
