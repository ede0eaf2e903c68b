"""People, their sessions, invites and attempts to sign in."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, NamedTuple

from . import audit
from .store import NotFound, Store, as_record
from .types import Person

INVITE_ENDS = 72 * 3_600_000_000  # microseconds


class Session(NamedTuple):
    """A session that has not ended, with its person as stored now."""

    person: Person
    last_seen_at: int
    ends_at: int


class Seen(NamedTuple):
    """A person and when they were last here (None: never, or not since their sessions were swept)."""

    person: Person
    last_seen_at: int | None


def everyone(store: Store) -> list[Seen]:
    """All who can sign in, by name; sources of imported judgements and erased people are left out."""
    people = store.find(Person, "source is null and status <> 'erased'", order_by="name collate nocase")
    rows = store.rows("select person_id, max(last_seen_at) as at from sessions group by person_id")
    seen = {row["person_id"]: row["at"] for row in rows}
    return [Seen(person, seen.get(person.id)) for person in people]


def by_name(store: Store, name: str) -> Person | None:
    found = store.find(Person, "name = ? and source is null", [name])
    return found[0] if found else None


def named(store: Store, name: str) -> Person | None:
    """Whoever can have judged under this name: those who sign in or did, sources of imports; a pseudonym counts too."""
    found = store.find(Person, "name = ?", [name]) or store.find(Person, "pseudonym = ?", [name])
    return found[0] if found else None


def shown_name(store: Store, person_id: int | None) -> str:
    """What pages call a person: the name, or the pseudonym once it was erased; empty for the app itself."""
    if person_id is None:
        return ""
    person = store.get(Person, person_id)
    return person.display_name or person.name or person.pseudonym


def active_admins(store: Store) -> list[Person]:
    return store.find(Person, "role = 'admin' and status = 'active' and source is null")


def new_pseudonym() -> str:
    """What exports show instead of a name."""
    return "p-" + secrets.token_hex(6)


def digest(token: str) -> bytes:
    """What is stored instead of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def change(store: Store, person_id: int, **values: Any) -> Person:
    """Set columns of a person; the names are written by our code, never by a user."""
    with store.write() as db:
        names = ",".join(f"{name}=?" for name in values)
        done = db.conn.execute(f"update people set {names} where id=?", [*values.values(), person_id])
        if done.rowcount != 1:
            raise NotFound(f"There is no person {person_id}.")
        return store.get(Person, person_id)


# ---- sessions


def add_session(store: Store, token_hash: bytes, person: Person, now: int, idle: int, ends_at: int, ip: str) -> None:
    with store.write() as db:
        db.conn.execute("delete from sessions where ends_at <= ?", [now])
        db.conn.execute(
            "insert into sessions (token_hash, person_id, epoch, created_at, last_seen_at, idle_until, ends_at, ip)"
            " values (?,?,?,?,?,?,?,?)",
            [token_hash, person.id, person.session_epoch, now, now, now + idle, ends_at, ip],
        )


def session(store: Store, token_hash: bytes, now: int) -> Session | None:
    """The live session with this token, unless it is over, idle too long, or its person was signed out everywhere."""
    rows = store.rows(
        "select p.*, s.last_seen_at as session_seen_at, s.ends_at as session_ends_at"
        " from sessions s join people p on p.id = s.person_id"
        " where s.token_hash = ? and s.idle_until > ? and s.ends_at > ? and s.epoch = p.session_epoch"
        " and p.status = 'active'",
        [token_hash, now, now],
    )
    if not rows:
        return None
    return Session(as_record(Person, rows[0]), rows[0]["session_seen_at"], rows[0]["session_ends_at"])


def touch_session(store: Store, token_hash: bytes, now: int, idle: int) -> None:
    with store.write() as db:
        db.conn.execute(
            "update sessions set last_seen_at = ?, idle_until = ? where token_hash = ? and idle_until > ?",
            [now, now + idle, token_hash, now],
        )


def end_session(store: Store, token_hash: bytes) -> None:
    with store.write() as db:
        db.conn.execute("delete from sessions where token_hash = ?", [token_hash])


def end_sessions(store: Store, person_id: int) -> None:
    """Sign a person out everywhere."""
    with store.write() as db:
        db.conn.execute("update people set session_epoch = session_epoch + 1 where id = ?", [person_id])
        db.conn.execute("delete from sessions where person_id = ?", [person_id])


# ---- invites


def invite(store: Store, person: Person, invited_by: Person | None) -> str:
    """A new one-time token for this person; it replaces the unused ones. Only its digest is stored."""
    token, now = secrets.token_urlsafe(32), store.now()
    by = invited_by.id if invited_by else None
    with store.write() as db:
        db.conn.execute("delete from invites where person_id = ? and used_at is null", [person.id])
        db.conn.execute(
            "insert into invites (token_hash, person_id, invited_by, created_at, ends_at) values (?,?,?,?,?)",
            [digest(token), person.id, by, now, now + INVITE_ENDS],
        )
        audit.record(store, invited_by, "invite", "person", person.id)
    return token


def invited(store: Store, token_hash: bytes, now: int) -> Person | None:
    """Whom this unused link invites."""
    person_id = store.value(
        "select i.person_id from invites i join people p on p.id = i.person_id"
        " where i.token_hash = ? and i.used_at is null and i.ends_at > ? and p.status = 'active'",
        [token_hash, now],
    )
    return store.get(Person, person_id) if person_id is not None else None


def use_invite(store: Store, token_hash: bytes, now: int) -> bool:
    """Use the link up; False when somebody was faster."""
    with store.write() as db:
        done = db.conn.execute(
            "update invites set used_at = ? where token_hash = ? and used_at is null and ends_at > ?",
            [now, token_hash, now],
        )
        return done.rowcount == 1


# ---- attempts to sign in


class Attempts(NamedTuple):
    """What the back-off is computed from."""

    failures: int  # of this account since it last succeeded, within a day
    last_failure_at: int
    from_ip_minute: int
    from_ip_hour: int


def attempts(store: Store, account: str, ip: str, now: int) -> Attempts:
    day, hour, minute = now - 86_400_000_000, now - 3_600_000_000, now - 60_000_000
    row = store.rows(
        "select count(*) as n, coalesce(max(at), 0) as last from sign_in_attempts where account = ? and succeeded = 0"
        " and at > max(?, coalesce((select max(at) from sign_in_attempts where account = ? and succeeded = 1), 0))",
        [account, day, account],
    )[0]
    per_ip = store.rows(
        "select count(*) as hour, coalesce(sum(at > ?), 0) as minute from sign_in_attempts where ip = ? and at > ?",
        [minute, ip, hour],
    )[0]
    return Attempts(row["n"], row["last"], per_ip["minute"], per_ip["hour"])


def add_attempt(store: Store, account: str, ip: str, now: int) -> int:
    """Count an attempt as failed until it is known to be right; returns its id."""
    with store.write() as db:
        db.conn.execute("delete from sign_in_attempts where at < ?", [now - 86_400_000_000])
        cursor = db.conn.execute(
            "insert into sign_in_attempts (account, ip, at, succeeded) values (?,?,?,0)", [account, ip, now]
        )
        return int(cursor.lastrowid or 0)


def attempt_succeeded(store: Store, attempt_id: int) -> None:
    with store.write() as db:
        db.conn.execute("update sign_in_attempts set succeeded = 1 where id = ?", [attempt_id])
