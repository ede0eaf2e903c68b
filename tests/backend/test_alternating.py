"""Rounds: each job is followed by the next one once, and each rule that ends a series ends it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend import alternating, cli, comparing, labelling, opening, retraining, starting
from backend.access import Denied
from backend.alternating import Wanted
from backend.engines.scripted import ScriptedEngine
from backend.jobs import ordering, runner
from backend.jobs.supervisor import Supervisor
from backend.registry import artifacts
from backend.registry.bases import Base
from backend.stats.reliability import Pairs
from backend.training.settings import BadSettings
from feedback_db import Store, comparisons, models, rounds, snapshots
from feedback_db.types import Comparison, Job, Model, Person, Project, Promotion, Round, Snapshot
from tests.backend.test_retraining import HERE, an_artifact, judge, report
from tests.backend.training import tiny

ACCURATE = {"value": 0.8, "low": 0.7, "high": 0.88, "n": 90}
APART = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}
TOGETHER = {"value": 0.6, "low": 0.45, "high": 0.73, "n": 40}
BASELINES = {"length": {"value": 0.6}, "position": {"value": 0.5}}
REWARD: dict[str, Any] = {
    "n": 90,
    "verdict": "usable",
    "accuracy": ACCURATE,
    "adversarial": {"separation": APART, "separation_before": None},
}
GAIN = {"value": 0.5, "low": 0.3, "high": 0.7, "n": 30}
POLICY = {"n": 30, "verdict": "gained", "held_out": {"gain": GAIN, "kl": {"value": 2.0, "se": 0.1, "n": 30}}}


@pytest.fixture
def supervisor(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(runner, "start", lambda folder: HERE)
    monkeypatch.setattr(runner, "stop", lambda folder, handle, **_: None)
    return Supervisor(store, runs_dir=tmp_path / "runs", models_dir=tmp_path / "models", base="/nowhere")


@pytest.fixture
def judged(store: Store, engine: ScriptedEngine, annotator: Person, project: Project) -> Project:
    judge(store, engine, annotator, project, 20)
    return project


class Series:
    """A series whose jobs report what a test says."""

    def __init__(self, store: Store, supervisor: Supervisor, person: Person, project: Project, **changes: Any):
        self.store, self.supervisor, self.project_id = store, supervisor, project.id or 0
        despite, reward = changes.pop("despite", ""), changes.pop("reward", {})
        self.first = alternating.start_rounds(
            store,
            person,
            self.project_id,
            changes=changes,
            reward=reward,
            ift={"total_episodes": 64},
            despite=despite,
            key="k",
        )

    def rounds(self) -> list[Round]:
        return rounds.of_series(self.store, "k")

    def last(self) -> Round:
        return self.rounds()[-1]

    def job(self) -> Job:
        return self.store.get(Job, self.last().policy_job_id or self.last().reward_job_id)

    def ends(self, kind: str, **facts: Any) -> None:
        """The job under way reports its end; the series is moved on twice, since the second time must change nothing."""
        self.supervisor.tick()
        report(self.supervisor, self.job(), kind, **facts)
        self.supervisor.tick()
        for _ in range(2):
            alternating.advance(self.store)

    def done(self, said: dict[str, Any]) -> Round:
        saved = an_artifact(self.supervisor, json.dumps([said, self.job().id]))
        self.ends("done", artifact=saved.folder, digest=saved.digest, report=said)
        return self.last()


def count(store: Store) -> int:
    return len(store.find(Job))


# ---- the way a series goes


def test_an_adversarial_series_takes_turns_and_each_step_goes_on_from_the_one_before(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged, rounds=2)
    base = models.live(store, "policy")
    reward = series.job()
    assert (reward.kind, reward.settings["adv_coef"], reward.policy_model_id) == ("reward", 0.1, base and base.id)
    assert reward.reward_model_id is None and reward.start_model_id is None
    for _ in range(3):
        alternating.advance(store)
    assert count(store) == 1 and series.last().state == "training_reward"
    first = series.done(REWARD)
    assert first.state == "training_policy" and first.facts["separation"] == APART and count(store) == 2
    judge_model = store.get(Job, first.reward_job_id).output_model_id
    ift = series.job()
    assert (ift.kind, ift.settings["total_episodes"], ift.reward_model_id) == ("ift", 64, judge_model)
    assert ift.start_model_id is None and store.get(Snapshot, ift.snapshot_id or 0).kind == "prompts"

    second = series.done(POLICY)
    assert [(r.number, r.state, r.reason) for r in series.rounds()] == [(1, "done", ""), (2, "training_reward", "")]
    assert series.rounds()[0].facts["gain"] == GAIN and series.rounds()[0].facts["kl"]["value"] == 2.0
    policy = store.get(Job, ift.id or 0).output_model_id
    again = series.job()
    assert (again.policy_model_id, again.reward_model_id) == (policy, judge_model)
    supervisor.tick()
    told = json.loads((supervisor.runs_dir / str(again.id) / "job.json").read_text())
    assert told["policy"] == store.get(Model, policy or 0).adapter and told["lineage"]["policy"]["model"] == policy
    assert told["reward"] == store.get(Model, judge_model or 0).adapter
    series.done(REWARD)
    assert series.job().start_model_id == policy
    last = series.done({**POLICY, "n": 31})
    assert (last.number, last.state, last.reason) == (2, "done", "all_done") and count(store) == 4
    keys = [job.key for job in store.find(Job)]  # unique: no job of a round can be queued twice
    assert keys == ["rounds/k/1/reward", "rounds/k/1/ift", "rounds/k/2/reward", "rounds/k/2/ift"]
    assert second.series == last.series and rounds.open_round(store, judged.id or 0) is None
    log = alternating.round_log(store, admin, judged.id or 0)
    assert [(view.round.number, view.by, view.waits_for) for view in log] == [(2, "admin", 0), (1, "admin", 0)]


def test_reliability_is_estimated_anew_for_each_round_and_before_the_writer_is_locked(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_locked = []
    found = Pairs([1 / 3] * 3, {}, {}, 40)
    monkeypatch.setattr(ordering, "relied_on", lambda *_: was_locked.append(store.db.conn.in_transaction) or found)
    series = Series(store, supervisor, admin, judged, rounds=2, reward={"reliability": "estimated"})
    assert was_locked == [False]
    series.done(REWARD)
    series.done(POLICY)
    assert len(series.rounds()) == 2 and was_locked == [False, False]
    made = [store.get(Snapshot, store.get(Job, one.reward_job_id).snapshot_id or 0) for one in series.rounds()]
    assert [one.filters["reliability"]["comparisons"] for one in made] == [40, 40]


def test_weights_of_people_go_through_all_rounds_under_pseudonyms(
    store: Store, admin: Person, annotator: Person, judged: Project, supervisor: Supervisor
) -> None:
    settings = {"reward": {"annotator_weights": "annotator 0.5"}, "ift": {}}
    nobody = {**settings, "reward": {"annotator_weights": "annotator 0"}}
    with pytest.raises(BadSettings, match="leaves no judgement"):
        alternating.start_rounds(store, admin, judged.id or 0, changes={"rounds": 2}, **nobody, key="n")
    alternating.start_rounds(store, admin, judged.id or 0, changes={"rounds": 2}, **settings, key="k")
    series = object.__new__(Series)
    series.store, series.supervisor = store, supervisor
    for number in (1, 2):
        job = series.job()
        assert (series.last().number, job.settings["annotator_weights"]) == (number, f"{annotator.pseudonym} 0.5")
        assert store.get(Snapshot, job.snapshot_id or 0).filters["weights"] == {str(annotator.id): 0.5}
        series.done(REWARD)
        series.done({**POLICY, "n": 30 + number})


def test_the_rows_of_an_adversarial_job_hold_the_good_answers_behind_the_judgements(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    supervisor.tick()
    lines = (supervisor.runs_dir / str(series.job().id) / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    good = [row for row in rows if "source" in row]
    assert rows[20:] == good and {row["source"] for row in good} == {"demonstration", "winner"}
    assert all(row["conversation"][0]["role"] == "user" and "ranks" in rows[0] for row in good)
    plain = snapshots.freeze_answers(store, judged.id or 0, "a", None)
    answers = [json.loads(line) for line in snapshots.rows_text(store, plain).splitlines()]
    assert [{k: v for k, v in row.items() if k != "conversation"} for row in good] == answers


def test_a_plain_reward_job_with_a_weight_looks_at_the_live_policy(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    live = models.live(store, "policy")
    plain = retraining.train_reward(store, admin, judged.id or 0, changes={})
    against = retraining.train_reward(store, admin, judged.id or 0, changes={"adv_coef": 0.2})
    assert (plain.policy_model_id, against.policy_model_id) == (None, live and live.id)


def test_a_cooperative_series_waits_for_judgements_of_its_newest_policy(
    store: Store, admin: Person, annotator: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged, kind="cooperative", min_new_judgements=3, rounds=2)
    assert series.job().settings["adv_coef"] == 0.0
    series.done(REWARD)
    waiting = series.done(POLICY)
    policy = store.get(Job, waiting.policy_job_id or 0).output_model_id or 0
    assert waiting.state == "waiting_for_people" and alternating.wanted_answers(store) == [
        Wanted(judged.id or 0, policy, 3)
    ]
    assert alternating.round_log(store, admin, judged.id or 0)[0].waits_for == 3

    asked = ScriptedEngine(lambda messages, model, seed: f"{model} {seed}", models=[f"model-{policy}", "base"])
    comparing.refill(store, asked, project_id=judged.id or 0, target=10)
    for made in (3, 0):
        given = {"project_id": judged.id or 0, "model_id": policy, "count": 3}
        assert comparing.ask_about(store, asked, **given) == made
    mine = store.find(Comparison, "arm = 'priority'")
    assert {c.model_id for one in mine for c in comparisons.completions_of(store, one.id or 0)} == {policy}
    for left in (2, 1, 0):
        assert series.last().state == "waiting_for_people" and count(store) == 2
        judge_a_new_one(store, annotator, judged)
        assert [wanted.missing for wanted in alternating.wanted_answers(store)] == ([left] if left else [])
        alternating.advance(store)
    alternating.advance(store)
    assert (series.last().number, series.last().state, count(store)) == (2, "training_reward", 3)
    rows = snapshots.rows_text(store, store.get(Snapshot, series.job().snapshot_id or 0)).splitlines()
    assert sum(json.loads(row)["is_newest"] for row in rows) == 3 and len(rows) == 23
    series.done(REWARD)
    assert series.done(POLICY).state == "done"  # nobody is asked after the last round


def judge_a_new_one(store: Store, annotator: Person, project: Project) -> None:
    """The next one of the newest policy's; the others are put aside meanwhile."""
    store.db.conn.execute("update comparisons set status = 'paused' where status = 'open' and arm = 'random'")
    desk = labelling.next_desk(store, annotator, project.id or 0)
    assert desk is not None
    labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, labelling.Answer(ranks=(1, 2), seconds=1.0))
    store.db.conn.execute("update comparisons set status = 'open' where status = 'paused'")


# ---- the rules that end it


def test_a_series_ends_when_the_policys_answers_can_no_longer_be_told_apart(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    ended = series.done({**REWARD, "adversarial": {"separation": TOGETHER, "separation_before": APART}})
    assert (ended.state, ended.reason, ended.policy_job_id) == ("ended", "no_separation", None)
    assert ended.facts["separation_before"] == APART and count(store) == 1
    current = models.live(store, "reward", judged.id)
    assert current is not None and current.job_id == ended.reward_job_id


@pytest.mark.parametrize(("value", "is_end"), [(0.79, False), (0.77, True)])
def test_a_series_ends_when_human_accuracy_fell_and_the_reward_model_before_comes_back(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, value: float, is_end: bool
) -> None:
    series = Series(store, supervisor, admin, judged)
    first = series.done(REWARD)
    series.done(POLICY)
    last = series.done({**REWARD, "accuracy": {**ACCURATE, "value": value}})
    current = models.live(store, "reward", judged.id)
    assert current is not None
    assert (last.state, last.reason) == (("ended", "accuracy_fell") if is_end else ("training_policy", ""))
    assert current.job_id == (first if is_end else last).reward_job_id
    moves = [move.reason for move in store.find(Promotion, "to_stage = 'live'")]
    assert any("lost accuracy" in reason for reason in moves) is is_end


@pytest.mark.parametrize(("despite", "state"), [("", "ended"), ("a trial", "training_policy")])
def test_a_weak_reward_model_is_followed_only_for_a_reason(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, despite: str, state: str
) -> None:
    series = Series(store, supervisor, admin, judged, despite=despite)
    last = series.done({**REWARD, "verdict": "near_chance"})
    assert (last.state, last.reason) == (state, "" if despite else "weak_reward_model")
    if despite:
        assert despite in retraining.curves(store, admin, last.policy_job_id or 0).events[0]["facts"]


@pytest.mark.parametrize(("value", "n", "is_end"), [(0.6, 9, True), (0.7, 9, False), (None, 0, False)])
def test_a_cooperative_series_ends_when_the_newest_answers_are_not_judged_better_than_by_length(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, value: float | None, n: int, is_end: bool
) -> None:
    """Where no judgement of the newest answers is held out nothing can be said, and it goes on."""
    series = Series(store, supervisor, admin, judged, kind="cooperative")
    series.done(REWARD)
    waiting = series.done(POLICY)
    store.db.conn.execute("update rounds set settings = json_set(settings, '$.rounds.min_new_judgements', 0)")
    alternating.advance(store)
    assert waiting.state == "waiting_for_people" and series.last().number == 2
    accuracy = {"value": value, "low": 0.3, "high": 0.9, "n": n} if n else None
    last = series.done({**REWARD, "newest": {"n": n, "accuracy": accuracy, "baselines": BASELINES if n else {}}})
    assert (last.state, last.reason) == (("ended", "no_separation") if is_end else ("training_policy", ""))


@pytest.mark.parametrize("stage", ["reward", "policy"])
def test_a_failed_job_ends_the_series(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, stage: str
) -> None:
    series = Series(store, supervisor, admin, judged)
    if stage == "policy":
        series.done(REWARD)
    before = count(store)
    series.ends("failed", error="The disk is full.")
    assert (series.last().state, series.last().reason, count(store)) == ("failed", "job_failed", before)


def test_a_job_that_somebody_stopped_ends_the_series_and_a_paused_one_does_not(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    retraining.pause(store, supervisor, admin, series.job().id or 0)
    alternating.advance(store)
    assert (series.job().state, series.last().state) == ("paused", "training_reward")
    retraining.stop(store, supervisor, admin, series.job().id or 0)
    alternating.advance(store)
    assert (series.last().state, series.last().reason) == ("failed", "job_stopped")


def test_stopping_a_series_stops_its_job_and_no_other_follows(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    series.done(REWARD)
    supervisor.tick()
    stopped = alternating.stop_rounds(store, supervisor, admin, judged.id or 0)
    assert stopped is not None and stopped.state == "stopped" and series.job().state == "cancelling"
    assert alternating.stop_rounds(store, supervisor, admin, judged.id or 0) is None
    report(supervisor, series.job(), "cancelled")
    supervisor.tick()
    alternating.advance(store)
    assert (series.last().state, count(store)) == ("stopped", 2)
    acts = [row["action"] for row in store.rows("select action from audit_events")]
    assert {"start_rounds", "stop_rounds"} <= set(acts)


def test_a_starter_who_may_no_longer_train_ends_the_series(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    store.db.conn.execute("update people set role = 'engineer' where id = ?", [admin.id])
    last = series.done(REWARD)
    assert (last.state, last.reason, count(store)) == ("failed", "starter_may_not", 1)


def test_settings_that_are_no_longer_known_end_the_series_with_the_problem(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged)
    store.db.conn.execute("update rounds set settings = json_set(settings, '$.ift.gone', 1)")
    last = series.done(REWARD)
    assert (last.state, last.reason) == ("failed", "cannot_go_on") and "'gone'" in last.facts["problem"]


# ---- once is once


def test_a_crash_within_a_step_leaves_all_or_nothing_and_the_step_is_done_once(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = Series(store, supervisor, admin, judged)
    supervisor.tick()
    saved = an_artifact(supervisor)
    report(supervisor, series.job(), "done", artifact=saved.folder, digest=saved.digest, report=REWARD)
    supervisor.tick()
    update = rounds.update

    def crash(*args: Any, **more: Any) -> Round:
        update(*args, **more)
        raise OSError("the power is gone")

    monkeypatch.setattr(rounds, "update", crash)
    with pytest.raises(OSError, match="power"):
        alternating.advance(store)
    assert (series.last().state, count(store)) == ("training_reward", 1)
    monkeypatch.undo()
    again = Store(store.path)  # as after a restart
    for one in (again, again, store):
        alternating.advance(one)
    again.close()
    assert (series.last().state, count(store)) == ("training_policy", 2)


def test_a_series_that_is_stopped_while_it_is_looked_at_goes_no_further(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = Series(store, supervisor, admin, judged)
    seen = rounds.under_way(store)
    series.done(REWARD)
    alternating.stop_rounds(store, supervisor, admin, judged.id or 0)
    monkeypatch.setattr(rounds, "under_way", lambda store: seen)
    alternating.advance(store)
    assert (series.last().state, series.last().reason, count(store)) == ("stopped", "stopped_by_person", 2)


def test_one_click_is_one_series_and_one_project_has_one_at_a_time(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    first = Series(store, supervisor, admin, judged).first
    assert Series(store, supervisor, admin, judged).first.id == first.id and count(store) == 1
    with pytest.raises(retraining.NotReady, match="under way"):
        alternating.start_rounds(store, admin, judged.id or 0, changes={}, reward={}, ift={})


def test_too_little_to_begin_with_is_refused(store: Store, admin: Person, project: Project) -> None:
    with pytest.raises(retraining.NotReady, match="needs 20 judgements; there are 0"):
        alternating.start_rounds(store, admin, project.id or 0, changes={}, reward={}, ift={})
    for changes in ({"kind": "friendly"}, {"rounds": 0}, {"what": 1}):
        with pytest.raises(BadSettings):
            alternating.start_rounds(store, admin, project.id or 0, changes=changes, reward={}, ift={})


def test_a_program_without_pages_runs_a_series_until_people_are_needed(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    series = Series(store, supervisor, admin, judged, kind="cooperative")
    said: list[str] = []
    tick = supervisor.tick

    def worked() -> None:
        tick()
        if series.job().state == "running":
            result = REWARD if series.job().kind == "reward" else POLICY
            saved = an_artifact(supervisor, json.dumps([series.job().id]))
            report(supervisor, series.job(), "done", artifact=saved.folder, digest=saved.digest, report=result)

    supervisor.tick = worked  # type: ignore[method-assign]
    view = alternating.run_to_rest(
        store, supervisor, admin, series.first, lambda view: said.append(view.round.state), every_seconds=0
    )
    assert (view.round.state, view.waits_for) == ("waiting_for_people", 50)
    assert said == ["training_reward", "training_policy", "waiting_for_people"]


def test_the_command_line_hands_each_job_its_own_settings_and_says_how_the_series_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}
    begin = alternating.start_rounds

    def start(store: Store, person: Person, project_id: int, **given: Any) -> Round:
        asked.update(given)
        monkeypatch.setattr(alternating, "refusal", lambda *_: None)
        return begin(store, person, project_id, **given)

    def rest(store: Store, supervisor: Supervisor, person: Person, first: Round, tell: Any) -> alternating.RoundView:
        rounds.finish(store, first, "ended", "no_separation", separation=TOGETHER)
        view = alternating.round_log(store, person, first.project_id)[0]
        tell(view)
        return view

    monkeypatch.setattr(alternating, "start_rounds", start)
    monkeypatch.setattr(alternating, "run_to_rest", rest)
    words = [
        "train",
        "rounds",
        "--data-dir",
        str(tmp_path / "data"),
        "--rounds",
        "2",
        "--adv-coef",
        "0.3",
        "--seed",
        "4",
    ]
    more = ["--reward-num-train-epochs", "1", "--ift-total-episodes", "64", "--despite", "a trial"]
    assert cli.main([*words, *more], lambda settings: 1) == 0
    assert (asked["changes"], asked["reward"]) == ({"rounds": 2, "adv_coef": 0.3}, {"num_train_epochs": 1})
    assert (asked["ift"], asked["seed"], asked["despite"]) == ({"total_episodes": 64}, 4, "a trial")
    first, last = capsys.readouterr().out.splitlines()
    assert first == "round 1 of 2: ended"
    told = {"round": 1, "state": "ended", "reason": "no_separation", "separation": TOGETHER}
    assert json.loads(last)["rounds"] == [told]


@pytest.mark.parametrize("role", ["engineer", "annotator"])
def test_only_admins_train_in_rounds(store: Store, project: Project, supervisor: Supervisor, role: str) -> None:
    person = store.add(Person(pseudonym=role, name=role, role=role))  # type: ignore[arg-type]
    acts: list[Callable[[], object]] = [
        lambda: alternating.start_rounds(store, person, 1, changes={}, reward={}, ift={}),
        lambda: alternating.stop_rounds(store, supervisor, person, 1),
        lambda: alternating.round_log(store, person, 1),
        lambda: alternating.refusal(store, person, 1),
    ]
    for act in acts:
        with pytest.raises(Denied):
            act()


@pytest.mark.slow
def test_real_workers_take_turns_and_leave_models_that_lead_back_to_what_they_are_made_of(
    tmp_path: Path, store: Store, admin: Person, annotator: Person, engine: ScriptedEngine
) -> None:
    folder = tiny.folder(tmp_path / "base")
    opening.register_base(store, Base("tiny", folder, bytes.fromhex(artifacts.fingerprint(folder))))
    project = starting.ensure_sample(store)
    judge(store, engine, annotator, project, 40)
    supervisor = Supervisor(store, runs_dir=tmp_path / "runs", models_dir=tmp_path / "models", base=str(folder))
    small = {"lora_r": 4, "lora_alpha": 8, "threads": 1, "max_length": 96}
    first = alternating.start_rounds(
        store,
        admin,
        project.id or 0,
        changes={"rounds": 1, "adv_coef": 1.0},
        reward={**small, "learning_rate": 1e-2, "num_train_epochs": 2, "response_length": 8},
        ift={**small, "total_episodes": 32, "batch_size": 16, "response_length": 8, "eval_cases": 8},
        despite="the texts are noise to so small a model",
    )
    last = alternating.run_to_rest(store, supervisor, admin, first, lambda view: None, every_seconds=0.05).round
    assert (last.state, last.reason) == ("done", "all_done"), (last, store.find(Job)[-1].error)
    assert last.facts["separation"]["low"] > 0.5 and last.facts["gain"]["n"] == last.facts["kl"]["n"] > 0
    reward, policy = (
        store.get(Model, store.get(Job, id or 0).output_model_id or 0)
        for id in (last.reward_job_id, last.policy_job_id)
    )
    assert reward.stage == "live" and policy.stage == "candidate"
    assert reward.digest is not None
    made_from = artifacts.verify(tmp_path / "models" / (policy.adapter or "")).facts["made_from"]
    assert made_from == {"reward": reward.digest.hex()}
    lineage = artifacts.verify(tmp_path / "models" / (reward.adapter or "")).facts["parents"]
    assert lineage["policy"]["model"] == store.get(Job, last.reward_job_id).policy_model_id
