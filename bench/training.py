"""Training beside TRL: reward, SFT, DPO and IFT pairs, tokens or answers a second, PPO episodes a second and its memory.

Both sides get the same models (Llama, random weights), the same rows as token ids, LoRA of rank 16 on every linear layer,
and one thread each. They run in turn, each time in a process of their own, and the ratio is of work done per second of
processor time, which a neighbour on the machine does not change; the seconds of the clock are kept beside it, and taken where
there is a GPU, which has the models of 500 million weights (``--size 500M``) and its own memory counted. Before
anything is timed each side tells the loss of the first rows, and the measurement ends if the two differ.
"""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from bench import flops, report, workload

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench"
PAIRS = ROOT.parent / "shared" / "data" / "hh-harmless-test.jsonl.gz"
LAST_WITH_PPO = "trl==1.12.0"
PEERS = {"ppo": LAST_WITH_PPO, "ppo_value": LAST_WITH_PPO, "probe": "scikit-learn==1.9.1"}
LATEST = "trl==1.16.0"  # for all else
THEIR_METHODS = {"ppo_value": "ppo"}  # where the peer has one way for two of ours
# Of the losses, relative, by the precision of our base; the peer's best settings are in bfloat16 whatever ours is in.
SAME_LOSS = {"float32": 1e-4, "bfloat16": 1e-2}
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
    Work("reward", "default", "reward pairs/s", 4.0, {"6M": 32, "90M": 8, "500M": 128}, 8),
    Work("reward", "best", "reward pairs/s", 2.5, {"6M": 32, "90M": 8, "500M": 128}, 8),
    Work("sft", "default", "SFT tokens/s", 2.0, {"6M": 32, "90M": 8, "500M": 128}, 8),
    Work("sft", "best", "SFT tokens/s", 1.3, {"6M": 32, "90M": 8, "500M": 128}, 8),
    Work("dpo", "default", "DPO pairs/s", 5.0, {"6M": 32, "90M": 16, "500M": 128}, 8),
    Work("dpo", "best", "DPO pairs/s", 2.5, {"6M": 32, "90M": 16, "500M": 128}, 8),
    Work("ift", "default", "IFT answers/s", 4.0, {"6M": 128, "90M": 16, "500M": 64}, 8),
    Work("ppo", "default", "PPO episodes/s", 4.0, {"6M": 32, "90M": 16, "500M": 64}, 16),
    Work("ppo_value", "default", "PPO episodes/s, value adapter", 2.5, {"6M": 32, "90M": 16, "500M": 64}, 16),
]
PROBE = Work("probe", "default", "probe fits/s", 1.0, {"6M": 10_000}, 0)
MEMORY_REACH = 0.3
REPEATS = 5
RESPONSE, SEVERAL = 32, 4  # tokens of a sampled answer, answers to a prompt, as both sides have them


class PeerFailed(RuntimeError):
    """A side ended with an error, or the two sides do not compute the same; the message says which."""


def measure(
    quick: bool, pairs: Path | None = None, only: str | None = None, base_dtype: str | None = None
) -> report.Found:
    """``only``: the one size of models to measure. ``base_dtype``: of our base in every row."""
    given = pairs or (PAIRS if PAIRS.exists() else None)
    sizes = [only] if only else ["6M"] if quick else ["6M", "90M"]
    folder = workload.prepare(CACHE, given, sizes)
    text = "real pairs" if given else "made-up pairs"
    rows, runs, peak = [], [], flops.peak()
    for size in sizes:
        for work in [work for work in [*WORK, PROBE] if size in work.amount]:
            found = repeats(work, size, folder, 1 if quick else REPEATS, base_dtype)
            rows += rows_of(work, f"{size}, {text}", *found)
            runs.append(about(work, size, folder, peak, *found))
            print(report.table(rows[-2:] if work.method == "ppo" else rows[-1:]), runs[-1], flush=True)
    return report.Found(rows, {"peak_flops": peak, "runs": runs})


def about(
    work: Work,
    size: str,
    folder: Path,
    peak: dict[str, float],
    ours: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What the dated file keeps beside a row: speeds of every run, by processor and by the clock, memory, the largest
    difference of the losses, and useful operations against the machine's fastest matrix product (MFU)."""
    told: dict[str, Any] = {"work": work.unit, "setting": work.setting, "size": size, "units": ours[0]["units"]}
    for name, side in (("ours", ours), ("theirs", theirs)):
        told[f"{name}_per_cpu_second"] = [round(run["units"] / run["cpu_seconds"], 4) for run in side]
        told[f"{name}_per_second"] = [round(run["units"] / run["seconds"], 4) for run in side]
        told[f"{name}_peak_mb"] = [round(run["peak_mb"]) for run in side]
    told["base_dtype"] = ours[0]["dtype"]
    told["loss_difference"] = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours, theirs, strict=True))
    if work.method != "probe":
        method = THEIR_METHODS.get(work.method, work.method)
        each = flops.per_unit(method, size, workload.rows(folder, work.amount[size]), RESPONSE, SEVERAL)
        for name in ("ours", "theirs"):
            speed = statistics.median(told[f"{name}_per_second" if on_gpu(ours) else f"{name}_per_cpu_second"])
            told[f"{name}_mfu"] = round(speed * each / max(peak.values()), 4)
    return told


def on_gpu(side: Sequence[dict[str, Any]]) -> bool:
    return side[0].get("device") == "cuda"


def rows_of(
    work: Work, what: str, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> list[report.Row]:
    settings = "at its defaults" if work.setting == "default" else "at its best settings"
    name, version = PEERS.get(work.method, LATEST).split("==")
    peer = f"TRL {version} {settings}" if name == "trl" else f"LogisticRegression of {name} {version}"
    clock = "seconds" if on_gpu(ours) else "cpu_seconds"
    speeds = [[run["units"] / run[clock] for run in side] for side in (ours, theirs)]
    medians = [statistics.median(side) for side in speeds]
    label = f"{work.unit} ({what}, {medians[0]:.3g} against {medians[1]:.3g})"
    found = [report.at_least(label, peer, speeds[0], speeds[1], work.reach)]
    if work.method == "ppo":
        peaks = [[run["peak_mb"] for run in side] for side in (ours, theirs)]
        one = report.row(f"PPO peak memory ({what})", peer, peaks[0], peaks[1], MEMORY_REACH)
        found.append(replace(one, work=f"{one.work[:-1]}, {max(peaks[0]):.0f} against {max(peaks[1]):.0f} MB)"))
    return found


def repeats(
    work: Work, size: str, folder: Path, times: int, base_dtype: str | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs of both sides in turn. Raises PeerFailed when they do not compute the same loss."""
    order = {
        "method": work.method,
        "setting": work.setting,
        "size": size,
        "folder": str(folder),
        "amount": work.amount[size],
        "batch": work.batch,
        "threads": THREADS,
        "base_dtype": base_dtype or "",
    }
    python = peer_python(PEERS.get(work.method, LATEST))
    script = f"bench/peers/{'sklearn' if work.method == 'probe' else 'trl'}_side.py"
    ours, theirs = [], []
    for _ in range(times):
        ours.append(run([sys.executable, "-m", "bench.our_side"], order))
        their_order = {**order, "method": THEIR_METHODS.get(work.method, work.method)}
        theirs.append(run([str(python), script], their_order))
        difference = abs(ours[-1]["loss"] / theirs[-1]["loss"] - 1)
        if not difference <= SAME_LOSS["bfloat16" if work.setting == "best" else ours[-1]["dtype"]]:
            raise PeerFailed(
                f"{work.method}: the loss of the same rows is {ours[-1]['loss']:.6g} here and "
                f"{theirs[-1]['loss']:.6g} with the peer."
            )
    return ours, theirs


def run(command: Sequence[str], order: dict[str, Any]) -> dict[str, Any]:
    """One side in a process of its own; its last line is what it found."""
    done = subprocess.run(
        [*command, json.dumps(order)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    if done.returncode != 0:
        raise PeerFailed(f"{command[-1]} {order['method']}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def peer_python(requirement: str) -> Path:
    """The interpreter of an environment that holds this peer and our own versions of what both sides use: this one, where it
    has the peer."""
    name, version = requirement.split("==")
    with contextlib.suppress(metadata.PackageNotFoundError):
        if metadata.version(name) == version:
            return Path(sys.executable)
    place = CACHE / requirement.replace("==", "-")
    python = place / "bin" / "python"
    if not (place / "done").exists():
        pins = {
            line.split("==")[0]: line
            for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
            if "==" in line
        }
        used = ("torch", "transformers", "peft", "numpy", "tokenizers") if requirement.startswith("trl") else ("numpy",)
        shared = [pins[name] for name in used]
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *shared, requirement], check=True)
        (place / "done").touch()
    return python
