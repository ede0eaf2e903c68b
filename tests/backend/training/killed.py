"""Trainings in processes of their own that kill themselves at a chosen moment, as a power cut would."""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils.logging import disable_progress_bar

from backend.jobs.folder import Job, write_job, write_rows
from backend.registry import artifacts
from backend.training import dpo, ift, kto, ppo, pretrain, reward, sft
from backend.training import job as training_job
from backend.training.run import Run
from tests.backend.training import tiny

SETTINGS: dict[str, dict[str, Any]] = {
    "reward": {"learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8, "min_comparisons": 2},
    "sft": {"learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8, "min_answers": 2},
    "pretrain": {"learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8, "min_texts": 2},
    "dpo": {"learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8, "min_pairs": 2},
    "kto": {"learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8, "min_of_each": 2},
    "ift": {"learning_rate": 1e-2, "total_episodes": 64, "batch_size": 16, "response_length": 4, "eval_cases": 4},
    "ppo": {"learning_rate": 1e-2, "total_episodes": 64, "batch_size": 16, "response_length": 4, "eval_cases": 4,
            "num_mini_batches": 2, "kl_target": 1.0, "kl_horizon": 100},
}  # fmt: skip
ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "reward": lambda: tiny.separable_rows(30),
    "sft": lambda: [tiny.answer_row(i) for i in range(30)],
    "pretrain": lambda: [tiny.text_row(i) for i in range(30)],
    "dpo": lambda: [tiny.preference_row(i) for i in range(30)],
    "kto": lambda: [tiny.unpaired_row(i) for i in range(30)],
    "ift": lambda: [tiny.prompt_row(i) for i in range(15)],
    "ppo": lambda: [tiny.prompt_row(i) for i in range(15)],
}
COMMON = {"lora_r": 4, "lora_alpha": 8, "threads": 1, "save_minutes": 0}
ALGORITHMS = {
    "reward": reward,
    "sft": sft,
    "pretrain": pretrain,
    "dpo": dpo,
    "kto": kto,
    "ift": ift,
    "ppo": ppo,
}
LOOKS = {
    "reward": "brief",
    "sft": "losses",
    "pretrain": "losses",
    "dpo": "implicit_margins",
    "kto": "implicit_rewards",
    "ift": "evaluate",
    "ppo": "evaluate",
}


class Kill(NamedTuple):
    """The process ends by SIGKILL at the ``n``-th such moment, before or after it did its work."""

    moment: str  # fsync, rename, update (of the weights), look (at held-out cases)
    n: int
    is_before: bool = True


def prepare(root: Path, kind: str, name: str, judge: str | None = None, **settings: Any) -> Path:
    """A job's folder. All jobs under one root share its bases; what is hidden from BERT is drawn anew at every step."""
    model = "bert" if kind == "pretrain" else "llama"
    if not (root / model).exists():
        tiny.folder(root / model, model)
    folder = root / name
    folder.mkdir()
    digest = write_rows(folder, ROWS[kind]())
    values = {**COMMON, **SETTINGS[kind], **settings}
    job = Job(job=1, kind=kind, settings=values, seed=0, base=str(root / model), models=str(root / f"models-{name}"),
              rows_digest=digest, reward=judge)  # fmt: skip
    write_job(folder, job)
    return folder


def train(folder: Path, attempt: int, kill: Kill | None) -> None:
    """One attempt, in this process; what became of it stands in ``result``."""
    disable_progress_bar()
    job = Job(**json.loads((folder / "job.json").read_text()))
    if kill is not None:
        arm(kill, job.kind)
    saved, _ = training_job.TRAINERS[job.kind](job, folder, Run(folder, attempt))
    (folder / "result").write_text(saved.digest)


def attempt(folder: Path, number: int = 1, kill: Kill | None = None) -> int | None:
    """One attempt in a process of its own; its exit code, -9 if it was killed."""
    return in_a_process(train, folder, number, kill)


def in_a_process(act: Callable[..., None], *args: Any) -> int | None:
    """The exit code, -9 if it was killed. Processes fork from one that has torch in memory and has not used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.backend.training.killed"])
    process = context.Process(target=act, args=args)
    process.start()
    process.join(120)
    return process.exitcode


def attempts(folder: Path, kill: Kill, most: int = 60) -> int:
    """Attempt after attempt, each killed at the same moment of its own, until one ends by itself; how many it took."""
    for number in range(1, most + 1):
        code = attempt(folder, number, kill)
        if code != -signal.SIGKILL:
            assert code == 0
            return number
    raise AssertionError(f"{most} attempts did not end the training")


def made(folder: Path) -> tuple[str, str]:
    """SHA-256 of the adapter file, and the digest of the whole model: its report and curve too."""
    job = json.loads((folder / "job.json").read_text())
    digest = (folder / "result").read_text()
    model = Path(job["models"]) / digest[: artifacts.NAME_LENGTH]
    artifacts.verify(model)
    return hashlib.sha256((model / "adapter_model.safetensors").read_bytes()).hexdigest(), digest


def arm(kill: Kill, kind: str) -> None:
    """From now on this process counts towards its end."""
    holder: Any = os if kill.moment in ("fsync", "rename") else ALGORITHMS[kind]
    name = LOOKS[kind] if kill.moment == "look" else kill.moment
    real, calls = getattr(holder, name), [0]

    def counted(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == kill.n and kill.is_before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **more)
        if calls[0] == kill.n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, counted)
