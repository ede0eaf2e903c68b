"""A house with work in it for the pages of engineers and admins: judged comparisons, a job with curves, trained models."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState

from backend import comparing, exchanging, labelling, opening, promoting, retraining, starting
from backend.engines.client import Piece
from backend.engines.scripted import ScriptedEngine
from backend.jobs import runner
from backend.jobs.supervisor import Supervisor
from backend.registry import artifacts
from backend.registry.bases import Base
from backend.settings import Settings
from feedback_db import Store
from feedback_db.types import Job, Model, Person, Project
from tests.ui.house import token_for
from ui.context import Ui
from ui.text import Text

HOSTILE = "<img src=x onerror='window.hacked=1'> ${window.hacked=1} **bold**"
REPORT = {
    "n": 120,
    "accuracy": {"value": 0.81, "low": 0.73, "high": 0.87, "n": 120},
    "train_accuracy": {"value": 0.88, "low": 0.85, "high": 0.9, "n": 480},
    "baselines": {
        "length": {"value": 0.56, "low": 0.47, "high": 0.65, "n": 120, "rule": "shorter wins"},
        "position": {"value": 0.51, "low": 0.42, "high": 0.6, "n": 120, "rule": "first wins"},
    },
    "calibration_error": 0.041,
    "verdict": "usable",
}
GAIN = {
    "n": 40,
    "held_out": {
        "n": 40, "score_before": -0.12, "score_after": 0.94, "gain": {"value": 1.06, "low": 0.81, "high": 1.31, "n": 40},
        "kl": {"value": 3.2, "se": 0.2, "n": 40}, "mean_length_before": 31.0, "mean_length_after": 24.5,
        "eos_rate_before": 0.96, "eos_rate_after": 0.99,
    },
    "verdict": "gained",
}  # fmt: skip


class SlowEngine(ScriptedEngine):
    """Streams a word at a time, and counts the streams that were closed before their end."""

    pause_seconds = 0.0
    closed = 0

    def stream(self, *args: Any, **settings: Any) -> Iterator[Piece]:
        ended = False
        try:
            for piece in super().stream(*args, **settings):
                time.sleep(self.pause_seconds)
                yield piece
            ended = True
        finally:
            self.closed += not ended


@dataclass(frozen=True)
class Studio:
    store: Store
    settings: Settings
    engine: SlowEngine
    jobs: Supervisor
    project: Project
    annotator: Person
    engineer: Person
    admin: Person

    @property
    def ui(self) -> Ui:
        return Ui(store=self.store, engine=self.engine, jobs=self.jobs, settings=self.settings, text=Text())


def build(folder: Path) -> Studio:
    """A sample project with some plain texts, and one person of each role."""
    settings = Settings(data_dir=folder, port=0)
    store = Store(settings.database)
    opening.register_base(store, Base("starter", Path("/nowhere"), hashlib.sha256(b"starter").digest()))
    project = starting.ensure_sample(store)

    def script(messages: Any, model: str, seed: int) -> str:
        asked = str(messages[-1]["content"])[:60]
        return (
            f"Thank you for asking about “{asked}”. {model} would look at order {100 + seed} first. {HOSTILE} "
            + "More. " * 12
        )

    engine = SlowEngine(script, models=["base", *(f"model-{n}" for n in range(1, 12))])
    supervisor = Supervisor(store, runs_dir=settings.runs_dir, models_dir=settings.models_dir, base="/nowhere")
    people = [
        store.add(Person(pseudonym=n, name=n, role=r))
        for n, r in [("ann", "annotator"), ("bob", "engineer"), ("root", "admin")]
    ]  # type: ignore[arg-type]
    corpus = folder / "corpus.txt"
    corpus.write_text("\n\n".join(f"Parcel {i} is on its way." for i in range(40)), encoding="utf-8")
    exchanging.import_file(store, people[-1], corpus, format="text", project=project.name)
    return Studio(store, settings, engine, supervisor, project, *people)


def judge(studio: Studio, count: int) -> None:
    comparing.refill(studio.store, studio.engine, project_id=studio.project.id or 0, target=count)
    desk = labelling.next_desk(studio.store, studio.annotator, studio.project.id or 0)
    for _ in range(count):
        assert desk is not None
        answer = labelling.Answer(ranks=(1, 2), strength=1, seconds=1.0)
        desk = labelling.submit(studio.store, studio.annotator, desk.assignment, uuid.uuid4().bytes, answer).desk


def run_job(studio: Studio, job: Job, steps: int, report: dict[str, Any] | None) -> Model | None:
    """What the supervisor would have seen of a worker; without a report the job is left running."""
    here = runner.Handle(1, "never")
    original, runner.start = runner.start, lambda folder: here  # type: ignore[assignment]
    try:
        studio.jobs.tick()
    finally:
        runner.start = original
    original_alive, runner.is_alive = runner.is_alive, lambda *handle: True  # type: ignore[assignment]
    try:
        tell(studio, job, steps)
        if report is not None:
            saved = artifacts.save(
                studio.settings.models_dir, lambda folder: _fill(folder, report), {"job_was": f"{job.kind}"}
            )
            _say(studio, job, "done", artifact=saved.folder, digest=saved.digest, report=report)
        studio.jobs.tick()
    finally:
        runner.is_alive = original_alive
    done = studio.store.get(Job, job.id or 0)
    return studio.store.get(Model, done.output_model_id) if done.output_model_id else None


def _fill(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report))


def tell(studio: Studio, job: Job, steps: int) -> None:
    for step in range(1, steps + 1):
        rise = 1 - math.exp(-step / 12)
        values = (
            {"loss": 0.7 - 0.3 * rise, "accuracy": 0.5 + 0.35 * rise, "grad_norm": 1.0}
            if job.kind == "reward"
            else {
                "objective/scores": rise,
                "objective/rlhf_reward": rise - 0.1,
                "objective/kl": 3 * rise,
                "objective/entropy": 2 - rise,
            }
        )
        _say(studio, job, "metrics", step=step, total_steps=40, values=values)
    if job.kind == "reward":
        _say(
            studio,
            job,
            "metrics",
            step=steps,
            total_steps=40,
            values={"held_out/accuracy": 0.81, "held_out/log_loss": 0.5},
        )
    else:
        _say(studio, job, "sample", step=steps, case=7, text=f"Sorry for the trouble! {HOSTILE}", score=0.82)


def _say(studio: Studio, job: Job, kind: str, **facts: Any) -> None:
    line = {"at": studio.store.now(), "attempt": 1, "kind": kind, **facts}
    with (studio.settings.runs_dir / str(job.id) / "events.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def worked_in(folder: Path) -> Studio:
    """Judged, a reward model trained, one policy promoted, a second one waiting, and a job that runs."""
    studio = build(folder)
    project = studio.project.id or 0
    judge(studio, 24)
    reward = retraining.train_reward(studio.store, studio.admin, project, changes={"num_train_epochs": 2})
    run_job(studio, reward, 30, REPORT)
    first = retraining.run_ppo(studio.store, studio.admin, project, changes={})
    policy = run_job(studio, first, 40, GAIN)
    assert policy is not None
    promoting.promote(studio.store, studio.settings.models_dir, studio.admin, policy.id or 0, reason="a clear gain")
    judge(studio, 5)
    comparing.refill(studio.store, studio.engine, project_id=project, target=8)
    second = retraining.run_ppo(studio.store, studio.admin, project, changes={"total_episodes": 512}, seed=1)
    run_job(studio, second, 40, {**GAIN, "n": 39})
    running = retraining.train_reward(studio.store, studio.admin, project, changes={}, seed=2)
    run_job(studio, running, 17, None)
    return studio


class Tab:
    """One open tab of a person: calls events as the browser does, past the network, with the state of its session."""

    def __init__(self, app: Any, area: str, token: str):
        self.blocks = next(
            route.app.get_blocks()
            for route in app.routes
            if getattr(route, "path", "") == area and hasattr(route.app, "get_blocks")
        )
        self.state = SessionState(self.blocks)
        cookies = {"wh_lang": "en", "whetstone": token}
        self.request = gr.Request(
            SimpleNamespace(cookies=cookies, headers={}, query_params={}), session_hash=uuid.uuid4().hex
        )

    def call(self, name: str, *inputs: Any, event: dict[str, Any] | None = None) -> list[Any]:
        """The outputs of an event."""
        return self.stream(name, *inputs, event=event)[-1]

    def stream(
        self, name: str, *inputs: Any, stop_after: int = 1000, event: dict[str, Any] | None = None
    ) -> list[list[Any]]:
        """The outputs of each step of an event; after ``stop_after`` steps it is closed as a Stop button does."""
        return asyncio.run(self._stream(name, inputs, stop_after, event))

    async def _stream(
        self, name: str, inputs: tuple[Any, ...], stop_after: int, event: dict[str, Any] | None
    ) -> list[list[Any]]:
        number = next(n for n, fn in self.blocks.fns.items() if fn.api_name == name)
        said = gr.EventData(None, event) if event else None
        steps: list[list[Any]] = []
        iterator = None
        while len(steps) < stop_after:
            done = await self.blocks.process_api(
                number, list(inputs), self.state, self.request, iterator, self.request.session_hash, event_data=said
            )
            if steps and not done.get("is_generating"):
                return steps
            steps.append(done["data"])
            if not done.get("is_generating"):
                return steps
            iterator = done["iterator"]
        await iterator.aclose()
        return steps


def parts(value: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The parts of one kind that a drawn place shows."""
    return [part for part in value["parts"] if part["t"] == kind]


def opened_in(studio: Studio, app: Any, event: str) -> Tab:
    """A tab of the engineer in which a page has been opened, which ``event`` does."""
    opened = Tab(app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call(event)
    return opened
