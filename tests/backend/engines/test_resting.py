"""An engine that lets its memory go for a job: what is under way, what is refused, and how it comes back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from backend.engines.client import EngineClient, EngineError
from backend.engines.local import resting
from backend.engines.local.model import Base
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.tiny import KEY, TableResolver, served, wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


class Engine(NamedTuple):
    base: Base
    scheduler: Scheduler
    client: EngineClient
    raw: httpx.Client


@pytest.fixture
def engine(load: Callable[[], Base]) -> Iterator[Engine]:
    base = load()
    scheduler = Scheduler(base, row_limit=16)
    with served(base, scheduler, TableResolver(base, {})) as url:
        client = EngineClient(url, KEY)
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as raw:
            yield Engine(base, scheduler, client, raw)
        client.close()
    scheduler.close()


def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    step = engine.scheduler._step
    monkeypatch.setattr(engine.scheduler, "_step", lambda group: (time.sleep(seconds), step(group)))


def test_what_is_under_way_is_finished_before_the_memory_goes(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {"model": "base", "seed": 3, "max_tokens": 40}
    expected = engine.client.complete(HELLO, **asked)[0].text
    slow(engine, monkeypatch, 0.01)
    stream = engine.client.stream(HELLO, **asked)
    text = next(stream).text
    engine.client.rest(os.getpid())
    assert text + "".join(piece.text for piece in stream) == expected
    engine.client.wake(os.getpid())
    assert engine.client.complete(HELLO, **asked)[0].text == expected


def test_what_takes_too_long_is_ended_with_the_reason(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resting, "DRAIN_SECONDS", 0.1)
    slow(engine, monkeypatch, 0.02)
    stream = engine.client.stream(HELLO, model="base", seed=3, n=4, max_tokens=220)
    next(stream)
    engine.client.rest(os.getpid())
    with pytest.raises(EngineError, match="rests while a model is trained"):
        list(stream)
    assert engine.scheduler.health()["active"] == 0


def test_a_resting_engine_refuses_every_question_with_a_time_to_come_back(engine: Engine):
    engine.client.rest(os.getpid())
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"model": "base", "messages": HELLO},
        "/v1/completions": {"model": "base", "prompt": "a", "stream": True},
        "/v1/embeddings": {"model": "base", "input": "a"},
    }
    for path, body in bodies.items():
        reply = engine.raw.post(path, json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
        assert reply.json()["error"]["code"] == "resting"
    assert engine.client.health()["resting"] is True
    assert engine.client.tokenize(HELLO, "base").count > 3, "what needs no model goes on"


def test_the_model_comes_back_when_the_last_job_has_said_so(engine: Engine):
    other = subprocess.Popen(["sleep", "60"])
    engine.client.rest(os.getpid())
    engine.client.rest(other.pid)
    engine.client.wake(os.getpid())
    engine.client.wake(os.getpid())
    assert engine.client.health()["resting"]
    with pytest.raises(EngineError, match="rests"):
        engine.client.complete(HELLO, model="base", max_tokens=3)
    other.kill()
    other.wait()
    wait_until(lambda: not engine.client.health()["resting"])
    assert engine.client.complete(HELLO, model="base", max_tokens=3)


def test_nobody_rests_for_a_process_that_is_not_there_or_without_the_key(engine: Engine):
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(EngineError, match="There is no process"):
        engine.client.rest(gone.pid)
    assert engine.raw.post("/rest", json={"pid": "1"}).status_code == 400
    assert engine.raw.post("/rest", json={"pid": os.getpid()}, headers={"Authorization": ""}).status_code == 401
    assert not engine.client.health()["resting"]


def test_a_rest_that_fails_leaves_the_engine_answering(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a test broke it")

    monkeypatch.setattr(engine.base.model, "to", fail)
    with pytest.raises(EngineError, match="answers on; its log says why"):
        engine.client.rest(os.getpid())
    assert not engine.client.health()["resting"]
    assert engine.client.complete(HELLO, model="base", max_tokens=3)
