"""Watches jobs from the web process: starts what waits, takes in what workers report, registers what they made."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from backend.jobs import runner
from backend.jobs.folder import drop_checkpoints, scores
from backend.registry import artifacts
from backend.training.run import PAUSE, STOP
from feedback_db import Store, jobs, models, priorities, snapshots
from feedback_db.store import as_json
from feedback_db.types import Evaluation, Job, Model, Snapshot

log = logging.getLogger(__name__)
SILENCE_SECONDS = 90  # a living worker that reports nothing for so long hangs
TERMINAL = ("done", "failed", "cancelled")
LAST_WORDS = (*TERMINAL, "paused", "interrupted")  # events after which a worker ends


class Supervisor:
    """One job runs at a time: on one machine two would only slow each other and the annotators.

    ``tick`` is called about once a second. Workers outlive this process: after a restart they are found again.
    """

    def __init__(self, store: Store, *, runs_dir: Path, models_dir: Path, base: str):
        self.store = store
        self.runs_dir = runs_dir
        self.models_dir = models_dir
        self.base = base
        self._offsets: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Take in what is new, then start the next waiting job if none runs."""
        with self._lock:
            for job in jobs.unfinished(self.store):
                if job.state in ("running", "cancelling"):
                    self._take_in(job)
            waiting = jobs.unfinished(self.store)
            if waiting and all(job.state in ("queued", "interrupted") for job in waiting):
                self._launch(waiting[0])

    def run_to_end(self, job: Job, tell: Callable[[Job], None], every_seconds: float = 0.5) -> Job:
        """Watch one job until it ends, for programs without pages; ``tell`` is called when its step changes."""
        assert job.id is not None
        told = -1
        while job.state not in (*TERMINAL, "paused"):
            self.tick()
            job = self.store.get(Job, job.id)
            if job.step != told:
                told = job.step
                tell(job)
            time.sleep(every_seconds)
        return job

    def stop(self, job: Job) -> Job:
        """Ask a job to stop; one that has not begun is cancelled at once."""
        with self._lock:
            job_id = job.id or 0
            job = self.store.get(Job, job_id)
            if job.state in ("queued", "interrupted", "paused"):
                return self._cancelled(job_id)
            if job.state == "running":
                job = jobs.set_state(self.store, job_id, "cancelling")
                if job.worker:
                    runner.stop(self._folder(job), _handle(job.worker))
            return job

    def pause(self, job: Job) -> Job:
        """Ask a job to save and end until it is resumed; one that has not begun is paused at once."""
        with self._lock:
            job = self.store.get(Job, job.id or 0)
            if job.state in ("queued", "interrupted"):
                return jobs.set_state(self.store, job.id or 0, "paused")
            if job.state == "running":
                (self._folder(job) / PAUSE).touch()  # the worker looks for it with every micro-batch
            return job

    def resume(self, job: Job) -> Job:
        """Queue a paused or failed job again; it goes on from its checkpoint."""
        with self._lock:
            job = self.store.get(Job, job.id or 0)
            return jobs.queue_again(self.store, job.id or 0) if job.state in ("paused", "failed") else job

    # ---- one job

    def _folder(self, job: Job) -> Path:
        return self.runs_dir / str(job.id)

    def _launch(self, job: Job) -> None:
        assert job.id is not None
        claimed = jobs.claim(self.store, job.id)
        if claimed is None:
            return
        try:
            self._prepare(claimed)
            handle = runner.start(self._folder(claimed))
        except Exception as error:  # the job fails with its reason instead of being tried for ever
            log.exception("Job %s could not be started.", job.id)
            jobs.set_state(self.store, job.id, "failed", error=f"The job could not be started: {error}")
            return
        jobs.set_worker(self.store, job.id, f"{handle.pid}:{handle.started_at}")

    def _prepare(self, job: Job) -> None:
        """Write the job's folder: its settings and the rows of its snapshot, whose digest must be the frozen one."""
        folder = self._folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        for asked in (STOP, PAUSE):
            (folder / asked).unlink(missing_ok=True)
        assert job.snapshot_id is not None
        snapshot = self.store.get(Snapshot, job.snapshot_id)
        rows = snapshots.rows_text(self.store, snapshot).encode()
        runner.check_digest(rows, snapshot.digest)
        (folder / "rows.jsonl").write_bytes(rows)
        start = self._model(job.start_model_id)
        reward = self._model(job.reward_model_id)
        policy = self._model(job.policy_model_id)
        base = self._model(job.base_model_id)
        description = {
            "job": job.id,
            "kind": job.kind,
            "settings": job.settings,
            "seed": job.seed,
            "attempt": job.attempt,
            "base": self.base,
            "models": os.path.abspath(self.models_dir),
            "start": start.adapter if start else None,
            "reward": reward.adapter if reward else None,
            "policy": policy.adapter if policy else None,
            "rows_digest": snapshot.digest.hex() if snapshot.digest else "",
            "snapshot": {
                "id": snapshot.id,
                "digest": snapshot.digest.hex() if snapshot.digest else "",
                "n": snapshot.n,
            },
            "lineage": {
                role: {"model": m.id, "digest": m.digest.hex() if m.digest else None}
                for role, m in (("base", base), ("start", start), ("reward", reward), ("policy", policy))
                if m is not None
            },
        }
        (folder / "job.json").write_text(as_json(description), encoding="utf-8")

    def _model(self, model_id: int | None) -> Model | None:
        return self.store.get(Model, model_id) if model_id is not None else None

    def _take_in(self, job: Job) -> None:
        assert job.id is not None
        alive = job.worker is not None and runner.is_alive(
            *_handle(job.worker)
        )  # before reading: its last words are read
        at = (job.id, job.attempt)
        events, self._offsets[at] = runner.tail(self._folder(job), self._offsets.get(at, 0))
        events = [event for event in events if event.get("attempt") == job.attempt]
        if events:
            jobs.record_events(self.store, job.id, events)
        last = next((event for event in events if event["kind"] in LAST_WORDS), None)
        if last is not None:
            self._finish(job, last)
        elif not alive:
            self._lost(job)
        elif (
            job.heartbeat_at
            and self.store.now() - (events[-1]["at"] if events else job.heartbeat_at) > SILENCE_SECONDS * 1e6
        ):
            assert job.worker is not None
            runner.stop(self._folder(job), _handle(job.worker), after_seconds=0)

    def _finish(self, job: Job, event: dict[str, Any]) -> None:
        assert job.id is not None
        if event["kind"] == "done" and job.kind == "score":
            self._reorder(job)
        elif event["kind"] == "done":
            self._register(job, event)
        elif event["kind"] == "failed":
            jobs.set_state(self.store, job.id, "failed", error=event["error"])
        elif event["kind"] == "cancelled":
            if job.state == "running":  # it was silent, was told to stop, and heard it after all
                jobs.set_state(self.store, job.id, "cancelling")
            self._cancelled(job.id)
        else:  # it saved and ended, because somebody paused it or because a signal came from outside
            self._lost(job)

    def _cancelled(self, job_id: int) -> Job:
        drop_checkpoints(self.runs_dir / str(job_id))
        return jobs.set_state(self.store, job_id, "cancelled")

    def _lost(self, job: Job) -> None:
        """The worker is gone before its work was done; its checkpoints, if it saved any, are in its folder."""
        assert job.id is not None
        if job.state == "cancelling":
            self._cancelled(job.id)
        elif (self._folder(job) / PAUSE).exists():
            jobs.set_state(self.store, job.id, "paused")
        elif job.attempt < job.max_attempts:
            jobs.set_state(self.store, job.id, "interrupted")
        else:
            error = (
                f"The worker ended without a report {job.attempt} times, the last time at step {job.step}. "
                "The machine may be short of memory: lower the batch size, or look into the job's log."
            )
            jobs.set_state(self.store, job.id, "failed", error=error)

    def _reorder(self, job: Job) -> None:
        """Put what waits into the order the worker found. Doing it twice changes nothing."""
        assert job.id is not None
        priorities.apply(self.store, job, scores(self._folder(job)))
        jobs.set_state(self.store, job.id, "done")

    def _register(self, job: Job, event: dict[str, Any]) -> None:
        """Verify the artifact, then make it a model in one transaction."""
        assert job.id is not None
        try:
            manifest = artifacts.verify(self.models_dir / event["artifact"])
            if manifest.digest != event["digest"]:
                raise artifacts.BadArtifact(
                    f"its digest is {manifest.digest[:16]}, the worker reported {event['digest'][:16]}"
                )
        except artifacts.BadArtifact as error:
            jobs.set_state(self.store, job.id, "failed", error=f"The saved model is not whole: {error}.")
            return
        base = self._model(job.base_model_id)
        assert base is not None
        kind: Literal["reward", "policy"] = "reward" if job.kind == "reward" else "policy"
        with self.store.write():
            model = models.with_digest(self.store, bytes.fromhex(manifest.digest)) or self.store.add(
                Model(
                    project_id=job.project_id if kind == "reward" else None,
                    name=f"{job.kind}-{job.id}",
                    kind=kind,
                    base=base.base,
                    base_fingerprint=base.base_fingerprint,
                    adapter=event["artifact"],
                    parent_id=job.start_model_id or base.id,
                    job_id=job.id,
                    source="trained",
                    digest=bytes.fromhex(manifest.digest),
                )
            )
            assert model.id is not None
            report = event["report"]
            self.store.add(
                Evaluation(
                    model_id=model.id,
                    job_id=job.id,
                    kind=job.kind,
                    snapshot_id=job.snapshot_id,
                    settings=job.settings,
                    result=report,
                    n=int(report.get("n", 0)),
                )
            )
            if kind == "reward" and model.stage != "live":  # it answers nobody: the newest one is the current one
                models.move(self.store, model, "live", reason=f"trained by job {job.id}", person_id=job.person_id)
            jobs.set_state(self.store, job.id, "done", output_model_id=model.id)
        drop_checkpoints(self._folder(job))


def _handle(worker: str) -> runner.Handle:
    pid, started_at = worker.split(":", 1)
    return runner.Handle(int(pid), started_at)
