"""A worker from its folder to its model, and everything that can end it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.jobs import runner, worker
from backend.jobs.folder import BadJob, Job, read_job, scores, write_job, write_rows
from backend.registry import artifacts
from backend.training import job as training_job
from backend.training import settings as settings_of
from backend.training.checkpoint import Checkpoints
from backend.training.run import NotFinite
from tests.backend.training import tiny

REWARD = {"lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, "num_train_epochs": 3, "threads": 1}
PPO = {
    "lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, "total_episodes": 128, "batch_size": 32, "response_length": 8,
    "eval_cases": 8, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A worker sets threads and signals for its whole process; here that is the tests' process."""
    threads, handlers = torch.get_num_threads(), [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
        signal.signal(number, handler)


def job_folder(
    tmp_path: Path,
    base: Path,
    kind: str,
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    number: int = 1,
    **more: Any,
) -> Path:
    folder = tmp_path / "runs" / str(number)
    folder.mkdir(parents=True)
    digest = write_rows(folder, rows)
    job = {
        "job": number, "kind": kind, "settings": settings, "seed": 0, "base": str(base), "models": str(tmp_path / "models"),
        "rows_digest": digest, "snapshot": {"id": 1, "digest": "ab", "n": len(rows)}, "lineage": {"base": {"model": 1}},
    }  # fmt: skip
    write_job(folder, Job(**{**job, **more}))
    return folder


def last_event(folder: Path) -> dict[str, Any]:
    events = runner.tail(folder, 0).events
    assert events[0]["kind"] == "started"
    return events[-1]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def in_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(worker, "_own_process", lambda: None)
    worker.main(folder)
    return last_event(folder)


def test_a_reward_model_comes_out_of_a_worker_and_then_a_policy(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job_folder(tmp_path, base, "reward", tiny.separable_rows(60), REWARD)
    handle = runner.start(folder)
    assert runner.is_alive(*handle)
    assert os.getpgid(handle.pid) == handle.pid
    wait_for(lambda: not runner.is_alive(*handle))
    done = last_event(folder)
    assert done["kind"] == "done", (folder / "worker.log").read_text() + str(done)
    manifest = artifacts.verify(tmp_path / "models" / done["artifact"])
    assert manifest.digest == done["digest"] and manifest.facts["parents"] == {"base": {"model": 1}}
    assert manifest.facts["base_fingerprint"] == artifacts.fingerprint(base) and manifest.facts["threads"] == 1
    assert set(manifest.files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "report.json",
    }
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "models").glob("*/*.json"))
    assert done["report"]["accuracy"]["value"] > 0.9

    rows = [tiny.prompt_row(i) for i in range(30)]
    second = job_folder(tmp_path, base, "ppo", rows, PPO, number=2, reward=done["artifact"])
    policy = in_this_process(second, monkeypatch)
    assert policy["kind"] == "done", policy
    manifest = artifacts.verify(tmp_path / "models" / policy["artifact"])
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors", "report.json"}
    assert manifest.facts["made_from"] == {"reward": done["digest"]}
    assert {"kl", "gain", "n"} <= set(policy["report"]["held_out"])
    kinds = {event["kind"] for event in runner.tail(second, 0).events}
    assert {"started", "metrics", "sample", "done"} <= kinds


def test_the_same_job_twice_gives_the_same_digest_and_a_policy_can_start_from_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = in_this_process(job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD), monkeypatch)
    rows, found = [tiny.prompt_row(i) for i in range(20)], []
    for number in (2, 3):
        folder = job_folder(tmp_path, base, "ppo", rows, PPO, number=number, reward=judge["artifact"], attempt=number)
        found.append(in_this_process(folder, monkeypatch))
    assert found[0]["digest"] == found[1]["digest"] and found[1]["attempt"] == 3
    folder = job_folder(
        tmp_path, base, "ppo", rows, PPO, number=4, reward=judge["artifact"], start=found[0]["artifact"]
    )
    later = in_this_process(folder, monkeypatch)
    assert later["kind"] == "done" and later["digest"] != found[0]["digest"]
    assert later["report"]["curve"][0]["objective/kl"] != 0.0  # the reference stays the bare base


def test_a_stop_file_ends_the_worker_as_cancelled_and_nothing_is_kept(tmp_path: Path, base: Path) -> None:
    folder = job_folder(tmp_path, base, "reward", tiny.separable_rows(60), {**REWARD, "num_train_epochs": 1000})
    handle = runner.start(folder)
    wait_for(lambda: any(event["kind"] == "metrics" for event in runner.tail(folder, 0).events))
    runner.stop(folder, handle, after_seconds=30).join()
    assert not runner.is_alive(*handle)
    assert last_event(folder)["kind"] == "cancelled"
    assert not (tmp_path / "models").exists()


def sleeper(ignores_term: bool) -> tuple[subprocess.Popen[bytes], runner.Handle]:
    code = "import signal, time; print(flush=True); time.sleep(60)"
    if ignores_term:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + code
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process, runner.Handle(process.pid, runner.process_start(process.pid) or "")


@pytest.mark.parametrize(("ignores_term", "ended_by"), [(False, signal.SIGTERM), (True, signal.SIGKILL)])
def test_a_worker_that_does_not_listen_is_made_to_end(
    tmp_path: Path, ignores_term: bool, ended_by: signal.Signals
) -> None:
    process, handle = sleeper(ignores_term)
    with process:
        runner.stop(tmp_path, handle, after_seconds=0.1, kill_after_seconds=0.2 if ignores_term else 60).join()
        assert process.wait(60) == -ended_by
    assert (tmp_path / "stop").exists()


def test_a_stranger_with_the_same_pid_is_not_our_worker_and_is_left_alone(tmp_path: Path) -> None:
    process, handle = sleeper(False)
    stranger = runner.Handle(handle.pid, handle.started_at + "0")
    with process:
        assert runner.is_alive(*handle) and not runner.is_alive(*stranger)
        assert not runner.is_alive(handle.pid, "")
        runner.stop(tmp_path, stranger, after_seconds=0, kill_after_seconds=0).join()
        assert process.poll() is None
        process.kill()
        wait_for(lambda: not runner.is_alive(*handle))  # a zombie until it is waited for
        process.wait()


def test_a_worker_does_not_see_the_keys_of_the_web_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen: dict[str, Any] = {}

    class Started:
        pid = os.getpid()

        def __init__(self, _: list[str], **more: Any) -> None:
            seen.update(more)

        def wait(self) -> None:
            pass

    monkeypatch.setattr(subprocess, "Popen", Started)
    runner.start(tmp_path)
    assert "sk-secret" not in str(seen["env"]) and seen["start_new_session"] is True


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"settings": {**REWARD, "min_comparisons": 500}}, "A reward job needs 500 comparisons"),
        ({"settings": {"learning_rat": 1}}, "There is no setting 'learning_rat'"),
        ({"kind": "ppo", "settings": {}}, "names none"),
        ({"kind": "ppo", "settings": {}, "reward": "0123456789abcdef"}, "0123456789abcdef is missing"),
        ({"rows_digest": "00"}, "not the data that was frozen"),
        ({"base": "no/such-model"}, "Fetch it first"),
    ],
)
def test_what_people_can_mend_is_said_in_a_sentence(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sentence: str
) -> None:
    given = {"base": base, "kind": "reward", "settings": REWARD, "rows": tiny.separable_rows(40), **change}
    folder = job_folder(tmp_path, **given)
    failed = in_this_process(folder, monkeypatch)
    assert failed["kind"] == "failed" and sentence in failed["error"] and "Traceback" in failed["traceback"]


def test_an_ensemble_comes_out_of_a_worker_and_a_policy_follows_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jury = {**REWARD, "num_members": 2, "ties": "model"}
    done = in_this_process(job_folder(tmp_path, base, "reward", tiny.separable_rows(40), jury), monkeypatch)
    assert done["kind"] == "done" and len(done["report"]["members"]) == 2 and done["report"]["ties"]["theta"] > 1
    files = set(artifacts.verify(tmp_path / "models" / done["artifact"]).files)
    assert files >= {"adapter_model.safetensors", "head.safetensors", "adapter-2.safetensors", "head-2.safetensors"}
    rows, follow = [tiny.prompt_row(i) for i in range(10)], {**PPO, "total_episodes": 32, "ensemble": "uwo"}
    folder = job_folder(tmp_path, base, "ppo", rows, follow, number=2, reward=done["artifact"])
    assert in_this_process(folder, monkeypatch)["kind"] == "done"
    points = [event["values"] for event in runner.tail(folder, 0).events if event["kind"] == "metrics"]
    assert points and all(point["objective/score_spread"] > 0 for point in points)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "Out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "Out of memory"),
        (OSError(28, "No space left on device"), "The disk is full"),
        (NotFinite("The loss is no number."), "The loss is no number."),
        (KeyError("x"), "fault of the program (KeyError)"),
    ],
)
def test_failures_have_names(error: Exception, sentence: str) -> None:
    assert sentence in worker.sentence(error)


def test_a_model_of_another_base_and_a_spoilt_one_are_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = in_this_process(job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD), monkeypatch)[
        "artifact"
    ]
    other = tiny.folder(tmp_path / "other", seed=1)
    rows = [tiny.prompt_row(i) for i in range(10)]
    failed = in_this_process(job_folder(tmp_path, other, "ppo", rows, PPO, number=2, reward=judge), monkeypatch)
    assert "another base model" in failed["error"]
    os.truncate(tmp_path / "models" / judge / "head.safetensors", 10)
    failed = in_this_process(job_folder(tmp_path, base, "ppo", rows, PPO, number=3, reward=judge), monkeypatch)
    assert "head.safetensors was changed" in failed["error"]


def test_a_model_that_is_not_the_same_after_loading_is_thrown_away(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = training_job.judge.save

    def forgets_the_bias(b: Any, judge: Any, folder: Path) -> None:
        head = judge.members[0].head
        bias = head.bias.clone()
        head.bias += 1
        save(b, judge, folder)
        head.bias.copy_(bias)

    monkeypatch.setattr(training_job.judge, "save", forgets_the_bias)
    folder = job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD)
    failed = in_this_process(folder, monkeypatch)
    assert failed["kind"] == "failed" and "thrown away" in failed["error"]
    assert not list((tmp_path / "models").iterdir())


def ends_after(step: int, end: Callable[[], None]) -> Callable[..., None]:
    """``Checkpoints.keep`` in a process to which this happens after that step."""
    keep = Checkpoints.keep

    def keep_and_end(saves: Checkpoints, number: int, *args: Any, **more: Any) -> None:
        keep(saves, number, *args, **more)
        if number == step:
            end()

    return keep_and_end


def test_a_worker_paused_then_ended_by_a_signal_then_killed_goes_on_each_time_and_makes_the_same_model(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**REWARD, "num_train_epochs": 20}
    whole = job_folder(tmp_path, base, "reward", tiny.separable_rows(40), settings)
    digest = in_this_process(whole, monkeypatch)["digest"]
    early = job_folder(tmp_path, base, "reward", tiny.separable_rows(40), settings, number=2)
    job = json.loads((early / "job.json").read_text())
    ends: list[tuple[Callable[[], None], str]] = [
        ((early / "pause").touch, "paused"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "interrupted"),
    ]
    for attempt, (end, last_word) in enumerate(ends, start=1):
        write_job(early, Job(**{**job, "attempt": attempt}))
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "keep", ends_after(5 * attempt, end))
            assert in_this_process(early, monkeypatch)["kind"] == last_word
        assert sorted(path.name for path in early.glob("checkpoint-*"))[-1:] == [f"checkpoint-{5 * attempt:06d}"]
        (early / "pause").unlink(missing_ok=True)

    write_job(early, Job(**{**job, "attempt": 3}))
    before = set(early.glob("checkpoint-*"))
    handle = runner.start(early)
    wait_for(lambda: bool(set(early.glob("checkpoint-*")) - before))
    os.kill(handle.pid, signal.SIGKILL)
    wait_for(lambda: not runner.is_alive(*handle))
    assert last_event(early)["kind"] != "done"

    write_job(early, Job(**{**job, "attempt": 4}))
    assert in_this_process(early, monkeypatch)["digest"] == digest
    told = [event["attempt"] for event in runner.tail(early, 0).events if "Goes on after" in event.get("text", "")]
    assert told == [2, 3, 4]


def test_a_job_survives_its_folder(tmp_path: Path, base: Path) -> None:
    folder = job_folder(
        tmp_path, base, "reward", tiny.separable_rows(3), settings_of.as_dict(settings_of.RewardSettings())
    )
    assert settings_of.make(settings_of.RewardSettings, read_job(folder).settings) == settings_of.RewardSettings()
    (folder / "rows.jsonl").write_text("")
    with pytest.raises(BadJob, match="not the data"):
        read_job(folder)
    (folder / "job.json").write_text("{")
    with pytest.raises(BadJob, match=r"job\.json"):
        read_job(folder)


def test_a_queue_job_leaves_scores_and_no_model(tmp_path: Path, base: Path) -> None:
    said = [{**row, "comparison": n, "arm": "random"} for n, row in enumerate(tiny.separable_rows(60))]
    waiting = [{**row, "comparison": 100 + n, "arm": "waiting"} for n, row in enumerate(tiny.separable_rows(10))]
    for row in waiting:
        del row["ranks"]
    folder = job_folder(tmp_path, base, "score", said + waiting, {"rule": "coverage", "threads": 1})
    assert worker.main(folder) == worker.DONE
    done = last_event(folder)
    assert done["kind"] == "done" and "artifact" not in done and done["report"]["n"] == 10
    assert {row["comparison"] for row in scores(folder)} == set(range(100, 110))
    assert not (tmp_path / "models").exists() and list((tmp_path / "features").iterdir())
