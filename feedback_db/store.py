"""One SQLite file: how it is opened, written and read. Every record of types.py goes through here."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from .migrations import SCHEMA_VERSION, migrations
from .types import TABLES

BusyOrFull = (
    sqlite3.OperationalError
)  # locked too long, disk full, I/O error: nothing was saved, the same may be tried again
T = TypeVar("T")
APPLICATION_ID = 0x57485354  # "WHST"
KEPT_AS_JSON = (dict, tuple, list)
BATCH = 64  # acts that share one fsync; more only lengthens the wait of the last


class NotFound(LookupError):
    """A record that was asked for by id is not there."""


class StoreProblem(RuntimeError):
    """The file cannot be used as it is; the message says why and what to do."""


def unix_microseconds() -> int:
    return time.time_ns() // 1000


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no escapes for Chinese (search would not find them), no NaN."""
    return _CANONICAL.encode(value)


class Store:
    """The database, with one connection per thread.

    ``write()`` is a transaction that takes the lock before it reads; ``commit(act)`` hands an act to the one writer
    thread, which commits many acts with one fsync. Both return only after a FULL-sync commit.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False, clock: Callable[[], int] = unix_microseconds):
        self.path = str(path)
        self.read_only = read_only
        self.now = clock
        self._local = threading.local()
        self._acts: queue.SimpleQueue[Act[Any] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._writer_lock = threading.Lock()
        if not read_only:
            self._migrate()

    # ---- connections

    @property
    def db(self) -> Database:
        """This thread's connection."""
        try:
            return cast(Database, self._local.db)
        except AttributeError:
            self._local.db = Database(self._open())
            return self._local.db

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        if not self.read_only:
            conn.execute("pragma auto_vacuum=incremental")
            conn.execute("pragma journal_mode=wal")
        for pragma in (
            "foreign_keys=on",
            "synchronous=full",
            "busy_timeout=30000",
            "recursive_triggers=on",
            "secure_delete=on",
            "cell_size_check=on",
            "journal_size_limit=67108864",
            "cache_size=-65536",
            "temp_store=memory",
            "mmap_size=0",
            f"query_only={'on' if self.read_only else 'off'}",
        ):
            conn.execute(f"pragma {pragma}")
        if conn.execute("pragma synchronous").fetchone()[0] < 2:
            raise StoreProblem("SQLite refused synchronous=FULL; without it a power cut could lose saved judgements.")
        return conn

    def _migrate(self) -> None:
        conn = self.db.conn
        found = conn.execute("pragma user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise StoreProblem(
                f"The database has schema version {found}, this program knows {SCHEMA_VERSION}. "
                "Start the newer program, or restore a backup made before the upgrade."
            )
        if found == SCHEMA_VERSION:
            return
        with self.write() as db:  # the lock first: two processes opening a new file migrate it once
            migrations.apply(db)
            conn.execute(f"pragma user_version={SCHEMA_VERSION}")
            conn.execute(f"pragma application_id={APPLICATION_ID}")

    def close(self) -> None:
        """Finish queued acts and close this thread's connection."""
        with self._writer_lock:
            if self._writer is not None:
                self._acts.put(None)
                self._writer.join()
                self._writer = None
        if hasattr(self._local, "db"):
            self._local.db.close()
            del self._local.db

    # ---- writing

    @contextmanager
    def write(self) -> Iterator[Database]:
        """A transaction that takes the lock first; nested uses join the outer one.

        A deferred ``begin`` that reads and then writes fails at once with "database is locked" when another writer was
        faster: SQLite cannot wait for it. ``begin immediate`` waits.
        """
        db = self.db
        if db.conn.in_transaction:
            yield db
            return
        db.conn.execute("begin immediate")
        try:
            yield db
            db.conn.execute("commit")
        except BaseException:
            if db.conn.in_transaction:  # after a full disk SQLite may have rolled back by itself
                db.conn.execute("rollback")
            raise

    def commit(self, act: Callable[[], T]) -> T:
        """Run ``act`` on the writer thread, in its own savepoint; return its result after the commit it was part of.

        Acts that wait together share one fsync. An act that raises is undone alone and its error is raised here; when
        the commit itself fails, every act of the batch gets that error. An act must do nothing slow.
        """
        if hasattr(self._local, "db") and self._local.db.conn.in_transaction:  # a thread that only waits opens no file
            return act()
        done = threading.Event()
        waiting = self.hand_over(act, done.set)
        done.wait()
        return waiting.outcome()

    def hand_over(self, act: Callable[[], T], finished: Callable[[], object]) -> Act[T]:
        """As ``commit``, for callers that cannot wait: ``finished`` is called on the writer thread when the outcome is known."""
        self._start_writer()
        waiting = Act(act, finished)
        self._acts.put(waiting)
        return waiting

    def _start_writer(self) -> None:
        with self._writer_lock:
            if self._writer is None or not self._writer.is_alive():
                self._writer = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
                self._writer.start()

    def _write_forever(self) -> None:
        while True:
            first = self._acts.get()
            if first is None:
                self.db.close()
                del self._local.db
                return
            batch = [first]
            closing = False
            while len(batch) < BATCH:
                try:
                    more = self._acts.get_nowait()  # whoever waits already; never wait to fill the batch
                except queue.Empty:
                    break
                if more is None:
                    closing = True
                    break
                batch.append(more)
            self._commit_batch(batch)
            if closing:
                self._acts.put(None)

    def _commit_batch(self, batch: list[Act[Any]]) -> None:
        conn = self.db.conn
        try:
            conn.execute("begin immediate")
            for waiting in batch:
                conn.execute("savepoint act")
                try:
                    waiting.result = waiting.act()
                except Exception as error:  # belongs to the caller of this act alone
                    if not conn.in_transaction:
                        raise
                    conn.execute("rollback to act")
                    waiting.error = error
                conn.execute("release act")
            conn.execute("commit")
        except BaseException as error:
            if conn.in_transaction:
                conn.execute("rollback")
            for waiting in batch:
                waiting.error = waiting.error or error
        finally:
            for waiting in batch:
                waiting.finished()

    # ---- records

    def add(self, record: T) -> T:
        """Insert a record; returns a copy with its id (and created_at, when it was 0)."""
        if getattr(record, "created_at", None) == 0:
            record = changed(record, created_at=self.now())
        row = as_row(record)
        with self.write() as db:
            cursor = db.conn.execute(_insertion(cast(Any, type(record)), tuple(row)), tuple(row.values()))
        return changed(record, id=cursor.lastrowid)

    def get(self, kind: type[T], id: int) -> T:
        """The record with this id. Raises NotFound."""
        found = self.find(kind, "id = ?", [id])
        if not found:
            raise NotFound(f"There is no {kind.__name__.lower()} {id}.")
        return found[0]

    def find(
        self,
        kind: type[T],
        where: str = "1",
        args: list[Any] | tuple[Any, ...] = (),
        order_by: str = "id",
        limit: int = -1,
    ) -> list[T]:
        """Records of one kind; ``where`` and ``order_by`` are written by feedback_db, never by a user."""
        sql = f"{_selection(cast(Any, kind))} where {where} order by {order_by} limit {limit:d}"
        return [_record(kind, row) for row in self.rows(sql, args)]

    def rows(self, sql: str, args: list[Any] | tuple[Any, ...] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query, fetched whole: a half-read cursor would pin the write-ahead log."""
        cursor = self.db.conn.execute(sql, args)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def value(self, sql: str, args: list[Any] | tuple[Any, ...] = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.db.conn.execute(sql, tuple(args)).fetchone()
        return row[0] if row else None


class Act(Generic[T]):
    """One act waiting for the writer thread."""

    def __init__(self, act: Callable[[], T], finished: Callable[[], object]):
        self.act = act
        self.finished = finished
        self.result: T | None = None
        self.error: BaseException | None = None

    def outcome(self) -> T:
        """What the act returned; raises what it raised. Only once it is finished."""
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


class _Column(NamedTuple):
    """A field of a record, as its table has it."""

    name: str
    is_generated: bool
    decode: Callable[[Any], Any] | None


@cache
def _columns(kind: Any) -> tuple[_Column, ...]:
    """Asked for every record that is read or written; the answer never changes."""
    return tuple(_Column(f.name, bool(f.metadata.get("generated")), _decoder(str(f.type))) for f in fields(kind))


def as_row(record: Any) -> dict[str, Any]:
    row, values = {}, vars(record)
    for name, is_generated, _ in _columns(cast(Any, type(record))):
        value = values[name]
        if is_generated or (name == "id" and value is None):
            continue
        row[name] = as_json(value) if isinstance(value, KEPT_AS_JSON) else value
    return row


@cache
def _insertion(kind: Any, names: tuple[str, ...]) -> str:
    listed = ",".join(f'"{name}"' for name in names)
    return f"insert into {TABLES[kind]} ({listed}) values ({','.join('?' * len(names))})"


def changed(record: T, **values: Any) -> T:
    """``dataclasses.replace`` for records, which have nothing to check when they are made; a tenth of its time."""
    made = object.__new__(type(record))
    vars(made).update(vars(record), **values)
    return made


@cache
def _selection(kind: Any) -> str:
    """The beginning of a query for records."""
    listed = ",".join(f'"{column.name}"' for column in _columns(kind))
    return f"select {listed} from {TABLES[kind]}"


def as_record(kind: type[T], row: dict[str, Any]) -> T:
    return _record(kind, {column.name: row[column.name] for column in _columns(cast(Any, kind))})


def _record(kind: type[T], values: dict[str, Any]) -> T:
    for name, decode in _decoded(cast(Any, kind)):
        if values[name] is not None:
            values[name] = decode(values[name])
    return kind(**values)


@cache
def _decoded(kind: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    return tuple((column.name, column.decode) for column in _columns(kind) if column.decode)


def _decoder(type_name: str) -> Callable[[Any], Any] | None:
    """None where the value stays as the database gives it."""
    if type_name.startswith("tuple"):
        return lambda raw: tuple(json.loads(raw))
    if type_name.startswith("dict"):
        return json.loads
    return bool if type_name == "bool" else None
