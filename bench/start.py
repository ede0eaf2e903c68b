"""From the command to the first page: seconds, and memory of the web process, beside the smallest Gradio app."""

import contextlib
import http.client
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import report

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 5.0
LIMIT_MB = 300.0
PATIENCE_SECONDS = 120.0
SETTLE_SECONDS = 0.3  # after the first page, before memory is read


class Started(NamedTuple):
    pid: int
    port: int
    seconds: float  # from the command to the answer


class Memory(NamedTuple):
    rss_mb: float
    pss_mb: float  # shared pages counted by their share; the rss where the system does not tell
    has_torch: bool


class DidNotStart(RuntimeError):
    """The server ended, or did not answer in time; the message holds what it last said."""


def measure(quick: bool) -> list[report.Row]:
    ours: list[tuple[Started, Memory]] = []
    theirs: list[tuple[Started, Memory]] = []
    for _ in range(3 if quick else 9):  # in turn, so that a busy minute of the machine meets both
        with tempfile.TemporaryDirectory() as folder, whetstone(Path(folder)) as started:
            ours.append((started, memory(started.pid)))
        with hello_gradio() as started:
            theirs.append((started, memory(started.pid)))
    _print_medians("whetstone", ours)
    _print_medians("hello gradio", theirs)
    return [
        report.row("seconds to first page", "limit of 5 s", _seconds(ours), LIMIT_SECONDS, 1),
        report.row("memory of the web process (RSS)", "limit of 300 MB", _rss(ours), LIMIT_MB, 1),
        report.row("seconds to first page", "smallest Gradio app", _seconds(ours), _seconds(theirs), 1.5),
        report.row("memory of the web process (RSS)", "smallest Gradio app", _rss(ours), _rss(theirs), 1.5),
        _torch_row(ours),
    ]


@contextlib.contextmanager
def whetstone(data_dir: Path) -> Iterator[Started]:
    """The app on a data folder of its own, first start included; ends it afterwards."""
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(data_dir / "data")]
    with running(command, port, "/login") as started:
        yield started


@contextlib.contextmanager
def hello_gradio() -> Iterator[Started]:
    port = free_port()
    with running([sys.executable, "bench/peers/hello_gradio.py", str(port)], port, "/") as started:
        yield started


def memory(pid: int) -> Memory:
    process = psutil.Process(pid)
    rss = process.memory_info().rss / 2**20
    pss = getattr(process.memory_full_info(), "pss", 0) / 2**20
    return Memory(rss, pss or rss, any("libtorch" in mapped.path for mapped in process.memory_maps()))


def free_port() -> int:
    """A port nobody listens on, below those the system gives to connections: none of them takes it before a server has."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DidNotStart("A hundred ports below 32000 are all in use.")


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    page: str,
    variables: dict[str, str] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    folder: Path = ROOT,
) -> Iterator[Started]:
    """A server of its own process group, from the first answer of this page until the block ends."""
    environment = {**os.environ, **(variables or {}), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while not _answers(port, page):
                if process.poll() is not None or time.perf_counter() - begun > patience_seconds:
                    said.seek(0)
                    raise DidNotStart(said.read().decode("utf-8", "replace")[-2000:] or "It said nothing.")
                time.sleep(0.02)
            seconds = time.perf_counter() - begun
            time.sleep(SETTLE_SECONDS)
            yield Started(process.pid, port, seconds)
        finally:
            _end(process)


def _answers(port: int, page: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", page)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and whatever it started; nothing else."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _seconds(runs: Sequence[tuple[Started, Memory]]) -> list[float]:
    return [started.seconds for started, _ in runs]


def _rss(runs: Sequence[tuple[Started, Memory]]) -> list[float]:
    return [used.rss_mb for _, used in runs]


def _torch_row(runs: Sequence[tuple[Started, Memory]]) -> report.Row:
    share = statistics.mean(used.has_torch for _, used in runs)
    return report.Row("torch in the web process", "none", share, share, share, "<= 0", share == 0)


def _print_medians(name: str, runs: Sequence[tuple[Started, Memory]]) -> None:
    seconds, rss = statistics.median(_seconds(runs)), statistics.median(_rss(runs))
    pss = statistics.median(used.pss_mb for _, used in runs)
    print(f"{name}: {seconds:.2f} s, {rss:.0f} MB RSS, {pss:.0f} MB PSS (medians of {len(runs)})")
