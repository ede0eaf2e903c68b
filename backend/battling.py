"""Battles: two models drawn by chance answer a case drawn by chance, somebody says which is better, and only then who they are."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from backend import access
from backend.labels.form import Answer
from backend.labels.voting import vote_on
from backend.problem import Problem
from backend.prompts.chat import variables_of, why_unfit
from feedback_db import Store, audit, judgements, models, prompts
from feedback_db.types import Case, Completion, Model, Person, Template

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
    """A case, a template that it fills, and two different models, each alike likely. Raises CannotBattle."""
    access.require(person, "compare")
    base = models.live(store, "policy")
    able = [m for m in models.policies(store) if base is None or m.base_fingerprint == base.base_fingerprint]
    if len(able) < 2:
        raise CannotBattle("A battle needs two models. Train a policy first.", "one_model")
    chance = Random(seed)
    open_ended = [one for one in prompts.templates(store, project_id) if one.labels is None]
    chance.shuffle(open_ended)
    unfit: list[tuple[Template, list[Case]]] = []
    for template in open_ended:
        cases = prompts.cases(store, project_id, scenario=template.scenario, language=template.language)
        chance.shuffle(cases)
        fitting = next((case for case in cases if why_unfit(template, case) is None), None)
        if fitting is not None:
            left, right = chance.sample([m.id or 0 for m in able], 2)
            return Drawn(fitting.id or 0, template.id or 0, (left, right))
        unfit += [(template, cases)] if cases else []
    if not unfit:
        raise CannotBattle("This project has no cases to draw from. Add some on the Build page.", "no_cases_to_draw")
    raise _unfit(*unfit[0])


def _unfit(template: Template, cases: list[Case]) -> CannotBattle:
    """What the case that comes nearest lacks for this template, or else what is wrong with it."""
    wanted = variables_of(template)
    nearest = min(cases, key=lambda case: sum(name not in (case.values or {}) for name in wanted))
    missing = ", ".join(name for name in wanted if name not in (nearest.values or {}))
    if missing:
        return CannotBattle(
            f'No case holds all that a template asks for: "{template.name}" asks for {missing} too. Add a case with that value on '
            "the Build page, or take it out of the template.",
            "no_case_with_values",
            template=template.name,
            names=missing,
        )
    problem = why_unfit(template, nearest)
    return CannotBattle(
        f'The template "{template.name}" cannot be filled from any of its cases. {problem}',
        "no_case_fits",
        template=template.name,
        problem=problem,
    )


def vote(store: Store, person: Person, completion_ids: tuple[int, int], answer: Answer, key: bytes) -> Revealed:
    """Keep what somebody says of two answers, left and right, and tell whose they are. The same key again changes nothing."""
    access.require(person, "compare")
    with store.write():
        stored = judgements.by_key(store, key)
        if stored is None:
            stored = vote_on(store, person, completion_ids, answer, key, reason=REASON, client="battle")
            audit.record(
                store, person, "battle", "comparison", stored.comparison_id, {"completions": list(completion_ids)}
            )
    left, right = (store.get(Model, store.get(Completion, i).model_id).name for i in completion_ids)
    return Revealed(stored.id or 0, left, right)
