"""Who did what to what: append-only events in a hash chain, written in the transaction of the act itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .store import Store, as_json
from .types import Person

FIRST = bytes(32)  # what the first event names as the one before it
HASHED = ("at", "person_id", "role", "ip", "action", "object", "object_id", "facts")


def record(
    store: Store,
    person: Person | None,
    action: str,
    object: str,
    object_id: int | None = None,
    facts: dict[str, Any] | None = None,
    *,
    ip: str | None = None,
) -> int:
    """Append an event; returns its id. ``facts`` holds ids, codes and numbers, never a text that somebody typed."""
    row: dict[str, Any] = {
        "at": store.now(),
        "person_id": person.id if person else None,
        "role": person.role if person else None,
        "ip": ip,
        "action": action,
        "object": object,
        "object_id": object_id,
        "facts": as_json(facts or {}),
    }
    with store.write() as db:
        before = store.value("select hash from audit_events order by id desc limit 1") or FIRST
        values = [row[name] for name in HASHED]
        cursor = db.conn.execute(
            f"insert into audit_events ({','.join(HASHED)}, previous_hash, hash) values (?,?,?,?,?,?,?,?,?,?)",
            [*values, before, _hash(before, row)],
        )
    return int(cursor.lastrowid or 0)


def newest_facts(store: Store, actions: tuple[str, ...], object: str, object_id: int | None) -> dict[str, Any]:
    """The facts of the newest of these acts on an object; empty when there is none."""
    marks = ",".join("?" * len(actions))
    text = store.value(
        f"select facts from audit_events where object = ? and object_id = ? and action in ({marks}) order by id desc limit 1",
        [object, object_id, *actions],
    )
    return json.loads(text) if text else {}


def first_broken(store: Store) -> int | None:
    """The id of the first event that does not follow from the one before it; None when the chain is whole."""
    before = FIRST
    for row in store.rows("select * from audit_events order by id"):
        if row["previous_hash"] != before or row["hash"] != _hash(before, row):
            return int(row["id"])
        before = row["hash"]
    return None


def _hash(before: bytes, row: dict[str, Any]) -> bytes:
    return hashlib.sha256(before + as_json([row[name] for name in HASHED]).encode()).digest()
