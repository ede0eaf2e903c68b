"""A desk: what lies before an annotator, made of an assignment, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.labels import form as forms
from backend.problem import Problem
from feedback_db import Store, judgements, queue
from feedback_db.judgements import Counts
from feedback_db.types import Assignment, Judgement, Message, Person, Project

POINTS = ""  # among the aspects of a judgement: the points themselves


class LabellingProblem(Problem):
    """Something that stands in the way of this judgement. ``status`` is the HTTP one."""

    def __init__(self, message: str, code: str, status: int = 409, **values: object):
        super().__init__(message, code, **values)
        self.status = status


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
    corrects: int | None = None  # the judgement that is looked at again


def desk_of(
    store: Store, person: Person, project: Project, found: Assignment | None, *, with_waiting: bool = False
) -> Desk | None:
    if found is None:
        return None
    seen = judgements.shown(store, found)
    return Desk(
        assignment=id_of(found),
        lease=found.leased_at,
        project=id_of(project),
        project_name=project.name,
        kind=seen.kind,
        conversation=seen.conversation,
        answers=seen.answers,
        form=forms.stored(forms.parse(project.label_form)),
        guideline=seen.guideline.body if seen.guideline else "",
        guideline_version=seen.guideline.version if seen.guideline else None,
        lease_seconds=project.lease_seconds,
        draft=seen.draft,
        progress=progress_of(store, person, project, with_waiting),
    )


def progress_of(store: Store, person: Person, project: Project, with_waiting: bool = True) -> Counts:
    return judgements.counts(store, id_of(person), project, store.now(), with_waiting=with_waiting)


def project_of(store: Store, project_id: int) -> Project:
    project = store.get(Project, project_id)
    if project.archived_at is not None:
        raise LabellingProblem(f"The project {project.name} is closed.", "project_closed", 404, name=project.name)
    return project


def mine(store: Store, person: Person, assignment_id: int) -> Assignment:
    found = queue.assignment_of(store, id_of(person), assignment_id)
    if found is None:
        raise LabellingProblem("This comparison is not on your desk. Reload the page.", "not_yours", 404)
    return found


def judged_already() -> LabellingProblem:
    return LabellingProblem("You have judged this comparison already, perhaps in another tab.", "judged_already")


def as_draft(judgement: Judgement) -> dict[str, Any]:
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


def id_of(record: Any) -> int:
    return int(record.id)
