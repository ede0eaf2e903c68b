"""Prioritising: chance keeps its arm, an order is taken in whole or in part but never under a judgement, and people see why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backend import labelling, prioritising
from backend.access import Denied
from backend.jobs import runner
from backend.jobs.folder import write_scores
from backend.jobs.supervisor import Supervisor
from backend.prioritising import CannotOrder
from feedback_db import priorities, snapshots
from feedback_db.types import Assignment, Case, Comparison, Job, Model, Project, Snapshot
from tests.feedback_db.test_queue import Clock, answer, key
from tests.ui.house import House, add_comparisons, build, digest

HERE = runner.Handle(os.getpid(), runner.process_start(os.getpid()) or "")
REPORT = {"rule": "coverage", "n": 3, "judged": 0, "dropped": 0, "gain": {"verdict": "too_few"}}


@pytest.fixture
def house(tmp_path: Path):
    made = build(tmp_path, comparisons=60, clock=Clock())
    made.store.add(Model(name="base", kind="policy", base="tiny", source="base", base_fingerprint=b"f" * 32))
    yield made
    made.store.close()


@pytest.fixture
def supervisor(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(runner, "start", lambda folder: HERE)
    return Supervisor(house.store, runs_dir=tmp_path / "runs", models_dir=tmp_path / "models", base="/nowhere")


def project(house: House) -> Project:
    return house.store.get(Project, house.project.id)


def judge(house: House, number: int, person=None) -> list[int]:
    """Comparisons in the order in which they are asked."""
    asked = []
    for _ in range(number):
        desk = labelling.next_desk(house.store, person or house.ann, house.project.id)
        asked.append(house.store.get(Assignment, desk.assignment).comparison_id)
        labelling.submit(house.store, person or house.ann, desk.assignment, key(), answer(1, 2))
    return asked


def finish(house: House, supervisor: Supervisor, job: Job, scores: dict[int, float]) -> None:
    """What a worker would have written."""
    supervisor.tick()
    folder = supervisor.runs_dir / str(job.id)
    write_scores(
        folder, [{"comparison": id, "score": score, "reason": "coverage 0.50"} for id, score in scores.items()]
    )
    line = {"at": house.store.now(), "attempt": 1, "kind": "done", "report": REPORT}
    (folder / "events.jsonl").write_text(json.dumps(line) + "\n")
    supervisor.tick()
    assert house.store.get(Job, job.id).state == "done"


def test_what_chance_keeps_in_the_random_arm_is_never_ordered_and_the_coin_does_not_change(house):
    waiting = priorities.waiting(house.store, project(house))
    assert 30 <= len(waiting) <= 54 and waiting == priorities.waiting(house.store, project(house))
    coins = [priorities.coin(project(house), id) for id in range(4000)]
    assert abs(sum(coins) / 4000 - 0.5) < 0.03
    assert {id for id in range(1, 61) if priorities.coin(project(house), id) >= 0.3} == set(waiting)


def test_held_out_cases_and_begun_comparisons_are_not_ordered(house):
    asked = judge(house, 5)
    for n in range(12):
        words = ({"role": "user", "content": f"held out {n}"},)
        case = house.store.add(
            Case(project_id=house.project.id, conversation=words, split="test", digest=digest(f"held out {n}"))
        )
        new = Comparison(project_id=house.project.id, case_id=case.id, queue_key=n)
        held = house.store.add(new)
        assert held.id not in priorities.waiting(house.store, project(house))
    waiting = priorities.waiting(house.store, project(house))
    assert not set(asked) & set(waiting)


def test_a_job_sees_judgements_with_their_arm_and_what_waits_in_rows_that_can_be_made_again(house, supervisor):
    judge(house, 6)
    job = prioritising.start(house.store, house.bob, house.project.id, "coverage")
    supervisor.tick()
    frozen = house.store.get(Snapshot, job.snapshot_id)
    lines = [json.loads(line) for line in (supervisor.runs_dir / str(job.id) / "rows.jsonl").read_text().splitlines()]
    assert [line["arm"] for line in lines[:6]] == ["random"] * 6 and all("ranks" in line for line in lines[:6])
    assert {line["arm"] for line in lines[6:]} == {"waiting"} and not any("ranks" in line for line in lines[6:])
    assert [line["comparison"] for line in lines[6:]] == frozen.filters["waiting"]
    assert len(lines[6]["answers"]) == 2 and lines[6]["conversation"][0]["role"] in ("system", "user")
    before = snapshots.rows_text(house.store, frozen)
    priorities.apply(house.store, job, [{"comparison": frozen.filters["waiting"][0], "score": 1.0, "reason": "x 0.1"}])
    assert snapshots.rows_text(house.store, frozen) == before


def test_the_highest_score_is_asked_first_and_says_why(house, supervisor):
    with house.store.write() as db:
        db.conn.execute("update projects set settings = '{\"random_share\": 0.1}'")
    job = prioritising.start(house.store, house.bob, house.project.id, "coverage")
    waiting = house.store.get(Snapshot, job.snapshot_id).filters["waiting"]
    wanted = {waiting[7]: 0.9, waiting[3]: 0.5, waiting[11]: 0.1}
    finish(house, supervisor, job, wanted)
    found = prioritising.state(house.store, house.bob, house.project.id)
    assert [(one.id, one.rule, one.chance) for one in found.first] == [(id, "coverage", 0.5) for id in wanted]
    assert found.counts["priority_waiting"] == 3 and found.report["rule"] == "coverage"
    with house.store.write() as db:
        db.conn.execute("update projects set settings = '{\"random_share\": 0.0}'")
    assert judge(house, 3) == list(wanted)


def test_an_arm_never_changes_under_a_judgement(house, supervisor):
    job = prioritising.start(house.store, house.bob, house.project.id, "coverage")
    waiting = house.store.get(Snapshot, job.snapshot_id).filters["waiting"]
    asked = judge(house, 40)
    finish(house, supervisor, job, dict.fromkeys(waiting, 1.0))
    begun = [one.comparison_id for one in house.store.find(Assignment)]  # one more is on the desk
    assert set(asked) < set(begun) and set(waiting) - set(begun)
    for id in waiting:
        assert house.store.get(Comparison, id).arm == ("random" if id in begun else "priority")


def test_back_to_chance_leaves_the_arms_as_they_are_and_can_be_ordered_again(house, supervisor):
    job = prioritising.start(house.store, house.bob, house.project.id, "coverage")
    waiting = house.store.get(Snapshot, job.snapshot_id).filters["waiting"]
    finish(house, supervisor, job, {id: 1.0 / (n + 1) for n, id in enumerate(waiting)})
    ordered = [row["id"] for row in priorities.top(house.store, house.project.id, 100)]
    assert ordered == waiting
    assert prioritising.shuffle(house.store, house.bob, house.project.id) == len(waiting)
    assert [row["id"] for row in priorities.top(house.store, house.project.id, 100)] != ordered
    assert all(house.store.get(Comparison, id).arm == "priority" for id in waiting)
    assert set(priorities.waiting(house.store, project(house))) == set(waiting)


def test_what_a_series_of_rounds_asks_for_comes_before_any_score(house):
    assert priorities.queue_key(1e9) > 2**32 and priorities.queue_key(0.2) < priorities.queue_key(0.1)


def test_chunks_leave_room_for_judgements_and_count_what_they_moved(house, monkeypatch):
    monkeypatch.setattr(priorities, "CHUNK", 7)
    job = prioritising.start(house.store, house.bob, house.project.id, "coverage")
    waiting = house.store.get(Snapshot, job.snapshot_id).filters["waiting"]
    rows = [{"comparison": id, "score": 1.0, "reason": "coverage 0.50"} for id in waiting]
    assert priorities.apply(house.store, job, rows) == len(waiting)
    assert priorities.apply(house.store, job, rows) == len(waiting), "twice changes nothing"


def test_an_order_that_cannot_be_found_is_refused_with_what_to_do(house):
    with pytest.raises(Denied):
        prioritising.start(house.store, house.ann, house.project.id, "coverage")
    with pytest.raises(CannotOrder, match="200 judgements"):
        prioritising.start(house.store, house.bob, house.project.id, "uncertainty")
    with pytest.raises(CannotOrder, match="200 judgements"):
        prioritising.start(house.store, house.bob, house.project.id, "disagreement")
    once = key()
    first = prioritising.start(house.store, house.bob, house.project.id, "coverage", key=once.hex())
    assert prioritising.start(house.store, house.bob, house.project.id, "coverage", key=once.hex()) == first
    with pytest.raises(CannotOrder, match="already"):
        prioritising.start(house.store, house.bob, house.project.id, "coverage")


def test_with_nothing_left_to_order_nothing_starts(house):
    judge(house, 60)
    with pytest.raises(CannotOrder, match="No comparison waits"):
        prioritising.start(house.store, house.bob, house.project.id, "coverage")
    add_comparisons(house.store, house.project, 8, first=900)
    assert prioritising.start(house.store, house.bob, house.project.id, "coverage").kind == "score"


# ---- by itself


def test_the_queue_is_ordered_by_itself_when_enough_judgements_came_and_not_before(house, supervisor, monkeypatch):
    monkeypatch.setattr(prioritising, "FEWEST_JUDGED", 10)
    assert prioritising.advance(house.store) == [], "off unless asked for"
    prioritising.repeat(house.store, house.bob, house.project.id, "coverage", 20)
    judge(house, 9)
    assert prioritising.advance(house.store) == []
    told = prioritising.state(house.store, house.bob, house.project.id).automatic
    assert (told.every, told.rule, told.by, told.new, told.judged) == (20, "coverage", "bob", 9, 9)
    judge(house, 11)
    (job,) = prioritising.advance(house.store)
    assert (job.kind, job.person_id, job.settings["rule"]) == ("score", house.bob.id, "coverage")
    assert prioritising.advance(house.store) == [], "one is under way, and nothing came since"
    finish(house, supervisor, job, dict.fromkeys(priorities.waiting(house.store, project(house))[:3], 1.0))
    judge(house, 19)
    assert prioritising.advance(house.store) == []
    add_comparisons(house.store, house.project, 30, first=200)
    judge(house, 1)
    (again,) = prioritising.advance(house.store)
    assert again.id != job.id and prioritising.state(house.store, house.bob, house.project.id).automatic.new == 0
    prioritising.repeat(house.store, house.bob, house.project.id, "coverage", 0)
    assert prioritising.advance(house.store) == []


def test_below_the_fewest_judgements_no_rule_orders_by_itself(house):
    prioritising.repeat(house.store, house.bob, house.project.id, "coverage", 20)
    judge(house, 40)
    assert prioritising.advance(house.store) == [] and house.store.find(Job) == [], "40 of 200"


def test_who_may_no_longer_review_orders_nothing_by_what_they_once_asked(house, monkeypatch):
    monkeypatch.setattr(prioritising, "FEWEST_JUDGED", 10)
    prioritising.repeat(house.store, house.bob, house.project.id, "coverage", 20)
    judge(house, 20)
    for change in ("role = 'annotator'", "role = 'engineer', status = 'disabled'"):
        with house.store.write() as db:
            db.conn.execute(f"update people set {change} where id = ?", [house.bob.id])
        assert prioritising.advance(house.store) == [], change
    with house.store.write() as db:
        db.conn.execute("update people set status = 'active' where id = ?", [house.bob.id])
    assert len(prioritising.advance(house.store)) == 1


def test_only_reviewers_say_when_the_queue_is_ordered_and_how_often_is_bounded(house):
    with pytest.raises(Denied):
        prioritising.repeat(house.store, house.ann, house.project.id, "coverage", 50)
    for wrong in (1, 19, 100_001, -5):
        with pytest.raises(CannotOrder, match="20 to 100000"):
            prioritising.repeat(house.store, house.bob, house.project.id, "coverage", wrong)
    before = project(house).settings
    kept = prioritising.repeat(house.store, house.bob, house.project.id, "uncertainty", 50).settings
    assert kept == {**before, "order_every": 50, "order_rule": "uncertainty", "order_by": house.bob.id}
