"""Who has the GPU: jobs say so in the data folder, and an engine that starts meanwhile comes up resting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch

from backend.engines import lending
from backend.engines.client import EngineClient, EngineError
from backend.engines.lending import engine_at_rest, holders
from backend.engines.local import resting
from backend.engines.local.loading import load_base
from backend.engines.local.model import Base
from backend.engines.local.resting import Rest, has_no_room
from backend.engines.local.scheduler import Scheduler
from backend.engines.local.server import build_app
from backend.engines.process import EngineFile, process_started_at, read_engine_file, write_engine_file
from backend.training import device
from tests.backend.engines import tiny
from tests.backend.engines.tiny import KEY, TableResolver, wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def job() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a job on the GPU."""
    made = subprocess.Popen(["sleep", "120"])
    yield made
    made.kill()
    made.wait()


def write_down(data_dir: Path, pid: int) -> None:
    folder = data_dir / "engine" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{pid}.json").write_text(json.dumps([pid, process_started_at(pid)]))


@contextmanager
def at_rest(base: Base, pid: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EngineClient, Rest, str]]:
    scheduler = Scheduler(base, row_limit=16)
    rest = Rest(base, scheduler)
    rest.begin_without({pid: process_started_at(pid) or 0.0})
    monkeypatch.setattr(tiny, "build_app", lambda *given: build_app(*given, rest))
    with tiny.served(base, scheduler, TableResolver(base, {})) as url:
        client = EngineClient(url, KEY)
        yield client, rest, url
        client.close()
    scheduler.close()


def test_a_job_stands_in_the_data_folder_as_long_as_it_has_the_gpu(tmp_path: Path, job: subprocess.Popen[bytes]):
    write_down(tmp_path, job.pid)
    with engine_at_rest(tmp_path) as is_at_rest:
        assert is_at_rest is False, "no engine runs"
        assert holders(tmp_path) == {pid: process_started_at(pid) for pid in (os.getpid(), job.pid)}
    assert list(holders(tmp_path)) == [job.pid]
    job.kill()
    job.wait()
    (tmp_path / "engine" / "jobs" / "7.json").write_text("[")
    assert holders(tmp_path) == {}
    assert [path.name for path in (tmp_path / "engine" / "jobs").iterdir()] == ["7.json"], "what cannot be read is left"


def test_an_engine_that_started_during_the_job_is_told_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[Any] = []

    class Client:
        def __init__(self, url: str, *_: Any, **__: Any) -> None:
            self.url = url

        def rest(self, pid: int) -> None:
            told.append(("rest", self.url, pid))

        def wake(self, pid: int) -> None:
            told.append(("wake", self.url, pid, list(holders(tmp_path))))

        def close(self) -> None:
            pass

    monkeypatch.setattr(lending, "EngineClient", Client)
    pid, started_at = os.getpid(), process_started_at(os.getpid()) or 0.0
    with engine_at_rest(tmp_path):
        write_engine_file(tmp_path, EngineFile("http://late", KEY, pid, started_at, 0.0, "base"))
    assert told == [("wake", "http://late", pid, [])]
    told.clear()
    with engine_at_rest(tmp_path, asks=False) as is_at_rest:
        assert is_at_rest is False and told == [] and list(holders(tmp_path)) == [pid]
    with engine_at_rest(tmp_path) as is_at_rest:
        assert is_at_rest is True and told[-1] == ("rest", "http://late", pid)


@pytest.mark.parametrize(("kind", "free", "expected"), [("cuda", 90, True), ("cuda", 150, False), ("cpu", 90, False)])
def test_a_model_has_no_room_where_less_than_half_of_the_gpu_would_be_free(
    monkeypatch: pytest.MonkeyPatch, kind: str, free: int, expected: bool
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 200))
    assert device.is_short_of_memory(0) is (free < 100)
    base: Any = SimpleNamespace(device=torch.device(kind), weight_bytes=40)
    assert has_no_room(base) is expected


def test_an_engine_that_starts_beside_a_job_rests_until_the_job_is_over(
    base_folder: Path, job: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, load: Callable[[], Base]
):
    base = load_base(str(base_folder), device="cpu", at_rest=True)
    assert base.is_away and base.stack is None
    with at_rest(base, job.pid, monkeypatch) as (client, rest, url):
        assert not rest._scheduler._mixes
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "base", "messages": HELLO}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
        assert "rests while a model is trained on its GPU" in reply.json()["error"]["message"]
        assert client.health()["resting"] is True and client.tokenize(HELLO, "base").count > 3
        job.kill()
        job.wait()
        wait_until(lambda: not client.health()["resting"])
        assert not base.is_away and base.stack is not None
        assert rest._scheduler._mixes, "rows of several adapters share a step again"
        said = client.complete(HELLO, model="base", seed=4, max_tokens=20)[0].text
    other = load()
    scheduler = Scheduler(other, row_limit=16)
    monkeypatch.undo()
    with tiny.served(other, scheduler, TableResolver(other, {})) as url:
        client = EngineClient(url, KEY)
        assert client.complete(HELLO, model="base", seed=4, max_tokens=20)[0].text == said
        client.close()
    scheduler.close()


def test_a_model_that_finds_no_room_yet_comes_back_when_there_is(
    base_folder: Path, job: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resting, "LOOK_SECONDS", 0.05)
    base = load_base(str(base_folder), device="cpu", at_rest=True)
    come_back, tries = base.come_back, threading.Semaphore(0)
    is_free = threading.Event()

    def full() -> None:
        tries.release()
        come_back()
        if not is_free.is_set():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(base, "come_back", full)
    with at_rest(base, job.pid, monkeypatch) as (client, rest, _):
        rest.end(job.pid)
        assert tries.acquire(timeout=60) and tries.acquire(timeout=60), "it tries again by itself"
        assert client.health()["resting"] is True
        wait_until(lambda: base.is_away and base.stack is None)
        with pytest.raises(EngineError, match="rests"):
            client.complete(HELLO, model="base", max_tokens=3)
        is_free.set()
        wait_until(lambda: not client.health()["resting"])
        assert client.complete(HELLO, model="base", max_tokens=3)


@pytest.mark.parametrize("is_short", [True, False])
def test_a_job_that_began_while_the_engine_started_has_it_rest_where_there_is_little(
    load: Callable[[], Base], job: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, is_short: bool
):
    monkeypatch.setattr(resting, "is_short_of_memory", lambda *_: is_short)
    base = load()
    scheduler = Scheduler(base)
    rest = Rest(base, scheduler)
    rest.join({job.pid: process_started_at(job.pid) or 0.0})
    assert rest.health()["resting"] is is_short and base.is_away is is_short
    rest.end(job.pid)
    assert not rest.health()["resting"]
    scheduler.close()


def test_an_engine_process_comes_up_resting_and_wakes_by_itself(
    tmp_path: Path, base_folder: Path, job: subprocess.Popen[bytes]
):
    """The whole process, on a machine whose memory is said to be full."""
    write_down(tmp_path, job.pid)
    words = ["--data-dir", str(tmp_path), "--base", str(base_folder), "--device", "cpu", "--parent", str(os.getpid())]
    program = f"""
        from backend.engines.local import resting
        resting.has_no_room = lambda base: base.is_away
        from backend.engines.local.__main__ import main
        raise SystemExit(main({words!r}))
    """
    engine = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: read_engine_file(tmp_path))
        file = read_engine_file(tmp_path)
        assert file is not None
        client = EngineClient(file.url, file.key)
        assert client.health()["resting"] is True
        with pytest.raises(EngineError, match="rests while a model is trained"):
            client.complete(HELLO, model="base", max_tokens=3)
        job.kill()
        job.wait()
        wait_until(lambda: not client.health()["resting"])
        assert client.complete(HELLO, model="base", max_tokens=3)
        client.close()
    finally:
        engine.terminate()
        engine.communicate(timeout=60)
