"""Checkpoints: a run that was killed, at whatever moment, ends in the weights of one that was not."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backend.jobs.folder import Job, write_job, write_rows
from backend.jobs.runner import tail
from backend.training import checkpoint, reward
from backend.training import job as training_job
from backend.training import settings as settings_of
from backend.training.checkpoint import Checkpoints, Damaged, Live, OtherRun
from backend.training.data import read_comparisons
from backend.training.run import Paused, Run, Stopped
from tests.backend.training import killed, tiny
from tests.backend.training.killed import Kill

MADE_FROM: dict[str, Any] = {"rows": "ab" * 32, "settings": {"learning_rate": 0.1}, "base": "cd", "reward": "ef"}
NUMBER = {"a": {"0000": torch.arange(6.0)}, "optimizer": {"0.step": torch.tensor(1.0)}}
STATE = {"expected": MADE_FROM, "facts": {}, "process": {}, "optimizer": {"groups": [], "numbers": {}}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def small(seed: int = 0) -> tuple[Live, list[nn.Parameter]]:
    torch.manual_seed(seed)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(2))]
    return Live({"policy": weights}, torch.optim.AdamW(weights, lr=0.1)), weights


def step(live: Live, number: int) -> None:
    live.optimizer.zero_grad()
    for weight in live.weights["policy"]:
        draw = torch.Generator().manual_seed(number)
        weight.grad = torch.randn(weight.shape, generator=draw)
    live.optimizer.step()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def messages(folder: Path) -> list[str]:
    return [event["text"] for event in tail(folder).events if event["kind"] == "message"]


# ---- saving and finding


def test_weights_moments_and_facts_come_back_and_the_next_steps_are_the_same(tmp_path: Path) -> None:
    live, weights = small()
    saves = Checkpoints(Run(tmp_path), MADE_FROM, 0)
    assert saves.resume(live) == (0, {})
    step(live, 0)
    saves.keep(1, live, {"kl_coef": 0.1 + 0.2, "curve": [{"step": 1}]})
    step(live, 1)
    other, resumed = small(seed=1)
    assert Checkpoints(Run(tmp_path), MADE_FROM, 0).resume(other) == (1, {"kl_coef": 0.1 + 0.2, "curve": [{"step": 1}]})
    step(other, 1)
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    assert messages(tmp_path) == ["Goes on after step 1."]


def test_the_newest_two_stay_and_a_list_that_grows_later_is_kept_as_it_was(tmp_path: Path) -> None:
    live, _ = small()
    saves, curve = Checkpoints(Run(tmp_path), MADE_FROM, 5), [1]
    saves.keep(8, live, {"curve": curve}, now=True)
    saves.keep(9, live, {"curve": curve})
    curve.append(2)
    with pytest.raises(Paused), saves:
        raise Paused
    saves.keep(10, live, {}, now=True)
    assert names(tmp_path) == ["checkpoint-000009", "checkpoint-000010"]
    assert checkpoint.read(tmp_path / "checkpoint-000009").state["facts"] == {"curve": [1]}
    checkpoint.save(tmp_path, 1_000_000, NUMBER, STATE)  # more digits than the others, and still the newest
    assert names(tmp_path) == ["checkpoint-000010", "checkpoint-1000000"]


def test_it_is_written_when_the_minutes_have_passed_or_when_told(tmp_path: Path) -> None:
    live, _ = small()
    clock = Clock()
    saves = Checkpoints(Run(tmp_path), MADE_FROM, 5, clock)
    for number, seconds in enumerate((299, 2, 298, 1, 0.5), start=1):
        clock.now += seconds
        saves.keep(number, live, {})
    assert names(tmp_path) == ["checkpoint-000002"]
    clock.now += 1
    saves.keep(6, live, {})
    saves.keep(7, live, {}, now=True)
    assert names(tmp_path) == ["checkpoint-000006", "checkpoint-000007"]
    checkpoint.NONE.keep(8, live, {}, now=True)
    assert names(tmp_path) == ["checkpoint-000006", "checkpoint-000007"]


def test_a_stop_writes_nothing_and_a_pause_writes_the_last_whole_step(tmp_path: Path) -> None:
    live, weights = small()
    saves = Checkpoints(Run(tmp_path), MADE_FROM, 5)
    saves.keep(3, live, {})
    whole = [weight.detach().clone() for weight in weights]
    step(live, 3)  # half a step
    with pytest.raises(Stopped), saves:
        raise Stopped
    assert names(tmp_path) == []
    with pytest.raises(Paused), saves:
        raise Paused
    other, resumed = small(seed=1)
    assert Checkpoints(Run(tmp_path), MADE_FROM, 5).resume(other).step == 3
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def save_and_be_killed(folder: Path, moment: str, n: int) -> None:
    checkpoint.save(folder, 1, NUMBER, STATE)
    checkpoint.save(folder, 2, NUMBER, STATE)
    killed._arm(Kill(moment, n))
    checkpoint.save(folder, 3, NUMBER, STATE)


@pytest.mark.parametrize(("moment", "times"), [("fsync", 6), ("rename", 2)])
def test_a_kill_at_any_moment_of_a_save_leaves_the_step_before_or_the_whole_step(
    tmp_path: Path, moment: str, times: int
) -> None:
    """Six syncs: two groups, the state, the manifest, the folder, the run's folder. Two renames: new in, oldest out."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.backend.training.killed"])
    found = []
    for n in range(1, times + 2):
        folder = tmp_path / f"{moment}{n}"
        folder.mkdir()
        process = context.Process(target=save_and_be_killed, args=(folder, moment, n))
        process.start()
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if n <= times else 0)
        skipped: list[str] = []
        newest = checkpoint.newest_valid(folder, MADE_FROM, skipped.append)
        assert newest is not None and not skipped
        assert all(torch.equal(newest.tensors[k]["0000"], NUMBER[k]["0000"]) for k in ("a",))
        assert not list(folder.glob("tmp-*"))
        found.append(newest.step)
    assert found == ([2, 2, 2, 2, 2, 3, 3] if moment == "fsync" else [2, 3, 3])


def truncate(path: Path) -> None:
    os.truncate(path / "optimizer.safetensors", 20)


def flip(path: Path) -> None:
    content = bytearray((path / "a.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "a.safetensors").write_bytes(content)


def lose(path: Path) -> None:
    (path / "state.json").unlink()


def garble(path: Path) -> None:
    (path / "MANIFEST.json").write_text("[1")


def empty(path: Path) -> None:
    (path / "MANIFEST.json").write_text("{}")


def never_sealed(path: Path) -> None:
    (path / "MANIFEST.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, "optimizer.safetensors is not what was saved"),
        (flip, "a.safetensors is not what was saved"),
        (lose, "state.json is missing"),
        (garble, "it cannot be read"),
        (empty, "it cannot be read"),
        (never_sealed, "MANIFEST.json is missing"),
    ],
)
def test_a_damaged_one_is_skipped_with_its_reason_and_the_older_one_used(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    checkpoint.save(tmp_path, 4, NUMBER, STATE)
    spoil(checkpoint.save(tmp_path, 5, NUMBER, STATE))
    told: list[str] = []
    found = checkpoint.newest_valid(tmp_path, MADE_FROM, told.append)
    assert found is not None and found.step == 4
    assert len(told) == 1 and told[0].startswith("checkpoint-000005 is skipped: ") and reason in told[0]
    assert names(tmp_path) == ["checkpoint-000004"]  # what is of no use must not push out what is
    spoil(tmp_path / "checkpoint-000004")
    with pytest.raises(Damaged):
        checkpoint.read(tmp_path / "checkpoint-000004")
    assert checkpoint.newest_valid(tmp_path, MADE_FROM, told.append) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": "00" * 32}, "rows (abababababababab there, 0000000000000000 here)"),
        ({"base": "xy"}, "base (cd there, xy here)"),
        ({"reward": "12"}, "reward (ef there, 12 here)"),
        ({"settings": {"learning_rate": 0.2}}, "settings (learning_rate 0.1 there, 0.2 here)"),
        ({"start": "34"}, "start (None there, 34 here)"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    checkpoint.save(tmp_path, 4, NUMBER, STATE)
    with pytest.raises(OtherRun) as refused:
        checkpoint.newest_valid(tmp_path, {**MADE_FROM, **change}, pytest.fail)
    assert named in str(refused.value) and "Start a new job" in str(refused.value)
    assert names(tmp_path) == ["checkpoint-000004"]


def test_other_shapes_are_refused_before_anything_is_changed(tmp_path: Path) -> None:
    live, _ = small()
    Checkpoints(Run(tmp_path), MADE_FROM, 0).keep(1, live, {})
    weights = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(2))]
    with pytest.raises(OtherRun, match="other tensors for 'policy'"):
        Checkpoints(Run(tmp_path), MADE_FROM, 0).resume(Live({"policy": weights}, torch.optim.AdamW(weights)))
    assert not any(weight.any() for weight in weights)


def test_another_number_of_threads_is_told(tmp_path: Path) -> None:
    live, _ = small()
    Checkpoints(Run(tmp_path), MADE_FROM, 0).keep(1, live, {})
    torch.set_num_threads(2)
    Checkpoints(Run(tmp_path), MADE_FROM, 0).resume(live)
    assert messages(tmp_path)[0].startswith("Equal weights are not promised")


# ---- whole trainings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One base, and for each kind of job a model that nobody interrupted."""
    root = tmp_path_factory.mktemp("checkpoints")
    assert killed.attempt(killed.prepare(root, "reward", "reward")) == 0
    assert killed.attempt(prepare(root, "ppo", "ppo")) == 0
    return root


def prepare(root: Path, kind: str, name: str, **settings: Any) -> Path:
    if kind == "reward":
        return killed.prepare(root, kind, name, **settings)
    shutil.copytree(root / "models-reward", root / f"models-{name}")
    return killed.prepare(root, kind, name, killed.made(root / "reward")[1][:16], **settings)


@pytest.mark.parametrize(
    ("kind", "moment", "n", "is_before"),
    [
        ("reward", "fsync", 11, True),
        ("reward", "rename", 3, True),
        ("reward", "update", 2, False),
        ("reward", "held-out look", 1, True),
        ("ppo", "fsync", 13, True),
        ("ppo", "rename", 2, False),
        ("ppo", "ppo update", 3, False),  # within the second step of each attempt
        ("ppo", "ppo update", 4, True),
    ],
)
def test_killed_again_and_again_it_ends_in_the_same_model(
    root: Path, kind: str, moment: str, n: int, is_before: bool
) -> None:
    """Each attempt is killed at the n-th such moment of its own; only the held-out look kills the first alone."""
    folder = prepare(root, kind, f"{kind}-{moment}-{n}")
    took = killed.attempts(
        folder, lambda number: Kill(moment, n, is_before) if moment != "held-out look" or number == 1 else None
    )
    assert took > 1
    assert killed.made(folder) == killed.made(root / kind)
    assert any(text.startswith("Goes on after step") for text in messages(folder))
    assert not any("skipped" in text for text in messages(folder))


@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_a_damaged_newest_checkpoint_costs_steps_and_changes_nothing(root: Path, kind: str) -> None:
    folder = prepare(root, kind, f"{kind}-damaged")
    moment = "update" if kind == "reward" else "ppo update"
    assert killed.attempt(folder, 1, Kill(moment, 4 if kind == "reward" else 7)) == -signal.SIGKILL
    assert names(folder) == ["checkpoint-000002", "checkpoint-000003"]
    os.truncate(folder / "checkpoint-000003" / "optimizer.safetensors", 100)
    assert killed.attempt(folder, 2) == 0
    told = messages(folder)
    assert "checkpoint-000003 is skipped: optimizer.safetensors" in told[-2] and told[-1] == "Goes on after step 2."
    assert killed.made(folder) == killed.made(root / kind)


@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_a_pause_within_a_step_saves_the_step_before_and_ends_in_the_same_model(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(root, kind, f"{kind}-paused", save_minutes=1000)
    job = Job(**json.loads((folder / "job.json").read_text()))
    run = Run(folder)
    keep = Checkpoints.keep

    def keep_then_ask(saves: Checkpoints, number: int, *args: Any, **more: Any) -> None:
        keep(saves, number, *args, **more)
        if number == 2:
            (folder / "pause").touch()

    monkeypatch.setattr(Checkpoints, "keep", keep_then_ask)
    with pytest.raises(Paused):
        training_job.TRAINERS[kind](job, folder, run)
    torch.use_deterministic_algorithms(False)
    monkeypatch.undo()
    assert names(folder) == ["checkpoint-000002"]
    (folder / "pause").unlink()
    assert killed.attempt(folder, 2) == 0
    assert killed.made(folder)[0] == killed.made(root / kind)[0]


def test_a_checkpoint_of_another_snapshot_is_refused_by_the_job(root: Path) -> None:
    folder = prepare(root, "reward", "reward-other")
    assert killed.attempt(folder, 1, Kill("update", 3)) == -signal.SIGKILL
    job = json.loads((folder / "job.json").read_text())
    digest = write_rows(folder, tiny.separable_rows(31))
    write_job(folder, Job(**{**job, "rows_digest": digest}))
    settings = settings_of.make(settings_of.RewardSettings, job["settings"])
    saves = training_job.saves_of(Job(**{**job, "rows_digest": digest}), settings, Run(folder), {})
    base = tiny.base()
    with pytest.raises(OtherRun, match=r"rows \("):
        reward.train(base, read_comparisons(folder / "rows.jsonl"), settings, 0, Run(folder), saves=saves)
