"""A long prompt is scored in parts: in little memory, once, and while the others write."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable

import pytest
import torch

from backend.engines.local import echo
from backend.engines.local.asking import Request
from backend.engines.local.mixed import MixedRows
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.test_scheduler import GREEDY, Asked, request
from tests.backend.engines.tiny import wait_until


def test_a_long_prompt_is_scored_in_little_memory(
    load: Callable[[], Base], adapters: dict[str, Resolved], monkeypatch: pytest.MonkeyPatch
):
    scheduler, sizes = Scheduler(load()), []
    base, draw = scheduler.base, random.Random(2)
    prompts = [[draw.randrange(5, 300) for _ in range(length)] for length in (100, 97)]
    models = (Resolved("base", None, base.digest), adapters["model-1"])
    options = {"max_tokens": 0, "seed": 0, "top_logps": 2, "wants_prompt_scores": True}

    def scored() -> list[list[list[object]]]:
        asked = [Asked(scheduler, Request(model, prompts, **options)) for model in models]
        for one in asked:
            one.pieces()
        return [[list(one.scores[at].tokens) for at in range(2)] for one in asked]

    whole = scored()
    monkeypatch.setattr(echo, "HELD_LOGITS", 40 * base.vocabulary)
    head = base.model.get_output_embeddings()
    watch = head.register_forward_hook(lambda *of: sizes.append(of[2].numel()))
    in_parts = scored()
    watch.remove()
    assert max(sizes) <= 40 * base.vocabulary
    assert whole[0] != whole[1]
    for one, other in zip(whole, in_parts, strict=True):
        for expected, found in zip(one, other, strict=True):
            assert [token.token for token in found] == [token.token for token in expected]
            assert [token.logp for token in found[1:]] == pytest.approx(
                [token.logp for token in expected[1:]], abs=1e-5
            )
            assert [top for token in found for top, _ in token.top] == [
                top for token in expected for top, _ in token.top
            ]
    scheduler.close()


def test_a_long_prompt_is_scored_in_parts_between_which_the_others_go_on(
    load: Callable[[], Base], adapters: dict[str, Resolved], monkeypatch: pytest.MonkeyPatch
):
    scheduler, draw, read = Scheduler(load()), random.Random(2), []
    base = scheduler.base
    prompts = [[draw.randrange(5, 300) for _ in range(length)] for length in (150, 33, 90)]
    wanted = Request(adapters["model-1"], prompts, max_tokens=2, seed=0, top_logps=2, wants_prompt_scores=True)
    whole = Asked(scheduler, wanted)
    whole.pieces()
    monkeypatch.setattr(echo, "AT_ONCE", 32)
    monkeypatch.setattr("backend.engines.local.beginning.READ_BESIDE", 32)
    behind, step, steps = echo.logits_behind, MixedRows.step, []
    monkeypatch.setattr(echo, "logits_behind", lambda *of: (read.append(len(steps)), behind(*of))[1])
    monkeypatch.setattr(MixedRows, "step", lambda *of: (steps.append(1), step(*of))[1])
    stream = Asked(scheduler, request(base, [7, 8], max_tokens=100, is_streamed=True, sampling=GREEDY))
    wait_until(lambda: steps)
    parts = Asked(scheduler, wanted)
    told = parts.pieces()
    stream.pieces()
    scheduler.close()
    assert len(read) == 5 + 1 + 3, "each part once, and none a second time while the answer waits to begin"
    assert all(later > before for before, later in itertools.pairwise(read)), "the stream went on between any two parts"
    assert [piece.finish_reason for piece in told].count("length") == 3
    for at, prompt in enumerate(prompts):
        expected, found = whole.scores[at].tokens, parts.scores[at].tokens
        assert [token.token for token in found] == [token.token for token in expected] == prompt
        assert found[0].logp is None
        logps = [[token.logp for token in one[1:]] for one in (found, expected)]
        assert logps[0] == pytest.approx(logps[1], abs=1e-5)


def test_who_hangs_up_while_a_prompt_is_scored_is_forgotten(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    scheduler, read = Scheduler(load()), []
    base = scheduler.base
    monkeypatch.setattr(echo, "AT_ONCE", 16)
    behind, asked = echo.logits_behind, threading.Event()

    def hang_up(*of: object) -> torch.Tensor:
        read.append(1)
        asked.wait(20)
        ticket.cancel()
        return behind(*of)

    monkeypatch.setattr(echo, "logits_behind", hang_up)
    prompt = [5 + at for at in range(100)]
    ticket = scheduler.submit(request(base, prompt, max_tokens=0, wants_prompt_scores=True), lambda _: None)
    asked.set()
    assert scheduler.wait_until_idle(20)
    assert len(read) == 1 and scheduler.health()["waiting"] == 0
    assert Asked(scheduler, request(base, [5, 6])).texts()
    scheduler.close()
