"""Statistics that hold a processor for long are reckoned in a process of their own, so that nobody who labels waits for them.

Libraries of statistics take two seconds and a hundred megabytes to import, and hold Python's one lock while they reckon. The process
starts when it is first needed, stands behind all else, and ends when it has had nothing to do for a while, or with the one that asks.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
ROOT = Path(__file__).resolve().parents[2]
NICE = 10
IDLE_SECONDS = 300.0
KEPT_MOST = 64  # results; a few kilobytes each


class Ended(RuntimeError):
    """The process that reckons was killed twice; the message says what to do."""


def apart(act: Callable[P, R], /, *args: P.args, **named: P.kwargs) -> R:
    """What this function of a module gives, reckoned in the other process. It may depend on its arguments alone, and the result is not
    to be changed: equal arguments, as long as they are among the last that were asked for, are answered with the same one, so that a
    page that is opened again reckons nothing until somebody has judged.

    Raises what the function raises, and Ended.
    """
    asked = pickle.dumps((act, args, named))
    key = hashlib.sha256(asked).digest()
    with _lock:
        is_new = key not in _kept
        future = _kept.setdefault(key, Future())
        _kept.move_to_end(key)
        while len(_kept) > KEPT_MOST:
            _kept.popitem(last=False)
    if is_new:
        try:
            future.set_result(_other.answer(asked))
        except BaseException as error:
            with _lock:
                _kept.pop(key, None)
            future.set_exception(error)
    return future.result()


class _Other:
    """The process, asked one thing at a time: a pickled call goes in, (whether it returned, what it returned or raised) comes out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, asked: bytes) -> Any:
        with self._lock:
            returned, value = self._answer(asked)
        if returned:
            return value
        raise value

    def _answer(self, asked: bytes) -> tuple[bool, Any]:
        """It may have gone to rest this moment, or be killed at any; what depends on its arguments alone can be asked once more."""
        for _ in range(2):
            process = self._process = self._process or _started()
            try:
                return _exchanged(process, asked)
            except (EOFError, OSError, pickle.UnpicklingError):
                self._end()
        told = (
            "The process that reckons statistics was killed twice. See that the machine has memory left, and try again."
        )
        raise Ended(told)

    def end(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet cannot be any more
                if pipe is not None:
                    pipe.close()
        process.kill()
        process.wait()


def _started() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "backend.stats.apart", str(NICE), str(IDLE_SECONDS)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
    return process


def _exchanged(process: subprocess.Popen[bytes], asked: bytes) -> tuple[bool, Any]:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(asked)
    process.stdin.flush()
    found: tuple[bool, Any] = pickle.load(process.stdout)  # noqa: S301 - of our own process
    return found


_kept: OrderedDict[bytes, Future[Any]] = OrderedDict()
_lock = threading.Lock()
_other = _Other()
atexit.register(_other.end)


# ---- in the other process


def _reckon(nice: int, idle_seconds: float) -> None:
    """Answer until the pipe is closed, or until nothing came for so long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the app, which closes the pipe
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    if sys.platform == "win32":  # neither nice nor a look at a pipe
        _answer_all(asked, answers, lambda: True)
    else:
        os.nice(nice)
        _answer_all(asked, answers, lambda: bool(select.select([asked], [], [], idle_seconds)[0]))


def _answer_all(asked: Any, answers: Any, comes: Callable[[], bool]) -> None:
    while comes():
        try:
            act, args, named = pickle.load(asked)  # noqa: S301 - of the app that started us
        except EOFError:
            return
        answers.write(_outcome(act, args, named))
        answers.flush()


def _outcome(act: Callable[..., Any], args: Any, named: Any) -> bytes:
    try:
        return pickle.dumps((True, act(*args, **named)))
    except Exception as error:  # the one who asked answers for it
        error.add_note(f"In the process that reckons:\n{traceback.format_exc()}")
        return pickle.dumps((False, error))


if __name__ == "__main__":
    _reckon(int(sys.argv[1]), float(sys.argv[2]))
