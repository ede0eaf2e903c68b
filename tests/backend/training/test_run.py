"""A run's events: whole lines, in order, with nothing lost at the end."""

import json
import time
from pathlib import Path

import pytest

from backend.jobs.runner import tail
from backend.training.run import EVENTS, Interrupted, Paused, Run, Stopped


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_fast_points_give_way_to_the_newest_and_the_last_is_written(tmp_path: Path) -> None:
    clock = Clock()
    run = Run(tmp_path, attempt=2, clock=clock)
    for step in range(1, 11):
        run.metrics(step, 10, {"loss": 1 / step})
        clock.now += 0.1
    run.message("over")
    events = tail(tmp_path, 0).events
    steps = [event["step"] for event in events if event["kind"] == "metrics"]
    assert steps[0] == 1 and steps[-1] == 10 and len(steps) <= 4
    assert events[-1] == {"at": int(clock.now * 1e6), "attempt": 2, "kind": "message", "text": "over"}


def test_a_number_that_is_not_finite_leaves_the_line_readable(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics(1, 2, {"loss": float("nan"), "score": 1.0})
    assert tail(tmp_path, 0).events[0]["values"] == {"score": 1.0}


def test_a_signal_interrupts_the_pause_file_pauses_and_the_stop_file_stops(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.check()
    run.ask_to_end()
    with pytest.raises(Interrupted):
        run.check()
    (tmp_path / "pause").touch()
    with pytest.raises(Paused):
        run.check()
    (tmp_path / "stop").touch()
    with pytest.raises(Stopped):
        run.check()


def test_the_heart_beats_while_the_run_is_busy(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def heard() -> list[str]:
        return [event["kind"] for event in tail(tmp_path, 0).events]

    deadline = time.monotonic() + 60
    with run.heartbeat(seconds=0.02):
        while heard().count("heartbeat") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    kinds = heard()
    time.sleep(0.05)
    assert heard() == kinds


def test_tail_gives_whole_lines_once_and_passes_over_a_torn_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.message("one")
    with (tmp_path / EVENTS).open("ab") as stream:
        stream.write(b'{"kind": "mess')
    first = tail(tmp_path, 0)
    assert [event["text"] for event in first.events] == ["one"]
    Run(tmp_path, attempt=2).message("two")
    second = tail(tmp_path, first.offset)
    assert [event["text"] for event in second.events] == ["two"]
    assert tail(tmp_path, second.offset) == ([], second.offset)
    assert all(json.dumps(event) for event in second.events)
