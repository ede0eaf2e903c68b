"""A job's folder: what the web process writes for a worker, and how both read it. Imports no torch."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.training.run import CHECKPOINT

JOB = "job.json"
ROWS = "rows.jsonl"
HELD_OUT = "held_out.jsonl"
SCORES = "scores.jsonl"


class BadJob(ValueError):
    """The job's folder is not usable; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """job.json. The worker knows nothing but this and the rows."""

    job: int
    kind: str
    settings: Mapping[str, Any]
    seed: int
    base: str  # folder or hub id
    models: str  # folder of model folders
    rows_digest: str  # SHA-256 of rows.jsonl
    attempt: int = 1
    start: str | None = None  # model folder the policy starts from; the reference stays the bare base
    reward: str | None = None  # model folder of the reward model that is followed; of a reward job: the one before it
    policy: str | None = None  # of a reward job: model folder of the policy whose answers it looks at
    snapshot: Mapping[str, Any] = field(default_factory=dict)
    lineage: Any = None  # copied into the manifest as parents


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Freeze the rows; returns the digest that job.json must carry."""
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode()
    _write(folder / ROWS, text)
    return hashlib.sha256(text).hexdigest()


def write_job(folder: Path, job: Job) -> None:
    _write(folder / JOB, json.dumps(asdict(job), ensure_ascii=False, indent=1).encode())


def write_held_out(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """How a reward model scored each held-out comparison: {"case", "completions": [ids], "scores": [one per answer]}."""
    _write(folder / HELD_OUT, "".join(json.dumps(row) + "\n" for row in rows).encode())


def held_out_scores(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / HELD_OUT).read_text(encoding="utf-8").splitlines()]


def write_scores(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Which comparisons to ask first: {"comparison", "score", "reason"}, the highest score first."""
    _write(folder / SCORES, "".join(json.dumps(row) + "\n" for row in rows).encode())


def scores(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SCORES).read_text(encoding="utf-8").splitlines()]


def read_job(folder: Path) -> Job:
    """The job, after its rows were checked against their digest."""
    try:
        job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise BadJob(f"The job's {JOB} is not usable ({cause}). Start the job again.") from cause
    try:
        digest = hashlib.sha256((folder / ROWS).read_bytes()).hexdigest()
    except OSError as cause:
        raise BadJob(f"The job's {ROWS} is missing. Start the job again.") from cause
    if digest != job.rows_digest:
        raise BadJob(f"The job's {ROWS} is not the data that was frozen for it. Start the job again.")
    return job


def drop_checkpoints(folder: Path) -> None:
    """For a job that will not go on: its checkpoints are of no more use."""
    for path in folder.glob(f"*{CHECKPOINT}*"):
        shutil.rmtree(path)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
