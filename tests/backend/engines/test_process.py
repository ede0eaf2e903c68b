"""The engine as a process: started on first need, started again after its death."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.engines import lending, memory, process
from backend.engines.client import EngineError
from backend.engines.process import EngineProcess, process_started_at, read_engine_file
from tests.backend.engines.tiny import wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def engine(tmp_path: Path, base_folder: Path) -> Iterator[EngineProcess]:
    made = EngineProcess(tmp_path, str(base_folder), threads=1, start_seconds=240)
    yield made
    made.stop()


def test_an_engine_lives_dies_and_comes_back(
    engine: EngineProcess, tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BIG_API_KEY", "sk-test-0123456789abcdef")
    assert not engine.is_running()
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: engine.client(), range(4)))
    assert len({id(client) for client in clients}) == 1, "only one is started"
    first = engine.client().complete(HELLO, model="live", seed=1, max_tokens=10)
    assert engine.last_event is None

    file = read_engine_file(tmp_path)
    environment = Path(f"/proc/{file.pid}/environ")
    if environment.exists():
        found = environment.read_bytes()
        assert b"PATH=" in found and b"_API_KEY" not in found
        settings = [f"{name}={value.split(':')[0]}" for name, value in memory.ENVIRONMENT.items()]
        assert all(setting.encode() in found for setting in settings), "glibc ends the text where it has read a value"
    assert (tmp_path / "engine" / "engine.json").stat().st_mode & 0o777 == 0o600
    assert engine.client().models() == ["base", "live"]

    other = EngineProcess(tmp_path, str(base_folder))
    assert other.client().base_url == file.url, "a living engine of the same base is shared"
    other.stop()
    assert engine.is_running(), "who did not start it does not end it"

    os.kill(file.pid, signal.SIGKILL)
    wait_until(lambda: process_started_at(file.pid) is None)
    again = engine.client().complete(HELLO, model="live", seed=1, max_tokens=10)
    assert [answer.text for answer in again] == [answer.text for answer in first]
    assert engine.last_event.startswith("The engine had stopped (exit code -9) and was started again at ")
    assert (engine.last_event.code, engine.last_event.values["exit"]) == ("engine_was_ended", -9)

    pid = read_engine_file(tmp_path).pid
    engine.stop()
    assert process_started_at(pid) is None
    assert read_engine_file(tmp_path) is None
    log = (tmp_path / "engine" / "engine.log").read_text()
    assert "Traceback" not in log


def test_requests_under_way_when_the_engine_is_killed_fail_at_once_with_what_to_do(
    engine: EngineProcess, tmp_path: Path
):
    client = engine.client()
    pid = read_engine_file(tmp_path).pid
    expected = client.complete(HELLO, model="live", seed=5, max_tokens=20)
    long = {"model": "live", "n": 16, "max_tokens": 230}
    with ThreadPoolExecutor(13) as pool:
        asked = [pool.submit(client.complete, HELLO, seed=seed, **long) for seed in range(12)]
        asked.append(pool.submit(lambda: list(client.stream(HELLO, seed=1, **long))))
        wait_until(lambda: client.health()["waiting"] >= 4)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        problems = [one.exception(60) for one in asked]  # one that was over before has none
    failed = [problem for problem in problems if problem is not None]
    assert len(failed) >= 4
    assert all(
        isinstance(problem, EngineError) and re.search("ended while it answered.*ask again", str(problem))
        for problem in failed
    ), failed
    assert time.monotonic() - killed < 15, "they wait for no time limit; a busy core may need some seconds"
    assert engine.health() is None, "it is asked, and not started for that"
    wait_until(lambda: engine._child is None or engine._child.poll() is not None)  # its connections end before it does
    again = engine.client().complete(HELLO, model="live", seed=5, max_tokens=20)
    assert [answer.text for answer in again] == [answer.text for answer in expected]
    assert engine.health()["loaded"] is True


def test_an_engine_that_hangs_is_told_and_one_that_stays_so_is_started_again(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.0)
    expected = engine.client().complete(HELLO, model="live", seed=5, max_tokens=20)

    def wait_for_it(seconds: float) -> None:
        for name in ("ANSWER_SECONDS", "GLANCE_SECONDS"):
            monkeypatch.setattr(process, name, seconds)

    pid = read_engine_file(tmp_path).pid
    os.kill(pid, signal.SIGSTOP)
    wait_for_it(1.0)
    with pytest.raises(EngineError, match="runs but does not answer") as told:
        engine.client()
    assert told.value.code == "engine_silent"
    assert engine.health() == {"loaded": False, "state": "silent"}
    os.kill(pid, signal.SIGCONT)
    wait_for_it(30.0)  # it answers, and on a loaded machine late
    wait_until(lambda: engine.health()["loaded"])
    assert engine.client().complete(HELLO, model="live", seed=5, max_tokens=20)[0].text == expected[0].text
    assert engine.last_event is None
    os.kill(pid, signal.SIGSTOP)
    wait_for_it(1.0)
    with pytest.raises(EngineError, match="runs but does not answer"):
        engine.client()
    monkeypatch.setattr(process, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(process, "ANSWER_SECONDS", 2.0)
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(engine.client)
        wait_until(lambda: engine.health() == {"loaded": False, "state": "starting"})
        assert again.result(120).complete(HELLO, model="live", seed=5, max_tokens=20)[0].text == expected[0].text
    assert process_started_at(pid) is None
    assert engine.last_event.startswith("The engine had stopped (exit code -9) and was started again at ")


def test_a_job_has_the_engine_at_rest_and_a_killed_job_does_not_keep_it_so(engine: EngineProcess, tmp_path: Path):
    with lending.engine_at_rest(tmp_path) as is_at_rest:
        assert not is_at_rest, "no engine runs"
    client = engine.client()
    before = client.complete(HELLO, model="live", seed=5, max_tokens=20)
    with lending.engine_at_rest(tmp_path) as is_at_rest:
        assert is_at_rest and client.health()["resting"]
        with pytest.raises(EngineError, match="rests while a model is trained") as refused:
            client.complete(HELLO, model="live", max_tokens=5)
        assert (refused.value.status, refused.value.code) == (503, "resting")
    assert not client.health()["resting"]
    assert client.complete(HELLO, model="live", seed=5, max_tokens=20)[0].text == before[0].text
    code = (
        "import sys, time; from pathlib import Path; from backend.engines.lending import engine_at_rest\n"
        "with engine_at_rest(Path(sys.argv[1])) as is_at_rest: print(is_at_rest, flush=True); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert job.stdout.readline().strip() == b"True"
    assert client.health()["resting"]
    job.kill()
    job.communicate()
    wait_until(lambda: not client.health()["resting"])
    assert client.complete(HELLO, model="live", seed=5, max_tokens=20)[0].text == before[0].text


def test_an_engine_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    engine = EngineProcess(tmp_path, str(tmp_path / "empty"))
    with pytest.raises(EngineError, match=r"The folder empty has no config\.json") as caught:
        engine.client()
    assert str(tmp_path) not in str(caught.value)
    assert "config.json" in caught.value.__notes__[0]
    with pytest.raises(EngineError, match=r"no config\.json"):
        engine.client()


def test_an_engine_ends_when_its_parent_is_killed(tmp_path: Path, base_folder: Path):
    code = (
        "import sys, time; from pathlib import Path; from backend.engines.process import EngineProcess\n"
        "EngineProcess(Path(sys.argv[1]), sys.argv[2], threads=1).client(); print('up', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(base_folder)], stdout=subprocess.PIPE)
    assert parent.stdout.readline().strip() == b"up"
    pid = read_engine_file(tmp_path).pid
    parent.kill()
    parent.communicate()
    wait_until(lambda: process_started_at(pid) is None)


def test_a_process_that_only_has_the_same_id_is_not_taken_for_the_engine(tmp_path: Path, base_folder: Path):
    from backend.engines.process import EngineFile, is_running, write_engine_file

    pid = os.getpid()
    old = EngineFile("http://127.0.0.1:9", "k", pid, process_started_at(pid) - 500, 0.0, str(base_folder))
    write_engine_file(tmp_path, old)
    assert read_engine_file(tmp_path) == old
    assert not is_running(old)


def test_the_client_and_the_process_import_no_torch():
    code = (
        "import sys, backend.engines.client, backend.engines.process, backend.engines.scripted\n"
        "import backend.engines.choosing, backend.engines.lending\n"
        "sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
