"""The queue of comparisons, the leases on them, and the judgements that end them.

Every function that changes something joins the caller's transaction and takes the time as an argument. Over-assignment
is impossible by the schema: a lease takes a slot by trigger, and slots cannot go below zero.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any, NamedTuple

from .store import Store, as_json
from .types import Assignment, Case, Comparison, Guideline, Judgement, Message, Project

MINUTE = 60_000_000
LEASE_MOST = 30 * MINUTE  # heartbeats cannot hold a lease longer
SWEEP_MOST = 32  # expired leases given back per request
TOP = (-(1 << 62), 0)  # before every (queue_key, id)
ARMS = ("random", "priority")
NOT_HASHED = ("id", "rationale", "client", "row_hash", "verdict")  # what redaction may take away, and what comes later


class Shown(NamedTuple):
    """What a person sees of an assignment: texts only, nothing that tells who wrote them."""

    assignment: Assignment
    kind: str
    conversation: tuple[Message, ...]
    answers: tuple[str, ...]  # in the order of ``assignment.shown``
    guideline: Guideline | None
    draft: dict[str, Any] | None


class Counts(NamedTuple):
    """How far one person is in one project. ``waiting`` stops counting at 1,000."""

    today: int
    mine: int
    waiting: int
    median_seconds: float | None


# ---- the queue


def lease_next(store: Store, person_id: int, project: Project, now: int, draw: float) -> Assignment | None:
    """This person's live lease, or a new one on the first open comparison they have not judged; None when there is none.

    ``draw`` in [0, 1) chooses between the random and the priority arm.
    """
    live = store.find(
        Assignment,
        "person_id = ? and project_id = ? and state = 'leased' and expires_at > ?",
        [person_id, project.id, now],
        limit=1,
    )
    if live:
        return _renew(store, live[0], project, now)
    epoch = give_back_expired(store, project, now)
    again = _with_draft(store, person_id, project)
    if again is not None:
        return _reopen(store, again, project, now)
    share = float(project.settings.get("random_share", 0.3))
    for arm in ARMS if draw < share else tuple(reversed(ARMS)):
        comparison_id = _first_open(store, person_id, project, arm, epoch)
        if comparison_id is not None:
            return _lease(store, person_id, project, comparison_id, now)
    return None


def give_back_expired(store: Store, project: Project, now: int) -> int:
    """Expire leases that ran out; returns the queue's epoch. Only a new epoch, at most one a minute, shows them to all."""
    conn = store.db.conn
    done = conn.execute(
        "update assignments set state = 'expired' where id in"
        " (select id from assignments where state = 'leased' and expires_at <= ? order by expires_at limit ?)",
        [now, SWEEP_MOST],
    )
    if done.rowcount:
        new_epoch(store, int(project.id or 0), now)
    return int(store.value("select queue_epoch from projects where id = ?", [project.id]))


def new_epoch(store: Store, project_id: int, now: int) -> None:
    """Send every cursor of a project back to the top, at most once a minute."""
    minute = now // MINUTE
    store.db.conn.execute(
        "update projects set queue_epoch = ? where id = ? and queue_epoch < ?", [minute, project_id, minute]
    )


def _first_open(store: Store, person_id: int, project: Project, arm: str, epoch: int) -> int | None:
    key = [person_id, project.id, arm]
    cursor = store.rows("select * from queue_cursors where person_id = ? and project_id = ? and arm = ?", key)
    place = TOP
    if cursor and cursor[0]["epoch"] == epoch:
        place = (cursor[0]["queue_key"], cursor[0]["comparison_id"])
    found = _after(store, person_id, project, arm, place)
    if found is None and place != TOP:
        found = _after(store, person_id, project, arm, TOP)
    if found is None:
        return None
    store.db.conn.execute(
        "insert into queue_cursors (person_id, project_id, arm, epoch, queue_key, comparison_id) values (?,?,?,?,?,?)"
        " on conflict (person_id, project_id, arm) do update set"
        " epoch = excluded.epoch, queue_key = excluded.queue_key, comparison_id = excluded.comparison_id",
        [*key, epoch, found["queue_key"], found["id"]],
    )
    return int(found["id"])


FIRST_OPEN = """
select c.id, c.queue_key from comparisons c indexed by comparisons_queue
where c.project_id = ? and c.arm = ? and c.status = 'open' and c.slots_left > 0 and c.gold is null and {past}
  and c.kind = 'pair'  -- what the label page can show
  and not exists (select 1 from assignments a where a.comparison_id = c.id and a.person_id = ?
                  and a.state in ('leased', 'submitted', 'skipped'))
order by c.queue_key, c.id limit 1"""


def _after(store: Store, person_id: int, project: Project, arm: str, place: tuple[int, int]) -> dict[str, Any] | None:
    """Two searches, same key first: one row comparison ``(queue_key, id) > (?, ?)`` would use half of the index."""
    same_key = FIRST_OPEN.format(past="c.queue_key = ? and c.id > ?")
    later_key = FIRST_OPEN.format(past="c.queue_key > ?")
    found = store.rows(same_key, [project.id, arm, place[0], place[1], person_id])
    found = found or store.rows(later_key, [project.id, arm, place[0], person_id])
    return found[0] if found else None


def _with_draft(store: Store, person_id: int, project: Project) -> Assignment | None:
    """A lease that ended under something typed: it comes back first, if its slot is still free."""
    rows = store.rows(
        "select a.id from drafts d join assignments a on a.id = d.assignment_id join comparisons c on c.id = a.comparison_id"
        " where a.person_id = ? and a.project_id = ? and a.state in ('expired', 'released')"
        " and c.status = 'open' and c.slots_left > 0 order by d.saved_at desc limit 1",
        [person_id, project.id],
    )
    return store.get(Assignment, rows[0]["id"]) if rows else None


def _lease(store: Store, person_id: int, project: Project, comparison_id: int, now: int) -> Assignment:
    own = store.find(
        Assignment, "comparison_id = ? and person_id = ? and purpose = 'label'", [comparison_id, person_id], limit=1
    )
    if own:  # expired or released: the same person sees the same order again
        return _reopen(store, own[0], project, now)
    size = store.value("select size from comparisons where id = ?", [comparison_id])
    return store.add(
        Assignment(
            comparison_id=comparison_id,
            person_id=person_id,
            project_id=int(project.id or 0),
            shown=_order(store, person_id, project, comparison_id, size),
            leased_at=now,
            expires_at=now + project.lease_seconds * 1_000_000,
        )
    )


def _order(store: Store, person_id: int, project: Project, comparison_id: int, size: int) -> tuple[int, ...]:
    """Left to right: by a keyed hash for the first person, the reverse of the one before for each later one."""
    before = store.value(
        "select shown from assignments where comparison_id = ? order by id desc limit 1", [comparison_id]
    )
    if before is not None:
        return tuple(reversed(json.loads(before)))
    seed = str(project.settings.get("order_seed", project.created_at)).encode()[:64]

    def place(position: int) -> bytes:
        return hashlib.blake2b(f"{person_id}:{comparison_id}:{position}".encode(), key=seed, digest_size=8).digest()

    return tuple(sorted(range(size), key=place))


def _renew(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    return _set(store, assignment, leased_at=now, expires_at=now + project.lease_seconds * 1_000_000)


def _reopen(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    expires_at = now + project.lease_seconds * 1_000_000
    return _set(store, assignment, state="leased", leased_at=now, expires_at=expires_at)


def _set(store: Store, assignment: Assignment, **values: Any) -> Assignment:
    names = ",".join(f"{name} = ?" for name in values)
    store.db.conn.execute(f"update assignments set {names} where id = ?", [*values.values(), assignment.id])
    return replace(assignment, **values)


# ---- leases


def assignment_of(store: Store, person_id: int, assignment_id: int) -> Assignment | None:
    """An assignment, if it is this person's."""
    found = store.find(Assignment, "id = ? and person_id = ?", [assignment_id, person_id])
    return found[0] if found else None


def extend(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    """A heartbeat: the lease goes on, up to half an hour from its start."""
    ends = min(now + project.lease_seconds * 1_000_000, assignment.leased_at + LEASE_MOST)
    return _set(store, assignment, expires_at=max(ends, assignment.expires_at))


def end(store: Store, assignment: Assignment, state: str, now: int) -> Assignment:
    """Give a lease back (released, skipped). Somebody else may take it from now on; after a release this person too."""
    ended = _set(store, assignment, state=state)
    if state == "released":
        store.db.conn.execute(
            "update queue_cursors set queue_key = c.queue_key, comparison_id = c.id - 1"
            " from comparisons c where c.id = ? and queue_cursors.person_id = ?"
            " and queue_cursors.project_id = c.project_id and queue_cursors.arm = c.arm",
            [assignment.comparison_id, assignment.person_id],
        )
    new_epoch(store, assignment.project_id, now)
    return ended


def as_surplus(store: Store, assignment: Assignment) -> Assignment:
    """The slot is taken: what comes is kept for agreement and not counted."""
    return _set(store, assignment, purpose="surplus")


def slot_is_free(store: Store, assignment: Assignment) -> bool:
    comparison = store.get(Comparison, assignment.comparison_id)
    return comparison.gold is not None or (comparison.slots_left > 0 and comparison.status == "open")


# ---- judgements


def by_key(store: Store, key: bytes) -> Judgement | None:
    found = store.find(Judgement, "key = ?", [key])
    return found[0] if found else None


def head(store: Store, assignment: Assignment) -> Judgement | None:
    return store.get(Judgement, assignment.head_judgement_id) if assignment.head_judgement_id else None


def add(store: Store, judgement: Judgement) -> Judgement:
    """Append a judgement and make it the head of its assignment; the schema's triggers count it."""
    judgement = store.add(replace(judgement, row_hash=row_hash(judgement)))
    submitted = judgement.act != "retract"
    store.db.conn.execute(
        "update assignments set state = ?, head_judgement_id = ?, submitted_at = coalesce(?, submitted_at) where id = ?",
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
    for f in fields(judgement):
        if f.name not in NOT_HASHED:
            value = getattr(judgement, f.name)
            facts[f.name] = value.hex() if isinstance(value, bytes) else value
    return hashlib.sha256(as_json(facts).encode()).digest()[:16]


def renew(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    return _renew(store, assignment, project, now)


def last_submitted(store: Store, person_id: int, project_id: int, since: int) -> Judgement | None:
    """This person's newest judgement that counts, not older than ``since``."""
    rows = store.rows(
        "select head_judgement_id as id from assignments where person_id = ? and state = 'submitted' and submitted_at >= ?"
        " and project_id = ? order by submitted_at desc, id desc limit 1",
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


def save_draft(store: Store, assignment_id: int, body: dict[str, Any], now: int) -> None:
    store.db.conn.execute(
        "insert into drafts (assignment_id, body, saved_at) values (?,?,?)"
        " on conflict (assignment_id) do update set body = excluded.body, saved_at = excluded.saved_at",
        [assignment_id, as_json(body), now],
    )


def drop_draft(store: Store, assignment_id: int) -> None:
    store.db.conn.execute("delete from drafts where assignment_id = ?", [assignment_id])


# ---- what a person sees


def shown(store: Store, assignment: Assignment) -> Shown:
    """The texts of an assignment in the order this person sees them."""
    comparison = store.get(Comparison, assignment.comparison_id)
    texts = {
        row["position"]: row["text"]
        for row in store.rows(
            "select i.position, c.text from comparison_items i join completions c on c.id = i.completion_id"
            " where i.comparison_id = ?",
            [comparison.id],
        )
    }
    guidelines = store.find(Guideline, "project_id = ?", [assignment.project_id], order_by="version desc", limit=1)
    draft = store.value("select body from drafts where assignment_id = ?", [assignment.id])
    return Shown(
        assignment,
        comparison.kind,
        conversation_of(store.get(Case, comparison.case_id)),
        tuple(texts[position] for position in assignment.shown),
        guidelines[0] if guidelines else None,
        json.loads(draft) if draft is not None else None,
    )


def conversation_of(case: Case) -> tuple[Message, ...]:
    """What was asked, without the prompt's scaffolding: the conversation, or the values of a template case as one message."""
    if case.conversation is not None:
        return case.conversation
    values = case.values or {}
    said = values["input"] if "input" in values else "\n".join(f"{name}: {value}" for name, value in values.items())
    return ({"role": "user", "content": said},)


def open_projects(store: Store) -> list[Project]:
    return store.find(Project, "archived_at is null", order_by="name")


def counts(store: Store, person_id: int, project_id: int, midnight: int) -> Counts:
    """Bounded work whatever the size of the project; a reader's query, not part of the label transaction."""
    mine = store.rows(
        "select count(*) as mine, coalesce(sum(submitted_at >= ?), 0) as today from assignments"
        " where person_id = ? and project_id = ? and state = 'submitted'",
        [midnight, person_id, project_id],
    )[0]
    waiting = store.value(
        "select count(*) from (select 1 from comparisons c where c.project_id = ? and c.status = 'open' and c.slots_left > 0"
        " and c.gold is null and c.kind = 'pair' and not exists (select 1 from assignments a where a.comparison_id = c.id and a.person_id = ?"
        " and a.state in ('leased', 'submitted', 'skipped')) limit 1000)",
        [project_id, person_id],
    )
    seconds = store.rows(
        "select j.seconds from (select head_judgement_id from assignments where person_id = ? and state = 'submitted'"
        " and project_id = ? order by submitted_at desc limit 50) a join judgements j on j.id = a.head_judgement_id"
        " order by j.seconds",
        [person_id, project_id],
    )
    median = seconds[len(seconds) // 2]["seconds"] if seconds else None
    return Counts(mine["today"], mine["mine"], waiting, median)
