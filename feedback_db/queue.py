"""The queue: who gets which comparison next, and for how long it is theirs.

Every function joins the caller's transaction and takes the time as an argument. Over-assignment is impossible by the schema:
a lease takes a slot by trigger, and slots cannot go below zero. A person walks each part of the queue with a cursor; what
was passed and may be taken again stands in the part ``returned``, and the schema moves a cursor back when new work lands
behind it. So every search reads forward from a cursor, at most a page at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from .store import Store, changed
from .types import Assignment, Comparison, Project

MINUTE = 60_000_000
DAY = 1440 * MINUTE
LEASE_MOST = 30 * MINUTE  # heartbeats cannot hold a lease longer
SWEEP_MOST = 32  # expired leases given back per request
PAGE = 256  # rows that one search reads at most
TOP = -(1 << 62)  # before every key
START = (TOP, 0)
PAST = ("c.{key} = :key and c.id > :id", "c.{key} > :key")  # one row comparison would use half the index
ARMS = ("random", "priority")
REPEAT_AFTER = 30  # judgements between a comparison and its silent repeat; at least a day lies between them, too
LIVE_MOST = 2  # leases of one person in one project: the one on the desk and the one fetched ahead


class Draw(NamedTuple):
    """Three numbers in [0, 1): what is leased for, from which arm, and which old judgement is asked again."""

    purpose: float
    arm: float
    place: float


class Found(NamedTuple):
    """A row of the queue, where it stands, and in which part."""

    part: str
    key: int
    id: int


class Part(NamedTuple):
    """One order in which comparisons are searched, as its index has them."""

    key: str
    in_index: str
    where: str


OPEN = "c.project_id = :project and c.status = 'open'"
PARTS = {
    "returned": Part(
        "returned", "comparisons_returned", f"{OPEN} and c.slots_left > 0 and c.gold is null and c.returned is not null"
    ),
    "random": Part(
        "queue_key", "comparisons_queue", f"{OPEN} and c.slots_left > 0 and c.gold is null and c.arm = 'random'"
    ),
    "priority": Part(
        "queue_key", "comparisons_queue", f"{OPEN} and c.slots_left > 0 and c.gold is null and c.arm = 'priority'"
    ),
    "gold": Part("queue_key", "comparisons_gold", f"{OPEN} and c.gold is not null"),
}
MINE = (  # theirs already, or not wanted by them
    "exists (select 1 from assignments a where a.comparison_id = p.id and a.person_id = :person"
    " and a.state in ('leased', 'submitted', 'skipped'))"
)
SEEN = (  # any comparison of the same case: who judged its answers once knows the gold
    "exists (select 1 from comparisons o join assignments a on a.comparison_id = o.id"
    " where o.case_id = p.case_id and a.person_id = :person and a.state in ('leased', 'submitted', 'skipped'))"
)


# ---- the next one


def lease_next(store: Store, person_id: int, project: Project, now: int, draw: Draw) -> Assignment | None:
    """This person's live lease, or a new one on a comparison they have not judged; None when there is none."""
    live = live_leases(store, person_id, project, now)
    if live:
        return _renew(store, changed(live[0], is_ahead=False), project, now)
    return _new_lease(store, person_id, project, now, draw, is_ahead=False)


def lease_ahead(store: Store, person_id: int, project: Project, now: int, draw: Draw) -> Assignment | None:
    """The lease that comes after the one on the desk, so that it can be shown without waiting."""
    live = live_leases(store, person_id, project, now)
    if len(live) >= LIVE_MOST:
        return _renew(store, live[1], project, now)
    return _new_lease(store, person_id, project, now, draw, is_ahead=bool(live))


def live_leases(store: Store, person_id: int, project: Project, now: int) -> list[Assignment]:
    """What this person holds, in the order it is shown."""
    return store.find(
        Assignment,
        "person_id = ? and project_id = ? and state = 'leased' and expires_at > ?",
        [person_id, project.id, now],
        order_by="is_ahead, id",
    )


def _new_lease(
    store: Store, person_id: int, project: Project, now: int, draw: Draw, *, is_ahead: bool
) -> Assignment | None:
    give_back_expired(store, now)
    again = _with_draft(store, person_id, project)
    if again is not None:
        return _renew(store, replace(again, is_ahead=is_ahead), project, now)
    found = _first_open(store, person_id, project, draw.arm)
    if found is None:  # gold and repeats are mixed in, never given alone
        return None
    gold, repeats = _shares(project)
    if draw.purpose < gold:
        sample = _first(store, person_id, project, "gold")
        if sample is not None:
            return _lease(store, person_id, project, sample, now, "gold", is_ahead)
    elif draw.purpose < gold + repeats:
        before = _repeatable(store, person_id, project, now, draw.place)
        if before is not None:
            return _repeat(store, before, project, now, is_ahead)
    return _lease(store, person_id, project, found, now, "label", is_ahead)


def _shares(project: Project) -> tuple[float, float]:
    """Of gold and of repeats among all leases."""
    gold = 1 / project.gold_every if project.gold_every else 0.0
    return gold, min(float(project.settings.get("repeat_share", 0.0)), 1 - gold)


def _first_open(store: Store, person_id: int, project: Project, draw: float) -> Found | None:
    share = float(project.settings.get("random_share", 0.3))
    order = ARMS if draw < share else tuple(reversed(ARMS))
    cursors = _cursors(store, person_id, project)
    for part in ("returned", *order):
        found = _first(store, person_id, project, part, cursors.get(part, START))
        if found is not None:
            return found
    return None


def _first(
    store: Store, person_id: int, project: Project, part: str, cursor: tuple[int, int] | None = None
) -> Found | None:
    """The first row past the cursor that this person may have. Pages of rows they may not have move the cursor."""
    key, id = cursor or _cursors(store, person_id, project).get(part, START)
    while True:
        for past in PAST if key > TOP else PAST[1:]:  # no row has the key before every key
            found, last = _page(store, person_id, project, part, past, key, id)
            if found is not None:
                return found
            if last is not None:
                break
        else:
            return None
        key, id = last.key, last.id
        _move_cursor(store, person_id, project, last)


def _page(
    store: Store, person_id: int, project: Project, part: str, past: str, key: int, id: int
) -> tuple[Found | None, Found | None]:
    """The first row of a page that this person may have, or else the last of the page; neither when it is empty.

    Rows are made as they are asked for, so what follows the first that fits is never read.
    """
    taken = SEEN if part == "gold" else MINE
    values = {"project": project.id, "person": person_id, "key": key, "id": id}
    rows = store.db.conn.execute(f"select p.key, p.id, {taken} from ({page_query(part, past)}) p", values)
    last = None
    try:
        for *place, is_taken in rows:
            last = Found(part, *place)
            if not is_taken:
                return last, None
    finally:
        rows.close()
    return None, last


@cache
def page_query(part: str, past: str, most: int = PAGE) -> str:
    """A page of one part, in its index's order."""
    key, in_index, where = PARTS[part]
    return (
        f"select c.id, c.{key} as key, c.case_id from comparisons c indexed by {in_index} where {where}"
        f" and {past.format(key=key)} order by c.{key}, c.id limit {most:d}"
    )


def waiting(store: Store, person_id: int, project: Project, most: int) -> int:
    """How many comparisons this person may still be given; stops counting at ``most``. A reader's query.

    What came back and stands before the cursor of its arm is counted once; what stands behind it is counted there.
    """
    values: dict[str, Any] = {"project": project.id, "person": person_id}
    parts = []
    cursors = _cursors(store, person_id, project)
    for part in ("returned", *ARMS):
        key, id = cursors.get(part, START)
        values |= {f"{part}_key": key, f"{part}_id": id}
        for past in (f"c.{{key}} = :{part}_key and c.id > :{part}_id", f"c.{{key}} > :{part}_key"):
            page = page_query(part, past, most)
            parts.append(f"select p.id from ({page}) p where not {MINE}")
    found = store.rows(f"select count(*) as n from ({' union '.join(parts)} limit {most:d})", values)[0]["n"]
    ahead = store.value(  # fetched, but not on the desk yet
        "select count(*) from assignments where person_id = ? and project_id = ? and state = 'leased' and is_ahead = 1",
        [person_id, project.id],
    )
    return min(most, int(found + ahead))


def _cursors(store: Store, person_id: int, project: Project) -> dict[str, tuple[int, int]]:
    """Where a person stands in each part that they have begun: key and comparison."""
    rows = store.db.conn.execute(
        "select arm, queue_key, comparison_id from queue_cursors where person_id = ? and project_id = ?",
        [person_id, project.id],
    )
    return {part: (key, id) for part, key, id in rows.fetchall()}


def _move_cursor(store: Store, person_id: int, project: Project, to: Found) -> None:
    store.db.conn.execute(
        "insert into queue_cursors (person_id, project_id, arm, epoch, queue_key, comparison_id) values (?,?,?,0,?,?)"
        " on conflict (person_id, project_id, arm) do update set"
        " queue_key = excluded.queue_key, comparison_id = excluded.comparison_id",
        [person_id, project.id, to.part, to.key, to.id],
    )


def _with_draft(store: Store, person_id: int, project: Project) -> Assignment | None:
    """A lease that ended under something typed: it comes back first, if its slot is still free."""
    rows = store.rows(
        "select a.id from drafts d join assignments a on a.id = d.assignment_id join comparisons c on c.id = a.comparison_id"
        " where d.person_id = ? and a.project_id = ? and a.state in ('expired', 'released')"
        " and (a.purpose <> 'label' or (c.status = 'open' and c.slots_left > 0)) order by d.saved_at desc limit 1",
        [person_id, project.id],
    )
    return store.get(Assignment, rows[0]["id"]) if rows else None


# ---- silent repeats


def _repeatable(store: Store, person_id: int, project: Project, now: int, place: float) -> Assignment | None:
    """A judgement of this person to ask for again: drawn from all that are a day and 30 judgements old and not revealed."""
    mine = "person_id = ? and project_id = ? and state = 'submitted'"
    first = store.value(f"select min(submitted_at) from assignments where {mine}", [person_id, project.id])
    recent = store.value(
        f"select submitted_at from assignments where {mine} order by submitted_at desc limit 1 offset {REPEAT_AFTER}",
        [person_id, project.id],
    )
    if first is None or recent is None:
        return None
    last = min(recent, now - DAY)
    for start in (first + int(place * (last - first)), first):  # nothing may lie behind the place that was drawn
        found = store.rows(OLD, [person_id, start, last, project.id])
        if found:
            return store.get(Assignment, found[0]["id"])
    return None


OLD = (
    "select old.id from (select * from assignments indexed by assignments_done where person_id = ? and state = 'submitted'"
    f" and submitted_at between ? and ? order by submitted_at limit {PAGE}) old where old.project_id = ?"
    " and old.purpose = 'label' and old.revealed_at is null and not exists (select 1 from assignments b"
    " where b.comparison_id = old.comparison_id and b.person_id = old.person_id and b.purpose = 'repeat') limit 1"
)


def _repeat(store: Store, before: Assignment, project: Project, now: int, is_ahead: bool) -> Assignment:
    """The same comparison for the same person, sides turned round."""
    return store.add(
        replace(
            before, id=None, purpose="repeat", state="leased", is_ahead=is_ahead, shown=tuple(reversed(before.shown)),
            leased_at=now, expires_at=_ends(project, now), submitted_at=None, head_judgement_id=None,
        )
    )  # fmt: skip


# ---- leases


def _lease(
    store: Store, person_id: int, project: Project, found: Found, now: int, purpose: Any, is_ahead: bool
) -> Assignment:
    _move_cursor(store, person_id, project, found)
    own = store.find(
        Assignment, "comparison_id = ? and person_id = ? and purpose = ?", [found.id, person_id, purpose], limit=1
    )
    if own:  # expired or released: the same person sees the same order again
        return _renew(store, replace(own[0], is_ahead=is_ahead), project, now)
    return store.add(
        Assignment(
            comparison_id=found.id,
            person_id=person_id,
            project_id=int(project.id or 0),
            purpose=purpose,
            is_ahead=is_ahead,
            shown=order_of(store, person_id, project, store.get(Comparison, found.id)),
            leased_at=now,
            expires_at=_ends(project, now),
        )
    )


def order_of(store: Store, person_id: int, project: Project, comparison: Comparison) -> tuple[int, ...]:
    """Left to right: by a keyed hash for the first person, the reverse of the one before for each later one."""
    before = None
    if comparison.gold is None:  # gold has no end of judges; a hash is fair enough there
        before = store.value(
            "select shown from assignments where comparison_id = ? order by id desc limit 1", [comparison.id]
        )
    if before is not None:
        return tuple(reversed(json.loads(before)))
    seed = str(project.settings.get("order_seed", project.created_at)).encode()[:64]

    def place(position: int) -> bytes:
        return hashlib.blake2b(f"{person_id}:{comparison.id}:{position}".encode(), key=seed, digest_size=8).digest()

    return tuple(sorted(range(comparison.size), key=place))


def _ends(project: Project, now: int) -> int:
    return now + project.lease_seconds * 1_000_000


def _renew(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    return _set(
        store, assignment, state="leased", is_ahead=assignment.is_ahead, leased_at=now, expires_at=_ends(project, now)
    )


def _set(store: Store, assignment: Assignment, **values: Any) -> Assignment:
    names = ",".join(f"{name} = ?" for name in values)
    store.db.conn.execute(f"update assignments set {names} where id = ?", [*values.values(), assignment.id])
    return changed(assignment, **values)


def give_back_expired(store: Store, now: int) -> None:
    """Expire leases that ran out, of all projects; from then on everybody may have what they held."""
    ended = store.db.conn.execute(  # asked first: nearly always there is none, and looking costs less than an update
        "select id from assignments where state = 'leased' and expires_at <= ? order by expires_at limit ?",
        [now, SWEEP_MOST],
    ).fetchall()
    if ended:
        store.db.conn.executemany("update assignments set state = 'expired' where id = ?", ended)


def assignment_of(store: Store, person_id: int, assignment_id: int) -> Assignment | None:
    """An assignment, if it is this person's."""
    found = store.find(Assignment, "id = ? and person_id = ?", [assignment_id, person_id])
    return found[0] if found else None


def extend(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    """A heartbeat: the leases of this desk go on, up to half an hour from their start."""
    for one in _held(store, assignment, project, now):
        ends = min(_ends(project, now), one.leased_at + LEASE_MOST)
        changed = _set(store, one, expires_at=max(ends, one.expires_at))
        if one.id == assignment.id:
            assignment = changed
    return assignment


def _held(store: Store, assignment: Assignment, project: Project, now: int) -> Iterator[Assignment]:
    for one in live_leases(store, assignment.person_id, project, now):
        if one.id == assignment.id or one.is_ahead:
            yield one


def end(store: Store, assignment: Assignment, state: str) -> Assignment:
    """Give a lease back (released, skipped). Somebody else may take it at once; after a release this person too."""
    return _set(store, assignment, state=state)


def take_up_again(store: Store, assignment: Assignment, project: Project, now: int) -> Assignment:
    """Put a judgement that was taken back on the desk; what lay there comes after it."""
    store.db.conn.execute(
        "update assignments set is_ahead = 1 where person_id = ? and project_id = ? and state = 'leased' and id <> ?",
        [assignment.person_id, assignment.project_id, assignment.id],
    )
    return _renew(store, replace(assignment, is_ahead=False), project, now)


def as_surplus(store: Store, assignment: Assignment) -> Assignment:
    """The slot is taken: what comes is kept for agreement and not counted."""
    return _set(store, assignment, purpose="surplus")


def slot_is_free(store: Store, assignment: Assignment) -> bool:
    """Whether a judgement that comes after its lease still counts. Gold and repeats take no slot."""
    if assignment.purpose != "label":
        return True
    comparison = store.get(Comparison, assignment.comparison_id)
    return comparison.slots_left > 0 and comparison.status == "open"
