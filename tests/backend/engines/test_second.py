"""A second thread begins answers while the model's thread writes: at once, with the same numbers, and with nothing taken from under it."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from backend.engines.local import second
from backend.engines.local.asking import Failed
from backend.engines.local.beginning import Beginner
from backend.engines.local.mixed import MixedRows
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.test_scheduler import GREEDY, Asked, draw_prompt, request
from tests.backend.engines.tiny import wait_until

SHOWN: dict[str, Any] = {"is_streamed": True, "max_tokens": 6}
LONG: dict[str, Any] = {"is_streamed": True, "max_tokens": 200}


@pytest.fixture
def scheduler(load: Callable[[], Base]) -> Iterator[Scheduler]:
    made = Scheduler(load(), row_limit=8, has_second=True)
    made.base.end_tokens = frozenset()  # every answer has as many tokens as were asked for
    yield made
    made.close()


class Gate:
    """Holds a method up where a certain thread calls it, while it is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, thread: str) -> None:
        self.is_open, self.calls, before = threading.Event(), [], getattr(owner, method)
        self.is_open.set()

        def gated(*given: Any) -> Any:
            if threading.current_thread().name == thread:
                self.calls.append(given)
                assert self.is_open.wait(60)
            return before(*given)

        monkeypatch.setattr(owner, method, gated)

    def shut(self) -> None:
        self.is_open.clear()
        self.calls.clear()

    def wait(self) -> None:
        """Until somebody stands before it."""
        wait_until(lambda: bool(self.calls))


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch, MixedRows, "step", "engine-model")
    yield gate
    gate.is_open.set()


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch, Beginner, "begin", "engine-second")
    yield gate
    gate.is_open.set()


def held_up(scheduler: Scheduler, step: Gate) -> Asked:
    """A stream whose step does not end before the gate is open."""
    step.shut()
    asked = Asked(scheduler, request(scheduler.base, [5, 6, 7], **LONG))
    step.wait()
    return asked


def test_a_first_token_does_not_wait_for_a_step(
    step: Gate, scheduler: Scheduler, adapters: dict[str, Resolved]
) -> None:
    Asked(scheduler, request(scheduler.base, [5], adapters["model-1"])).texts()
    stream = held_up(scheduler, step)
    late = [
        Asked(scheduler, request(scheduler.base, [8, 9], model, n=2, **SHOWN)) for model in (None, adapters["model-1"])
    ]
    wait_until(lambda: [row.tokens for one in scheduler._begun for row in one.rows] == [1] * 4)
    opened = time.monotonic()
    step.is_open.set()
    for one in late:
        assert all(piece.first_token_seconds < opened - one.ticket.arrived for piece in one.pieces())
    stream.ticket.cancel()


def test_what_two_threads_begin_is_what_one_begins(
    load: Callable[[], Base], scheduler: Scheduler, adapters: dict[str, Resolved], begin: Gate
) -> None:
    """Requests arrive all the while; some share their beginnings, some have adapters, some are drawn and some greedy."""
    draw = random.Random(4)
    shared = [draw.randrange(5, 300) for _ in range(70)]
    models = [None, adapters["model-1"], adapters["model-2"]]
    base, wanted = scheduler.base, []
    for at in range(40):
        prompt = shared[: 32 * (at % 3)] + draw_prompt(draw)
        more: dict[str, Any] = {"sampling": GREEDY} if at % 4 == 0 else {}
        wanted.append(
            request(base, prompt, models[at % 3], seed=at, n=1 + at % 2, max_tokens=8 + at % 7, top_logps=1, **more)
        )
    alone = Scheduler(load(), has_second=False)
    alone.base.end_tokens = frozenset()
    expected = [Asked(alone, one).pieces() for one in wanted]
    alone.close()
    found = [Asked(scheduler, one) for one in wanted]
    for one, others in zip(found, expected, strict=True):
        mine = {piece.sample: piece for piece in one.pieces()}
        for other in others:
            assert mine[other.sample].text == other.text
            assert mine[other.sample].tokens == other.tokens, "to the last bit"
    assert len(begin.calls) > 3, "the second thread had its part in it"


def test_what_asks_for_more_than_reading_is_left_to_the_models_thread(
    scheduler: Scheduler, adapters: dict[str, Resolved], step: Gate, begin: Gate
) -> None:
    """An adapter that is not here, or a prompt that is to be scored: and nobody overtakes."""
    stream = held_up(scheduler, step)
    later = [
        request(scheduler.base, [8, 9], **SHOWN),
        request(scheduler.base, [10], adapters["model-2"], **SHOWN),
        request(scheduler.base, [11, 12], **SHOWN),
    ]
    asked = [Asked(scheduler, one) for one in later]
    wait_until(lambda: len(scheduler._begun) == 1)
    assert scheduler.place(asked[1].ticket) == 1 and scheduler.place(asked[2].ticket) == 2
    step.is_open.set()
    for one in asked[1:]:
        one.pieces()
    stream.ticket.cancel()


def test_what_it_begins_counts_among_the_rows(scheduler: Scheduler, step: Gate, begin: Gate) -> None:
    stream = held_up(scheduler, step)
    begin.shut()
    many = Asked(scheduler, request(scheduler.base, [8, 9], n=7, **SHOWN))
    begin.wait()
    one_more = Asked(scheduler, request(scheduler.base, [10], **SHOWN))
    before = len(step.calls)
    step.is_open.set()
    wait_until(lambda: len(step.calls) > before + 3)
    assert scheduler.place(one_more.ticket) == 1, "there are eight rows with those that are being begun"
    begin.is_open.set()
    many.pieces()
    one_more.pieces()
    stream.ticket.cancel()
    assert scheduler.wait_until_idle(20)


def test_no_adapter_is_put_out_while_it_begins_what_needs_it(
    scheduler: Scheduler, adapters: dict[str, Resolved], step: Gate, begin: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is place for one. The other request and the errand, which may change adapters too, wait."""
    monkeypatch.setattr(scheduler.base, "_adapter_limit", 1)
    expected = Asked(scheduler, request(scheduler.base, [8, 9], adapters["model-1"])).texts()
    stream = held_up(scheduler, step)
    begin.shut()
    late = Asked(scheduler, request(scheduler.base, [8, 9], adapters["model-1"]))
    begin.wait()
    step.is_open.set()
    other = Asked(scheduler, request(scheduler.base, [8, 9], adapters["model-2"]))
    wait_until(lambda: bool(scheduler._starting))
    assert not threading.Event().wait(0.2) and scheduler.base.adapters == [adapters["model-1"].digest]
    errand = scheduler.do(lambda in_use: (set(in_use), set(scheduler.base.adapters)))
    assert not threading.Event().wait(0.2) and not errand.done()
    begin.is_open.set()
    in_use, there = errand.result(60)
    assert adapters["model-1"].digest in in_use & there
    assert late.texts() == expected
    other.texts()
    stream.ticket.cancel()


def test_it_begins_nothing_while_it_is_kept_out(scheduler: Scheduler, step: Gate) -> None:
    stream, may_end, has_begun = held_up(scheduler, step), threading.Event(), threading.Event()
    errand = scheduler.do(lambda _: (has_begun.set(), may_end.wait(60)))
    step.is_open.set()
    assert has_begun.wait(60)
    late = Asked(scheduler, request(scheduler.base, [8, 9], **SHOWN))
    assert scheduler._second is not None and not threading.Event().wait(0.2)
    assert scheduler._groups and not scheduler._second.jobs and not scheduler._begun
    may_end.set()
    errand.result(60)
    late.pieces()
    stream.ticket.cancel()


def test_its_failure_strikes_nobody_else(scheduler: Scheduler, step: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, read = held_up(scheduler, step), MixedRows.begin

    def failing(self: MixedRows, *given: Any) -> Any:
        if threading.current_thread().name == "engine-second":
            raise RuntimeError("no memory")
        return read(self, *given)

    monkeypatch.setattr(MixedRows, "begin", failing)
    events: queue.Queue[object] = queue.Queue()
    scheduler.submit(request(scheduler.base, [8, 9]), events.put)
    assert isinstance(events.get(timeout=60), Failed)
    step.is_open.set()
    assert stream.pieces()[-1].tokens_so_far == LONG["max_tokens"]


def test_who_hangs_up_meanwhile_leaves_no_row(scheduler: Scheduler, step: Gate, begin: Gate) -> None:
    stream = held_up(scheduler, step)
    begin.shut()
    late = Asked(scheduler, request(scheduler.base, [8, 9], **SHOWN))
    begin.wait()
    late.ticket.cancel()
    stream.ticket.cancel()
    step.is_open.set()
    assert not scheduler.wait_until_idle(0.1), "what is being begun is under way"
    begin.is_open.set()
    assert scheduler.wait_until_idle(20)
    assert Asked(scheduler, request(scheduler.base, [5, 6])).texts()


def test_a_long_prompt_is_read_in_parts_between_which_others_have_their_turn(
    scheduler: Scheduler, step: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, parts, read_part = random.Random(3), [], MixedRows.read_part
    long = [draw.randrange(5, 300) for _ in range(200)]
    expected = Asked(scheduler, request(scheduler.base, long, sampling=GREEDY, max_tokens=5)).texts()
    scheduler.prefixes.clear()
    monkeypatch.setattr("backend.engines.local.beginning.READ_BESIDE", 40)
    monkeypatch.setattr(MixedRows, "read_part", lambda *of: (parts.append(1), read_part(*of))[1])
    stream = held_up(scheduler, step)
    late = Asked(scheduler, request(scheduler.base, long, sampling=GREEDY, max_tokens=5))
    wait_until(lambda: bool(scheduler._begun))
    assert len(parts) >= 4
    step.is_open.set()
    assert late.texts() == expected
    stream.ticket.cancel()


def test_the_engine_stops_while_it_begins_something(scheduler: Scheduler, step: Gate, begin: Gate) -> None:
    stream = held_up(scheduler, step)
    begin.shut()
    late = Asked(scheduler, request(scheduler.base, [8, 9], max_tokens=200))
    begin.wait()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    wait_until(lambda: scheduler._is_closed)
    step.is_open.set()
    begin.is_open.set()
    closing.join(20)
    assert not closing.is_alive()
    for one in (stream, late):
        events = [one.events.get(timeout=20)]
        while not one.events.empty():
            events.append(one.events.get())
        assert isinstance(events[-1], Failed)


def test_where_it_has_died_the_models_thread_does_its_part(
    scheduler: Scheduler, step: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = held_up(scheduler, step)
    taken = threading.excepthook
    monkeypatch.setattr(threading, "excepthook", lambda given: None if given.exc_type is OSError else taken(given))
    assert scheduler._second is not None
    monkeypatch.setattr(scheduler._second, "_take", lambda: (_ for _ in ()).throw(OSError("gone")))
    late = Asked(scheduler, request(scheduler.base, [8, 9], **SHOWN))
    step.is_open.set()
    late.pieces()
    rows = [row for group in scheduler._groups for row in group.rows]
    assert any(row.ticket is stream.ticket for row in rows), "it did not wait for the stream's end"
    stream.ticket.cancel()


@pytest.mark.parametrize(("cores", "threads", "expected"), [(2, 1, True), (1, 1, False), (4, 2, False)])
def test_it_is_there_where_it_has_a_core_and_products_have_one_thread(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, expected: bool
) -> None:
    monkeypatch.setattr(second.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert second.has_a_core(torch.device("cpu")) == expected
    assert not second.has_a_core(torch.device("cuda"))
