"""Checkpoint files: whole or not there, checked before use, bound to what they were made from. No test takes arguments,
so that tests/mutations.py can run them against faulty versions; test_resume.py kills whole trainings."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from backend.jobs.runner import tail
from backend.training import checkpoint
from backend.training.run import Interrupted, Paused, Run, Stopped

MADE_FROM: dict[str, Any] = {"rows": "ab" * 32, "settings": {"learning_rate": 0.1}, "base": "cd", "reward": "ef"}
TENSORS = {"a": {"0000": torch.arange(6.0)}, "optimizer": {"0.step": torch.tensor(1.0)}}
STATE = {"expected": MADE_FROM, "facts": {}, "process": {}, "optimizer": {"groups": [], "numbers": {}}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def small(seed: int = 0) -> tuple[Any, list[nn.Parameter]]:
    torch.manual_seed(seed)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(2))]
    return checkpoint.Live({"policy": weights}, torch.optim.AdamW(weights, lr=0.1)), weights


def take_step(live: Any, number: int) -> None:
    for weight in live.weights["policy"]:
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    live.optimizer.step()


def saves_in(folder: Path, minutes: float = 0, clock: Callable[[], float] | None = None) -> Any:
    more = {"clock": clock} if clock else {}
    return checkpoint.Checkpoints(Run(folder), MADE_FROM, minutes, **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def messages(folder: Path) -> list[str]:
    return [event["text"] for event in tail(folder).events if event["kind"] == "message"]


def test_weights_moments_and_facts_come_back_and_the_next_steps_are_the_same() -> None:
    with a_folder() as folder:
        live, weights = small()
        saves = saves_in(folder)
        assert saves.resume(live) == (0, {})
        take_step(live, 0)
        saves.keep(1, live, {"kl_coef": 0.1 + 0.2, "curve": [{"step": 1}]})
        other, resumed = small(seed=1)
        assert saves_in(folder).resume(other) == (1, {"kl_coef": 0.1 + 0.2, "curve": [{"step": 1}]})
        for number in (1, 2):
            take_step(live, number)
            take_step(other, number)
        assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
        assert messages(folder) == ["Goes on after step 1."]


def test_the_newest_two_stay_whatever_the_number_of_their_digits() -> None:
    with a_folder() as folder:
        for step in (8, 9, 999_999, 1_000_000):
            checkpoint.save(folder, step, TENSORS, STATE)
        assert names(folder) == ["checkpoint-1000000", "checkpoint-999999"]
        found = checkpoint.newest_valid(folder, MADE_FROM, pytest.fail)
        assert found is not None and found.step == 1_000_000


def test_a_list_that_grows_later_and_a_weight_that_moves_later_are_kept_as_they_were() -> None:
    with a_folder() as folder:
        live, weights = small()
        take_step(live, 0)
        was, curve = [weight.detach().clone() for weight in weights], [1]
        saves = saves_in(folder, minutes=5)
        saves.keep(9, live, {"curve": curve})
        curve.append(2)
        take_step(live, 1)
        with pytest.raises(Paused), saves:
            raise Paused
        other, resumed = small(seed=1)
        assert saves_in(folder).resume(other) == (9, {"curve": [1]})
        assert all(torch.equal(a, b) for a, b in zip(was, resumed, strict=True))


def test_it_is_written_when_the_minutes_have_passed_or_when_told() -> None:
    with a_folder() as folder:
        live, _ = small()
        clock = Clock()
        saves = saves_in(folder, 5, clock)
        for number, seconds in enumerate((299, 1, 299, 0.5), start=1):
            clock.now += seconds
            saves.keep(number, live, {})
        assert names(folder) == ["checkpoint-000002"]
        clock.now += 0.5
        saves.keep(5, live, {})
        assert names(folder) == ["checkpoint-000002", "checkpoint-000005"]
        saves.keep(6, live, {}, now=True)
        assert names(folder) == ["checkpoint-000005", "checkpoint-000006"]
        checkpoint.NONE.keep(7, live, {}, now=True)
        assert checkpoint.NONE.resume(live) == (0, {})


def test_a_pause_and_a_signal_write_the_last_whole_step_and_other_ends_write_nothing() -> None:
    for end, written in (
        (Stopped, []),
        (ValueError, []),
        (Paused, ["checkpoint-000003"]),
        (Interrupted, ["checkpoint-000003"]),
    ):
        with a_folder() as folder:
            live, _ = small()
            saves = saves_in(folder, minutes=5)
            saves.keep(3, live, {})
            with pytest.raises(end), saves:
                raise end
            assert names(folder) == written


def test_the_point_of_a_saved_step_is_written_before_it() -> None:
    with a_folder() as folder:
        run = Run(folder, clock=Clock())
        live, _ = small()
        for step in (1, 2):
            run.metrics(step, 9, {"loss": 1.0})
        checkpoint.Checkpoints(run, MADE_FROM, 0).keep(2, live, {})
        assert [event["step"] for event in tail(folder).events] == [1, 2]


def test_every_file_and_the_folder_are_on_the_disk_before_the_name_and_the_name_before_the_end() -> None:
    done: list[int | str] = []  # inodes synced, and names given
    sync, rename = os.fsync, os.rename

    def told_sync(handle: int) -> None:
        done.append(os.fstat(handle).st_ino)
        sync(handle)

    def told_rename(old: Path, new: Path) -> None:
        done.append(new.name)
        rename(old, new)

    with a_folder() as folder, patch.object(os, "fsync", told_sync), patch.object(os, "rename", told_rename):
        saved = checkpoint.save(folder, 3, TENSORS, STATE)
        files = [saved / name for name in ("a.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")]
        inodes = [path.stat().st_ino for path in (*files, saved)]
        assert set(done[:3]) == set(inodes[:3])
        assert done[3:] == [*inodes[3:], "checkpoint-000003", folder.stat().st_ino]


def test_what_a_killed_save_left_and_the_same_step_again_are_replaced() -> None:
    with a_folder() as folder:
        for left in ("tmp-checkpoint-000003", "tmp-old-checkpoint-000001"):
            (folder / left).mkdir()
            (folder / left / "state.json").write_text("half")
        assert checkpoint.newest_valid(folder, MADE_FROM, pytest.fail) is None and names(folder) == []
        (folder / "tmp-checkpoint-000003").mkdir()
        checkpoint.save(folder, 3, TENSORS, STATE)
        again = {**TENSORS, "a": {"0000": torch.ones(2)}}
        checkpoint.save(folder, 3, again, STATE)
        assert names(folder) == ["checkpoint-000003"]
        assert torch.equal(checkpoint.read(folder / "checkpoint-000003").tensors["a"]["0000"], torch.ones(2))


def flip(path: Path) -> None:
    content = bytearray((path / "a.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "a.safetensors").write_bytes(content)


SPOILT: list[tuple[Callable[[Path], Any], str]] = [
    (flip, "a.safetensors is not what was saved"),
    (lambda path: os.truncate(path / "optimizer.safetensors", 20), "optimizer.safetensors is not what was saved"),
    (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    (lambda path: (path / "MANIFEST.json").write_text("[1"), "it cannot be read"),
    (lambda path: (path / "MANIFEST.json").write_text("{}"), "it cannot be read"),
    (lambda path: (path / "MANIFEST.json").unlink(), "MANIFEST.json is missing"),
]


def test_a_damaged_one_is_skipped_with_its_reason_and_the_older_one_used() -> None:
    for spoil, reason in SPOILT:
        with a_folder() as folder:
            checkpoint.save(folder, 4, TENSORS, STATE)
            spoil(checkpoint.save(folder, 5, TENSORS, STATE))
            told: list[str] = []
            found = checkpoint.newest_valid(folder, MADE_FROM, told.append)
            assert found is not None and found.step == 4
            assert len(told) == 1 and told[0].startswith("checkpoint-000005 is skipped: ") and reason in told[0]
            assert names(folder) == ["checkpoint-000004"]  # what is of no use must not push out what is
            spoil(folder / "checkpoint-000004")
            assert checkpoint.newest_valid(folder, MADE_FROM, told.append) is None


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"rows": "00" * 32}, "rows (abababababababab there, 0000000000000000 here)"),
    ({"base": "xy"}, "base (cd there, xy here)"),
    ({"reward": "12"}, "reward (ef there, 12 here)"),
    ({"settings": {"learning_rate": 0.2}}, "settings (learning_rate 0.1 there, 0.2 here)"),
    ({"start": "34"}, "start (None there, 34 here)"),
]


def test_a_checkpoint_of_something_else_is_refused_by_name_and_stays() -> None:
    for change, named in CHANGED:
        with a_folder() as folder:
            checkpoint.save(folder, 4, TENSORS, STATE)
            with pytest.raises(checkpoint.OtherRun) as refused:
                checkpoint.newest_valid(folder, {**MADE_FROM, **change}, pytest.fail)
            assert named in str(refused.value) and "Start a new job" in str(refused.value)
            assert names(folder) == ["checkpoint-000004"]


def test_other_shapes_are_refused_before_anything_is_changed() -> None:
    for shapes in (((3, 4), (3,)), ((3, 4),)):
        with a_folder() as folder:
            live, _ = small()
            saves_in(folder).keep(1, live, {})
            weights = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
            other = checkpoint.Live({"policy": weights}, torch.optim.AdamW(weights))
            with pytest.raises(checkpoint.OtherRun, match="other tensors for 'policy'"):
                saves_in(folder).resume(other)
            assert not any(weight.any() for weight in weights)


def test_another_number_of_threads_is_told() -> None:
    threads = torch.get_num_threads()
    with a_folder() as folder:
        live, _ = small()
        saves_in(folder).keep(1, live, {})
        torch.set_num_threads(threads + 1)
        try:
            saves_in(folder).resume(live)
        finally:
            torch.set_num_threads(threads)
        told = f"Equal weights are not promised after step 1: threads {threads} there, {threads + 1} here."
        assert messages(folder) == [told, "Goes on after step 1."]


def test_a_checkpoint_of_another_version_of_the_program_is_told() -> None:
    with a_folder() as folder:
        live, _ = small()
        saves_in(folder).keep(1, live, {})
        found = checkpoint.read(folder / "checkpoint-000001")
        process = {**found.state["process"], "program": "older"}
        checkpoint.save(folder, 2, found.tensors, {**found.state, "process": process})
        assert saves_in(folder).resume(live).step == 2
        assert "after step 2: program older there, " in messages(folder)[0] and ";" not in messages(folder)[0]


def test_what_is_computed_once_is_read_again_and_made_anew_when_it_cannot_be() -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"sums": torch.tensor([0.1, 0.2]) * len(made), "none": torch.zeros(0)}

    def asked(folder: Path, made_from: dict[str, Any]) -> list[float]:
        return list(checkpoint.Checkpoints(Run(folder), made_from, 0).once("reference", make)["sums"].tolist())

    with a_folder() as folder:
        first = asked(folder, MADE_FROM)
        assert asked(folder, MADE_FROM) == first and len(made) == 1
        assert [path.name for path in folder.iterdir() if "reference" in path.name] == ["reference.safetensors"]
        assert asked(folder, {**MADE_FROM, "rows": "other"}) != first and len(made) == 2, "of another run"
        assert asked(folder, {**MADE_FROM, "rows": "other"}) and len(made) == 2
        content = bytearray((folder / "reference.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "reference.safetensors").write_bytes(content)
        asked(folder, {**MADE_FROM, "rows": "other"})
        assert len(made) == 3, "damaged"
        checkpoint.NONE.once("reference", make)
        assert len(made) == 4, "nothing is kept without a run"
