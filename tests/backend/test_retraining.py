"""Retraining and promoting: from judgements to a frozen snapshot, a job, a model, a stage."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend import comparing, labelling, promoting, retraining
from backend.access import Denied
from backend.engines.scripted import ScriptedEngine
from backend.jobs import ordering, runner
from backend.jobs.supervisor import Supervisor
from backend.registry import artifacts
from backend.stats.people import relied_on
from backend.training.settings import BadSettings, DPOSettings, KTOSettings
from feedback_db import Store, comparisons, jobs, models, snapshots, soft
from feedback_db.snapshot_rows import unpaired_rows
from feedback_db.types import Comparison, Completion, Job, Judgement, Model, Person, Project, Promotion, Snapshot

HERE = runner.Handle(os.getpid(), runner.process_start(os.getpid()) or "")
GONE = runner.Handle(HERE.pid, "another time")


def judge(store: Store, engine: ScriptedEngine, annotator: Person, project: Project, count: int) -> None:
    """The first answer as shown always wins."""
    comparing.refill(store, engine, project_id=project.id or 0, target=count)
    desk = labelling.next_desk(store, annotator, project.id or 0)
    for _ in range(count):
        assert desk is not None
        answer = labelling.Answer(ranks=(1, 2), strength=1, seconds=1.0)
        desk = labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, answer).desk


@pytest.fixture
def supervisor(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Workers are not started: a test writes what one would have reported."""
    monkeypatch.setattr(runner, "start", lambda folder: HERE)
    return Supervisor(store, runs_dir=tmp_path / "runs", models_dir=tmp_path / "models", base="/nowhere")


def report(supervisor: Supervisor, job: Job, kind: str, **facts: Any) -> None:
    line = {"at": supervisor.store.now(), "attempt": job.attempt, "kind": kind, **facts}
    with (supervisor.runs_dir / str(job.id) / "events.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def an_artifact(supervisor: Supervisor, text: str = "{}") -> artifacts.Saved:
    return artifacts.save(supervisor.models_dir, lambda folder: (folder / "report.json").write_text(text), {"x": 1})


def reward_job(store: Store, admin: Person, project: Project, supervisor: Supervisor) -> Job:
    job = retraining.train_reward(store, admin, project.id or 0, changes={"min_comparisons": 2})
    supervisor.tick()
    return store.get(Job, job.id or 0)


@pytest.fixture
def judged(store: Store, engine: ScriptedEngine, annotator: Person, project: Project) -> Project:
    judge(store, engine, annotator, project, 20)
    return project


# ---- snapshots


def test_a_snapshot_keeps_its_digest_whatever_is_judged_later(
    store: Store, engine: ScriptedEngine, annotator: Person, judged: Project
) -> None:
    first = snapshots.freeze_preferences(store, judged.id or 0, "s", None)
    rows = snapshots.rows_text(store, first)
    judge(store, engine, annotator, judged, 5)
    assert snapshots.rows_text(store, store.get(Snapshot, first.id or 0)) == rows
    second = snapshots.freeze_preferences(store, judged.id or 0, "s", None)
    assert (second.n, second.version) == (25, 2) and second.digest != first.digest
    with pytest.raises(sqlite3.IntegrityError, match="frozen"):
        store.db.conn.execute("delete from snapshot_judgements")


def test_a_row_holds_the_case_alone_and_the_answers_as_shown(store: Store, judged: Project) -> None:
    made = snapshots.freeze_preferences(store, judged.id or 0, "s", None)
    rows = [json.loads(line) for line in snapshots.rows_text(store, made).splitlines()]
    assert len(rows) == 20
    for row in rows:
        assert [m["role"] for m in row["conversation"]] == ["user"]  # no system text, no demonstrations
        assert row["ranks"] == [1, 2] and row["weight"] == 1.0 and len(row["answers"]) == 2
        first = store.get(Completion, row["answers"][0]["completion"])
        assert first.text == row["answers"][0]["text"]


def test_a_comparison_judged_by_two_people_counts_once(
    store: Store, engine: ScriptedEngine, annotator: Person, engineer: Person, project: Project
) -> None:
    comparing.refill(store, engine, project_id=project.id or 0, target=1)
    store.db.conn.execute("update comparisons set overlap = 2")
    for person in (annotator, engineer):
        desk = labelling.next_desk(store, person, project.id or 0)
        assert desk is not None
        labelling.submit(store, person, desk.assignment, uuid.uuid4().bytes, labelling.Answer(ranks=(1, 1), seconds=1))
    made = snapshots.freeze_preferences(store, project.id or 0, "s", None)
    rows = [json.loads(line) for line in snapshots.rows_text(store, made).splitlines()]
    assert [row["weight"] for row in rows] == [0.5, 0.5]


# ---- weights of people


@pytest.fixture
def disputed(
    store: Store, engine: ScriptedEngine, annotator: Person, engineer: Person, admin: Person, project: Project
) -> Project:
    """Twenty comparisons, judged by the annotator; the engineer also judged four of them, the admin two of these."""
    comparing.refill(store, engine, project_id=project.id or 0, target=4)
    store.db.conn.execute("update comparisons set overlap = case when id % 2 then 2 else 3 end")
    for person, count in ((annotator, 4), (engineer, 4), (admin, 2)):
        desk = labelling.next_desk(store, person, project.id or 0)
        for _ in range(count):
            assert desk is not None
            answer = labelling.Answer(ranks=(2, 1), strength=1, seconds=1.0)
            desk = labelling.submit(store, person, desk.assignment, uuid.uuid4().bytes, answer).desk
    judge(store, engine, annotator, project, 16)
    return project


def frozen(store: Store, project: Project, weights: dict[int, float] | None) -> tuple[Snapshot, list[dict[str, Any]]]:
    made = snapshots.freeze_preferences(store, project.id or 0, "s", None, weights=weights)
    stored = store.get(Snapshot, made.id or 0)
    assert stored == made
    return made, [json.loads(line) for line in snapshots.rows_text(store, stored).splitlines()]


def people_of(store: Store, row: dict[str, Any]) -> int:
    return store.value("select person_id from judgements where id = ?", row["judgements"])


def test_equal_weights_give_the_rows_of_no_weights_to_the_byte(
    store: Store, disputed: Project, annotator: Person, engineer: Person, admin: Person
) -> None:
    plain, rows = frozen(store, disputed, None)
    assert len(rows) == 26 and {row["weight"] for row in rows} == {1.0, 0.5, 1 / 3}
    everyone = [person.id or 0 for person in (annotator, engineer, admin)]
    for weight in (1.0, 0.7, 3.0):
        same, _ = frozen(store, disputed, dict.fromkeys(everyone, weight))
        assert same.digest == plain.digest and same.n == plain.n
    assert plain.filters == {} and plain.statistics is None


def test_a_persons_weight_is_a_share_of_each_comparison(
    store: Store, disputed: Project, annotator: Person, engineer: Person
) -> None:
    _, rows = frozen(store, disputed, {engineer.id or 0: 0.5})
    assert len(rows) == 26
    shares: dict[tuple[int, int], float] = {}
    for row in rows:
        shares[(row["case"], people_of(store, row))] = row["weight"]
    given = sorted(share for (_, person), share in shares.items() if person == engineer.id)
    assert given == pytest.approx([0.2, 0.2, 1 / 3, 1 / 3])
    alone = [share for (_, person), share in shares.items() if person == annotator.id and share == 1.0]
    assert len(alone) == 16 and sum(shares.values()) == pytest.approx(20)


def test_a_person_of_weight_zero_leaves_no_row_and_what_only_they_judged_is_counted(
    store: Store, disputed: Project, annotator: Person, engineer: Person
) -> None:
    made, rows = frozen(store, disputed, {annotator.id or 0: 0.0})
    assert made.n == len(rows) == 6 and sorted(row["weight"] for row in rows) == [0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    assert annotator.id not in {people_of(store, row) for row in rows}
    assert made.statistics == {"judgements_left_out": 20, "comparisons_left_out": 16}
    assert store.value("select count(*) from snapshot_judgements where snapshot_id = ?", [made.id]) == 6


def test_a_soft_label_stands_on_training_pairs_alone_and_is_frozen_with_its_tables(
    store: Store, disputed: Project, annotator: Person
) -> None:
    careful = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]]
    told = {"prior": [0.45, 0.45, 0.1], "people": {str(annotator.id): careful}, "comparisons": 40}
    made = snapshots.freeze_preferences(store, disputed.id or 0, "soft", None, reliability=told)
    rows = [json.loads(line) for line in snapshots.rows_text(store, made).splitlines()]
    assert {"share" in row for row in rows if row["split"] == "train"} == {True}
    assert not any("share" in row for row in rows if row["split"] != "train")
    assert made.statistics is not None and made.statistics["soft_people"] == 1
    by_case: dict[int, set[float]] = {}
    for row in rows:
        if "share" in row:
            first = min(answer["completion"] for answer in row["answers"])
            is_first = row["answers"][0]["completion"] == first
            by_case.setdefault(row["case"], set()).add(round(row["share"] if is_first else 1 - row["share"], 5))
    assert made.statistics["soft_comparisons"] >= len(by_case) > 5
    alone = [row for row in rows if row["weight"] == 1.0 and "share" in row and people_of(store, row) == annotator.id]
    assert alone and all(0.9 < max(row["share"], 1 - row["share"]) < 1 for row in alone)
    assert all((row["share"] > 0.5) == (row["ranks"][0] < row["ranks"][1]) for row in alone)
    assert store.get(Snapshot, made.id or 0).filters["reliability"]["prior"] == [0.45, 0.45, 0.1]


def test_reliability_is_not_guessed_from_few_and_says_what_it_rests_on(
    store: Store, admin: Person, disputed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ordering.NotReady, match="30 are needed; there are 4"):
        retraining.train(store, admin, disputed.id or 0, "reward", changes={"reliability": "estimated"})
    monkeypatch.setattr(ordering, "FEWEST_TOGETHER", 4)
    job = retraining.train(store, admin, disputed.id or 0, "reward", changes={"reliability": "estimated"})
    (told,) = [json.loads(event["facts"])["text"] for event in jobs.events(store, job.id or 0)]
    assert "by the reliability of 3 people, estimated from 4 comparisons" in told
    made = store.get(Snapshot, job.snapshot_id or 0)
    assert len(made.filters["reliability"]["people"]) == 3
    with pytest.raises(BadSettings, match="'ties'"):
        retraining.train(store, admin, disputed.id or 0, "reward", changes={"reliability": "estimated", "ties": "drop"})


def test_reliability_is_estimated_before_the_writer_is_locked(
    store: Store, admin: Person, disputed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "FEWEST_TOGETHER", 4)
    was_locked = []
    monkeypatch.setattr(
        ordering, "relied_on", lambda *of: was_locked.append(store.db.conn.in_transaction) or relied_on(*of)
    )
    retraining.train(store, admin, disputed.id or 0, "reward", changes={"reliability": "estimated"})
    assert was_locked == [False]


def test_dpo_and_kto_take_reliability_and_kto_the_weights_of_people_too(
    store: Store, admin: Person, annotator: Person, engineer: Person, disputed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, changes = disputed.id or 0, {"reliability": "estimated"}
    with pytest.raises(ordering.NotReady, match="30 are needed; there are 4"):
        ordering.freeze(store, admin, project, "kto", KTOSettings(**changes))
    monkeypatch.setattr(ordering, "FEWEST_TOGETHER", 4)
    pairs = ordering.freeze(store, admin, project, "dpo", DPOSettings(**changes))
    rows = [json.loads(line) for line in snapshots.rows_text(store, pairs).splitlines()]
    assert {"share" in row for row in rows if row["split"] == "train"} == {True} and all(
        "prompts" in row for row in rows
    )
    plain, weighed, without = (
        ordering.freeze(store, admin, project, "kto", KTOSettings(**given))
        for given in ({}, changes, {"annotator_weights": "annotator 0"})
    )
    assert weighed.statistics == {"weighed_people": 3} and len(weighed.filters["reliability"]["people"]) == 3
    assert plain.digest != weighed.digest and without.filters["weights"] == {str(annotator.id): 0.0}
    said = {snapshot.id: unpaired_rows(store, snapshot) for snapshot in (plain, weighed, without)}
    judges = {j for row in said[without.id] for j in row["judgements"]}
    assert judges and all(store.get(Judgement, j).person_id != annotator.id for j in judges)
    tables = weighed.filters["reliability"]
    for before, after in zip(said[plain.id], said[weighed.id], strict=True):
        assert before["answer"] == after["answer"]
        if before["split"] != "train":
            assert before == after, "held-out figures stay what people said"
    assert any(soft.weight(tables, person) != 1.0 for person in (annotator.id or 0, engineer.id or 0))
    job = retraining.train(store, admin, project, "dpo", changes={**changes, "min_pairs": 2})
    (told,) = [json.loads(event["facts"])["text"] for event in jobs.events(store, job.id or 0)]
    assert "by the reliability of 3 people" in told


def test_the_admin_names_people_and_the_job_keeps_pseudonyms(
    store: Store, admin: Person, annotator: Person, engineer: Person, disputed: Project
) -> None:
    store.db.conn.execute("update people set status = 'disabled' where id = ?", [engineer.id])
    for kind in ("reward", "dpo"):
        given = {"annotator_weights": "Annotator 0.25 , engineer 0"}
        job = retraining.train(store, admin, disputed.id or 0, kind, changes=given)
        made = store.get(Snapshot, job.snapshot_id or 0)
        assert made.filters["weights"] == {str(annotator.id): 0.25, str(engineer.id): 0.0}
        assert made.n == 22 and job.settings["annotator_weights"] == "p-annotator 0.25, p-engineer 0"
        (told,) = [json.loads(event["facts"])["text"] for event in jobs.events(store, job.id or 0)]
        assert "leave out 4 judgements; 0 comparisons" in told
        again = retraining.train(store, admin, disputed.id or 0, kind, changes=job.settings)
        assert store.get(Snapshot, again.snapshot_id or 0).digest == made.digest and again.settings == job.settings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nobody 1", "names nobody, and nobody has that name"),
        ("annotator 1, p-annotator 2", "names p-annotator twice"),
        ("annotator 1, annotator 2", "names annotator twice"),
        ("annotator", "must be like 'ann 0.5, bob 0'"),
        ("annotator -1", "must be like"),
        ("annotator 0", "leaves no judgement"),
    ],
)
def test_weights_that_cannot_be_are_refused_and_queue_nothing(
    store: Store, admin: Person, judged: Project, text: str, sentence: str
) -> None:
    with pytest.raises(BadSettings, match=sentence):
        retraining.train(store, admin, judged.id or 0, "reward", changes={"annotator_weights": text})
    assert not store.find(Job) and not store.find(Snapshot)


def test_a_retracted_judgement_reaches_no_snapshot(
    store: Store, engine: ScriptedEngine, annotator: Person, judged: Project
) -> None:
    labelling.undo(store, annotator, judged.id or 0, uuid.uuid4().bytes)
    assert snapshots.freeze_preferences(store, judged.id or 0, "s", None).n == 19


# ---- jobs


def test_too_few_judgements_are_refused_with_both_numbers(store: Store, admin: Person, project: Project) -> None:
    with pytest.raises(retraining.NotReady, match="needs 20 judgements; there are 0"):
        retraining.train_reward(store, admin, project.id or 0, changes={})


def test_one_click_is_one_job(store: Store, admin: Person, judged: Project) -> None:
    one, two = (retraining.train_reward(store, admin, judged.id or 0, changes={}, key="click") for _ in range(2))
    assert one.id == two.id and len(store.find(Snapshot)) == 1


def test_a_finished_reward_job_becomes_the_current_reward_model(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    assert job.state == "running" and (supervisor.runs_dir / str(job.id) / "rows.jsonl").exists()
    report(supervisor, job, "metrics", step=1, total_steps=4, values={"loss": 0.7})
    supervisor.tick()
    assert store.get(Job, job.id or 0).step == 1
    saved = an_artifact(supervisor)
    accuracy = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 10}
    said = {"n": 10, "accuracy": accuracy, "verdict": "usable"}
    report(supervisor, job, "done", artifact=saved.folder, digest=saved.digest, report=said)
    supervisor.tick()
    done = store.get(Job, job.id or 0)
    made = store.get(Model, done.output_model_id or 0)
    assert (done.state, made.kind, made.stage, made.project_id) == ("done", "reward", "live", judged.id)
    ready = retraining.readiness(store, admin, judged.id or 0)
    assert ready.reward == made and ready.new == 0 and ready.report is not None
    assert snapshots.models_touched_by(store, 1) == [made.id]
    points = retraining.curves(store, admin, job.id or 0).points
    assert [(p["name"], p["step"], p["value"]) for p in points] == [("loss", 1, 0.7)]


def test_taking_in_the_same_events_twice_changes_nothing(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    report(supervisor, job, "metrics", step=1, total_steps=4, values={"loss": 0.7})
    report(supervisor, job, "message", text="hello")
    supervisor.tick()
    again = Supervisor(store, runs_dir=supervisor.runs_dir, models_dir=supervisor.models_dir, base="/nowhere")
    again.tick()  # as after a restart of the web process
    assert len(jobs.metrics(store, job.id or 0)) == 1 and len(jobs.events(store, job.id or 0)) == 1


def test_a_model_that_is_not_whole_fails_its_job(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    saved = an_artifact(supervisor)
    (supervisor.models_dir / saved.folder / "report.json").write_text("{ }")
    report(supervisor, job, "done", artifact=saved.folder, digest=saved.digest, report={"n": 0})
    supervisor.tick()
    failed = store.get(Job, job.id or 0)
    assert failed.state == "failed" and "not whole" in (failed.error or "")
    assert models.rewards(store, judged.id or 0) == []


def test_a_worker_that_vanished_is_tried_again_and_then_given_up(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "start", lambda folder: GONE)
    job = reward_job(store, admin, judged, supervisor)
    for _ in range(6):
        supervisor.tick()
    given_up = store.get(Job, job.id or 0)
    assert (given_up.state, given_up.attempt) == ("failed", 3) and "without a report 3 times" in (given_up.error or "")


def test_a_silent_worker_is_stopped(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[Path] = []
    monkeypatch.setattr(runner, "stop", lambda folder, handle, **_: stopped.append(folder))
    reward_job(store, admin, judged, supervisor)
    supervisor.tick()
    assert not stopped
    real = store.now
    store.now = lambda: real() + 91_000_000
    supervisor.tick()
    assert stopped


def test_stopping_a_waiting_job_cancels_it_at_once(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = retraining.train_reward(store, admin, judged.id or 0, changes={})
    assert retraining.stop(store, supervisor, admin, job.id or 0).state == "cancelled"


def checkpoint_in(supervisor: Supervisor, job: Job) -> Path:
    folder = supervisor.runs_dir / str(job.id) / "checkpoint-000004"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    return folder


def test_a_paused_job_waits_for_a_person_and_goes_on_with_new_attempts(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    folder = supervisor.runs_dir / str(job.id)
    assert retraining.pause(store, supervisor, admin, job.id or 0).state == "running" and (folder / "pause").exists()
    saved = checkpoint_in(supervisor, job)
    report(supervisor, job, "paused")
    for _ in range(3):
        supervisor.tick()
    assert store.get(Job, job.id or 0).state == "paused"
    assert retraining.resume(store, supervisor, admin, job.id or 0).state == "queued"
    supervisor.tick()
    again = store.get(Job, job.id or 0)
    assert (again.state, again.attempt, again.max_attempts) == ("running", 2, 4)
    assert saved.exists() and not (folder / "pause").exists()
    assert [act["action"] for act in store.rows("select action from audit_events order by id desc limit 2")] == [
        "resume_job",
        "pause_job",
    ]


def test_a_waiting_job_is_paused_at_once_and_another_one_runs(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    first, second = (retraining.train_reward(store, admin, judged.id or 0, changes={}) for _ in range(2))
    assert retraining.pause(store, supervisor, admin, first.id or 0).state == "paused"
    supervisor.tick()
    assert [store.get(Job, job.id or 0).state for job in (first, second)] == ["paused", "running"]
    assert retraining.stop(store, supervisor, admin, first.id or 0).state == "cancelled"


def test_a_program_without_pages_does_not_wait_for_a_paused_job(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    retraining.pause(store, supervisor, admin, job.id or 0)
    report(supervisor, job, "paused")
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits") if seconds == 9 else None)
    supervisor.tick()
    assert supervisor.run_to_end(store.get(Job, job.id or 0), lambda _: None, every_seconds=9).state == "paused"


def test_a_worker_killed_after_a_pause_was_asked_stays_paused_and_a_stop_drops_its_checkpoints(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "start", lambda folder: GONE)
    job = reward_job(store, admin, judged, supervisor)
    retraining.pause(store, supervisor, admin, job.id or 0)
    saved = checkpoint_in(supervisor, job)
    supervisor.tick()
    assert store.get(Job, job.id or 0).state == "paused" and saved.exists()
    retraining.stop(store, supervisor, admin, job.id or 0)
    assert store.get(Job, job.id or 0).state == "cancelled" and not saved.exists()


def test_a_worker_ended_by_a_signal_is_started_again_with_its_checkpoints(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    saved = checkpoint_in(supervisor, job)
    report(supervisor, job, "interrupted")
    supervisor.tick()
    again = store.get(Job, job.id or 0)
    assert (again.state, again.attempt) == ("running", 2) and saved.exists()


def test_a_failed_job_can_be_resumed_and_a_done_one_keeps_no_checkpoints(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    checkpoint_in(supervisor, job)
    report(supervisor, job, "failed", error="The disk is full.")
    supervisor.tick()
    assert store.get(Job, job.id or 0).error == "The disk is full."
    resumed = retraining.resume(store, supervisor, admin, job.id or 0)
    assert (resumed.state, resumed.error, resumed.finished_at) == ("queued", None, None)
    supervisor.tick()
    again = store.get(Job, job.id or 0)
    saved = an_artifact(supervisor)
    report(supervisor, again, "done", artifact=saved.folder, digest=saved.digest, report={"n": 0})
    supervisor.tick()
    assert store.get(Job, job.id or 0).state == "done"
    assert not list((supervisor.runs_dir / str(job.id)).glob("checkpoint-*"))
    assert retraining.resume(store, supervisor, admin, job.id or 0).state == "done"


def test_curves_of_several_attempts_have_no_step_twice(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    """The second attempt goes on after step 4, the third after step 5."""
    job = reward_job(store, admin, judged, supervisor)
    told = [
        (1, [(1, {"loss": 1.1}), (3, {"loss": 1.3}), (4, {"loss": 1.4}), (4, {"held": 4.0}), (7, {"loss": 1.7})]),
        (2, [(4, {"held": 4.5}), (5, {"loss": 2.5}), (6, {"loss": 2.6}), (8, {"loss": 2.8}), (8, {"held": 8.0})]),
        (3, [(6, {"loss": 3.6})]),
    ]
    for attempt, points in told:
        events = [
            {"at": 10 * attempt + n, "attempt": attempt, "kind": "metrics", "step": step, "total_steps": 9, "values": v}
            for n, (step, v) in enumerate(points)
        ]
        jobs.record_events(store, job.id or 0, events)
    found = [(p["name"], p["step"], p["value"]) for p in retraining.curves(store, admin, job.id or 0).points]
    assert found == [
        ("held", 4, 4.5),
        *[("loss", step, value) for step, value in ((1, 1.1), (3, 1.3), (4, 1.4), (5, 2.5), (6, 3.6))],
    ]


def test_the_time_left_follows_the_pace_of_the_attempt_under_way(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    job = reward_job(store, admin, judged, supervisor)
    store.db.conn.execute(
        "update jobs set step = 60, total_steps = 100, attempt = 2, started_at = 1 where id = ?", [job.id]
    )
    for attempt, step in ((1, 1), (1, 60), (2, 51), (2, 60)):
        if (attempt, step) == (2, 51):
            assert retraining.curves(store, admin, job.id or 0).seconds_left is None
        event = {
            "at": 20_000_000,
            "attempt": attempt,
            "kind": "metrics",
            "step": step,
            "total_steps": 100,
            "values": {"a": 1},
        }
        jobs.record_events(store, job.id or 0, [event])
    left = retraining.curves(store, admin, job.id or 0).seconds_left
    assert left == pytest.approx(80, rel=1e-6)  # ten steps took 20 seconds, forty are left


def test_rows_that_changed_since_the_freeze_start_no_job(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "rows_text", lambda *_: "{}\n")
    job = retraining.train_reward(store, admin, judged.id or 0, changes={})
    monkeypatch.setattr(snapshots, "rows_text", lambda *_: "{ }\n")
    supervisor.tick()
    failed = store.get(Job, job.id or 0)
    assert failed.state == "failed" and "frozen" in (failed.error or "")


def test_ppo_needs_a_reward_model_worth_following_or_a_reason(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    with pytest.raises(retraining.NotReady, match="needs a reward model"):
        retraining.run_ppo(store, admin, judged.id or 0, changes={})
    job = reward_job(store, admin, judged, supervisor)
    saved = an_artifact(supervisor)
    report(
        supervisor, job, "done", artifact=saved.folder, digest=saved.digest, report={"n": 9, "verdict": "near_chance"}
    )
    supervisor.tick()
    with pytest.raises(retraining.NotReady, match="chase noise"):
        retraining.run_ppo(store, admin, judged.id or 0, changes={})
    queued = retraining.run_ppo(store, admin, judged.id or 0, changes={}, despite="a trial")
    assert queued.reward_model_id and queued.snapshot_id
    prompts_seen = store.get(Snapshot, queued.snapshot_id)
    assert prompts_seen.kind == "prompts" and prompts_seen.n == 20


# ---- promoting


def candidate(store: Store, supervisor: Supervisor, text: str) -> Model:
    saved = an_artifact(supervisor, text)
    base = models.resolve(store, "base")
    assert base is not None
    return store.add(
        Model(
            name=f"ppo {text}", kind="policy", base=base.base, base_fingerprint=base.base_fingerprint,
            adapter=saved.folder, source="trained", digest=bytes.fromhex(saved.digest),
        )
    )  # fmt: skip


def test_promotion_moves_both_stages_and_replaces_the_waiting_comparisons(
    store: Store, admin: Person, engine: ScriptedEngine, project: Project, supervisor: Supervisor
) -> None:
    comparing.refill(store, engine, project_id=project.id or 0, target=5)
    former = models.live(store, "policy")
    made = candidate(store, supervisor, "{}")
    promoting.promote(store, supervisor.models_dir, admin, made.id or 0, reason="better")
    assert models.live(store, "policy") == store.get(Model, made.id or 0)
    assert former is not None and store.get(Model, former.id or 0).stage == "retired"
    assert {c.status for c in store.find(Comparison)} == {"retired"}
    moves = store.find(Promotion, "person_id is not null")
    assert [(m.model_id, m.to_stage) for m in moves] == [(former.id, "retired"), (made.id, "live")]
    asked = ScriptedEngine(lambda messages, model, seed: f"{model} {seed}", models=[f"model-{made.id}", "base"])
    assert comparing.refill(store, asked, project_id=project.id or 0, target=3) == 3
    waiting = comparisons.completions_of(store, store.find(Comparison, "status = 'open'")[0].id or 0)
    assert {c.model_id for c in waiting} == {made.id}


def test_rolling_back_brings_the_former_model_back(
    store: Store, admin: Person, project: Project, supervisor: Supervisor
) -> None:
    former = models.live(store, "policy")
    made = candidate(store, supervisor, "{}")
    promoting.promote(store, supervisor.models_dir, admin, made.id or 0, reason="")
    assert former is not None
    back = promoting.roll_back(store, supervisor.models_dir, admin, made.id or 0)
    assert back.id == former.id and store.get(Model, made.id or 0).stage == "retired"


def test_a_damaged_model_is_not_promoted(store: Store, admin: Person, project: Project, supervisor: Supervisor) -> None:
    made = candidate(store, supervisor, "{}")
    (supervisor.models_dir / (made.adapter or "") / "report.json").unlink()
    with pytest.raises(promoting.CannotPromote, match="not whole"):
        promoting.promote(store, supervisor.models_dir, admin, made.id or 0, reason="")
    assert store.get(Model, made.id or 0).stage == "candidate"


@pytest.mark.parametrize("role", ["engineer", "annotator"])
def test_only_admins_retrain_and_promote(store: Store, project: Project, supervisor: Supervisor, role: str) -> None:
    person = store.add(Person(pseudonym=role, name=role, role=role))  # type: ignore[arg-type]
    acts: list[Callable[[], object]] = [
        lambda: retraining.readiness(store, person, 1),
        lambda: retraining.train_reward(store, person, 1, changes={}),
        lambda: retraining.run_ppo(store, person, 1, changes={}),
        lambda: retraining.stop(store, supervisor, person, 1),
        lambda: retraining.pause(store, supervisor, person, 1),
        lambda: retraining.resume(store, supervisor, person, 1),
        lambda: retraining.job_list(store, person, 1),
        lambda: retraining.curves(store, person, 1),
        lambda: promoting.promote(store, supervisor.models_dir, person, 1, reason=""),
        lambda: promoting.roll_back(store, supervisor.models_dir, person, 1),
    ]
    if role == "annotator":
        acts.append(lambda: promoting.model_list(store, person))
    for act in acts:
        with pytest.raises(Denied):
            act()
