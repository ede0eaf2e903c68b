"""A plan as rows: templates in versions, demonstrations, cases, suites, judged pairs. What is there already is not added again.

This file writes to the database; an activity calls it inside its transaction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from backend.exchange import judged
from backend.exchange.plan import NewCase, NewDemonstration, NewSuite, NewTemplate, Plan
from backend.prompts.chat import variables_of
from backend.prompts.digest import case_digest, demonstration_digest, split_of, template_digest
from backend.suites.own import suite_digest
from feedback_db import Store, prompts, suites
from feedback_db.types import Case, Demonstration, Suite, Template


class Kept(NamedTuple):
    """The ids of what a plan's parts are now, and how many of them were not there before."""

    templates: tuple[int, ...]
    cases: tuple[int, ...]
    suites: tuple[int, ...]
    demonstrations: tuple[int, ...]
    new_templates: int
    new_cases: int
    new_suites: int
    new_demonstrations: int
    new_pairs: int


def keep(store: Store, project_id: int, plan: Plan, person_id: int | None) -> Kept:
    """Everything of the plan. Templates and cases belong to a scenario named as the plan is."""
    count: dict[str, int] = dict.fromkeys(("template", "case", "suite", "demonstration"), 0)

    def counted(kind: str, found: tuple[Any, bool]) -> int:
        count[kind] += found[1]
        assert found[0].id is not None
        return int(found[0].id)

    given = [one for template in plan.templates for one in template.shown]
    demonstrations = {
        one: counted("demonstration", _demonstration(store, project_id, plan, one, person_id))
        for one in dict.fromkeys([*given, *plan.demonstrations])
    }
    templates = tuple(
        counted("template", _template(store, project_id, plan, one, demonstrations, person_id))
        for one in plan.templates
    )
    cases = tuple(counted("case", _case(store, project_id, plan, one, person_id)) for one in plan.cases)
    made = tuple(counted("suite", _suite(store, project_id, one, cases, person_id)) for one in plan.suites)
    pairs = 0
    if plan.pairs:
        target = judged.target(store, project_id, plan.source)
        pairs = sum(
            judged.add_pair(store, target, one.messages, one.better, one.worse, one.rationale) for one in plan.pairs
        )
    return Kept(
        templates, cases, made, tuple(demonstrations.values()),
        count["template"], count["case"], count["suite"], count["demonstration"], pairs,
    )  # fmt: skip


def _demonstration(
    store: Store, project_id: int, plan: Plan, one: NewDemonstration, person_id: int | None
) -> tuple[Demonstration, bool]:
    key = demonstration_digest(input=one.input, output=one.output, label=one.label)
    known = prompts.demonstration_with(store, project_id, key)
    if known is not None:
        return known, False
    made = Demonstration(
        project_id=project_id, input=one.input, output=one.output, label=one.label, tags=(plan.name,), source="imported",
        digest=key, person_id=person_id,
    )  # fmt: skip
    return store.add(made), True


def _template(
    store: Store, project_id: int, plan: Plan, one: NewTemplate, ids: dict[NewDemonstration, int], person_id: int | None
) -> tuple[Template, bool]:
    """The next version of its name; one equal to the newest is that version."""
    shown = [ids[demonstration] for demonstration in dict.fromkeys(one.shown)]
    few_shot: dict[str, Any] = {}
    if shown:
        few_shot = {"k": len(shown), "choose": "fixed", "ids": shown, "shape": one.shape}
    stored = [store.get(Demonstration, id) for id in shown]
    elsewhere = any(row.tags and plan.name not in row.tags for row in stored)  # the scenario would hide them
    newest = prompts.newest_template(store, project_id, one.name)
    made = Template(
        project_id=project_id,
        name=one.name,
        version=newest.version + 1 if newest else 1,
        parent_id=newest.id if newest else None,
        mode=one.mode,
        system_text=one.system_text,
        body=one.body,
        rows=one.rows,
        few_shot=few_shot,
        labels=one.labels,
        scenario=None if elsewhere else plan.name,
        note=one.note,
        digest=template_digest(
            mode=one.mode,
            system_text=one.system_text,
            body=one.body,
            rows=one.rows,
            few_shot=few_shot,
            labels=one.labels,
        ),
        person_id=person_id,
    )
    if newest is not None and newest.digest == made.digest and newest.retired_at is None:
        return newest, False
    named = {field: getattr(made, field) for field in made.__dataclass_fields__}
    return store.add(Template(**{**named, "variables": variables_of(made)})), True


def _case(store: Store, project_id: int, plan: Plan, one: NewCase, person_id: int | None) -> tuple[Case, bool]:
    key = case_digest(values=one.values, conversation=one.conversation, expected=one.expected)
    known = prompts.case_with(store, project_id, key)
    if known is not None:
        return known, False
    made = Case(
        project_id=project_id,
        values=None if one.values is None else dict(one.values),
        conversation=one.conversation,
        expected=one.expected,
        scenario=plan.name,
        tags=one.tags,
        split=split_of(key),
        digest=key,
        source=plan.source,
        person_id=person_id,
    )
    return store.add(made), True


def _suite(
    store: Store, project_id: int, one: NewSuite, cases: tuple[int, ...], person_id: int | None
) -> tuple[Suite, bool]:
    ids = tuple(dict.fromkeys(cases[place] for place in one.cases))
    own = {str(cases[place]): dict(row) for place, row in one.own.items()}
    key = suite_digest(ids, one.checks, one.threshold, own)
    newest = suites.newest(store, project_id, one.name)
    if newest is not None and newest.digest == key:
        return newest, False
    made = Suite(
        project_id=project_id, name=one.name, version=newest.version + 1 if newest else 1, case_ids=ids, checks=one.checks,
        threshold=one.threshold, own=own, digest=key, person_id=person_id,
    )  # fmt: skip
    return store.add(made), True
