"""Battles: two models drawn by chance answer a case drawn by chance, somebody says which is better, and only then who they are."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from backend import access
from backend.labels.form import Answer
from backend.problem import Problem
from feedback_db import Store, audit, comparisons, judgements, models, prompts
from feedback_db.types import Assignment, Comparison, Completion, Judgement, Model, Person, Prompt

REASON = "a battle"


class CannotBattle(Problem):
    """There is nothing to draw from, or nothing to choose between; the message says what is missing."""


class Drawn(NamedTuple):
    """What chance chose: both columns get the same template and case."""

    case_id: int
    template_id: int
    model_ids: tuple[int, int]  # left, right


class Revealed(NamedTuple):
    """The stored judgement, and who stood left and right."""

    judgement: int
    left: str
    right: str


def draw(store: Store, person: Person, project_id: int, seed: int) -> Drawn:
    """A case, a template for it, and two different models, each alike likely. Raises CannotBattle."""
    access.require(person, "compare")
    base = models.live(store, "policy")
    able = [m for m in models.policies(store) if base is None or m.base_fingerprint == base.base_fingerprint]
    if len(able) < 2:
        raise CannotBattle("A battle needs two models. Train a policy first.", "one_model")
    chance = Random(seed)
    open_ended = [one for one in prompts.templates(store, project_id) if one.labels is None]
    chance.shuffle(open_ended)
    for template in open_ended:
        cases = prompts.cases(store, project_id, scenario=template.scenario, language=template.language)
        if cases:
            left, right = chance.sample([m.id or 0 for m in able], 2)
            return Drawn(chance.choice(cases).id or 0, template.id or 0, (left, right))
    raise CannotBattle("This project has no cases to draw from. Add some on the Build page.", "no_cases")


def vote(store: Store, person: Person, completion_ids: tuple[int, int], answer: Answer, key: bytes) -> Revealed:
    """Keep what somebody says of two answers, left and right, and tell whose they are. The same key again changes nothing."""
    access.require(person, "compare")
    with store.write():
        stored = judgements.by_key(store, key)
        if stored is None:
            stored = _judge(store, person, completion_ids, answer, key)
    left, right = (store.get(Model, store.get(Completion, i).model_id).name for i in completion_ids)
    return Revealed(stored.id or 0, left, right)


def _judge(store: Store, person: Person, completion_ids: tuple[int, int], answer: Answer, key: bytes) -> Judgement:
    found = [store.get(Completion, i) for i in completion_ids]
    asked = store.get(Prompt, found[0].prompt_id)
    if found[0].text == found[1].text:
        raise CannotBattle("Both wrote the same: there is nothing to choose between.", "same_answers")
    comparison = comparisons.existing_comparison(store, list(completion_ids))
    if comparison is None:
        made = Comparison(project_id=asked.project_id, case_id=asked.case_id, reason=REASON)
        comparison = comparisons.add_comparison(store, made, list(completion_ids))
    order = [one.id for one in comparisons.completions_of(store, comparison.id or 0)]
    now, shown = store.now(), tuple(order.index(i) for i in completion_ids)
    if store.find(Assignment, "comparison_id = ? and person_id = ?", [comparison.id, person.id]):
        raise CannotBattle("You have judged these two answers already.", "judged_already")
    fresh = store.get(Comparison, comparison.id or 0)
    lease = store.add(
        Assignment(
            comparison_id=comparison.id or 0, person_id=person.id or 0, project_id=asked.project_id, shown=shown,
            purpose="label" if fresh.slots_left > 0 and fresh.status == "open" else "surplus", leased_at=now, expires_at=now,
        )
    )  # fmt: skip
    stored = judgements.add(
        store,
        Judgement(
            key=key, assignment_id=lease.id or 0, comparison_id=comparison.id or 0, person_id=person.id or 0, shown=shown,
            ranks=answer.ranks, both_bad=answer.both_bad, strength=answer.strength, seconds=answer.seconds, client="battle",
            guideline_id=judgements.guideline_id(store, asked.project_id), created_at=now,
        ),
    )  # fmt: skip
    audit.record(store, person, "battle", "comparison", comparison.id, {"completions": list(completion_ids)})
    return stored
