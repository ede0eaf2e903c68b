"""Run one job: ``python -m backend.jobs.worker <job folder>``. It reads the folder and writes events and a model."""

import errno
import json
import os
import signal
import sys
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no job reaches the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads of torch that wait must not spin: beside another busy process that halves both. Measured on two cores, two trainings
# at once: 2.2 steps/s each against 1.1; alone 2.3 against 2.7.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Texts in one line have a new length at nearly every step, so oneDNN's kernels for the last 1,024 shapes are memory that nothing
# asks for again: 30 MB of PPO's 710 on the small model of the measurement, no slower without.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

from backend.engines.lending import engine_at_rest
from backend.jobs.folder import BadJob, Job, read_job
from backend.registry.artifacts import BadArtifact
from backend.training.checkpoint import OtherRun
from backend.training.data import BadRows
from backend.training.device import has_gpu, is_short_of_memory
from backend.training.families import UnsupportedBase
from backend.training.job import TRAINERS, NotTheSame
from backend.training.run import GuardStop, Interrupted, NotFinite, Paused, Run, Stopped, TooFewRows
from backend.training.settings import BadSettings

DONE, FAILED, CANCELLED, SET_ASIDE = 0, 1, 3, 4  # exit codes
FOR_PEOPLE = (
    BadArtifact,
    BadJob,
    BadRows,
    BadSettings,
    GuardStop,
    NotFinite,
    OtherRun,
    TooFewRows,
    UnsupportedBase,
)


def main(folder: Path) -> int:
    _own_process()
    run = Run(folder, _attempt(folder))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: run.ask_to_end())
    began = time.monotonic()
    try:
        run.event("started", pid=os.getpid())
        with run.heartbeat():
            job = read_job(folder)
            with room_for(job):
                saved, report = TRAINERS[job.kind](job, folder, run)
        seconds = round(time.monotonic() - began, 3)
        made = {"artifact": saved.folder, "digest": saved.digest} if saved else {}
        run.event("done", **made, report=report, seconds=seconds)
        return DONE
    except Stopped:
        run.event("cancelled")
        return CANCELLED
    except (Paused, Interrupted) as aside:
        run.event("paused" if isinstance(aside, Paused) else "interrupted")
        return SET_ASIDE
    except Exception as failure:
        run.event("failed", error=sentence(failure), traceback=traceback.format_exc())
        return FAILED


def room_for(job: Job) -> AbstractContextManager[Any]:
    """Within: a job that computes on a GPU is known to the engine of this data folder, which has let its memory go where
    there is little of it."""
    return engine_at_rest(Path(job.models).parent, asks=is_short_of_memory()) if has_gpu() else nullcontext()


def sentence(failure: Exception) -> str:
    """Cause and cure, for people."""
    if isinstance(failure, FOR_PEOPLE):
        return str(failure)
    text = str(failure).lower()
    if isinstance(failure, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "Out of memory. Lower 'Tokens per pass' or 'Longest text in tokens', or choose a smaller base model."
    if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full; no model was saved. Free some space and start the job again."
    if isinstance(failure, NotTheSame):
        return f"{failure} It was thrown away. Start the job again; if it happens twice, report it."
    return f"The job failed by a fault of the program ({type(failure).__name__}). Report it with the details below."


def _attempt(folder: Path) -> int:
    """Read before the job is checked, so that even a refused job says which attempt it was."""
    try:
        return int(json.loads((folder / "job.json").read_text(encoding="utf-8")).get("attempt", 1))
    except (OSError, ValueError, AttributeError, TypeError):
        return 1


def _own_process() -> None:
    """A group of its own, so that stopping us ends nobody else; behind the pages in the queue for the processor."""
    try:
        os.setsid()
    except PermissionError:
        pass  # the runner already made us the leader
    try:
        os.nice(10)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
