"""The store: locks first, commits in groups, loses nothing it acknowledged, refuses what cannot be right."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feedback_db import NotFound, Store, StoreProblem, migrations
from feedback_db.store import as_json
from feedback_db.types import Case, Guideline, Person, Project, Template


def project(store: Store, name: str = "p") -> Project:
    return store.add(Project(name=name))


def test_a_record_comes_back_as_it_was_stored(store: Store) -> None:
    made = store.add(
        Case(
            project_id=project(store).id or 0,
            values={"input": "退款 {x}"},
            conversation=None,
            tags=("a", "b"),
            split="val",
            digest=b"d" * 32,
        )
    )
    assert store.get(Case, made.id or 0) == made


def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no project 7"):
        store.get(Project, 7)


def test_every_connection_syncs_fully_and_checks_foreign_keys(store: Store) -> None:
    def pragmas() -> tuple[int, int, str]:
        return store.value("pragma synchronous"), store.value("pragma foreign_keys"), store.value("pragma journal_mode")

    with ThreadPoolExecutor(3) as pool:
        assert {pragmas(), *pool.map(lambda _: pragmas(), range(3))} == {(2, 1, "wal")}


def test_writers_that_read_first_never_find_the_database_locked(store: Store) -> None:
    made = project(store)

    def bump(_: int) -> None:
        with store.write() as db:
            now = store.value("select lease_seconds from projects where id = ?", [made.id])
            time.sleep(0.0005)
            db.conn.execute("update projects set lease_seconds = ? where id = ?", [now + 1, made.id])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bump, range(80)))
    assert store.get(Project, made.id or 0).lease_seconds == 380


def test_acts_of_many_threads_are_all_committed_and_answered(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda i: store.commit(lambda: project(store, f"p{i}").id), range(200)))
    assert sorted(ids) == [p.id for p in store.find(Project)]


def test_an_act_that_fails_is_undone_alone(store: Store) -> None:
    entered = threading.Barrier(3)

    def act(name: str) -> int | None:
        made = project(store, name)
        if name == "bad":
            raise ValueError("bad")
        return made.id

    def send(name: str) -> int | None:
        entered.wait()
        return store.commit(lambda: act(name))

    with ThreadPoolExecutor(3) as pool:
        sent = {name: pool.submit(send, name) for name in ("one", "bad", "two")}
    with pytest.raises(ValueError, match="bad"):
        sent["bad"].result()
    assert {p.name for p in store.find(Project)} == {"one", "two"}
    assert sent["one"].result() and sent["two"].result()


def test_a_commit_that_fails_acknowledges_nobody(store: Store) -> None:
    def fill() -> None:
        store.db.conn.execute("pragma max_page_count = 1")  # "the disk is full" from here on
        for i in range(2000):
            project(store, f"{i} " + "x" * 500)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.commit(fill)
    assert store.find(Project) == []


def test_a_full_disk_heals_when_there_is_room_again(store: Store) -> None:
    store.commit(lambda: store.db.conn.execute("pragma max_page_count = 1"))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.commit(lambda: [project(store, f"{i} " + "x" * 500) for i in range(2000)])
    store.commit(lambda: store.db.conn.execute("pragma max_page_count = 1000000"))
    assert store.commit(lambda: project(store)).id


def test_a_newer_file_is_refused_by_name(tmp_path: Path) -> None:
    Store(tmp_path / "x.db").close()
    conn = sqlite3.connect(tmp_path / "x.db")
    conn.execute("pragma user_version = 99")
    conn.close()
    with pytest.raises(StoreProblem, match="version 99"):
        Store(tmp_path / "x.db")


def open_it(path: str) -> int:
    opened = Store(path)
    found: int = opened.value("select count(*) from _sqlite_migrations")
    opened.close()
    return found


def test_six_processes_opening_a_new_file_migrate_it_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(6) as pool:
        assert pool.map(open_it, [str(tmp_path / "x.db")] * 6) == [migrations.SCHEMA_VERSION] * 6


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Store(tmp_path / "x.db").close()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        project(Store(tmp_path / "x.db", read_only=True))


WRITE_UNTIL_KILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from feedback_db import Store
from feedback_db.types import Project
store = Store(sys.argv[1])
def write(i):
    made = store.commit(lambda: store.add(Project(name=f"{i}")))
    sys.stdout.write(f"{made.id}\\n")  # only after the commit, and whole: print would mix the lines of threads
    sys.stdout.flush()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(write, range(100000)))
"""


@pytest.mark.parametrize("after", [11, 40, 90])
def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, after: int) -> None:
    path = tmp_path / "x.db"
    Store(path).close()
    child = subprocess.Popen([sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(after)]  # by count: a disk may be slow
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().splitlines()[:-1]]  # the kill may have torn the last
    child.wait()
    child.stdout.close()
    stored = {p.id for p in Store(path).find(Project)}
    assert set(acknowledged) <= stored


def test_templates_prompts_and_audit_events_cannot_be_changed(store: Store) -> None:
    made = project(store)
    template = store.add(Template(project_id=made.id or 0, name="t", body="b", digest=b"x" * 32))
    for statement in (
        f"update templates set body = 'c' where id = {template.id}",
        f"delete from templates where id = {template.id}",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            store.db.conn.execute(statement)


def test_a_version_exists_once(store: Store) -> None:
    made = project(store)
    store.add(Guideline(project_id=made.id or 0, body="one"))
    with pytest.raises(sqlite3.IntegrityError):
        store.add(Guideline(project_id=made.id or 0, body="other"))


def test_half_an_erasure_is_refused(store: Store) -> None:
    made = store.add(Person(pseudonym="p", name="ann", role="annotator"))
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("update people set status = 'erased' where id = ?", [made.id])


def test_json_keeps_chinese_readable_and_refuses_nan() -> None:
    assert as_json({"b": "退款", "a": 1}) == '{"a":1,"b":"退款"}'
    with pytest.raises(ValueError, match="JSON"):
        as_json(float("nan"))
