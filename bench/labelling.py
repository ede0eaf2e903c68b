"""Labelling beside Label Studio and Potato: real servers, clients over HTTP, the whole loop of next and save, every judgement synced.

Both sides get the same pairs and overlap 1. Ours runs as ``app.py`` does, with synchronous=FULL; the limit on how fast one
person may judge is lifted, since a client of this measurement stands for many people. Afterwards what was acknowledged is
compared with what is stored.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from backend import signing_in
from backend.prompts.digest import digest_of
from bench import label_studio, potato, report, start
from feedback_db import Store, comparisons, people
from feedback_db.types import Case, Comparison, Completion, Model, Person, Project, Prompt, Sampling

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 16, 100)
PAIRS_PER_SECOND = 1_400  # more than anybody gets through
PEER_PAIRS = 4_000
POTATO_CLIENTS = (1, 16)
CROWD, CROWD_PER_SECOND = 200, 50.0
WORDS = "the answer is short clear kind wrong long helpful order parcel refund station water table green small".split()
REACH_PER_SECOND = {1: 200.0, 16: 600.0, 100: 600.0}
REACH_P95_MS = {1: 25.0, 16: 25.0, 100: 100.0}


@dataclass(frozen=True)
class Run:
    """What some clients came to; milliseconds of next and save together."""

    clients: int
    judged: list[int]
    errors: list[int]
    seconds: float
    both_ms: list[float]
    stored: int
    doubled: int  # pairs with more judgements than were asked for
    next_ms: list[float] = field(default_factory=list)
    save_ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.judged) / self.seconds

    @property
    def lost(self) -> int:
        return len(self.judged) - self.stored


def measure(quick: bool) -> report.Found:
    seconds = 6.0 if quick else 25.0
    with tempfile.TemporaryDirectory() as folder:
        ours = [_ours(Path(folder) / str(n), n, seconds) for n in CLIENTS]
    theirs = label_studio.measure(CLIENTS, seconds, PEER_PAIRS, texts, ask)
    others = potato.measure(POTATO_CLIENTS, seconds, PEER_PAIRS, texts, ask)
    rows: list[report.Row | report.Difference] = []
    for run in ours:
        limit = REACH_PER_SECOND[run.clients]
        rows.append(
            report.at_least(f"judgements/s, {run.clients} clients", f"reach of {limit:g}", [run.per_second], [limit], 1)
        )
        most = REACH_P95_MS[run.clients]
        p95 = [percentile(run.both_ms, 0.95)]
        rows.append(report.row(f"p95 of next and save, {run.clients} clients", f"reach of {most:g} ms", p95, most, 1))
        faults = float(len(run.errors) + abs(run.lost) + run.doubled)
        rows.append(
            report.Row(
                f"errors, lost, doubled, {run.clients} clients", "none", faults, faults, faults, "<= 0", not faults
            )
        )
    by_clients = {run.clients: run for run in ours}
    for product, peers in (
        (f"Label Studio {label_studio.VERSION}", theirs),
        (f"Potato {potato.VERSION}", others),
    ):
        for peer in peers:
            if peer.judged:
                name = f"judgements/s, {peer.clients} clients"
                speed = [by_clients[peer.clients].per_second]
                rows.append(report.at_least(name, product, speed, [peer.per_second], 10))
    facts: dict[str, Any] = {
        "whetstone": [summary(run) for run in ours],
        "label_studio": [summary(run) for run in theirs],
        "potato": [summary(run) for run in others],
    }
    for name, found in facts.items():
        for one in found:
            print(f"{name}: {json.dumps(one)}")
    return report.Found(rows, facts)


def crowd(quick: bool) -> report.Found:
    """Many people at a steady pace, whatever the answers take, while every core works on something else at nice 19."""
    with tempfile.TemporaryDirectory() as folder:
        run = _ours(Path(folder) / "crowd", CROWD, 15.0 if quick else 300.0, CROWD_PER_SECOND)
    rows = [
        report.row(f"p{round(100 * share)}, {CROWD} people, {CROWD_PER_SECOND:g}/s, other work at nice 19", f"reach of {most:g} ms",
                   [percentile(run.both_ms, share)], most, 1)
        for share, most in ((0.95, 100.0), (0.99, 250.0))
    ]  # fmt: skip
    faults = float(len(run.errors) + abs(run.lost) + run.doubled)
    rows.append(report.Row("errors, lost, doubled", "none", faults, faults, faults, "<= 0", not faults))
    print(json.dumps(summary(run)))
    return report.Found(rows, {"whetstone": [summary(run)]})


def summary(run: Run) -> dict[str, Any]:
    """The figures of a run without its rows."""
    spread = {
        f"{name}_ms": {f"p{round(100 * q)}": round(percentile(values, q), 1) for q in (0.5, 0.95, 0.99)}
        for name, values in (("next_and_save", run.both_ms), ("next", run.next_ms), ("save", run.save_ms))
        if values
    }
    return {
        "clients": run.clients, "per_second": round(run.per_second, 1), "seconds": round(run.seconds, 1),
        "judged": len(run.judged), "errors": len(run.errors), "lost": run.lost, "doubled": run.doubled, **spread,
    }  # fmt: skip


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def texts(n: int) -> tuple[str, str, str]:
    """A question and two answers of some sentences, the same on every machine."""
    draw = Random(n)

    def sentence(words: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(words)).capitalize() + "."

    return f"Question {n}: {sentence(12)}", sentence(45), sentence(60)


def ask(plan: dict[str, Any]) -> dict[str, Any]:
    """Let the clients of a plan work in a process of their own."""
    command = [sys.executable, "bench/peers/label_clients.py"]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(plan), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ---- our side


def _ours(folder: Path, clients: int, seconds: float, per_second: float | None = None) -> Run:
    """One server on a new data folder, and so many clients for so long."""
    pairs = int(seconds * (2 * per_second if per_second else PAIRS_PER_SECOND))
    tokens, project_id = prepare(folder, clients, pairs)
    with serving(folder) as port, busy() if per_second else nullcontext():
        plan = {"side": "whetstone", "host": "127.0.0.1", "port": port, "project": project_id, "tokens": tokens}
        found = ask({**plan, "seconds": seconds, "per_second": per_second})
    store = Store(folder / "feedback.db")
    stored, over = (
        store.value("select count(*) from judgements"),
        "select count(*) from comparisons where judged > overlap",
    )
    run = Run(clients=clients, **found, stored=stored, doubled=store.value(over))
    store.close()
    return run


def prepare(folder: Path, clients: int, pairs: int) -> tuple[list[str], int]:
    """A data folder with pairs that wait, and a session for each client; (session tokens, project id)."""
    folder.mkdir(parents=True)
    store = Store(folder / "feedback.db")
    with store.write():
        project = store.add(Project(name="bench", settings={"random_share": 1.0}))
        model = store.add(Model(name="some", kind="external", base="x", source="bench"))
        sampling = store.add(Sampling(digest=digest_of("bench"), settings={}))
        for n in range(pairs):
            _add_pair(store, project.id or 0, model.id or 0, sampling.id or 0, n)
        tokens = []
        for n in range(clients):
            person = store.add(Person(pseudonym=f"c{n}", name=f"c{n}", role="annotator"))
            tokens.append(people.invite(store, person, None))
    signed = [signing_in.accept(store, token, None).token for token in tokens]
    store.close()
    os.sync()  # or the first judgements wait until these pairs are on the disk
    return signed, project.id or 0


def _add_pair(store: Store, project_id: int, model_id: int, sampling_id: int, n: int) -> None:
    question, *answers = texts(n)
    asked = ({"role": "user", "content": question},)
    key = digest_of(question)
    case = store.add(Case(project_id=project_id, conversation=asked, split="train", digest=key))
    prompt = store.add(Prompt(project_id=project_id, case_id=case.id or 0, messages=asked, digest=key))
    ids = []
    for seed, text in enumerate(answers):
        given = {"prompt_id": prompt.id or 0, "model_id": model_id, "sampling_id": sampling_id}
        made = store.add(Completion(**given, seed=seed, text=text, finish_reason="stop"))
        ids.append(made.id or 0)
    order = int.from_bytes(digest_of(n)[:4], "big")
    comparisons.add_comparison(store, Comparison(project_id=project_id, case_id=case.id or 0, queue_key=order), ids)


@contextmanager
def busy() -> Iterator[None]:
    """Every core multiplies matrices at the lowest priority, as a training job does, until the block ends."""
    work = "import os; os.nice(19); import torch; a = torch.randn(512, 512)\nwhile True: a = (a @ a).tanh()"
    process = subprocess.Popen([sys.executable, "-c", work])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The app on this folder; yields its port. It makes no new comparisons."""
    port = start.free_port()
    variables = {"WHETSTONE_QUEUE_TARGET": "0", "WHETSTONE_JUDGEMENTS_PER_MINUTE": "0"}
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(folder)]
    with start.running(command, port, "/login", variables) as started:
        yield started.port
