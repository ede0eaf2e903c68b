"""Training beside TRL: reward, SFT, DPO and IFT pairs, tokens or answers a second, PPO episodes a second and its memory.

Both sides get the same models (Llama, random weights), the same rows as token ids, LoRA of rank 16 on every linear layer,
and one thread each. They run in turn, each time in a process of their own, and the ratio is of work done per second of
processor time, which a neighbour on the machine does not change; the seconds of the clock are kept beside it. Before
anything is timed each side tells the loss of the first rows, and the measurement ends if the two differ.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import report, workload

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench"
PAIRS = ROOT.parent / "shared" / "data" / "hh-harmless-test.jsonl.gz"
PEERS = {"ppo": "1.12.0", "ppo_value": "1.12.0"}  # the last TRL with PPO; all else is measured against LATEST
LATEST = "1.16.0"
THEIR_METHODS = {"ppo_value": "ppo"}  # where the peer has one way for two of ours
SAME_LOSS = {"default": 1e-4, "best": 1e-2}  # of the losses, relative; best has weights in bfloat16
PATIENCE_SECONDS = 1800
THREADS = 1


class Work(NamedTuple):
    method: str
    setting: str
    unit: str
    reach: float  # times the peer's speed
    amount: dict[str, int]  # by size: pairs, answers or episodes of one run
    batch: int  # of them per optimizer step


WORK = [
    Work("reward", "default", "reward pairs/s", 4.0, {"6M": 32, "90M": 16}, 8),
    Work("reward", "best", "reward pairs/s", 2.5, {"6M": 32, "90M": 16}, 8),
    Work("sft", "default", "SFT tokens/s", 2.0, {"6M": 32, "90M": 16}, 8),
    Work("sft", "best", "SFT tokens/s", 1.3, {"6M": 32, "90M": 16}, 8),
    Work("dpo", "default", "DPO pairs/s", 5.0, {"6M": 32, "90M": 16}, 8),
    Work("dpo", "best", "DPO pairs/s", 2.5, {"6M": 32, "90M": 16}, 8),
    Work("ift", "default", "IFT answers/s", 4.0, {"6M": 32, "90M": 16}, 8),
    Work("ppo", "default", "PPO episodes/s", 4.0, {"6M": 32, "90M": 16}, 16),
    Work("ppo_value", "default", "PPO episodes/s, value adapter", 2.5, {"6M": 32, "90M": 16}, 16),
]
MEMORY_REACH = 0.3


class PeerFailed(RuntimeError):
    """A side ended with an error, or the two sides do not compute the same; the message says which."""


def measure(quick: bool, pairs: Path | None = None) -> list[report.Row]:
    given = pairs or (PAIRS if PAIRS.exists() else None)
    sizes = ["6M"] if quick else ["6M", "90M"]
    folder = workload.prepare(CACHE, given, sizes)
    text = "real pairs" if given else "made-up pairs"
    rows = []
    for size in sizes:
        for work in WORK:
            ours, theirs = repeats(work, size, folder, 1 if quick else 3)
            rows += rows_of(work, f"{size}, {text}", ours, theirs)
            print(report.table(rows[-2:] if work.method == "ppo" else rows[-1:]), flush=True)
    return rows


def rows_of(
    work: Work, what: str, ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]
) -> list[report.Row]:
    peer = f"TRL {PEERS.get(work.method, LATEST)} at its {'defaults' if work.setting == 'default' else 'best settings'}"
    speeds = [[run["units"] / run["cpu_seconds"] for run in side] for side in (ours, theirs)]
    walls = [statistics.median(run["units"] / run["seconds"] for run in side) for side in (ours, theirs)]
    medians = [statistics.median(side) for side in speeds]
    print(
        f"{work.method} {work.setting} {what}: {medians[0]:.3g} against {medians[1]:.3g} {work.unit} of processor time, "
        f"{walls[0]:.3g} against {walls[1]:.3g} by the clock, {len(ours)} runs each"
    )
    label = f"{work.unit} ({what}, {medians[0]:.3g} against {medians[1]:.3g})"
    found = [report.at_least(label, peer, speeds[0], speeds[1], work.reach)]
    if work.method == "ppo":
        peaks = [[run["peak_mb"] for run in side] for side in (ours, theirs)]
        one = report.row(f"PPO peak memory ({what})", peer, peaks[0], peaks[1], MEMORY_REACH)
        found.append(replace(one, work=f"{one.work[:-1]}, {max(peaks[0]):.0f} against {max(peaks[1]):.0f} MB)"))
    return found


def repeats(work: Work, size: str, folder: Path, times: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Runs of both sides in turn. Raises PeerFailed when they do not compute the same loss."""
    order = {
        "method": work.method,
        "setting": work.setting,
        "size": size,
        "folder": str(folder),
        "amount": work.amount[size],
        "batch": work.batch,
        "threads": THREADS,
    }
    python = peer_python(PEERS.get(work.method, LATEST))
    ours, theirs = [], []
    for _ in range(times):
        ours.append(run([sys.executable, "-m", "bench.our_side"], order))
        their_order = {**order, "method": THEIR_METHODS.get(work.method, work.method)}
        theirs.append(run([str(python), "bench/peers/trl_side.py"], their_order))
        difference = abs(ours[-1]["loss"] / theirs[-1]["loss"] - 1)
        if not difference <= SAME_LOSS[work.setting]:
            raise PeerFailed(
                f"{work.method}: the loss of the same rows is {ours[-1]['loss']:.6g} here and {theirs[-1]['loss']:.6g} in TRL."
            )
    return ours, theirs


def run(command: Sequence[str], order: dict[str, Any]) -> dict[str, float]:
    """One side in a process of its own; its last line is what it found."""
    done = subprocess.run(
        [*command, json.dumps(order)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    if done.returncode != 0:
        raise PeerFailed(f"{command[-1]} {order['method']}: {done.stderr[-2000:]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def peer_python(version: str) -> Path:
    """The interpreter of an environment that holds this TRL and our own versions of what both sides use."""
    place = CACHE / f"trl-{version}"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        pins = {
            line.split("==")[0]: line
            for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
            if "==" in line
        }
        shared = [pins[name] for name in ("torch", "transformers", "peft", "numpy", "tokenizers")]
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *shared, f"trl=={version}"], check=True)
        (place / "done").touch()
    return python
