"""Another process reckons, once for equal questions, behind everything else, and comes back after it was killed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from backend.stats import apart as room
from backend.stats import reliability
from backend.stats.apart import Ended, apart


@pytest.fixture(autouse=True)
def _forgets():
    room._kept.clear()


def test_another_process_reckons_and_stands_behind_this_one():
    pid = apart(os.getpid)
    assert pid != os.getpid() and psutil.Process(pid).nice() == min(19, os.nice(0) + room.NICE)


def test_equal_questions_are_reckoned_once_and_others_anew():
    told = []
    asking = [threading.Thread(target=lambda: told.append(apart(time.perf_counter_ns))) for _ in range(4)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(set(told)) == 1 and len(told) == 4
    assert (apart(math.comb, 5, 2), apart(math.comb, 6, 2), apart(math.comb, 5, 2)) == (10, 15, 10)


def test_what_was_asked_long_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(room, "KEPT_MOST", 2)
    first = apart(time.perf_counter_ns)
    apart(math.sqrt, 4.0)
    assert apart(time.perf_counter_ns) == first
    apart(math.sqrt, 9.0)
    assert apart(time.perf_counter_ns) == first, "it was asked for since"
    apart(math.sqrt, 16.0)
    apart(math.sqrt, 25.0)
    assert apart(time.perf_counter_ns) != first and len(room._kept) == 2


def test_an_error_is_told_and_not_kept():
    with pytest.raises(ValueError, match="math domain|nonnegative"):
        apart(math.sqrt, -1.0)
    assert not room._kept


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_process_that_was_killed_is_replaced():
    pid = apart(os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert apart(math.sqrt, 4.0) == 2.0
    room._kept.clear()
    assert apart(os.getpid) != pid


def test_what_kills_the_process_every_time_is_told_and_the_next_question_is_answered():
    with pytest.raises(Ended):
        apart(os._exit, 3)
    assert apart(math.sqrt, 9.0) == 3.0


def test_a_process_without_work_ends(monkeypatch):
    room._other.end()
    monkeypatch.setattr(room, "IDLE_SECONDS", 0.3)
    pid = apart(os.getpid)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(60)
    room._kept.clear()
    assert apart(os.getpid) != pid
    room._other.end()


def test_the_process_ends_with_the_one_that_asked():
    code = (
        "import os; from backend.stats.apart import apart; print(apart(os.getpid), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=room.ROOT, stdout=subprocess.PIPE, text=True, check=False)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(60)


def test_the_other_process_takes_neither_torch_nor_transformers_for_the_statistics():
    found = apart(reliability.of_pairs, [1, 1, 2, 2], [5, 6, 5, 6], [0, 0, 1, 1])
    assert found.comparisons == 2
    assert not {"torch", "transformers", "tensorflow"} & set(apart(_modules))


def _modules() -> list[str]:
    return sorted(sys.modules)
