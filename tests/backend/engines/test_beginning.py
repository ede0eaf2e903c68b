"""On the thread that writes, answers begin between two steps, in the middle of one, and long prompts in parts."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable

import pytest
import torch

from backend.engines.local.asking import Failed, Request
from backend.engines.local.mixed import MixedRows
from backend.engines.local.model import Base
from backend.engines.local.prompts import Prompt
from backend.engines.local.resolver import Resolved
from backend.engines.local.sampling import Sampling
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.test_scheduler import GREEDY, Asked, request
from tests.backend.engines.tiny import wait_until


def test_a_long_prompt_is_read_in_parts_beside_rows_that_are_written(
    load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch
):
    draw = random.Random(3)
    long = [draw.randrange(5, 300) for _ in range(200)]
    alone = Scheduler(load())
    expected = Asked(alone, request(alone.base, long, max_tokens=5, sampling=GREEDY)).texts()
    alone.close()
    monkeypatch.setattr("backend.engines.local.beginning.READ_BESIDE", 40)
    scheduler = Scheduler(load(), has_second=False)
    steps, at_part = 0, []
    step, read_part = scheduler._step, MixedRows.read_part

    def counted(group: object) -> None:
        nonlocal steps
        steps += 1
        step(group)  # type: ignore[arg-type]

    def noted(self: MixedRows, prompt: Prompt, tokens: int) -> bool:
        at_part.append(steps)
        return read_part(self, prompt, tokens)

    scheduler._step = counted  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(MixedRows, "read_part", noted)
    other = Asked(scheduler, request(scheduler.base, [5, 6], max_tokens=200, is_streamed=True, sampling=Sampling()))
    wait_until(lambda: steps > 2)
    late = Asked(scheduler, request(scheduler.base, long, max_tokens=5, sampling=GREEDY))
    assert late.texts() == expected
    assert len(at_part) >= 4 and all(one < other for one, other in itertools.pairwise(at_part))
    other.ticket.cancel()
    scheduler.close()


def test_the_first_token_is_there_when_its_prompt_is_read(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    scheduler, happened = Scheduler(load(), has_second=False), []
    step, begin = scheduler._step, MixedRows.begin
    monkeypatch.setattr(MixedRows, "begin", lambda self, *given: (happened.append("read"), begin(self, *given))[1])
    Asked(scheduler, request(scheduler.base, [5, 6, 7], n=3, max_tokens=1)).texts()
    wait_until(lambda: not scheduler._groups)
    assert happened == ["read"]
    gate, waits = threading.Event(), threading.Event()

    def noted(group: object) -> None:
        waits.set()
        gate.wait(60)
        happened.append("step")
        step(group)  # type: ignore[arg-type]

    scheduler._step = noted  # type: ignore[method-assign, assignment]
    monkeypatch.setattr("backend.engines.local.admission.READ_TOGETHER", 6)
    first = Asked(scheduler, request(scheduler.base, [5, 6, 7], max_tokens=4))
    assert waits.wait(60)
    later = [Asked(scheduler, request(scheduler.base, [8, 9, at, 11], max_tokens=4)) for at in range(3)]
    gate.set()
    for asked in (first, *later):
        asked.texts()
    assert happened[:7] == ["read", "read", "step", "read", "read", "read", "step"], "prompts one after another"
    scheduler.close()


def asked_in_a_step(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, first: Request, later: list[Request]
) -> tuple[list[Asked], list[object], list[bool]]:
    """The later ones come when the first layer of the first one's second token is read. All of them, the prompts as they begin, and
    whether each later one had begun when that step was over."""
    asked, begun, had = [], [], []
    step, begin = MixedRows.step, MixedRows.begin
    monkeypatch.setattr(
        MixedRows,
        "begin",
        lambda self, prompts, of: (begin(self, prompts, of), begun.extend(p.tokens for p in prompts))[0],
    )

    def interrupted(self: MixedRows, tokens: torch.Tensor, between: Callable[[], None]) -> torch.Tensor:
        def then() -> None:
            if len(asked) == 1:
                asked.extend(Asked(scheduler, one) for one in later)
            between()
            between()  # as with more layers

        logits = step(self, tokens, then)
        if not had:
            had.extend(tuple(one.request.prompts[0]) in begun for one in asked[1:])
        return logits

    monkeypatch.setattr(MixedRows, "step", interrupted)
    asked.append(Asked(scheduler, first))
    wait_until(lambda: len(had) == len(later))
    return asked, begun, had


@pytest.mark.parametrize("keeps_back", ["weights", "scores"])
def test_a_first_token_comes_in_the_middle_of_the_others_step(
    load: Callable[[], Base], adapters: dict[str, Resolved], monkeypatch: pytest.MonkeyPatch, keeps_back: str
):
    """But not where weights have to be read or a prompt scored first, and then nobody overtakes."""
    scheduler, shown = Scheduler(load(), has_second=False), {"is_streamed": True, "max_tokens": 6, "n": 2}
    known, strange = adapters["model-1"], adapters["model-2"]
    Asked(scheduler, request(scheduler.base, [5], known)).texts()
    later = [
        request(scheduler.base, [8, 9, 10, 11], **shown),
        request(scheduler.base, [12, 13], known, **shown),
        request(scheduler.base, [14], strange, **shown)
        if keeps_back == "weights"
        else request(scheduler.base, [14], wants_prompt_scores=True, **shown),
        request(scheduler.base, [15, 16, 17], **shown),
    ]
    first = request(scheduler.base, [5, 6, 7], **shown)
    asked, begun, had = asked_in_a_step(scheduler, monkeypatch, first, later)
    assert had == [True, True, False, False]
    texts = [one.texts() for one in asked]
    assert begun == [tuple(one.prompts[0]) for one in (first, *later)]
    monkeypatch.undo()
    assert texts == [Asked(scheduler, one).texts() for one in (first, *later)]
    scheduler.close()


def test_rows_that_begin_in_the_middle_of_a_step_join_memory_that_has_grown_meanwhile(
    load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(MixedRows, "have_ready", lambda self: None)  # all memory is taken as it is wanted
    scheduler, shown = Scheduler(load(), has_second=False), {"is_streamed": True, "max_tokens": 6}
    Asked(scheduler, request(scheduler.base, [5, 6], max_tokens=3, n=40)).texts()
    assert scheduler._mixed is not None and scheduler._mixed._kept.is_inference()
    later = [request(scheduler.base, [8, at], **shown) for at in (9, 10)]
    asked, _, had = asked_in_a_step(scheduler, monkeypatch, request(scheduler.base, [5, 6, 7], **shown), later)
    assert had == [True, True]
    texts = [one.texts() for one in asked]
    monkeypatch.undo()
    assert texts == [Asked(scheduler, one.request).texts() for one in asked]
    scheduler.close()


def test_a_long_prompt_waits_for_the_steps_end(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.engines.local.beginning.READ_BESIDE", 40)
    scheduler, shown = Scheduler(load(), has_second=False), {"is_streamed": True, "max_tokens": 6}
    wanted = [request(scheduler.base, [5 + at % 40 for at in range(size)], **shown) for size in (30, 25)]
    asked, _, had = asked_in_a_step(scheduler, monkeypatch, request(scheduler.base, [5, 6, 7], **shown), wanted)
    assert had == [True, False], "both together are more than is read beside a step"
    for one in asked:
        one.pieces()
    scheduler.close()


def test_rows_that_begin_in_the_middle_of_a_step_count(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.engines.local.admission.READ_TOGETHER", 1)  # each by itself
    scheduler, shown = Scheduler(load(), row_limit=2, has_second=False), {"is_streamed": True, "max_tokens": 6}
    wanted = [request(scheduler.base, [8, at], **shown) for at in (5, 6)]
    asked, _, had = asked_in_a_step(scheduler, monkeypatch, request(scheduler.base, [5, 6, 7], **shown), wanted)
    assert had == [True, False]
    for one in asked:
        one.pieces()
    scheduler.close()


def test_what_fails_in_the_middle_of_a_step_strikes_nobody_else(
    load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch
):
    scheduler, begin = Scheduler(load(), has_second=False), MixedRows.begin
    monkeypatch.setattr("backend.engines.local.admission.READ_TOGETHER", 1)  # each by itself
    wanted = [request(scheduler.base, [5, 6, 7]), request(scheduler.base, [8, 9]), request(scheduler.base, [10])]
    expected = [Asked(scheduler, one).texts() for one in wanted]

    def failing(self: MixedRows, prompts: list[Prompt], sources: list[int]) -> object:
        if prompts[0].tokens == (8, 9):
            raise RuntimeError("no memory")
        return begin(self, prompts, sources)

    monkeypatch.setattr(MixedRows, "begin", failing)
    asked, _, had = asked_in_a_step(scheduler, monkeypatch, wanted[0], wanted[1:])
    assert had == [False, True] and isinstance(asked[1].events.get(timeout=60), Failed)
    assert [asked[at].texts() for at in (0, 2)] == [expected[0], expected[2]]
    scheduler.close()
