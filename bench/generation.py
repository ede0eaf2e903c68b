"""The engine beside transformers and peft: tokens a second, what a decoding step reads, and many clients at once.

Both sides get the same Llama models with random weights, the same adapters, prompts of 144 tokens, answers of exactly 48
tokens drawn from the whole distribution, the same precision and as many threads: one unless asked. They run in turn, each time in a
process of its own. Loading is not timed. Tokens and steps are counted per second of processor time, which a neighbour on the
machine changes little, and by the clock where there are more threads; clients wait by the clock, so those rows are by the clock. Before anything is timed each side writes greedy answers, and the
measurement ends where two tokens of them differ (in float32; in half precision near ties are decided by rounding).
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from backend.engines import memory
from bench import report, workload
from bench.training import CACHE, PAIRS, ROOT, PeerFailed

PROMPT, NEW = 144, 48  # tokens of a prompt, of an answer
FEW_SHOT = 96  # with which all prompts of one few-shot template begin
ADAPTERS, ROWS = 4, 16
PASSES = {"6M": 3, "90M": 1}  # timed in one process, each with prompts of its own
REPEATS = 5
PATIENCE_SECONDS = 1800
DTYPES = ("float32", "bfloat16")
INT8 = "int8"  # our weights in whole numbers, all else and the peers in float32
PUBLISHED = "bfloat16-in-float32"  # a base that was published in bfloat16, computed in float32 on both sides
EXACT = ("float32", PUBLISHED)  # in which greedy answers are the same
OURS, THEIRS = ["-m", "bench.engine_side"], ["bench/peers/generate_side.py"]

STEP_ROWS = (4, 16)
STEP_REACH = {"6M": 0.0, "90M": 0.5}  # of the memory bandwidth; small weights stay near the processor, so none is asked
CLIENTS, RATE = (
    32,
    5.2,
)  # requests arrive so many times as fast as they are answered one at a time: a little above the reach
ROUNDS = {True: 2, False: 8}  # requests of each client, by whether a first look is enough
ALONE = 24  # requests one at a time
WORN = 160  # prompts at most with which our memory is used before anything is timed
CLIENTS_REACH, FIRST_TOKEN_REACH = 5.0, 2.0


class Peer(NamedTuple):
    way: str  # in bench/peers/generate_side.py
    label: str
    reach: dict[str, float]  # times the peer's speed, by size


class Work(NamedTuple):
    label: str
    adapters: int  # 0: the base itself
    prompts: int
    several: int  # answers to one prompt by one model
    peers: tuple[Peer, ...]


WORK = [
    Work(
        "4 adapters x 4 samples",
        ADAPTERS,
        prompts=2,
        several=2,
        peers=(
            Peer("call_per_candidate", "transformers.generate per candidate", {"6M": 10.0, "90M": 8.0}),
            Peer("call_per_adapter", "one generate call per adapter", {"6M": 3.5, "90M": 3.5}),
            Peer("mixed_batch", "PEFT mixed batch (adapter_names)", {"6M": 3.0, "90M": 3.0}),
        ),
    ),
    Work(
        "16 samples of one model",
        0,
        prompts=1,
        several=ROWS,
        peers=(
            Peer("return_sequences", "generate(num_return_sequences)", {"6M": 2.0, "90M": 4.0}),
            Peer("continuous_batch", "generate_batch (continuous batching)", {"6M": 6.0, "90M": 6.0}),
            Peer("fitted_batch", "generate_batch with a cache fitted to the work", {"6M": 6.0, "90M": 6.0}),
        ),
    ),
]


def measure(
    quick: bool, only: str | None = None, dtype: str = "float32", pairs: Path | None = None, threads: int = 1
) -> report.Found:
    """``only``: the one size of models to measure; ``dtype``: of the weights on both sides, where tokens a second are told, or
    "int8" of ours alone, "bfloat16-in-float32" of the base's files; ``threads``: of either side."""
    given = pairs or (PAIRS if PAIRS.exists() else None)
    sizes = [only] if only else ["6M"] if quick else ["6M", "90M"]
    folder = workload.prepare(CACHE, given, sizes)
    rows: list[report.Row] = []
    runs: list[dict[str, Any]] = []
    for size in sizes:
        for work in WORK:
            tell(rows, runs, *beside_peers(work, size, dtype, folder, 1 if quick else REPEATS, threads))
        for step_dtype, count in itertools.product(DTYPES, STEP_ROWS):
            tell(rows, runs, *step(size, step_dtype, count, folder, 1 if quick else REPEATS, threads))
        for shared in (0, FEW_SHOT):
            tell(rows, runs, *many_clients(size, dtype, folder, quick, threads, shared))
    return report.Found(rows, {"peers": {name: version(name) for name in ("transformers", "peft")}, "runs": runs})


def tell(
    rows: list[report.Row], runs: list[dict[str, Any]], found: Sequence[report.Row], facts: dict[str, Any]
) -> None:
    rows += found
    runs.append(facts)
    print(report.table(found), flush=True)


def beside_peers(
    work: Work, size: str, dtype: str, folder: Path, times: int, threads: int = 1
) -> tuple[list[report.Row], dict[str, Any]]:
    """Ours and each peer in turn, a few times. Raises PeerFailed when greedy answers are not the same."""
    order = order_of(folder, size, dtype, work.adapters, threads) | passes_of(folder, work, size)
    ours: list[dict[str, Any]] = []
    theirs: dict[str, list[dict[str, Any]]] = {peer.way: [] for peer in work.peers}
    for at in range(times):
        order["is_compared"] = at == 0
        ours.append(run(OURS, order, "writing"))
        for peer in work.peers:
            theirs[peer.way].append(run(THEIRS, order, peer.way))
            if at == 0 and dtype in EXACT and ours[0]["greedy"] != theirs[peer.way][0]["greedy"]:
                raise PeerFailed(f"{work.label}, {size}: greedy answers differ from those of {peer.label}.")
    rows = []
    for peer in work.peers:
        speeds = [[one["units"] / spent(one, threads) for one in side] for side in (ours, theirs[peer.way])]
        medians = [statistics.median(side) for side in speeds]
        label = f"{work.label} ({size}, {dtype}, {medians[0]:.3g} against {medians[1]:.3g} tokens/s)"
        rows.append(report.at_least(label, peer.label, speeds[0], speeds[1], peer.reach[size]))
    facts = {"work": work.label, "size": size, "dtype": dtype, "units": ours[0]["units"]}
    return rows, facts | {name: told_of(side) for name, side in {"ours": ours, **theirs}.items()}


def spent(one: dict[str, Any], threads: int) -> float:
    """Seconds: of processor time, or by the clock where there are several threads."""
    seconds: float = one["cpu_seconds" if threads == 1 else "seconds"]
    return seconds


def told_of(side: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """What the dated file keeps of one side's runs."""
    return {
        "tokens_per_cpu_second": [round(one["units"] / one["cpu_seconds"], 2) for one in side],
        "tokens_per_second": [round(one["units"] / one["seconds"], 2) for one in side],
        "peak_mb": [round(one["peak_mb"]) for one in side],
    }


def step(
    size: str, dtype: str, rows: int, folder: Path, times: int, threads: int = 1
) -> tuple[list[report.Row], dict[str, Any]]:
    """Bytes that a step of so many rows must read, per second it takes, beside what as many threads read at most."""
    order = order_of(folder, size, dtype, 0, threads) | {
        "passes": [workload.prompts(folder, 1, PROMPT)],
        "several": rows,
    }
    found = [run(OURS, order, "step") for _ in range(times)]
    ours = [one["bytes"] / spent(one, threads) for one in found]
    limit = [one["bytes_per_cpu_second" if threads == 1 else "bytes_per_second"] for one in found]
    milliseconds = 1000 * statistics.median(spent(one, threads) for one in found)
    label = f"decode step ({size}, {dtype}, {rows} rows, {found[0]['bytes'] / 1e6:.0f} MB in {milliseconds:.3g} ms)"
    against = f"memory bandwidth ({statistics.median(limit) / 1e9:.3g} GB/s)"
    facts = {"work": "step", "size": size, "dtype": dtype, "rows": rows, "threads": threads}
    return [report.at_least(label, against, ours, limit, STEP_REACH[size])], facts | {
        key: [one[key] for one in found] for key in found[0]
    }


def many_clients(
    size: str, dtype: str, folder: Path, quick: bool, threads: int = 1, shared: int = 0
) -> tuple[list[report.Row], dict[str, Any]]:
    """Each prompt is one of its own, but for so many tokens with which all begin."""
    requests = CLIENTS * ROUNDS[quick]
    read = workload.prompts(folder, 1 + ALONE + requests, PROMPT)
    checked, prompts = split([read[0][:shared] + prompt[shared:] for prompt in read], 1)
    order = order_of(folder, size, dtype, ADAPTERS, threads)
    order |= {"checked": checked, "passes": [prompts], "alone": ALONE, "requests": requests, "rate": RATE}
    order["has_second"] = None  # as the engine is started: both times it is the same engine
    found = [run(OURS, {**order, "seed": seed}, "clients") for seed in range(1 if quick else REPEATS)]
    alone, together = ([one[f"{name}_tokens_per_second"] for one in found] for name in ("alone", "together"))
    idle, busy = ([one[f"{name}_first_token_seconds"] for one in found] for name in ("alone", "together"))
    kind = f"few-shot prompts of {shared} tokens in common" if shared else f"{ADAPTERS} adapters"
    label = f"{CLIENTS} clients, {kind} ({size}, {dtype}"
    speed = f"{label}, {statistics.median(together):.3g} against {statistics.median(alone):.3g} tokens/s by the clock)"
    wait = (
        f"{label}, first token, 95th percentile {statistics.median(busy):.2g} against {statistics.median(idle):.2g} s)"
    )
    rows = [
        report.at_least(speed, "one request at a time", together, alone, CLIENTS_REACH),
        report.row(wait, "one request at a time", busy, idle, FIRST_TOKEN_REACH),
    ]
    facts = {"work": "clients", "size": size, "dtype": dtype, "requests": requests, "rate": RATE}
    facts |= {"shared": shared, "threads": threads}
    return rows, facts | {key: [one[key] for one in found] for key in found[0]}


def order_of(folder: Path, size: str, dtype: str, adapters: int, threads: int = 1) -> dict[str, Any]:
    """What both sides are told of the models."""
    name = workload.published(folder, size) if dtype == PUBLISHED else size
    made = workload.adapters(folder, name, adapters) if adapters else []
    worn = workload.prompts(folder, WORN, PROMPT)
    return {
        "worn": [prompt[::-1] for prompt in worn],  # like no other prompt
        "base": str(folder / f"base-{name}"),
        "dtype": "float32" if dtype in (INT8, PUBLISHED) else dtype,
        "quantisation": INT8 if dtype == INT8 else "none",
        "threads": threads,
        "has_second": False,  # peers have no other thread to begin answers with
        "adapters": [one.folder for one in made],
        "digests": [one.digest for one in made],
        "new": NEW,
    }


def passes_of(folder: Path, work: Work, size: str) -> dict[str, Any]:
    """Prompts of the greedy answers, and others for each pass that is timed: none is known to an engine that keeps some."""
    count = PASSES[size]
    checked, rest = split(workload.prompts(folder, work.prompts * (1 + count), PROMPT), work.prompts)
    passes = [rest[at * work.prompts : (at + 1) * work.prompts] for at in range(count)]
    return {"checked": checked, "passes": passes, "several": work.several}


def split(prompts: list[list[int]], at: int) -> tuple[list[list[int]], list[list[int]]]:
    return prompts[:at], prompts[at:]


def run(command: Sequence[str], order: dict[str, Any], way: str) -> dict[str, Any]:
    """One side in a process of its own; its last line is what it found. Raises PeerFailed with the end of what it said.

    As many threads as were ordered also in those that a side starts; ours in the environment that the engine's process is given.
    """
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        input=json.dumps({**order, "way": way}),
        capture_output=True,
        text=True,
        env={**os.environ, **(memory.ENVIRONMENT if command == OURS else {}), "OMP_NUM_THREADS": str(order["threads"])},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise PeerFailed(f"{way}: {done.stderr[-1000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
