"""Adjudicating: a reviewer judges what divides people, or what they flagged or reported, blind first and then in sight of what they
said; or sets it aside, or leaves it as it is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from backend.access import require
from backend.labels import form as forms
from backend.labels.form import ABOUT_THE_PROMPT, Answer
from backend.problem import Problem
from backend.stats.people import relied_on
from feedback_db import Store, audit, comparisons, judgements, people, reviews, soft
from feedback_db.types import Assignment, Comparison, Judgement, Message, Person, Project

MOST = 50  # comparisons in the list
READ_MOST = 20_000  # rankings looked at, the newest ones
SKIPS = ("unclear", "personal", "broken")  # reasons for a skip that are about the comparison, not about who skips
CANDIDATES, UNANIMOUS_OF = 20, 3  # gold candidates shown, and how many people must agree on one
REASON_MOST = 500


class CannotReview(Problem):
    """This comparison is not to be reviewed, or not by this person; the message says why."""


class Conflict(NamedTuple):
    """Something that asks for a decision. ``value``: entropy in nats of what is probable, given who said what, log 2 at most
    between two sides, and the mean over all pairs of a ranking; 0 where people are not divided. ``flags``, ``reports`` and
    ``skips`` (reasons that are about the comparison): what was said of it, without of which answer and by whom: a reviewer is
    blind."""

    id: int
    judged: int
    value: float
    flags: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()


class Told(NamedTuple):
    """A report that waits: its category and what was written, without by whom."""

    category: str
    note: str


class Blind(NamedTuple):
    """What a reviewer sees first."""

    id: int
    conversation: tuple[Message, ...]
    answers: tuple[str, ...]
    shown: tuple[int, ...]  # canonical positions, left to right
    flags: tuple[str, ...]  # what the project's form lets flag
    has_order: bool  # whether there is something to order; else it can only be set aside or left
    told: tuple[Told, ...] = ()


class Said(NamedTuple):
    """What somebody said, by the places the reviewer saw; or what they reported, or with what reason they skipped it."""

    person: str
    purpose: str  # of the assignment, or "report", or "skip"
    ranks: tuple[int, ...] = ()  # 1 is best
    both_bad: bool = False
    both_good: bool = False
    strength: int | None = None
    flags: tuple[tuple[str, int | None], ...] = ()  # None: of what was asked
    rationale: str = ""  # of a report its note
    reason: str = ""  # of a report the category, of a skip the reason


class Candidate(NamedTuple):
    """A pair that all agree on; ``side`` is the better position, ``order`` what gold would name."""

    id: int
    judged: int
    order: tuple[int, int]
    better: str
    worse: str


def conflicts(store: Store, person: Person, project_id: int) -> list[Conflict]:
    """What nobody has decided yet and this person has not judged: first what was reported or flagged, then what was skipped as
    broken, then what divides people, the most open question first."""
    require(person, "review")
    me = person.id or 0
    values, judged = _divided(store, project_id, me)
    flags, reports, skips = (
        _together(rows)
        for rows in (
            reviews.flagged(store, project_id, me, MOST),
            reviews.told(store, project_id, MOST),
            reviews.skipped(store, project_id, me, SKIPS, MOST),
        )
    )
    made = [
        Conflict(
            id,
            judged.get(id) or store.get(Comparison, id).judged,
            values.get(id, 0.0),
            flags.get(id, ()),
            reports.get(id, ()),
            skips.get(id, ()),
        )
        for id in {**values, **flags, **reports, **skips}
    ]
    return sorted(made, key=_urgency)[:MOST]


def _urgency(one: Conflict) -> tuple[object, ...]:
    """Smaller is sooner."""
    return not (one.reports or one.flags), not one.skips, -one.value, -one.judged, one.id


def reports_waiting(store: Store, person: Person) -> int:
    """In how many comparisons of open projects a report waits; counting stops at 99."""
    require(person, "review")
    return reviews.open_reports(store, 99)


def _together(rows: Sequence[tuple[int, str]]) -> dict[int, tuple[str, ...]]:
    """Comparison -> the different words said of it, in alphabetical order."""
    found: dict[int, set[str]] = {}
    for comparison, word in rows:
        found.setdefault(comparison, set()).add(word)
    return {comparison: tuple(sorted(words)) for comparison, words in found.items()}


def _divided(store: Store, project_id: int, person_id: int) -> tuple[dict[int, float], dict[int, int]]:
    """Of pairs and of rankings: comparison -> how open it is, and how many judged it."""
    said: dict[
        int, dict[tuple[int, int], list[tuple[int, int]]]
    ] = {}  # comparison -> pair of positions -> (who, which)
    judged: dict[int, int] = {}
    for comparison, judge, side in reviews.divided(store, project_id, person_id, MOST):
        said.setdefault(comparison, {}).setdefault((0, 1), []).append((judge, side))
        judged[comparison] = judged.get(comparison, 0) + 1
    for comparison, judge, ranks, shown in reviews.ranked(store, project_id, person_id, READ_MOST):
        by_position = dict(zip(shown, ranks, strict=True))
        for first, second in combinations(range(len(ranks)), 2):
            named = soft.category({0: by_position[first], 1: by_position[second]})
            said.setdefault(comparison, {}).setdefault((first, second), []).append((judge, named))
        judged[comparison] = judged.get(comparison, 0) + 1
    tables = _tables(store, project_id) if said else {}
    values = {
        comparison: math.fsum(_entropy(_share(tables, rows)) for rows in pairs.values()) / len(pairs)
        for comparison, pairs in said.items()
        if any({soft.FIRST, soft.SECOND} <= {side for _, side in rows} for rows in pairs.values())
    }
    return values, judged


def _share(tables: Mapping[str, Any], rows: Sequence[tuple[int, int]]) -> float:
    """How probably the first is better; where nothing is known of anybody, the plain share of those who said so, a tie half."""
    if tables["people"]:
        return soft.share(tables, rows)
    return math.fsum({soft.FIRST: 1.0, soft.TIE: 0.5}.get(side, 0.0) for _, side in rows) / len(rows)


def _tables(store: Store, project_id: int) -> dict[str, Any]:
    """How far each person can be relied on, as soft.share reads it."""
    found = relied_on(store, project_id)
    return {"prior": found.prior, "people": {str(id): table for id, table in found.tables.items()}}


def _entropy(share: float) -> float:
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def look(store: Store, person: Person, comparison_id: int) -> Blind:
    """The texts in an order of this person's own, without names and without how others judged; with what was reported of them, which
    may speak of what is wrong. Who has judged it may look at what was reported, and set it aside or leave it."""
    require(person, "review")
    comparison = store.get(Comparison, comparison_id)
    _check_stands(comparison)
    open_ones = [one for one in reviews.told_of(store, comparison_id) if one.closed_at is None]
    is_blind = _is_blind(store, person, comparison_id)
    if not is_blind and not open_ones:
        raise not_blind()
    lease = _assignment(store, person, comparison)
    seen = judgements.shown(store, lease)
    flags = forms.parse(store.get(Project, comparison.project_id).label_form).flags
    has_order = is_blind and _has_order(comparison)
    told = tuple(Told(one.category, one.note or "") for one in open_ones)
    return Blind(comparison_id, seen.conversation, seen.answers, lease.shown, flags, has_order, told)


def judge(store: Store, person: Person, comparison_id: int, answer: Answer, key: bytes) -> list[Said]:
    """Keep the reviewer's blind judgement, and only then tell what the others said. The same key again changes nothing."""
    require(person, "review")
    with store.write():
        if judgements.by_key(store, key) is None:
            comparison = _reviewable(store, person, comparison_id)
            _check(store, comparison, answer)
            lease = store.add(_assignment(store, person, comparison))
            _keep(store, lease, answer, key, None)
            reviews.close_reports(store, comparison_id)
            audit.record(store, person, "review", "comparison", comparison_id, {})
    return said(store, person, comparison_id)


def said(store: Store, person: Person, comparison_id: int) -> list[Said]:
    """What everybody said, for who has judged it blind."""
    require(person, "review")
    lease = _mine(store, person, comparison_id)
    judged = [_said(store, row, lease.shown) for row in reviews.said_of(store, comparison_id)]
    reported = [
        Said(people.shown_name(store, one.person_id), "report", rationale=one.note or "", reason=one.category)
        for one in reviews.told_of(store, comparison_id)
    ]
    skipped = [
        Said(people.shown_name(store, one["person_id"]), "skip", reason=one["reason"])
        for one in reviews.skips_of(store, comparison_id, SKIPS)
    ]
    return judged + reported + skipped


def _said(store: Store, row: Mapping[str, Any], mine: Sequence[int]) -> Said:
    """A judgement by the places at which the reviewer saw the answers."""
    shown, ranks = json.loads(row["shown"]), json.loads(row["ranks"])
    by_position = dict(zip(shown, ranks, strict=False))  # of a written answer there are none
    flags = [flag.partition(":") for flag in json.loads(row["flags"])]
    return Said(
        people.shown_name(store, row["person_id"]),
        row["purpose"],
        tuple(by_position[position] for position in mine if position in by_position),
        bool(row["both_bad"]),
        bool(row["both_good"]),
        row["strength"],
        tuple((name, mine.index(shown[int(place)]) if place else None) for name, _, place in flags),
        row["rationale"] or "",
    )


def resolve(store: Store, person: Person, comparison_id: int, answer: Answer, key: bytes) -> Judgement:
    """Decide otherwise in sight of the others: one more row, which says that it came after the reveal."""
    require(person, "review")
    with store.write():
        lease = _mine(store, person, comparison_id)
        known = judgements.by_key(store, key)
        if known is not None:
            return known
        _check(store, store.get(Comparison, comparison_id), answer)
        stored = _keep(store, lease, answer, key, judgements.head(store, lease))
        audit.record(store, person, "resolve", "comparison", comparison_id, {})
        return stored


def keep(store: Store, person: Person, comparison_id: int) -> Comparison:
    """Leave what was flagged or reported as it is: it goes on as before, and waits for a decision again only if somebody flags or
    reports it anew."""
    require(person, "review")
    with store.write():
        found = store.get(Comparison, comparison_id)
        _check_stands(found)
        reviews.clear(store, comparison_id)
        audit.record(store, person, "clear", "comparison", comparison_id, {"judged": found.judged})
        return store.get(Comparison, comparison_id)


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
        _check_stands(found)
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
    _check_stands(found)
    if not _is_blind(store, person, comparison_id):
        raise not_blind()
    return found


def _is_blind(store: Store, person: Person, comparison_id: int) -> bool:
    mine = "comparison_id = ? and person_id = ? and state in ('submitted', 'leased')"
    return not store.find(Assignment, mine, [comparison_id, person.id], limit=1)


def not_blind() -> CannotReview:
    return CannotReview("You have judged this comparison already, so you are not blind to it.", "not_blind")


def _check_stands(comparison: Comparison) -> None:
    if comparison.void_reason is not None:
        raise CannotReview("What was set aside is not reviewed. Choose another one.", "not_reviewable")


def _mine(store: Store, person: Person, comparison_id: int) -> Assignment:
    """This person's review, which must stand before they see what others said."""
    mine = "comparison_id = ? and person_id = ? and purpose = 'review' and state = 'submitted'"
    found = store.find(Assignment, mine, [comparison_id, person.id], limit=1)
    if not found:
        raise CannotReview("Judge it blind first; then you see what the others said.", "judge_first")
    return found[0]


def _assignment(store: Store, person: Person, comparison: Comparison) -> Assignment:
    """Not yet stored. It is no lease, so that it never lies on the desk of the label page."""
    return Assignment(
        comparison_id=comparison.id or 0, person_id=person.id or 0, project_id=comparison.project_id, purpose="review",
        shown=tuple(sorted(range(comparison.size), key=lambda at: _drawn(person, comparison, at))),
        leased_at=store.now(), expires_at=store.now(),
    )  # fmt: skip


def _drawn(person: Person, comparison: Comparison, position: int) -> bytes:
    """By which a person's own order of the answers goes; the same at every look."""
    return hashlib.blake2b(f"review:{person.id}:{comparison.id}:{position}".encode(), digest_size=8).digest()


def _has_order(comparison: Comparison) -> bool:
    """Gold has its order already."""
    return comparison.gold is None and comparison.kind != "demonstration" and comparison.size > 1


def _check(store: Store, comparison: Comparison, answer: Answer) -> None:
    """An order of all answers, and flags that the project's form knows."""
    if not _has_order(comparison):
        raise CannotReview("There is nothing to order here. Set it aside, or leave it as it is.", "nothing_to_judge")
    ranks = answer.ranks
    if len(ranks) != comparison.size or min(ranks) != 1 or max(ranks) > comparison.size:
        raise CannotReview(
            f"Ranks of the {comparison.size} answers go from 1, the best, to {comparison.size}.",
            "bad_ranks",
            size=comparison.size,
        )
    known = forms.parse(store.get(Project, comparison.project_id).label_form).flags
    for flag in answer.flags or ():
        name, _, place = flag.partition(":")
        is_placed = place.isascii() and place.isdecimal() and int(place) < comparison.size
        if name not in known or (place == "") != (name == ABOUT_THE_PROMPT) or (place and not is_placed):
            raise CannotReview(f"Unknown flag {flag[:40]!r}.", "unknown_flag", flag=flag[:40])


def _keep(store: Store, lease: Assignment, answer: Answer, key: bytes, before: Judgement | None) -> Judgement:
    return judgements.add(
        store,
        Judgement(
            key=key, assignment_id=lease.id or 0, comparison_id=lease.comparison_id, person_id=lease.person_id, shown=lease.shown,
            act="correct" if before else "submit", supersedes=before.id if before else None,
            revision=before.revision + 1 if before else 0, ranks=answer.ranks, both_bad=answer.both_bad, strength=answer.strength,
            flags=answer.flags or None,
            rationale=answer.rationale or None, seconds=answer.seconds, after_reveal=before is not None, client="review",
            guideline_id=judgements.guideline_id(store, lease.project_id), created_at=store.now(),
        ),
    )  # fmt: skip
