"""Guiding: what annotators are asked to look for, in versions; what changed when, and how far people agree under each."""

from __future__ import annotations

from typing import NamedTuple

from backend.access import require
from backend.problem import Problem
from backend.prompts.word_diff import Piece, difference
from backend.stats import agreement
from backend.stats.agreement import Estimate
from backend.stats.apart import apart
from feedback_db import Store, audit, people, prompts, quality
from feedback_db.types import Guideline, Person

LONGEST = 20_000  # characters


class BadGuideline(Problem):
    """The text cannot be a guideline; the message says why."""


class Version(NamedTuple):
    """A version with what it changed in the one before, and the agreement of those who judged by it."""

    guideline: Guideline
    by: str
    changed: list[Piece]
    judged: int  # pairs of the random arm
    alpha: Estimate


def versions(store: Store, person: Person, project_id: int) -> list[Version]:
    """Newest first."""
    require(person, "review")
    said: dict[int, list[quality.Said]] = {}
    for guideline_id, judged in quality.said_by_guideline(store, project_id):
        said.setdefault(guideline_id, []).append(judged)
    found: list[Version] = []
    before: str | None = None
    for one in store.find(Guideline, "project_id = ?", [project_id], order_by="version"):
        rows = said.get(one.id or 0, [])
        counts = agreement.count(
            [row.comparison for row in rows], [row.category for row in rows], len(quality.CATEGORIES)
        )
        alpha = apart(agreement.measure, counts).alpha
        found.append(
            Version(one, people.shown_name(store, one.person_id), _changed(before, one.body), len(rows), alpha)
        )
        before = one.body
    return found[::-1]


def save(store: Store, person: Person, project_id: int, body: str) -> Guideline:
    """A new version, in force at once; a text that says the same makes none. Judgements keep the version they were given by."""
    require(person, "review")
    body = body.strip()
    if not 1 <= len(body) <= LONGEST:
        raise BadGuideline(
            f"A guideline has 1 to {LONGEST} characters; this one has {len(body)}.",
            "bad_guideline",
            most=LONGEST,
            count=len(body),
        )
    with store.write():
        newest = prompts.guideline(store, project_id)
        if newest is not None and newest.body == body:
            return newest
        version = newest.version + 1 if newest else 1
        added = store.add(Guideline(project_id=project_id, version=version, body=body, person_id=person.id))
        audit.record(store, person, "change_guideline", "project", project_id, {"version": version})
        return added


def _changed(before: str | None, after: str) -> list[Piece]:
    """The first version changed nothing."""
    return [Piece("same", after)] if before is None else difference(before, after)
