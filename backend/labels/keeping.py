"""Keeping what somebody said of a desk: checked against the form, appended, and made a worked example where they wrote one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from backend.labels import form as forms
from backend.labels.desk import POINTS, LabellingProblem, id_of, judged_already
from backend.labels.form import Answer, DoesNotFit
from backend.prompts.digest import demonstration_digest
from feedback_db import Store, comparisons, judgements, prompts, queue
from feedback_db.types import Assignment, Case, Comparison, Demonstration, Judgement, Person, Project


def judge(
    store: Store, found: Assignment, key: bytes, answer: Answer, *, corrects: bool = False
) -> tuple[Judgement, Assignment]:
    """Append what was said. One that counts already is only superseded by whoever says that they correct it."""
    now = store.now()
    if found.state == "submitted" and not corrects:
        raise judged_already()
    if found.state not in ("leased", "submitted") and not queue.slot_is_free(store, found):  # too late: taken
        found = queue.as_surplus(store, found)
    before = judgements.head(store, found)
    stored = judgements.add(
        store,
        Judgement(
            key=key,
            assignment_id=id_of(found),
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


def checked(store: Store, project: Project, found: Assignment, answer: Answer) -> Answer:
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


def keep_as_demonstration(store: Store, project: Project, stored: Judgement, person: Person) -> None:
    """What somebody wrote in an answer's place becomes a worked example, if the case is one question."""
    if stored.edited_text is None:
        return
    comparison = store.get(Comparison, stored.comparison_id)
    asked = judgements.conversation_of(store.get(Case, comparison.case_id))
    questions = [message["content"] for message in asked if message["role"] != "system"]
    if len(questions) != 1:
        return
    digest = demonstration_digest(input=questions[0], output=stored.edited_text)
    if prompts.demonstration_with(store, id_of(project), digest) is None:
        mended = None
        if stored.edited_position is not None:
            mended = comparisons.completions_of(store, comparison.id or 0)[stored.edited_position].id
        store.add(
            Demonstration(
                project_id=id_of(project), input=questions[0], output=stored.edited_text, digest=digest,
                source="winner" if mended else "written", judgement_id=stored.id, completion_id=mended, person_id=person.id,
            )
        )  # fmt: skip


def _aspects(answer: Answer) -> dict[str, Any] | None:
    """Aspects by name, and the points under the name that no aspect can have."""
    points = {POINTS: list(answer.points)} if answer.points is not None else {}
    return {**{name: list(values) for name, values in (answer.aspects or {}).items()}, **points} or None
