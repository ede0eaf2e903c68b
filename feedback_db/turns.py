"""Conversations that go on from a judgement, and what a person has judged before. Every writer joins the caller's transaction."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from . import queue
from .store import Store
from .types import Assignment, Case, Comparison, Judgement, Project


class Past(NamedTuple):
    """A judgement that counts now, as its author may see it again."""

    judgement: Judgement
    kind: str
    case: Case


def past(store: Store, person_id: int, project_id: int, before: tuple[int, int] | None, most: int) -> list[Past]:
    """This person's judgements in a project, newest first; ``before`` is the (submitted_at, assignment id) of the last one seen."""
    at, id = before or (1 << 62, 0)
    rows = store.rows(
        "select a.head_judgement_id as head, k.kind, k.case_id from assignments a indexed by assignments_done"
        " join comparisons k on k.id = a.comparison_id where a.person_id = ? and a.state = 'submitted'"
        " and (a.submitted_at < ? or (a.submitted_at = ? and a.id < ?)) and a.project_id = ?"
        " order by a.submitted_at desc, a.id desc limit ?",
        [person_id, at, at, id, project_id, most],
    )
    return [Past(store.get(Judgement, row["head"]), row["kind"], store.get(Case, row["case_id"])) for row in rows]


def others(store: Store, comparison_id: int, person_id: int) -> list[tuple[list[int], list[int]]]:
    """(ranks, positions) of the judgements of everybody else that count now, silent repeats and reviews left out."""
    rows = store.rows(
        "select ranks, shown from current_judgements where comparison_id = ? and person_id <> ?"
        " and purpose in ('label', 'surplus') and after_reveal = 0",
        [comparison_id, person_id],
    )
    return [(json.loads(row["ranks"]), json.loads(row["shown"])) for row in rows]


def reveal(store: Store, assignment: Assignment) -> None:
    """From now on what this person says of the comparison is no longer said unseen."""
    store.db.conn.execute(
        "update assignments set revealed_at = coalesce(revealed_at, ?) where id = ?", [store.now(), assignment.id]
    )


def comparison_of(store: Store, case_id: int) -> Comparison | None:
    """The comparison of a case that a conversation went on to."""
    return next(iter(store.find(Comparison, "case_id = ? and gold is null", [case_id], limit=1)), None)


def put_on_desk(store: Store, person_id: int, project: Project, comparison: Comparison, now: int) -> Assignment:
    """Lease this comparison to this person, before all else they hold."""
    mine: dict[str, Any] = {"comparison_id": comparison.id, "person_id": person_id, "purpose": "label"}
    found = store.find(Assignment, " and ".join(f"{name} = ?" for name in mine), list(mine.values()), limit=1)
    lease = found[0] if found else None
    if lease is None:
        lease = store.add(
            Assignment(
                **mine, project_id=int(project.id or 0), shown=queue.order_of(store, person_id, project, comparison),
                leased_at=now, expires_at=now,
            )
        )  # fmt: skip
    return queue.take_up_again(store, lease, project, now)
