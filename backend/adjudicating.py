"""Adjudicating: a reviewer judges what divides people, blind first and then in sight of what they said, or sets it aside."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from backend.access import require
from backend.labels.form import Answer
from backend.problem import Problem
from backend.stats import reliability
from feedback_db import Store, audit, comparisons, judgements, people, quality, reviews, soft
from feedback_db.types import Assignment, Comparison, Judgement, Message, Person

MOST = 50  # conflicts in the list
CANDIDATES, UNANIMOUS_OF = 20, 3  # gold candidates shown, and how many people must agree on one
REASON_MOST = 500


class CannotReview(Problem):
    """This comparison is not to be reviewed, or not by this person; the message says why."""


class Conflict(NamedTuple):
    """A pair that divides people. ``value``: entropy in nats of what is probable, given who said what; log 2 at most
    between two sides. Nothing says which side: a reviewer is blind."""

    id: int
    judged: int
    value: float


class Blind(NamedTuple):
    """What a reviewer sees first."""

    id: int
    conversation: tuple[Message, ...]
    answers: tuple[str, ...]
    shown: tuple[int, ...]  # canonical positions, left to right


class Said(NamedTuple):
    """What somebody said, by the places the reviewer saw: 0 left, 1 right, 2 neither."""

    person: str
    purpose: str
    place: int
    both_bad: bool
    strength: int | None
    rationale: str


class Candidate(NamedTuple):
    """A pair that all agree on; ``side`` is the better position, ``order`` what gold would name."""

    id: int
    judged: int
    order: tuple[int, int]
    better: str
    worse: str


def conflicts(store: Store, person: Person, project_id: int) -> list[Conflict]:
    """What divides people and nobody decided, this person's own judgements left out; the most open question first."""
    require(person, "review")
    said: dict[int, list[tuple[int, int]]] = {}
    for comparison, judge, side in reviews.divided(store, project_id, person.id or 0, MOST):
        said.setdefault(comparison, []).append((judge, side))
    if not said:
        return []
    rows = quality.sides(store, project_id)
    comparison_ids, judges, sides = ([row[column] for row in rows] for column in range(3))
    found = reliability.of_pairs(comparison_ids, judges, sides, quality.gold_sides(store, project_id))
    tables = {"prior": found.prior, "people": {str(id): table for id, table in found.tables.items()}}
    made = [Conflict(id, len(rows), _entropy(soft.share(tables, rows))) for id, rows in said.items()]
    return sorted(made, key=lambda one: (-one.value, -one.judged, one.id))


def _entropy(share: float) -> float:
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def look(store: Store, person: Person, comparison_id: int) -> Blind:
    """The texts in an order of this person's own, without names and without what others said."""
    require(person, "review")
    comparison = _reviewable(store, person, comparison_id)
    lease = _assignment(store, person, comparison)
    seen = judgements.shown(store, lease)
    return Blind(comparison_id, seen.conversation, seen.answers, lease.shown)


def judge(store: Store, person: Person, comparison_id: int, answer: Answer, key: bytes) -> list[Said]:
    """Keep the reviewer's blind judgement, and only then tell what the others said. The same key again changes nothing."""
    require(person, "review")
    with store.write():
        if judgements.by_key(store, key) is None:
            comparison = _reviewable(store, person, comparison_id)
            lease = store.add(_assignment(store, person, comparison))
            _keep(store, lease, answer, key, None)
            audit.record(store, person, "review", "comparison", comparison_id, {})
    return said(store, person, comparison_id)


def said(store: Store, person: Person, comparison_id: int) -> list[Said]:
    """What everybody said, for who has judged it blind."""
    require(person, "review")
    lease = _mine(store, person, comparison_id)
    return [
        Said(
            people.shown_name(store, row["person_id"]),
            row["purpose"],
            2 if row["side"] == 2 else lease.shown.index(row["side"]),
            bool(row["both_bad"]),
            row["strength"],
            row["rationale"] or "",
        )
        for row in reviews.said_of(store, comparison_id)
    ]


def resolve(store: Store, person: Person, comparison_id: int, answer: Answer, key: bytes) -> Judgement:
    """Decide otherwise in sight of the others: one more row, which says that it came after the reveal."""
    require(person, "review")
    with store.write():
        lease = _mine(store, person, comparison_id)
        known = judgements.by_key(store, key)
        if known is not None:
            return known
        stored = _keep(store, lease, answer, key, judgements.head(store, lease))
        audit.record(store, person, "resolve", "comparison", comparison_id, {})
        return stored


def void(store: Store, person: Person, comparison_id: int, reason: str) -> Comparison:
    """Set aside what cannot be judged. What was said of it stays on record and counts nowhere."""
    require(person, "review")
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= REASON_MOST:
        raise CannotReview(
            f"Say in 1 to {REASON_MOST} characters why this cannot be judged; it is kept with the comparison.",
            "void_reason",
            most=REASON_MOST,
        )
    with store.write():
        found = store.get(Comparison, comparison_id)
        if found.gold is not None or found.void_reason is not None:
            raise CannotReview("Gold, and what was set aside already, cannot be set aside.", "not_reviewable")
        reviews.make_void(store, comparison_id, reason)
        audit.record(store, person, "void", "comparison", comparison_id, {"judged": found.judged})
        return store.get(Comparison, comparison_id)


def candidates(store: Store, person: Person, project_id: int) -> list[Candidate]:
    """Pairs that several people judged and all alike: what gold can be made of."""
    require(person, "review")
    found = []
    for row in reviews.unanimous(store, project_id, UNANIMOUS_OF, CANDIDATES):
        texts = [one.text for one in comparisons.completions_of(store, row["id"])]
        better = int(row["side"])
        found.append(
            Candidate(row["id"], row["n"], (1, 2) if better == 0 else (2, 1), texts[better], texts[1 - better])
        )
    return found


# ---- inside


def _reviewable(store: Store, person: Person, comparison_id: int) -> Comparison:
    found = store.get(Comparison, comparison_id)
    if found.kind != "pair" or found.gold is not None or found.void_reason is not None:
        raise CannotReview(
            "Only pairs are reviewed, and neither gold nor what was set aside. Choose another one.", "not_reviewable"
        )
    mine = "comparison_id = ? and person_id = ? and state in ('submitted', 'leased')"
    if store.find(Assignment, mine, [comparison_id, person.id], limit=1):
        raise CannotReview("You have judged this pair already, so you are not blind to it.", "not_blind")
    return found


def _mine(store: Store, person: Person, comparison_id: int) -> Assignment:
    """This person's review, which must stand before they see what others said."""
    mine = "comparison_id = ? and person_id = ? and purpose = 'review' and state = 'submitted'"
    found = store.find(Assignment, mine, [comparison_id, person.id], limit=1)
    if not found:
        raise CannotReview("Judge it blind first; then you see what the others said.", "judge_first")
    return found[0]


def _assignment(store: Store, person: Person, comparison: Comparison) -> Assignment:
    """Not yet stored. It is no lease, so that it never lies on the desk of the label page."""
    said = hashlib.blake2b(f"review:{person.id}:{comparison.id}".encode(), digest_size=1).digest()[0]
    return Assignment(
        comparison_id=comparison.id or 0, person_id=person.id or 0, project_id=comparison.project_id, purpose="review",
        shown=(0, 1) if said % 2 else (1, 0), leased_at=store.now(), expires_at=store.now(),
    )  # fmt: skip


def _keep(store: Store, lease: Assignment, answer: Answer, key: bytes, before: Judgement | None) -> Judgement:
    return judgements.add(
        store,
        Judgement(
            key=key, assignment_id=lease.id or 0, comparison_id=lease.comparison_id, person_id=lease.person_id, shown=lease.shown,
            act="correct" if before else "submit", supersedes=before.id if before else None,
            revision=before.revision + 1 if before else 0, ranks=answer.ranks, both_bad=answer.both_bad, strength=answer.strength,
            rationale=answer.rationale or None, seconds=answer.seconds, after_reveal=before is not None, client="review",
            guideline_id=judgements.guideline_id(store, lease.project_id), created_at=store.now(),
        ),
    )  # fmt: skip
