"""Guiding: what annotators are asked to look for, in versions; what changed when, and how far people agree under each."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

from backend.access import require
from backend.problem import Problem
from backend.stats import agreement
from backend.stats.agreement import Estimate
from feedback_db import Store, audit, people, prompts, quality
from feedback_db.types import Guideline, Person

LONGEST = 20_000  # characters
WORDS = re.compile(
    r"\s+|[^\W\d_\u3400-\u9fff]+|\d+|.", re.DOTALL
)  # a word, a number, a run of blanks, one sign (Chinese: one each)
MOST_WORDS = 4_000  # of a text; longer ones are compared line by line


class BadGuideline(Problem):
    """The text cannot be a guideline; the message says why."""


class Piece(NamedTuple):
    """A run of text and whether it is "same", "gone" or "new"."""

    kind: str
    text: str


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
        alpha = agreement.measure(counts, agreement.nominal(len(quality.CATEGORIES))).alpha
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


def difference(before: str, after: str) -> list[Piece]:
    """Word by word what left and what came; the pieces that are not "gone" are the text after, those not "new" before."""
    one, other = _words(before), _words(after)
    if max(len(one), len(other)) > MOST_WORDS:
        one, other = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Piece("same", "".join(one[a:b])))
            continue
        found += [Piece(kind, "".join(words)) for kind, words in (("gone", one[a:b]), ("new", other[c:d])) if words]
    return found


def _changed(before: str | None, after: str) -> list[Piece]:
    """The first version changed nothing."""
    return [Piece("same", after)] if before is None else difference(before, after)


def _words(text: str) -> list[str]:
    return WORDS.findall(text)
