"""A training that was killed, at whatever moment, ends in the bytes of one that was not."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.jobs.folder import Job, write_job, write_rows
from backend.training import checkpoint
from backend.training import job as training_job
from backend.training.checkpoint import OtherRun
from backend.training.on_policy import Guard
from backend.training.run import GuardStop, Paused, Run
from backend.training.settings import PPOSettings
from tests.backend.training import killed, tiny
from tests.backend.training.killed import ALGORITHMS, Kill
from tests.backend.training.test_checkpoint import MADE_FROM, STATE, TENSORS, messages, names


def save_and_be_killed(folder: Path, moment: str, n: int) -> None:
    for step in (1, 2):
        checkpoint.save(folder, step, TENSORS, STATE)
    killed.arm(Kill(moment, n), "reward")
    checkpoint.save(folder, 3, TENSORS, STATE)


@pytest.mark.parametrize(("moment", "newest"), [("fsync", [2, 2, 2, 2, 2, 3, 3]), ("rename", [2, 3, 3])])
def test_a_kill_at_any_moment_of_a_save_leaves_the_step_before_or_the_whole_step(
    tmp_path: Path, moment: str, newest: list[int]
) -> None:
    """Six syncs: two groups, the state, the manifest, the folder, the run's folder. Two renames: new in, oldest out."""
    for n, step in enumerate(newest, start=1):
        folder = tmp_path / f"{moment}{n}"
        folder.mkdir()
        code = killed.in_a_process(save_and_be_killed, folder, moment, n)
        assert code == (-signal.SIGKILL if n < len(newest) else 0)
        found = checkpoint.newest_valid(folder, MADE_FROM, pytest.fail)
        assert found is not None and found.step == step
        assert torch.equal(found.tensors["a"]["0000"], TENSORS["a"]["0000"])
        assert not list(folder.glob("tmp-*"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One base, and a reward model for those who follow one."""
    root = tmp_path_factory.mktemp("resume")
    assert killed.attempt(killed.prepare(root, "reward", "whole-reward")) == 0
    return root


def prepare(root: Path, kind: str, name: str, **settings: Any) -> Path:
    judge = None
    if kind in ("ppo", "ift"):
        shutil.copytree(root / "models-whole-reward", root / f"models-{name}")
        judge = killed.made(root / "whole-reward")[1][:16]
    return killed.prepare(root, kind, name, judge, **settings)


def whole(root: Path, kind: str) -> tuple[str, str]:
    """What a training that nobody interrupts makes."""
    folder = root / f"whole-{kind}"
    if not folder.exists():
        assert killed.attempt(prepare(root, kind, folder.name)) == 0
    return killed.made(folder)


@pytest.mark.parametrize(
    ("kind", "kill"),
    [
        ("reward", Kill("fsync", 12)),
        ("reward", Kill("update", 2, is_before=False)),
        ("reward", Kill("look", 2)),
        ("sft", Kill("update", 3)),
        ("pretrain", Kill("update", 3)),
        ("dpo", Kill("update", 3)),
        ("kto", Kill("update", 3)),
        ("kto", Kill("look", 3)),  # all steps are done, and the report is not
        ("ift", Kill("update", 2, is_before=False)),
        ("ppo", Kill("fsync", 13)),
        ("ppo", Kill("rename", 2, is_before=False)),
        ("ppo", Kill("update", 3, is_before=False)),  # between the two updates of the second step of each attempt
        ("ppo", Kill("look", 2)),
    ],
    ids=lambda value: f"{value.moment}{value.n}" if isinstance(value, Kill) else value,
)
def test_killed_again_and_again_it_ends_in_the_same_model(root: Path, kind: str, kill: Kill) -> None:
    """The same adapter, and the same report: no point of its curve twice, none lost."""
    folder = prepare(root, kind, f"{kind}-{kill.moment}-{kill.n}")
    assert killed.attempts(folder, kill) > 1
    assert killed.made(folder) == whole(root, kind)
    told = messages(folder)
    assert any(text.startswith("Goes on after step") for text in told) and not any("skipped" in text for text in told)


def adversarial(root: Path, name: str) -> Path:
    """A reward job that also sets good answers against those of the bare base."""
    folder = killed.prepare(root, "reward", name, adv_coef=0.5, response_length=6)
    job = json.loads((folder / "job.json").read_text())
    rows = [*tiny.separable_rows(30), *(tiny.good_row(i) for i in range(20))]
    write_job(folder, Job(**{**job, "rows_digest": write_rows(folder, rows)}))
    return folder


def test_a_killed_reward_job_sets_the_same_sampled_answers_against_the_good_ones(root: Path) -> None:
    straight, broken = adversarial(root, "opposed"), adversarial(root, "opposed-killed")
    assert killed.attempt(straight) == 0
    assert killed.attempts(broken, Kill("update", 2, is_before=False)) > 1
    assert killed.made(broken) == killed.made(straight) != whole(root, "reward")


def test_a_killed_ensemble_with_a_ties_model_ends_in_the_same_members(root: Path) -> None:
    settings = {"num_members": 2, "ties": "model", "num_train_epochs": 1}
    calm = prepare(root, "reward", "ensemble-whole", **settings)
    assert killed.attempt(calm) == 0
    folder = prepare(root, "reward", "ensemble-killed", **settings)
    assert killed.attempts(folder, Kill("update", 2, is_before=False)) > 1
    assert killed.made(folder) == killed.made(calm)


OWN = {"value_adapter": "own", "num_ppo_epochs": 2, "approx_kl_stop": 0.0, "kl_penalty": "loss", "kl_estimator": "k2"}
COPIED = {"value_adapter": "reward", "num_ppo_epochs": 2, "value_warmup_steps": 2, "whiten_rewards": True}
LEFT = {"value_adapter": "own", "num_ppo_epochs": 2, "learning_rate": 5e-2, "approx_kl_stop": 0.02}


@pytest.mark.parametrize(
    ("settings", "kill"),
    [
        (OWN, Kill("update", 6, is_before=False)),  # in the first of two passes over the second batch of each attempt
        (OWN, Kill("update", 8)),  # in the second
        (COPIED, Kill("update", 6, is_before=False)),
        (LEFT, Kill("update", 3, is_before=False)),
    ],
    ids=["own-6", "own-8", "reward-6", "left-out-3"],
)
def test_values_of_their_own_survive_kills_between_the_passes_over_a_batch(
    root: Path, settings: dict[str, Any], kill: Kill
) -> None:
    undisturbed = root / f"whole-{settings['value_adapter']}-{'learning_rate' in settings}"
    if not undisturbed.exists():
        assert killed.attempt(prepare(root, "ppo", undisturbed.name, **settings)) == 0
    folder = prepare(root, "ppo", f"{undisturbed.name}-{kill.n}", **settings)
    assert killed.attempts(folder, kill) > 1
    assert killed.made(folder) == killed.made(undisturbed)
    for name in ("policy", "value", "value_head", "optimizer"):
        ends = [(place / names(place)[-1] / f"{name}.safetensors").read_bytes() for place in (folder, undisturbed)]
        assert ends[0] == ends[1]
    model = root / f"models-{folder.name}" / killed.made(folder)[1][:16]
    assert sorted(path.name for path in model.iterdir() if "value" in path.name) == []
    assert b"value" not in (model / "adapter_model.safetensors").read_bytes()[:4096]
    curve = json.loads((model / "report.json").read_text())["curve"]
    assert any(point["policy/updates_left_out"] > 0 for point in curve) is (settings is LEFT)


@pytest.mark.parametrize(("kind", "updates"), [("reward", 4), ("ppo", 7)])
def test_a_damaged_newest_checkpoint_costs_steps_and_changes_nothing(root: Path, kind: str, updates: int) -> None:
    folder = prepare(root, kind, f"{kind}-damaged")
    assert killed.attempt(folder, 1, Kill("update", updates)) == -signal.SIGKILL
    assert names(folder) == ["checkpoint-000002", "checkpoint-000003"]
    os.truncate(folder / "checkpoint-000003" / "optimizer.safetensors", 100)
    assert killed.attempt(folder, 2) == 0
    told = [text for text in messages(folder) if "checkpoint" in text or "Goes on" in text]
    assert (
        told[0].startswith("checkpoint-000003 is skipped: optimizer.safetensors") and told[1] == "Goes on after step 2."
    )
    assert killed.made(folder) == whole(root, kind)


@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_a_pause_within_a_step_saves_the_step_before_and_ends_in_the_same_model(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the second step; for PPO after the first of its two updates, which must leave no trace."""
    folder = prepare(root, kind, f"{kind}-paused", save_minutes=1000)
    job = Job(**json.loads((folder / "job.json").read_text()))
    update, asked_at = ALGORITHMS[kind].update, {"reward": 2, "ppo": 4}[kind]
    calls = []

    def update_when_asked_to_pause(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == asked_at:
            (folder / "pause").touch()
        return update(*args, **more)

    monkeypatch.setattr(ALGORITHMS[kind], "update", update_when_asked_to_pause)
    with pytest.raises(Paused):
        training_job.TRAINERS[kind](job, folder, Run(folder))
    torch.use_deterministic_algorithms(False)
    assert names(folder) == ["checkpoint-000001"] and len(calls) == asked_at
    (folder / "pause").unlink()
    assert killed.attempt(folder, 2) == 0
    assert killed.made(folder)[0] == whole(root, kind)[0]


def test_a_checkpoint_of_another_snapshot_is_refused_by_the_job(root: Path) -> None:
    folder = prepare(root, "reward", "other-snapshot")
    assert killed.attempt(folder, 1, Kill("update", 3)) == -signal.SIGKILL
    job = json.loads((folder / "job.json").read_text())
    other = Job(**{**job, "rows_digest": write_rows(folder, tiny.separable_rows(31))})
    write_job(folder, other)
    with pytest.raises(OtherRun, match=r"checkpoint-000002 belongs to another run: rows \("):
        training_job.train_reward(other, folder, Run(folder, 2))
    torch.use_deterministic_algorithms(False)


def test_a_guard_remembers_what_it_saw_before(tmp_path: Path) -> None:
    calm = {"objective/kl": 7.0, "objective/entropy": 2.0}
    first = Guard(PPOSettings())
    first.look(calm, 1, Run(tmp_path), [11.0, 12.0])
    second = Guard(PPOSettings(), json.loads(json.dumps(first.state())))
    with pytest.raises(GuardStop, match="ratio"):
        second.look(calm, 2, Run(tmp_path), [13.0])
    third = Guard(PPOSettings(), json.loads(json.dumps(first.state())))
    with pytest.raises(GuardStop, match="entropy"):
        third.look({**calm, "objective/entropy": 0.1}, 2, Run(tmp_path))
    third.look(calm, 3, Run(tmp_path))
    assert len(third.alarms) == 1 and len(messages(tmp_path)) == 1
