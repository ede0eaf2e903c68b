"""Labelling: take a comparison, judge it, skip it, take the last one back. Saved means committed."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from backend.access import require
from backend.labels import form as forms
from backend.labels.form import Answer, DoesNotFit
from backend.problem import Problem
from backend.prompts.digest import demonstration_digest
from feedback_db import Store, audit, comparisons, judgements, prompts, queue
from feedback_db.judgements import Counts
from feedback_db.queue import Draw
from feedback_db.types import Assignment, Case, Comparison, Demonstration, Judgement, Message, Person, Project

UNDO_SECONDS = 600
POINTS = ""  # among the aspects of a judgement: the points themselves
SKIP_REASONS = ("", "unclear", "both_same", "needs_knowledge", "personal", "broken")


class LabellingProblem(Problem):
    """Something that stands in the way of this judgement. ``status`` is the HTTP one."""

    def __init__(self, message: str, code: str, status: int = 409, **values: object):
        super().__init__(message, code, **values)
        self.status = status


class ProjectProgress(NamedTuple):
    id: int
    name: str
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What lies before an annotator: texts and a form. Nothing tells which model, seed or template wrote what."""

    assignment: int
    lease: int  # names this lease of the assignment, for ``release``
    project: int
    project_name: str
    kind: str
    conversation: tuple[Message, ...]
    answers: tuple[str, ...]
    form: dict[str, Any]
    guideline: str
    guideline_version: int | None
    lease_seconds: int
    draft: dict[str, Any] | None
    progress: Counts


class Judged(NamedTuple):
    """``judgement`` is a committed row. ``counted`` is False when the comparison had its judgements already."""

    judgement: int
    counted: bool
    desk: Desk | None


def projects(store: Store, person: Person) -> list[ProjectProgress]:
    """The open projects, with how far this person is in each."""
    require(person, "label")
    found = judgements.open_projects(store)
    return [ProjectProgress(_id(p), p.name, _progress(store, person, p)) for p in found]


def next_desk(store: Store, person: Person, project_id: int) -> Desk | None:
    """The comparison on this person's desk, a new one if there is none, or None when the queue is empty."""
    require(person, "label")
    project = _project(store, project_id)
    draw = _draw()
    leased = store.commit(lambda: _next(store, person, project, draw))
    return _desk(store, person, project, leased, with_waiting=True)


def ahead(store: Store, person: Person, project_id: int) -> Desk | None:
    """The desk that comes after this one, leased already, so that it can be shown without waiting; None when there is none."""
    require(person, "label")
    project = _project(store, project_id)
    draw = _draw()
    leased = store.commit(lambda: queue.lease_ahead(store, _id(person), project, store.now(), draw))
    return _desk(store, person, project, leased)


def submit(store: Store, person: Person, assignment_id: int, key: bytes, answer: Answer) -> Judged:
    """Store a judgement and lease the next comparison, in one transaction. The same key again gives the same row."""
    require(person, "label")
    draw = _draw()

    def act() -> tuple[Judgement, Assignment, Project, Assignment | None]:
        found = _mine(store, person, assignment_id)
        project = store.get(Project, found.project_id)
        stored = judgements.by_key(store, key)
        if stored is None:
            stored, found = _judge(store, found, key, _checked(store, project, found, answer))
            _keep_as_demonstration(store, project, stored, person)
        elif stored.assignment_id != found.id or stored.person_id != person.id:
            raise LabellingProblem("This key belongs to another judgement. Reload the page.", "foreign_key")
        return stored, found, project, _next(store, person, project, draw)

    stored, found, project, following = store.commit(act)
    return Judged(_id(stored), found.purpose != "surplus", _desk(store, person, project, following))


def skip(store: Store, person: Person, assignment_id: int, reason: str = "") -> Desk | None:
    """Leave a comparison to others; it does not come back to this person."""
    require(person, "label")
    if reason not in SKIP_REASONS:
        raise LabellingProblem(f"Unknown reason. Known are: {', '.join(SKIP_REASONS[1:])}.", "bad_reason", 422)
    draw = _draw()

    def act() -> tuple[Project, Assignment | None]:
        found = _mine(store, person, assignment_id)
        project = store.get(Project, found.project_id)
        if found.state == "submitted":
            raise _judged_already()
        if found.state != "skipped":
            if judgements.head(store, found) is None:  # one that was judged and taken back keeps its draft
                judgements.drop_draft(store, assignment_id)
            queue.end(store, found, "skipped")
            audit.record(store, person, "skip", "assignment", assignment_id, {"reason": reason})
        return project, _next(store, person, project, draw)

    project, following = store.commit(act)
    return _desk(store, person, project, following)


def undo(store: Store, person: Person, project_id: int, key: bytes, judgement_id: int | None = None) -> Desk:
    """Take back this person's last judgement, up to 10 minutes old, and put its comparison on the desk again."""
    require(person, "label")
    project = _project(store, project_id)

    def act() -> tuple[Assignment, Judgement]:
        stored = judgements.by_key(store, key)
        if stored is not None:  # a retry
            taken_back = store.get(Judgement, int(stored.supersedes or 0))
            return _mine(store, person, stored.assignment_id), taken_back
        now = store.now()
        last = judgements.last_submitted(store, _id(person), project_id, now - UNDO_SECONDS * 1_000_000)
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
        prompts.drop_written_with(store, _id(last))
        again = queue.take_up_again(store, _mine(store, person, last.assignment_id), project, now)
        judgements.save_draft(store, again, _as_draft(last), now)
        return again, last

    again, _ = store.commit(act)
    desk = _desk(store, person, project, again)
    assert desk is not None  # an assignment was given
    return desk


def save_draft(store: Store, person: Person, assignment_id: int, draft: dict[str, Any]) -> None:
    """Keep what is typed so far. A judged or skipped comparison needs no draft: then this does nothing."""
    require(person, "label")

    def act() -> None:
        found = _mine(store, person, assignment_id)
        if found.state in ("leased", "expired", "released"):
            judgements.save_draft(store, found, draft, store.now())

    store.commit(act)


def heartbeat(store: Store, person: Person, assignment_id: int) -> int:
    """Keep the lease while somebody works; returns the seconds left. LabellingProblem when it is lost."""
    require(person, "label")

    def act() -> int:
        found = _mine(store, person, assignment_id)
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
        found = _mine(store, person, assignment_id)
        if found.state == "leased" and found.leased_at == lease and judgements.head(store, found) is None:
            queue.end(store, found, "released")

    store.commit(act)


# ---- inside


def _judge(store: Store, found: Assignment, key: bytes, answer: Answer) -> tuple[Judgement, Assignment]:
    now = store.now()
    if found.state == "submitted":
        raise _judged_already()
    if found.state != "leased" and not queue.slot_is_free(store, found):  # too late: somebody else has the slot
        found = queue.as_surplus(store, found)
    before = judgements.head(store, found)
    stored = judgements.add(
        store,
        Judgement(
            key=key,
            assignment_id=_id(found),
            revision=before.revision + 1 if before else 0,
            supersedes=before.id if before else None,
            comparison_id=found.comparison_id,
            person_id=found.person_id,
            act="correct" if before else "submit",
            shown=found.shown,
            ranks=answer.ranks,
            both_bad=answer.both_bad,
            both_good=answer.both_good,
            strength=answer.strength,
            aspects=_aspects(answer),
            flags=answer.flags or None,
            spans=tuple(asdict(span) for span in answer.spans) if answer.spans else None,
            rationale=answer.rationale or None,
            edited_position=found.shown[answer.edited_place] if answer.edited_place is not None else None,
            edited_text=answer.edited_text,
            confidence=answer.confidence,
            seconds=answer.seconds,
            active_seconds=answer.active_seconds,
            guideline_id=judgements.guideline_id(store, found.project_id),
            after_reveal=found.revealed_at is not None,
            client=answer.client,
            created_at=now,
        ),
    )
    return stored, found


def _checked(store: Store, project: Project, found: Assignment, answer: Answer) -> Answer:
    """The answer, if it is one to the project's form."""
    kind, size = store.get(Comparison, found.comparison_id).kind, len(found.shown)
    needs_texts = answer.spans or answer.edited_text is not None
    texts = judgements.shown(store, found).answers if needs_texts else ("",) * size
    try:
        answer = forms.check(answer, forms.parse(project.label_form), kind, texts)
    except DoesNotFit as problem:
        raise LabellingProblem(str(problem), problem.code, 422, **problem.values) from problem
    place = answer.edited_place
    if judgements.MASK in (answer.edited_text or ""):
        raise LabellingProblem(
            "Part of this answer is covered, since it says who made it. Write something in its place, or drop the edit.",
            "masked_edit",
            422,
        )
    if place is not None and answer.edited_text == texts[place]:  # nothing was mended
        return replace(answer, edited_place=None, edited_text=None)
    return answer


def _keep_as_demonstration(store: Store, project: Project, stored: Judgement, person: Person) -> None:
    """What somebody wrote in an answer's place becomes a worked example, if the case is one question."""
    if stored.edited_text is None or stored.edited_position is None:
        return
    comparison = store.get(Comparison, stored.comparison_id)
    asked = judgements.conversation_of(store.get(Case, comparison.case_id))
    questions = [message["content"] for message in asked if message["role"] != "system"]
    if len(questions) != 1:
        return
    digest = demonstration_digest(input=questions[0], output=stored.edited_text)
    if prompts.demonstration_with(store, _id(project), digest) is None:
        mended = comparisons.completions_of(store, comparison.id or 0)[stored.edited_position]
        store.add(
            Demonstration(
                project_id=_id(project), input=questions[0], output=stored.edited_text, source="winner", digest=digest,
                judgement_id=stored.id, completion_id=mended.id, person_id=person.id,
            )
        )  # fmt: skip


def _draw() -> Draw:
    return Draw(random.random(), random.random(), random.random())


def _next(store: Store, person: Person, project: Project, draw: Draw) -> Assignment | None:
    if project.archived_at is not None:
        return None
    return queue.lease_next(store, _id(person), project, store.now(), draw)


def _desk(
    store: Store, person: Person, project: Project, found: Assignment | None, *, with_waiting: bool = False
) -> Desk | None:
    if found is None:
        return None
    seen = judgements.shown(store, found)
    return Desk(
        assignment=_id(found),
        lease=found.leased_at,
        project=_id(project),
        project_name=project.name,
        kind=seen.kind,
        conversation=seen.conversation,
        answers=seen.answers,
        form=forms.stored(forms.parse(project.label_form)),
        guideline=seen.guideline.body if seen.guideline else "",
        guideline_version=seen.guideline.version if seen.guideline else None,
        lease_seconds=project.lease_seconds,
        draft=seen.draft,
        progress=_progress(store, person, project, with_waiting),
    )


def _progress(store: Store, person: Person, project: Project, with_waiting: bool = True) -> Counts:
    return judgements.counts(store, _id(person), project, store.now(), with_waiting=with_waiting)


def _project(store: Store, project_id: int) -> Project:
    project = store.get(Project, project_id)
    if project.archived_at is not None:
        raise LabellingProblem(f"The project {project.name} is closed.", "project_closed", 404)
    return project


def _mine(store: Store, person: Person, assignment_id: int) -> Assignment:
    found = queue.assignment_of(store, _id(person), assignment_id)
    if found is None:
        raise LabellingProblem("This comparison is not on your desk. Reload the page.", "not_yours", 404)
    return found


def _judged_already() -> LabellingProblem:
    return LabellingProblem("You have judged this comparison already, perhaps in another tab.", "judged_already")


def _aspects(answer: Answer) -> dict[str, Any] | None:
    """Aspects by name, and the points under the name that no aspect can have."""
    points = {POINTS: list(answer.points)} if answer.points is not None else {}
    return {**{name: list(values) for name, values in (answer.aspects or {}).items()}, **points} or None


def _as_draft(judgement: Judgement) -> dict[str, Any]:
    """What the desk shows when a judgement was taken back: all that was said, by place."""
    aspects = dict(judgement.aspects or {})
    position = judgement.edited_position
    return {
        "ranks": list(judgement.ranks or ()),
        "both_bad": judgement.both_bad,
        "both_good": judgement.both_good,
        "strength": judgement.strength,
        "points": aspects.pop(POINTS, None),
        "aspects": aspects or None,
        "flags": list(judgement.flags or ()),
        "spans": list(judgement.spans or ()),
        "rationale": judgement.rationale or "",
        "edited_place": judgement.shown.index(position) if position is not None else None,
        "edited_text": judgement.edited_text,
        "confidence": judgement.confidence,
    }


def _id(record: Any) -> int:
    return int(record.id)
