"""Labelling: take a comparison, judge it, skip it, take the last one back. Saved means committed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple, cast, get_args

from backend.access import require
from backend.labels.desk import (
    Desk,
    LabellingProblem,
    as_draft,
    desk_of,
    id_of,
    judged_already,
    mine,
    progress_of,
    project_of,
)
from backend.labels.form import Answer
from backend.labels.keeping import checked, judge, keep_as_demonstration
from feedback_db import Store, audit, judgements, prompts, queue, reviews
from feedback_db.judgements import Counts
from feedback_db.queue import Draw
from feedback_db.types import Assignment, Judgement, Person, Project, Report, ReportCategory

__all__ = ["Answer", "Desk", "LabellingProblem"]

UNDO_SECONDS = 600
REPORT_CATEGORIES = get_args(ReportCategory)
NOTE_MOST, REPORTS_MOST = 2000, 10
SKIP_REASONS = ("", "unclear", "both_same", "needs_knowledge", "personal", "broken")


class ProjectProgress(NamedTuple):
    id: int
    name: str
    counts: Counts


class Judged(NamedTuple):
    """``judgement`` is a committed row. ``counted`` is False when the comparison had its judgements already."""

    judgement: int
    counted: bool
    desk: Desk | None


def projects(store: Store, person: Person) -> list[ProjectProgress]:
    """The open projects, with how far this person is in each."""
    require(person, "label")
    found = judgements.open_projects(store)
    return [ProjectProgress(id_of(p), p.name, progress_of(store, person, p)) for p in found]


def next_desk(store: Store, person: Person, project_id: int) -> Desk | None:
    """The comparison on this person's desk, a new one if there is none, or None when the queue is empty."""
    require(person, "label")
    project = project_of(store, project_id)
    draw = _draw()
    leased = store.commit(lambda: _next(store, person, project, draw))
    return desk_of(store, person, project, leased, with_waiting=True)


def ahead(store: Store, person: Person, project_id: int) -> Desk | None:
    """The desk that comes after this one, leased already, so that it can be shown without waiting; None when there is none."""
    require(person, "label")
    project = project_of(store, project_id)
    draw = _draw()
    leased = store.commit(lambda: queue.lease_ahead(store, id_of(person), project, store.now(), draw))
    return desk_of(store, person, project, leased)


def submit(store: Store, person: Person, assignment_id: int, key: bytes, answer: Answer) -> Judged:
    """Store a judgement and lease the next comparison, in one transaction. The same key again gives the same row."""
    require(person, "label")
    draw = _draw()

    def act() -> tuple[Judgement, Assignment, Project, Assignment | None]:
        found = mine(store, person, assignment_id)
        project = store.get(Project, found.project_id)
        stored = judgements.by_key(store, key)
        if stored is None:
            stored, found = judge(store, found, key, checked(store, project, found, answer))
            keep_as_demonstration(store, project, stored, person)
        elif stored.assignment_id != found.id or stored.person_id != person.id:
            raise LabellingProblem("This key belongs to another judgement. Reload the page.", "foreign_key")
        return stored, found, project, _next(store, person, project, draw)

    stored, found, project, following = store.commit(act)
    return Judged(id_of(stored), found.purpose != "surplus", desk_of(store, person, project, following))


def skip(store: Store, person: Person, assignment_id: int, reason: str = "") -> Desk | None:
    """Leave a comparison to others; it does not come back to this person."""
    require(person, "label")
    if reason not in SKIP_REASONS:
        known = ", ".join(SKIP_REASONS[1:])
        raise LabellingProblem(f"Unknown reason. Known are: {known}.", "bad_reason", 422, known=known)
    draw = _draw()

    def act() -> tuple[Project, Assignment | None]:
        found = mine(store, person, assignment_id)
        project = store.get(Project, found.project_id)
        if found.state == "submitted":
            raise judged_already()
        if found.state != "skipped":
            if judgements.head(store, found) is None:  # one that was judged and taken back keeps its draft
                judgements.drop_draft(store, assignment_id)
            queue.end(store, found, "skipped")
            audit.record(store, person, "skip", "assignment", assignment_id, {"reason": reason})
        return project, _next(store, person, project, draw)

    project, following = store.commit(act)
    return desk_of(store, person, project, following)


def report(store: Store, person: Person, assignment_id: int, key: bytes, category: str, note: str = "") -> int:
    """Tell those who look after the project what is wrong with a comparison, which stays on the desk; returns the report's row.

    The same key again gives the same row. ``note`` has up to 2000 characters; the category "other" needs one.
    """
    require(person, "label")
    note = note.strip()
    if category not in REPORT_CATEGORIES:
        known = ", ".join(REPORT_CATEGORIES)
        raise LabellingProblem(f"Unknown reason. Known are: {known}.", "bad_reason", 422, known=known)
    if len(note) > NOTE_MOST:
        raise LabellingProblem(f"A text may have {NOTE_MOST} characters.", "long_text", 422, most=NOTE_MOST)
    if category == "other" and not note:
        raise LabellingProblem("Say in a few words what is wrong.", "note_missing", 422)

    def act() -> int:
        known = reviews.report_by_key(store, key)
        if known is not None:
            if known.person_id != person.id:
                raise LabellingProblem("This key belongs to another report. Reload the page.", "foreign_report")
            return id_of(known)
        found = mine(store, person, assignment_id)
        if reviews.reports_by(store, found.comparison_id, id_of(person)) >= REPORTS_MOST:
            raise LabellingProblem(
                f"You have reported this comparison {REPORTS_MOST} times. Those who look after the project will see it.",
                "many_reports",
                most=REPORTS_MOST,
            )
        made = store.add(
            Report(
                key=key, project_id=found.project_id, comparison_id=found.comparison_id, person_id=id_of(person),
                category=cast(ReportCategory, category), note=note or None,
            )
        )  # fmt: skip
        audit.record(store, person, "report", "comparison", found.comparison_id, {"category": category})
        return id_of(made)

    return store.commit(act)


def undo(store: Store, person: Person, project_id: int, key: bytes, judgement_id: int | None = None) -> Desk:
    """Take back this person's last judgement, up to 10 minutes old, and put its comparison on the desk again."""
    require(person, "label")
    project = project_of(store, project_id)

    def act() -> tuple[Assignment, Judgement]:
        stored = judgements.by_key(store, key)
        if stored is not None:  # a retry
            taken_back = store.get(Judgement, int(stored.supersedes or 0))
            return mine(store, person, stored.assignment_id), taken_back
        now = store.now()
        last = judgements.last_submitted(store, id_of(person), project_id, now - UNDO_SECONDS * 1_000_000)
        if last is None or (judgement_id is not None and last.id != judgement_id):
            raise LabellingProblem("There is nothing from the last 10 minutes to take back.", "nothing_to_undo")
        judgements.add(
            store,
            replace(
                last, id=None, key=key, act="retract", revision=last.revision + 1, supersedes=last.id, ranks=None,
                both_bad=False, both_good=False, strength=None, aspects=None, flags=None, spans=None, rationale=None,
                edited_position=None, edited_text=None, confidence=None, seconds=0.0, active_seconds=None,
                created_at=now, row_hash=None, verdict=None,
            ),
        )  # fmt: skip
        prompts.drop_written_with(store, id_of(last))
        again = queue.take_up_again(store, mine(store, person, last.assignment_id), project, now)
        judgements.save_draft(store, again, as_draft(last), now)
        return again, last

    again, _ = store.commit(act)
    desk = desk_of(store, person, project, again)
    assert desk is not None  # an assignment was given
    return desk


def save_draft(store: Store, person: Person, assignment_id: int, draft: dict[str, Any]) -> None:
    """Keep what is typed so far. A judged or skipped comparison needs no draft: then this does nothing."""
    require(person, "label")

    def act() -> None:
        found = mine(store, person, assignment_id)
        if found.state in ("leased", "expired", "released"):
            judgements.save_draft(store, found, draft, store.now())

    store.commit(act)


def heartbeat(store: Store, person: Person, assignment_id: int) -> int:
    """Keep the lease while somebody works; returns the seconds left. LabellingProblem when it is lost."""
    require(person, "label")

    def act() -> int:
        found = mine(store, person, assignment_id)
        now = store.now()
        if found.state != "leased" or found.expires_at <= now:
            raise LabellingProblem(
                "This comparison went back to the queue after a pause. Your answer is kept; submit it if you are done.",
                "lease_lost",
            )
        extended = queue.extend(store, found, store.get(Project, found.project_id), now)
        return (extended.expires_at - now) // 1_000_000

    return store.commit(act)


def release(store: Store, person: Person, assignment_id: int, lease: int) -> None:
    """Give a comparison back on leaving the page. A lease renewed since (a reload) stays."""
    require(person, "label")

    def act() -> None:
        found = mine(store, person, assignment_id)
        if found.state == "leased" and found.leased_at == lease and judgements.head(store, found) is None:
            queue.end(store, found, "released")

    store.commit(act)


# ---- inside


def _draw() -> Draw:
    return Draw(random.random(), random.random(), random.random())


def _next(store: Store, person: Person, project: Project, draw: Draw) -> Assignment | None:
    if project.archived_at is not None:
        return None
    return queue.lease_next(store, id_of(person), project, store.now(), draw)
