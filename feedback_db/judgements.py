"""Judgements, the drafts before them, and what a person sees of a comparison.

Every function that changes something joins the caller's transaction and takes the time as an argument.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from . import queue
from .store import Store, as_json, changed
from .types import Assignment, Case, Guideline, Judgement, Message, Project

DAY = 86_400_000_000
MASK = "█"
WAITING_MOST = 100  # counting what waits stops here
MEDIAN_EVERY = 10  # judgements between two looks at the median
NOT_HASHED = (
    "id",
    "rationale",
    "edited_text",
    "client",
    "row_hash",
    "verdict",
)  # what redaction may take, or comes later
HASHED_IF_SAID = (
    "both_good",
    "aspects",
    "spans",
    "edited_position",
    "confidence",
)  # rows from before forms stay as they are

HASHED = tuple(f.name for f in fields(Judgement) if f.name not in NOT_HASHED)


class Shown(NamedTuple):
    """What a person sees of an assignment: texts only, nothing that tells who wrote them."""

    assignment: Assignment
    kind: str
    conversation: tuple[Message, ...]
    answers: tuple[str, ...]  # in the order of ``assignment.shown``
    guideline: Guideline | None
    draft: dict[str, Any] | None


class Counts(NamedTuple):
    """How far one person is in one project. ``waiting`` stops counting at 100; None is what was not counted this time."""

    today: int
    mine: int
    waiting: int | None
    median_seconds: float | None


# ---- judgements


def by_key(store: Store, key: bytes) -> Judgement | None:
    found = store.find(Judgement, "key = ?", [key])
    return found[0] if found else None


def head(store: Store, assignment: Assignment) -> Judgement | None:
    return store.get(Judgement, assignment.head_judgement_id) if assignment.head_judgement_id else None


def add(store: Store, judgement: Judgement) -> Judgement:
    """Append a judgement and make it the head of its assignment; the schema's triggers count it."""
    judgement = store.add(changed(judgement, row_hash=row_hash(judgement)))
    submitted = judgement.act != "retract"
    store.db.conn.execute(
        "update assignments set state = ?, head_judgement_id = ?,"
        " submitted_at = case when state = 'submitted' then submitted_at else coalesce(?, submitted_at) end where id = ?",
        [
            "submitted" if submitted else "leased",
            judgement.id,
            judgement.created_at if submitted else None,
            judgement.assignment_id,
        ],
    )
    if submitted:
        drop_draft(store, judgement.assignment_id)
    return judgement


def row_hash(judgement: Judgement) -> bytes:
    """Over all that a redaction leaves; finds a row that was changed behind SQLite's back."""
    facts = {}
    for name in HASHED:
        value = getattr(judgement, name)
        if value or name not in HASHED_IF_SAID:
            facts[name] = value.hex() if isinstance(value, bytes) else value
    return hashlib.sha256(as_json(facts).encode()).digest()[:16]


def last_submitted(store: Store, person_id: int, project_id: int, since: int) -> Judgement | None:
    """This person's newest judgement that counts, not older than ``since``."""
    rows = store.rows(
        "select head_judgement_id as id from assignments where person_id = ? and state = 'submitted' and submitted_at >= ?"
        " and project_id = ? and purpose <> 'review' order by submitted_at desc, id desc limit 1",
        [person_id, since, project_id],
    )
    return store.get(Judgement, rows[0]["id"]) if rows else None


def guideline_id(store: Store, project_id: int) -> int | None:
    """The version that is in force."""
    found: int | None = store.value(
        "select id from guidelines where project_id = ? order by version desc limit 1", [project_id]
    )
    return found


# ---- drafts


def save_draft(store: Store, assignment: Assignment, body: dict[str, Any], now: int) -> None:
    store.db.conn.execute(
        "insert into drafts (assignment_id, person_id, body, saved_at) values (?,?,?,?)"
        " on conflict (assignment_id) do update set body = excluded.body, saved_at = excluded.saved_at",
        [assignment.id, assignment.person_id, as_json(body), now],
    )


def drop_draft(store: Store, assignment_id: int) -> None:
    store.db.conn.execute("delete from drafts where assignment_id = ?", [assignment_id])


# ---- what a person sees


def shown(store: Store, assignment: Assignment) -> Shown:
    """The texts of an assignment in the order this person sees them."""
    db = store.db.conn
    kind, leaked, conversation, values = db.execute(
        'select c.kind, c.leaked, k.conversation, k."values" from comparisons c join cases k on k.id = c.case_id'
        " where c.id = ?",
        [assignment.comparison_id],
    ).fetchone()
    texts = dict(
        db.execute(
            "select i.position, c.text from comparison_items i join completions c on c.id = i.completion_id"
            " where i.comparison_id = ?",
            [assignment.comparison_id],
        ).fetchall()
    )
    for position, spans in json.loads(leaked or "{}").items():
        texts[int(position)] = masked(texts[int(position)], spans)
    guidelines = store.find(Guideline, "project_id = ?", [assignment.project_id], order_by="version desc", limit=1)
    draft = store.value("select body from drafts where assignment_id = ?", [assignment.id])
    return Shown(
        assignment,
        kind,
        _asked(json.loads(conversation or "null"), json.loads(values or "null")),
        tuple(texts[position] for position in assignment.shown),
        guidelines[0] if guidelines else None,
        json.loads(draft) if draft is not None else None,
    )


def masked(text: str, spans: list[list[int]]) -> str:
    """The text with these code points covered; every other one stays where it is, so that highlights keep their place."""
    characters = list(text)
    for start, end in spans:
        characters[start:end] = MASK * (end - start)
    return "".join(characters)


def conversation_of(case: Case) -> tuple[Message, ...]:
    """What was asked, without the prompt's scaffolding: the conversation, or the values of a template case as one message."""
    return _asked(case.conversation, case.values)


def _asked(conversation: Sequence[Message] | None, values: Mapping[str, str] | None) -> tuple[Message, ...]:
    if conversation is not None:
        return tuple(conversation)
    values = values or {}
    said = values["input"] if "input" in values else "\n".join(f"{name}: {value}" for name, value in values.items())
    return ({"role": "user", "content": said},)


def open_projects(store: Store) -> list[Project]:
    return store.find(Project, "archived_at is null", order_by="name")


def counts(store: Store, person_id: int, project: Project, now: int, *, with_waiting: bool) -> Counts:
    """Bounded work whatever the size of the project; a reader's query, not part of the label transaction.

    What waits takes as long to count as a judgement to store, so not every desk asks; and the median of the last fifty,
    once there are some, is worth asking for every tenth time.
    """
    days = store.rows("select day, judged from tallies where person_id = ? and project_id = ?", [person_id, project.id])
    today = now // DAY  # UTC; where a day begins matters less than that it is the same for all
    mine = sum(row["judged"] for row in days)
    asks_median = with_waiting or mine < MEDIAN_EVERY or mine % MEDIAN_EVERY == 0
    return Counts(
        today=sum(row["judged"] for row in days if row["day"] == today),
        mine=mine,
        waiting=queue.waiting(store, person_id, project, WAITING_MOST) if with_waiting else None,
        median_seconds=_median_seconds(store, person_id) if asks_median else None,
    )


def _median_seconds(store: Store, person_id: int) -> float | None:
    """Of a person's last fifty judgements; None before the first."""
    seconds = store.rows(
        "select j.seconds from (select head_judgement_id from assignments indexed by assignments_done"
        " where person_id = ? and state = 'submitted' order by submitted_at desc limit 50) recent"
        " join judgements j on j.id = recent.head_judgement_id order by j.seconds",
        [person_id],
    )
    return seconds[len(seconds) // 2]["seconds"] if seconds else None
