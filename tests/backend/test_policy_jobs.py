"""Jobs that make policies: what each kind may see, when it may start, and what it is started with."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import comparing, labelling, retraining
from backend.engines.scripted import ScriptedEngine
from backend.jobs import runner
from backend.jobs.supervisor import Supervisor
from backend.prompts.digest import digest_of, split_of
from backend.training.settings import KINDS
from feedback_db import Store, comparisons, documents, models, snapshots
from feedback_db.types import (
    Assignment,
    Comparison,
    Demonstration,
    Document,
    Job,
    Judgement,
    Model,
    Person,
    Project,
    Snapshot,
)
from tests.backend.test_retraining import HERE, an_artifact, judge, report, reward_job


@pytest.fixture
def supervisor(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(runner, "start", lambda folder: HERE)
    return Supervisor(store, runs_dir=tmp_path / "runs", models_dir=tmp_path / "models", base="/nowhere")


@pytest.fixture
def judged(store: Store, engine: ScriptedEngine, annotator: Person, project: Project) -> Project:
    judge(store, engine, annotator, project, 20)
    return project


def rows_of(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    return [json.loads(line) for line in snapshots.rows_text(store, store.get(Snapshot, snapshot.id or 0)).splitlines()]


def judged_once(
    store: Store,
    engine: ScriptedEngine,
    people: list[Person],
    project: Project,
    ranks: list[tuple[int, ...]],
    **more: Any,
) -> Comparison:
    """One comparison, judged by each person in turn; ranks are of the answers in their canonical order."""
    comparing.refill(store, engine, project_id=project.id or 0, target=1)
    store.db.conn.execute("update comparisons set overlap = ? where status = 'open'", [len(people)])
    for person, wanted in zip(people, ranks, strict=True):
        desk = labelling.next_desk(store, person, project.id or 0)
        assert desk is not None
        answer = labelling.Answer(
            ranks=tuple(wanted[i] for i in store.get(Assignment, desk.assignment).shown), seconds=1.0, **more
        )
        labelling.submit(store, person, desk.assignment, uuid.uuid4().bytes, answer)
    return store.find(Comparison, order_by="id desc")[0]


def demonstration(store: Store, project: Project, text: str, **more: Any) -> Demonstration:
    given = {"source": "written", "output": "so it is done", **more}
    return store.add(Demonstration(project_id=project.id or 0, input=text, digest=uuid.uuid4().bytes * 2, **given))


def add_texts(store: Store, project: Project, count: int = 40, start: int = 0) -> None:
    for i in range(start, start + count):
        digest = digest_of({"text": f"text {i}"})
        made = Document(
            project_id=project.id or 0, text=f"text {i}", source="a.txt", split=split_of(digest), digest=digest
        )
        documents.keep(store, made)


def no_demonstrations(store: Store) -> None:
    store.db.conn.execute("delete from demonstrations")


# ---- what a job may see


def across_prompts(store: Store, engine: ScriptedEngine, annotator: Person, project: Project, count: int) -> None:
    """Judged pairs whose answers have different prompts of one case, as two sets of demonstrations give them."""
    comparing.refill(store, engine, project_id=project.id or 0, target=count)
    for comparison in store.find(Comparison, "status = 'open'"):
        one = comparisons.completions_of(store, comparison.id or 0)[0]
        prompt = comparisons.prompt_of(store, one.id or 0)
        said = ({"role": "user", "content": f"otherwise {comparison.id}"},)
        other = store.add(replace(prompt, id=None, messages=said, digest=uuid.uuid4().bytes * 2))
        two = store.add(replace(one, id=None, prompt_id=other.id or 0, text=f"another {comparison.id}"))
        store.db.conn.execute("update comparisons set status = 'retired' where id = ?", [comparison.id])
        made = replace(comparison, id=None, reason="two sets of demonstrations")
        comparisons.add_comparison(store, made, [one.id or 0, two.id or 0])
    for _ in range(count):
        desk = labelling.next_desk(store, annotator, project.id or 0)
        assert desk is not None
        answer = labelling.Answer(ranks=(1, 2), seconds=1.0)
        labelling.submit(store, annotator, desk.assignment, uuid.uuid4().bytes, answer)


def test_a_pair_for_dpo_brings_the_prompt_of_each_answer(
    store: Store, engine: ScriptedEngine, annotator: Person, project: Project
) -> None:
    across_prompts(store, engine, annotator, project, 8)
    plain = snapshots.freeze_preferences(store, project.id or 0, "a", None)
    made = snapshots.freeze_preferences(store, project.id or 0, "b", None, with_prompts=True)
    assert made.kind == "preference" and made.digest != plain.digest and made.n == plain.n == 8
    first = set()
    for row, bare in zip(rows_of(store, made), rows_of(store, plain), strict=True):
        assert row["prompts"][0] != row["prompts"][1]
        first.add(row["prompts"][0][0]["content"].startswith("otherwise"))
        for answer, messages in zip(row["answers"], row["prompts"], strict=True):
            asked = comparisons.prompt_of(store, answer["completion"])
            assert messages == [dict(message) for message in asked.messages]
        assert {name: value for name, value in row.items() if name != "prompts"} == bare
    assert first == {True, False}  # either stood on the left


def test_the_winner_of_a_decided_comparison_is_an_answer_to_learn(
    store: Store, engine: ScriptedEngine, annotator: Person, engineer: Person, project: Project
) -> None:
    no_demonstrations(store)
    won = judged_once(store, engine, [annotator], project, [(2, 1)])
    made = snapshots.freeze_answers(store, project.id or 0, "s", None)
    (row,) = rows_of(store, made)
    best = comparisons.completions_of(store, won.id or 0)[1]
    assert row["answer"] == {"completion": best.id, "text": best.text, "ended": True} and row["source"] == "winner"
    assert row["messages"] == [dict(m) for m in comparisons.prompt_of(store, best.id or 0).messages]
    assert row["case"] == won.case_id and made.kind == "sft" and made.n == 1
    assert row["judgements"] == [j.id for j in store.find(Judgement)]


@pytest.mark.parametrize(
    ("ranks", "both_bad", "winner"),
    [
        ([(1, 2), (1, 2)], False, 0),
        ([(2, 1), (2, 1)], False, 1),
        ([(1, 2), (2, 1)], False, None),  # one against one
        ([(1, 1), (1, 1)], False, None),
        ([(1, 2), (1, 1)], False, None),  # half is not more than half
        ([(1, 2), (1, 2)], True, None),
    ],
)
def test_only_a_clear_winner_that_nobody_called_bad_is_learnt(
    store: Store,
    engine: ScriptedEngine,
    annotator: Person,
    engineer: Person,
    project: Project,
    ranks: list[tuple[int, ...]],
    both_bad: bool,
    winner: int | None,
) -> None:
    no_demonstrations(store)
    made = judged_once(store, engine, [annotator, engineer], project, ranks, both_bad=both_bad)
    rows = rows_of(store, snapshots.freeze_answers(store, project.id or 0, "s", None))
    expected = [] if winner is None else [comparisons.completions_of(store, made.id or 0)[winner].text]
    assert [row["answer"]["text"] for row in rows] == expected


def test_an_edited_answer_stands_for_its_comparison(
    store: Store, engine: ScriptedEngine, annotator: Person, project: Project
) -> None:
    no_demonstrations(store)
    judged_once(store, engine, [annotator], project, [(1, 2)])
    store.db.conn.execute("drop trigger judgements_no_update")  # as the label page will write it one day
    store.db.conn.execute("update judgements set edited_text = 'mended', edited_position = 1")
    (row,) = rows_of(store, snapshots.freeze_answers(store, project.id or 0, "s", None))
    assert (row["source"], row["answer"]) == ("edited", {"completion": None, "text": "mended", "ended": True})
    assert row["messages"]


def test_demonstrations_are_learnt_unless_they_ask_what_a_held_out_case_asks(store: Store, project: Project) -> None:
    no_demonstrations(store)
    held = store.rows("""select "values", split from cases where split <> 'train' and "values" is not null limit 1""")[
        0
    ]
    plain = demonstration(store, project, "how do I knit a scarf")
    asked = demonstration(store, project, json.loads(held["values"])["input"])
    demonstration(store, project, "what a fine film", label="positive")
    rows = rows_of(store, snapshots.freeze_answers(store, project.id or 0, "s", None))
    assert [(row["demonstration"], row["split"]) for row in rows] == [(plain.id, "train"), (asked.id, held["split"])]
    assert rows[0]["messages"] == [{"role": "user", "content": "how do I knit a scarf"}] and rows[0]["case"] is None
    assert rows[0]["answer"] == {"completion": None, "text": "so it is done", "ended": True}


def test_a_snapshot_of_answers_keeps_its_digest_whatever_comes_later(
    store: Store, engine: ScriptedEngine, annotator: Person, judged: Project
) -> None:
    first = snapshots.freeze_answers(store, judged.id or 0, "s", None)
    rows = snapshots.rows_text(store, store.get(Snapshot, first.id or 0))
    judge(store, engine, annotator, judged, 5)
    demonstration(store, judged, "how do I knit a scarf")
    assert snapshots.rows_text(store, store.get(Snapshot, first.id or 0)) == rows
    assert snapshots.freeze_answers(store, judged.id or 0, "s", None).n == (first.n or 0) + 6


def test_judged_answers_are_frozen_one_by_one_with_verdict_prompt_and_judgements(
    store: Store, engine: ScriptedEngine, annotator: Person, engineer: Person, project: Project
) -> None:
    no_demonstrations(store)
    shown = demonstration(store, project, "how do I knit a scarf")
    alike = judged_once(store, engine, [annotator, engineer], project, [(2, 1), (2, 1)])
    split = judged_once(store, engine, [annotator, engineer], project, [(1, 2), (2, 1)])
    bad = judged_once(store, engine, [annotator], project, [(1, 1)], both_bad=True)
    flagged = judged_once(store, engine, [annotator], project, [(1, 1)], flags=("unsafe:0",))
    made = snapshots.freeze_unpaired(store, project.id or 0, "u", None)
    rows = rows_of(store, made)
    assert rows[0]["demonstrations"] == [shown.id] and rows[0]["desirable"] is True and rows[0]["judgements"] == []
    by_completion = {row["answer"]["completion"]: row for row in rows[1:]}
    given = [[by_completion[c.id] for c in comparisons.completions_of(store, k.id or 0)] for k in (alike, split, bad)]
    assert [[row["desirable"] for row in two] for two in given] == [[False, True], [None, None], [False, False]]
    assert [row["source"] for row in given[0]] == ["loser", "winner"] and len(given[0][0]["judgements"]) == 2
    assert all(row["is_contradicted"] for row in given[1])
    left = store.find(Judgement, "comparison_id = ?", [flagged.id])[0].shown[0]
    named = comparisons.completions_of(store, flagged.id or 0)
    assert by_completion[named[left].id]["source"] == "flagged"
    assert by_completion[named[1 - left].id]["desirable"] is None
    for row in rows[1:]:
        assert row["messages"] == [dict(m) for m in comparisons.prompt_of(store, row["answer"]["completion"]).messages]
    assert made.kind == "unpaired" and made.n == 6 and len(rows) == 9
    assert store.value("select count(*) from snapshot_judgements where snapshot_id = ?", [made.id]) == 6
    assert snapshots.verdicts_at_most(store, project.id or 0) == (4, 7)  # without the demonstration
    judged_once(store, engine, [annotator], project, [(1, 2)])
    assert rows_of(store, made) == rows
    assert snapshots.freeze_unpaired(store, project.id or 0, "u", None).digest != made.digest


def test_a_snapshot_of_texts_holds_all_of_its_project_and_keeps_its_digest(store: Store, project: Project) -> None:
    other = store.add(Project(name="other"))
    add_texts(store, project, 40)
    add_texts(store, other, 3)
    made = snapshots.freeze_texts(store, project.id or 0, "t", None)
    rows = rows_of(store, made)
    assert (made.kind, made.n, made.state) == ("texts", 40, "frozen") and len(rows) == 40
    assert rows[7] == {"document": 8, "split": split_of(digest_of({"text": "text 7"})), "text": "text 7"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    before = snapshots.rows_text(store, store.get(Snapshot, made.id or 0))
    add_texts(store, project, 5, start=40)
    assert snapshots.rows_text(store, store.get(Snapshot, made.id or 0)) == before
    assert snapshots.freeze_texts(store, project.id or 0, "t", None).n == 45
    add_texts(store, project, 45)
    assert documents.count(store, project.id or 0) == 45  # the same text is not kept twice


# ---- starting


def test_pretraining_learns_from_texts_and_goes_on_from_the_live_policy(
    store: Store, admin: Person, project: Project, supervisor: Supervisor
) -> None:
    add_texts(store, project, 20)
    trained_on = documents.count(store, project.id or 0, "train")
    with pytest.raises(retraining.NotReady, match=f"needs 20 texts .* there are {trained_on}"):
        retraining.train(store, admin, project.id or 0, "pretrain", changes={})
    add_texts(store, project, 20, start=20)
    assert retraining.readiness(store, admin, project.id or 0).texts == documents.count(store, project.id or 0, "train")
    job = retraining.train(store, admin, project.id or 0, "pretrain", changes={"mlm_probability": 0.2})
    frozen = store.get(Snapshot, job.snapshot_id or 0)
    assert (frozen.kind, frozen.n, job.settings["mlm_probability"]) == ("texts", 40, 0.2)
    supervisor.tick()
    saved = an_artifact(supervisor)
    report(
        supervisor, store.get(Job, job.id or 0), "done", artifact=saved.folder, digest=saved.digest,
        report={"n": 8, "objective": "causal", "verdict": "loss_fell"},
    )  # fmt: skip
    supervisor.tick()
    made = store.get(Model, store.get(Job, job.id or 0).output_model_id or 0)
    assert (made.kind, made.stage, made.name) == ("policy", "candidate", f"pretrain-{job.id}")


@pytest.mark.parametrize(("kind", "snapshot_kind"), [("sft", "sft"), ("dpo", "preference"), ("kto", "unpaired")])
def test_a_job_without_a_reward_model_becomes_a_candidate_policy_that_leads_back_to_its_labels(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, kind: str, snapshot_kind: str
) -> None:
    job = retraining.train(store, admin, judged.id or 0, kind, changes={}, seed=3, key="click")
    assert retraining.train(store, admin, judged.id or 0, kind, changes={}, key="click").id == job.id
    assert job.reward_model_id is None and job.start_model_id is None and job.seed == 3
    assert store.get(Snapshot, job.snapshot_id or 0).kind == snapshot_kind
    supervisor.tick()
    running = store.get(Job, job.id or 0)
    saved = an_artifact(supervisor)
    report(
        supervisor, running, "done", artifact=saved.folder, digest=saved.digest, report={"n": 4, "verdict": "usable"}
    )
    supervisor.tick()
    made = store.get(Model, store.get(Job, job.id or 0).output_model_id or 0)
    assert (made.kind, made.stage, made.name, made.project_id) == ("policy", "candidate", f"{kind}-{job.id}", None)
    assert made.id in snapshots.models_touched_by(store, 1)
    evaluation = models.evaluation_of(store, made.id or 0, kind)
    assert evaluation is not None and evaluation.n == 4


@pytest.mark.parametrize("kind", ["ppo", "ift"])
def test_what_follows_a_reward_model_needs_one_worth_following_or_a_reason(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor, kind: str
) -> None:
    with pytest.raises(retraining.NotReady, match=f"{kind.upper()} needs a reward model"):
        retraining.train(store, admin, judged.id or 0, kind, changes={}, despite="a trial")
    job = reward_job(store, admin, judged, supervisor)
    saved = an_artifact(supervisor)
    weak = {"n": 9, "verdict": "near_chance"}
    report(supervisor, job, "done", artifact=saved.folder, digest=saved.digest, report=weak)
    supervisor.tick()
    for despite in ("", "   "):
        with pytest.raises(retraining.NotReady, match="chase noise"):
            retraining.train(store, admin, judged.id or 0, kind, changes={}, despite=despite)
    queued = retraining.train(store, admin, judged.id or 0, kind, changes={}, despite="a trial")
    assert queued.kind == kind and queued.reward_model_id == store.get(Job, job.id or 0).output_model_id
    assert store.get(Snapshot, queued.snapshot_id or 0).kind == "prompts"
    said = retraining.curves(store, admin, queued.id or 0).events
    assert "a trial" in said[0]["facts"]


def test_too_little_to_learn_from_is_refused_with_both_numbers(store: Store, admin: Person, project: Project) -> None:
    refusals = retraining.readiness(store, admin, project.id or 0).refusals
    assert set(refusals) == {
        "reward",
        "ppo",
        "ift",
        "dpo",
        "kto",
        "pretrain",
    }  # the sample's demonstrations are enough for SFT
    with pytest.raises(retraining.NotReady, match="DPO needs 20 judged pairs; there are 0"):
        retraining.train(store, admin, project.id or 0, "dpo", changes={})
    with pytest.raises(retraining.NotReady, match=r"KTO needs 10 desirable .* at most \d+ and 0"):
        retraining.train(store, admin, project.id or 0, "kto", changes={})
    no_demonstrations(store)
    with pytest.raises(retraining.NotReady, match="SFT needs 20 answers .* at most 0"):
        retraining.train(store, admin, project.id or 0, "sft", changes={})


def test_every_kind_goes_on_from_the_live_policy_but_the_reward_model(
    store: Store, admin: Person, judged: Project, supervisor: Supervisor
) -> None:
    saved = an_artifact(supervisor, "policy")
    base = models.live(store, "policy")
    assert base is not None
    live = store.add(
        Model(
            name="tuned", kind="policy", base=base.base, base_fingerprint=base.base_fingerprint, adapter=saved.folder,
            source="trained", digest=bytes.fromhex(saved.digest),
        )
    )  # fmt: skip
    models.move(store, live, "live", reason="better", person_id=None)
    reward = reward_job(store, admin, judged, supervisor)
    found = an_artifact(supervisor, "reward")
    usable = {"n": 9, "verdict": "usable"}
    report(supervisor, reward, "done", artifact=found.folder, digest=found.digest, report=usable)
    supervisor.tick()
    add_texts(store, judged)
    for kind in KINDS:
        job = retraining.train(store, admin, judged.id or 0, kind, changes={})
        assert job.start_model_id == (None if kind == "reward" else live.id)
        assert (job.reward_model_id is not None) is (kind in ("ppo", "ift"))
