"""Scenarios: ready sets of template, demonstrations, cases, suite, label form and guideline, taken into a project at a click."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

from backend import access
from backend.exchange import scenario as files
from backend.exchange.scenario import Asked, Scenario, Shown, Version
from backend.problem import Problem
from backend.prompts import digest
from backend.suites.own import suite_digest
from feedback_db import Store, audit, prompts, suites
from feedback_db.types import Case, Demonstration, Guideline, Person, Project, Split, Suite, Template

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "scenarios"
SOURCE = "gallery"  # of the cases that came so


class NoScenario(Problem):
    """What was asked for is not in the gallery, or the project cannot take it; the message says what there is."""


class Added(NamedTuple):
    """What came of it. What the project had already is not counted."""

    project: Project
    template: Template  # the newest version
    suite: Suite
    templates: int
    demonstrations: int
    cases: int


def gallery(person: Person, *, language: str | None = None, folder: Path = FOLDER) -> list[Scenario]:
    """Every scenario there is, or those of a language (en, zh); by area, then by name. Raises BadScenario."""
    access.require(person, "build")
    found = [files.read(path) for path in files.files(folder)]
    return [one for one in found if language in (None, one.language)]


def scenario(person: Person, key: str, language: str, *, folder: Path = FOLDER) -> Scenario:
    """Raises NoScenario."""
    found = gallery(person, folder=folder)
    for one in found:
        if (one.key, one.language) == (key, language):
            return one
    known = ", ".join(dict.fromkeys(one.key for one in found))
    raise NoScenario(
        f'The gallery has no scenario "{key}" in "{language}". It has {known}; each in {" and ".join(files.LANGUAGES)}.',
        "no_scenario",
        scenario=key,
        language=language,
    )


def splits(chosen: Scenario) -> dict[str, int]:
    """How many of its cases fall into train, val and test by their content."""
    every = [
        digest.case_digest(values=c.values, conversation=c.conversation, expected=c.expected) for c in chosen.cases
    ]
    found = [digest.split_of(one) for one in every]
    return {split: found.count(split) for split in get_args(Split)}


def add(store: Store, person: Person, chosen: Scenario, project_id: int) -> Added:
    """Take a scenario into a project, all or nothing; what is there already is taken as it is.

    The project keeps its own label form, and its guideline where it has one.
    """
    access.require(person, "build")
    with store.write():
        project = store.get(Project, project_id)
        if project.archived_at is not None:
            raise NoScenario(f"The project {project.name} is closed. Choose another one.", "project_closed", name=project.name)  # fmt: skip
        if prompts.guideline(store, project_id) is None:
            store.add(Guideline(project_id=project_id, body=chosen.guideline, person_id=person.id))
        added = _add(store, person, chosen, project)
        facts = {"scenario": chosen.key, "language": chosen.language, "cases": added.cases}
        audit.record(store, person, "add_scenario", "project", project_id, facts)
        return added


def add_to_new(store: Store, person: Person, chosen: Scenario, name: str) -> Added:
    """The same in a project of this name, which is made with the scenario's form and guideline. Raises NoScenario."""
    access.require(person, "build")
    wanted = name.strip()
    if not 1 <= len(wanted) <= 120:
        raise NoScenario("A project needs a name of at most 120 characters.", "project_name")
    with store.write():
        if prompts.project_named(store, wanted) is not None:
            raise NoScenario(
                f'There is a project "{wanted}" already. Choose another name, or add the scenario to it.',
                "project_taken",
                name=wanted,
            )
        project = store.add(Project(name=wanted, label_form=chosen.label_form))
        return add(store, person, chosen, project.id or 0)


def _add(store: Store, person: Person, chosen: Scenario, project: Project) -> Added:
    project_id = project.id or 0
    templates = [_template(store, person, project_id, chosen, one) for one in chosen.templates]
    shown = [_demonstration(store, person, project_id, chosen, one) for one in chosen.demonstrations]
    cases = [_case(store, person, project_id, chosen, one) for one in chosen.cases]
    suite = _suite(store, person, project_id, chosen, [case.id or 0 for case, _ in cases])
    return Added(
        project,
        templates[-1][0],
        suite,
        sum(is_new for _, is_new in templates),
        sum(shown),
        sum(is_new for _, is_new in cases),
    )


def _template(
    store: Store, person: Person, project_id: int, chosen: Scenario, version: Version
) -> tuple[Template, bool]:
    """The version with these bytes, or the next one of its name; and whether it is new."""
    key = digest.template_digest(
        mode=version.mode,
        system_text=version.system_text,
        body=version.body,
        rows=version.rows,
        few_shot=version.few_shot,
        labels=version.labels,
    )
    there = store.find(Template, "project_id = ? and name = ? and digest = ?", [project_id, version.name, key])
    if there:
        return there[0], False
    newest = prompts.newest_template(store, project_id, version.name)
    made = Template(
        project_id=project_id,
        name=version.name,
        version=newest.version + 1 if newest else 1,
        parent_id=newest.id if newest else None,
        mode=version.mode,  # type: ignore[arg-type]
        system_text=version.system_text,
        body=version.body,
        rows=version.rows,
        variables=version.variables,
        few_shot=version.few_shot,
        labels=version.labels,
        scenario=chosen.key,
        language=chosen.language,
        note=version.note,
        digest=key,
        person_id=person.id,
    )
    return store.add(made), True


def _demonstration(store: Store, person: Person, project_id: int, chosen: Scenario, shown: Shown) -> bool:
    """Add it to the bank; False where it is there."""
    key = digest.demonstration_digest(input=shown.input, output=shown.output, label=shown.label)
    if prompts.demonstration_with(store, project_id, key) is not None:
        return False
    made = Demonstration(
        project_id=project_id,
        input=shown.input,
        output=shown.output,
        label=shown.label,
        tags=(chosen.key, *shown.tags),
        language=chosen.language,
        digest=key,
        person_id=person.id,
    )
    store.add(made)
    return True


def _case(store: Store, person: Person, project_id: int, chosen: Scenario, asked: Asked) -> tuple[Case, bool]:
    key = digest.case_digest(values=asked.values, conversation=asked.conversation, expected=asked.expected)
    there = prompts.case_with(store, project_id, key)
    if there is not None:
        return there, False
    made = Case(
        project_id=project_id,
        values=asked.values,
        conversation=asked.conversation,
        expected=asked.expected,
        scenario=chosen.key,
        tags=(f"lang:{chosen.language}", *asked.tags),
        split=digest.split_of(key),
        digest=key,
        source=SOURCE,
        person_id=person.id,
    )
    return store.add(made), True


def _suite(store: Store, person: Person, project_id: int, chosen: Scenario, case_ids: list[int]) -> Suite:
    """The newest of its name where it says the same, else the next version."""
    ids, rows = tuple(dict.fromkeys(case_ids)), chosen.checks
    key = suite_digest(ids, rows, chosen.threshold, {})
    newest = suites.newest(store, project_id, chosen.suite)
    if newest is not None and newest.digest == key:
        return newest
    made = Suite(
        project_id=project_id,
        name=chosen.suite,
        version=newest.version + 1 if newest else 1,
        case_ids=ids,
        checks=rows,
        threshold=chosen.threshold,
        digest=key,
        person_id=person.id,
    )
    return store.add(made)
