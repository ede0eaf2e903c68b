"""Looking back: one's own judgements, to see and to correct; and after the vote what the reward model or others thought."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from backend.access import require
from backend.engines.answers import EngineError
from backend.labels import form as forms
from backend.labels.desk import Desk, LabellingProblem, as_draft, desk_of, id_of, mine, project_of
from backend.labels.form import Answer
from backend.labels.keeping import checked, judge, keep_as_demonstration
from feedback_db import Store, judgements, models, prompts, turns
from feedback_db.types import Assignment, Comparison, Judgement, Person, Project

PAGE = 20
SHOWN_MOST = 240  # characters of a text in the list


class Scorer(Protocol):
    """What a reward model can be asked through."""

    def client(self) -> Any: ...


class Past(NamedTuple):
    """One line of somebody's own history; ranks by place, as they saw the answers."""

    judgement: int
    at: int
    kind: str
    asked: str
    ranks: tuple[int, ...]
    strength: int | None
    both_bad: bool
    both_good: bool
    rationale: str
    edited: str
    revision: int
    after_reveal: bool


class History(NamedTuple):
    """``before`` is where the next page begins; None on the last."""

    past: list[Past]
    before: tuple[int, int] | None


class Revealed(NamedTuple):
    """``scores`` are the reward model's, by place. ``first``: of ``n`` others, how many put each place first alone."""

    kind: str
    scores: tuple[float, ...] = ()
    first: tuple[int, ...] = ()
    n: int = 0


# ---- history


def history(store: Store, person: Person, project_id: int, before: tuple[int, int] | None = None) -> History:
    """A person's own judgements, newest first, a page at a time. Nobody else's are ever in it."""
    require(person, "label")
    project = project_of(store, project_id)
    found = turns.past(store, id_of(person), id_of(project), before, PAGE + 1)
    shown = found[:PAGE]
    last = store.get(Assignment, shown[-1].judgement.assignment_id) if len(found) > PAGE else None
    return History([_past(one) for one in shown], (last.submitted_at or 0, id_of(last)) if last else None)


def _past(one: turns.Past) -> Past:
    said = one.judgement
    asked = judgements.conversation_of(one.case)[-1]["content"]
    return Past(
        judgement=id_of(said),
        at=said.created_at,
        kind=one.kind,
        asked=asked[:SHOWN_MOST],
        ranks=said.ranks or (),
        strength=said.strength,
        both_bad=said.both_bad,
        both_good=said.both_good,
        rationale=(said.rationale or "")[:SHOWN_MOST],
        edited=(said.edited_text or "")[:SHOWN_MOST],
        revision=said.revision,
        after_reveal=said.after_reveal,
    )


def open_again(store: Store, person: Person, judgement_id: int) -> Desk:
    """The desk of one's own judgement as it was left. It counts on until a correction is saved."""
    require(person, "label")
    said, assignment = _own(store, person, judgement_id)
    project = project_of(store, assignment.project_id)
    desk = desk_of(store, person, project, assignment)
    assert desk is not None  # an assignment was given
    return replace(desk, draft=as_draft(said), corrects=judgement_id)


def correct(store: Store, person: Person, judgement_id: int, key: bytes, answer: Answer) -> int:
    """Supersede one's own judgement; returns the id of the new one. The same key again gives the same row.

    A correction of what was revealed is marked so, kept, and never trained on. Raises LabellingProblem.
    """
    require(person, "label")

    def act() -> Judgement:
        stored = judgements.by_key(store, key)
        if stored is not None:
            if stored.person_id != person.id or stored.supersedes != judgement_id:
                raise LabellingProblem("This key belongs to another judgement. Reload the page.", "foreign_key")
            return stored
        said, assignment = _own(store, person, judgement_id)
        project = project_of(store, assignment.project_id)
        stored, _ = judge(store, assignment, key, checked(store, project, assignment, answer), corrects=True)
        prompts.drop_written_with(store, id_of(said))
        keep_as_demonstration(store, project, stored, person)
        return stored

    return id_of(store.commit(act))


def _own(store: Store, person: Person, judgement_id: int) -> tuple[Judgement, Assignment]:
    """A judgement of this person that counts now, and its assignment."""
    found = store.find(Judgement, "id = ? and person_id = ?", [judgement_id, person.id])
    if not found:
        raise LabellingProblem("This judgement is not one of yours. Reload the page.", "not_your_judgement", 404)
    assignment = mine(store, person, found[0].assignment_id)
    if assignment.head_judgement_id != judgement_id or assignment.state != "submitted":
        raise LabellingProblem(
            "This judgement was changed meanwhile, perhaps in another tab. Open it again.", "changed_meanwhile"
        )
    return found[0], assignment


# ---- what is told after the vote


def reveal(store: Store, engine: Scorer | None, person: Person, judgement_id: int) -> Revealed | None:
    """What the project tells after a judgement; None where it tells nothing, or nothing is known yet.

    Told once, the assignment is marked, so that a later correction is known to have been made with it in mind. For a share of
    people and comparisons (by a keyed hash, so always the same ones) nothing is told, to see what telling does.
    """
    require(person, "label")
    said, assignment = _own(store, person, judgement_id)
    project = store.get(Project, assignment.project_id)
    form = forms.parse(project.label_form)
    comparison = store.get(Comparison, assignment.comparison_id)
    if form.reveal == "off" or assignment.purpose not in ("label", "surplus") or len(assignment.shown) < 2:
        return None
    if is_held_out(project, id_of(person), id_of(comparison), form.reveal_holdout):
        return None
    if form.reveal == "others":
        told = _others(store, comparison, id_of(person), said.shown)
    else:
        told = _margin(store, engine, project, assignment)
    if told is not None:
        store.commit(lambda: turns.reveal(store, assignment))
    return told


def is_held_out(project: Project, person_id: int, comparison_id: int, share: float) -> bool:
    """Whether this person is told nothing of this comparison; the same answer whenever it is asked."""
    seed = f"reveal:{project.settings.get('order_seed', project.created_at)}".encode()[:64]
    drawn = hashlib.blake2b(f"{person_id}:{comparison_id}".encode(), key=seed, digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2**64 < share


def _others(store: Store, comparison: Comparison, person_id: int, shown: tuple[int, ...]) -> Revealed | None:
    """Only of a comparison that nobody judges any more: what is told could not sway those still to come."""
    if comparison.status != "done":
        return None
    found = turns.others(store, id_of(comparison), person_id)
    first: Counter[int] = Counter()
    for ranks, positions in found:
        best = [position for rank, position in zip(ranks, positions, strict=True) if rank == min(ranks)]
        if len(best) == 1:
            first[best[0]] += 1
    return Revealed("others", first=tuple(first[position] for position in shown), n=len(found)) if found else None


def _margin(store: Store, engine: Scorer | None, project: Project, assignment: Assignment) -> Revealed | None:
    model = models.live(store, "reward", project.id)
    if engine is None or model is None:
        return None
    seen = judgements.shown(store, assignment)
    try:
        scores = engine.client().rewards(list(seen.conversation), list(seen.answers), model=f"model-{model.id}")
    except (
        EngineError
    ):  # it is busy, or serves another base: the judgement is saved, and this is no more than a courtesy
        return None
    return Revealed("margin", scores=tuple(round(score, 3) for score in scores))
