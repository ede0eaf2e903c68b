"""Start a worker in its own process, watch it, stop it. Imports no torch."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from backend.jobs.folder import BadJob
from backend.training.run import EVENTS, STOP

ROOT = Path(__file__).resolve().parents[2]
LOG = "worker.log"
# What a worker may see of our environment: no provider key is among it.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)


class Handle(NamedTuple):
    pid: int
    started_at: str  # when the process began, as the system tells it: a pid alone may be someone else's by now


class Tail(NamedTuple):
    events: list[dict[str, Any]]
    offset: int  # bytes; pass it to the next call


def start(job_folder: Path) -> Handle:
    """Run the job of this folder in a process group of its own; it outlives us."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    with (job_folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.jobs.worker", str(job_folder.resolve())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started_at = process_start(process.pid)
    threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
    return Handle(process.pid, started_at or "")


def is_alive(pid: int, started_at: str) -> bool:
    """True while this very process runs; a zombie or a stranger with its pid is not it."""
    return bool(started_at) and process_start(pid) == started_at


def stop(
    job_folder: Path, handle: Handle, after_seconds: float = 10.0, kill_after_seconds: float = 5.0
) -> threading.Thread:
    """Ask by file at once; a worker that lives on gets SIGTERM, then SIGKILL, to its own process group alone.

    Returns without waiting; the thread ends when the worker is gone.
    """
    (job_folder / STOP).touch()

    def insist() -> None:
        for number, seconds in ((signal.SIGTERM, after_seconds), (signal.SIGKILL, kill_after_seconds)):
            if _is_gone_within(handle, seconds):
                return
            _signal_group(handle, number)
        _is_gone_within(handle, kill_after_seconds)

    thread = threading.Thread(target=insist, name=f"stop {handle.pid}", daemon=True)
    thread.start()
    return thread


def check_digest(rows: bytes, digest: bytes | None) -> None:
    """The rows about to be written must be the ones that were frozen."""
    if hashlib.sha256(rows).digest() != digest:
        raise BadJob("The snapshot's rows are no longer what was frozen. Make a new snapshot.")


def tail(job_folder: Path, offset: int = 0) -> Tail:
    """Events after the offset, whole lines only; a line that a kill tore is passed over."""
    path = job_folder / EVENTS
    if not path.exists():
        return Tail([], offset)
    with path.open("rb") as stream:
        stream.seek(offset)
        content = stream.read()
    whole = content[: content.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return Tail(events, offset + len(whole))


def process_start(pid: int) -> str | None:
    """When this process began, unique on this machine; None if it is gone or a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = stat.read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else f"{boot} {rest[18]}"  # field 22 of proc(5), counted from the state
    found = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = found.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else began.strip()


def _is_gone_within(handle: Handle, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_alive(*handle):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _signal_group(handle: Handle, number: signal.Signals) -> None:
    """Never a group that is not the worker's own, never a process that merely has its pid."""
    if not is_alive(*handle):
        return
    try:
        if os.getpgid(handle.pid) == handle.pid:
            os.killpg(handle.pid, number)
        else:
            os.kill(handle.pid, number)
    except ProcessLookupError:
        pass
