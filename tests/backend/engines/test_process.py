"""The engine as a process: started on first need, started again after its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.engines.client import EngineError
from backend.engines.process import EngineProcess, process_started_at, read_engine_file
from tests.backend.engines.tiny import wait_until

HELLO = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def engine(tmp_path: Path, base_folder: Path) -> Iterator[EngineProcess]:
    made = EngineProcess(tmp_path, str(base_folder), threads=1, start_seconds=240)
    yield made
    made.stop()


def test_an_engine_lives_dies_and_comes_back(engine: EngineProcess, tmp_path: Path, base_folder: Path):
    assert not engine.is_running()
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: engine.client(), range(4)))
    assert len({id(client) for client in clients}) == 1, "only one is started"
    first = engine.client().complete(HELLO, model="live", seed=1, max_tokens=10)
    assert engine.last_event is None

    file = read_engine_file(tmp_path)
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

    pid = read_engine_file(tmp_path).pid
    engine.stop()
    assert process_started_at(pid) is None
    assert read_engine_file(tmp_path) is None
    log = (tmp_path / "engine" / "engine.log").read_text()
    assert "Traceback" not in log


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
    wait_until(lambda: process_started_at(pid) is None, 10)


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
        "sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
