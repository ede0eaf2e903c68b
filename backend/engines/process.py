"""Starts the engine process when somebody first needs it, starts it again when it has died, and says so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from backend.problem import Phrase

from . import keys, memory
from .client import EngineClient, EngineError

REPOSITORY = Path(__file__).resolve().parents[2]
RETRY_AFTER_SECONDS = 5.0
LOOK_SECONDS = 10.0  # an engine that answered so short a time ago is taken to answer still; our choice
ANSWER_SECONDS = 10.0  # its health is told beside any work within milliseconds: after this it hangs; our choice
GLANCE_SECONDS = 3.0  # a page does not wait longer for it
SILENT_SECONDS = 60.0  # without an answer: then it is ended, and the next question starts another; our choice
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class EngineFile:
    """<data-dir>/engine/engine.json, readable by its owner only: where the engine answers, and which process it is."""

    url: str
    key: str
    pid: int
    process_started_at: float
    started_at: float
    base: str


class EngineProcess:
    """The engine of one data folder. Nothing runs until client() is called."""

    def __init__(
        self,
        data_dir: Path,
        base: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        quantisation: str = "none",
        threads: int = 0,
        start_seconds: float = 120.0,
    ) -> None:
        self.data_dir = data_dir
        self.base = one_spelling(base)
        self.last_event: Phrase | None = None
        placed = {"device": device, "dtype": dtype, "attention": attention, "quantisation": quantisation}
        self._options = [word for name, value in placed.items() for word in (f"--{name}", value)]
        self._options += ["--threads", str(threads)]
        self._start_seconds = start_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._file: EngineFile | None = None
        self._client: EngineClient | None = None
        self._failure: tuple[float, EngineError] | None = None
        self._answered = 0.0  # when it last told its health
        self._silent_since: float | None = None

    def client(self) -> EngineClient:
        """A client of an engine that answers; starts one first if there is none. Raises EngineError with the reason."""
        with self._lock:
            if self._client is None or not self._is_alive():
                self._connect()
            client = self._client
            assert client is not None
        if time.monotonic() - self._answered < LOOK_SECONDS or self._answers(client):
            return client
        if not self.is_running():
            return self.client()
        raise EngineError(
            "The engine runs but does not answer. Try again in a moment: one that stays so is ended and started again.",
            "engine_silent",
        )

    def health(self) -> dict[str, Any] | None:
        """What the engine says of itself; None when none runs. Starts nothing and does not wait long.

        Of one that starts or does not answer it is only ``loaded`` (False) and ``state``: "starting" or "silent".
        """
        is_alive = self._is_alive_now()
        client = self._client
        if is_alive and client is not None:
            try:
                return client.health(GLANCE_SECONDS)
            except EngineError:  # it hangs, or ended just now
                is_alive = self._is_alive_now()
        if is_alive is None:
            return {"loaded": False, "state": "starting"}
        return {"loaded": False, "state": "silent"} if is_alive else None

    def _is_alive_now(self) -> bool | None:
        """None: it is being started."""
        if not self._lock.acquire(timeout=0.2):
            return None
        try:
            return self._is_alive()
        finally:
            self._lock.release()

    def is_running(self) -> bool:
        with self._lock:
            return self._is_alive()

    def _answers(self, client: EngineClient) -> bool:
        """Whether the engine tells its health. One that has not for long, and is our own, is ended: it hangs."""
        try:
            client.health(ANSWER_SECONDS)
        except EngineError:
            now = time.monotonic()
            with self._lock:
                if client is not self._client:
                    return False  # it was started again meanwhile
                self._silent_since = self._silent_since or now
                if now - self._silent_since > SILENT_SECONDS and self._child is not None:
                    _end(self._child)
            return False
        self._answered, self._silent_since = time.monotonic(), None
        return True

    def stop(self) -> None:
        """End the engine if this object started it; one that another process started is left alone."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                _end(self._child)
            self._forget()

    def _is_alive(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            return False
        return self._file is not None and is_running(self._file)

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
        self._child, self._file, self._client = None, None, None

    def _connect(self) -> None:
        if self._failure is not None and time.monotonic() - self._failure[0] < RETRY_AFTER_SECONDS:
            raise self._failure[1]
        had_one = self._file is not None
        code = _exit_code(self._child) if self._child is not None else None
        self._forget()
        try:
            with _start_lock(self.data_dir, self._start_seconds):
                found = read_engine_file(self.data_dir)
                if found is not None and found.base == self.base and is_running(found):
                    self._file = found
                else:
                    self._start()
                self._wait_until_it_answers()
        except EngineError as problem:
            self._failure = (time.monotonic(), problem)
            raise
        self._failure = None
        if had_one:
            self.last_event = _started_again(code, f"{datetime.now():%H:%M}")

    def _start(self) -> None:
        folder = engine_folder(self.data_dir)
        with contextlib.suppress(FileNotFoundError):
            (folder / "engine.json").unlink()
        command = [sys.executable, "-m", "backend.engines.local", "--data-dir", str(self.data_dir.resolve())]
        command += ["--base", self.base, "--parent", str(os.getpid()), *self._options]
        with _private_file(folder / "engine.log").open("wb") as log:
            self._child = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=memory.ENVIRONMENT | keys.without_keys(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            self._file = self._file or self._announced()
            if self._file is not None:
                self._client = self._client or EngineClient(self._file.url, self._file.key)
                with contextlib.suppress(EngineError):
                    self._client.health(ANSWER_SECONDS)
                    self._answered, self._silent_since = time.monotonic(), None
                    return
            if self._child is not None and self._child.poll() is not None:
                raise self._start_failure(
                    f"The engine ended while it was starting (exit code {self._child.returncode})."
                )
            time.sleep(0.05)
        if self._child is not None:
            _end(self._child)
        raise self._start_failure(f"The engine did not answer within {self._start_seconds:.0f} s.")

    def _announced(self) -> EngineFile | None:
        """The engine file, once our own child has written it."""
        found = read_engine_file(self.data_dir)
        return found if found is not None and self._child is not None and found.pid == self._child.pid else None

    def _start_failure(self, message: str) -> EngineError:
        """With the engine's own sentence if it gave one; the log's last lines are attached as a note for admins."""
        lines = (self.data_dir / "engine" / "engine.log").read_text(errors="replace").splitlines()
        self._forget()
        own = [line.removeprefix("engine: ") for line in lines if line.startswith("engine: ")]
        problem = EngineError(own[-1] if own else f"{message} Its log, engine/engine.log in the data folder, says why.")
        problem.add_note("\n".join(lines[-LOG_TAIL_LINES:]))
        return problem


def _started_again(code: int | None, at: str) -> Phrase:
    if code is None:
        return Phrase(f"The engine had stopped and was started again at {at}.", "engine_was_started", time=at)
    return Phrase(
        f"The engine had stopped (exit code {code}) and was started again at {at}.",
        "engine_was_ended",
        exit=code,
        time=at,
    )


def one_spelling(base: str) -> str:
    """One spelling per base, so that two processes agree whether an engine serves the same one."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base


def process_started_at(pid: int) -> float | None:
    """When the process with this id was started; None if it runs no more. Ids are used again, the pair is not."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def is_running(file: EngineFile) -> bool:
    started_at = process_started_at(file.pid)
    return started_at is not None and abs(started_at - file.process_started_at) < 1.0


def read_engine_file(data_dir: Path) -> EngineFile | None:
    try:
        return EngineFile(**json.loads((data_dir / "engine" / "engine.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_engine_file(data_dir: Path, file: EngineFile) -> None:
    """Whole or not at all: written beside, then renamed."""
    path = engine_folder(data_dir) / "engine.json"
    beside = _private_file(path.with_suffix(f".{file.pid}.tmp"))
    beside.write_text(json.dumps(asdict(file)), encoding="utf-8")
    beside.replace(path)


def remove_engine_file(data_dir: Path, pid: int) -> None:
    found = read_engine_file(data_dir)
    if found is not None and found.pid == pid:
        (data_dir / "engine" / "engine.json").unlink(missing_ok=True)


def engine_folder(data_dir: Path) -> Path:
    """Where an engine's file, log and lock stand, made on first use; readable by its owner only."""
    folder = data_dir / "engine"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _private_file(path: Path) -> Path:
    """The empty file, readable by its owner only from its first moment."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    return path


@contextlib.contextmanager
def _start_lock(data_dir: Path, seconds: float) -> Iterator[None]:
    """Two processes of one data folder do not start two engines."""
    try:
        with FileLock(engine_folder(data_dir) / "start.lock", timeout=seconds):
            yield
    except Timeout as problem:
        raise EngineError(
            "Another process is starting the engine and has not finished. Try again in a moment.", "engine_starting"
        ) from problem


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    """Of a process that is dead or dying: a killed one is a zombie for a moment before its exit code can be read."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(5.0)
    _end(child)
    return child.returncode


def _end(child: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
