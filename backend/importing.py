"""Importing from other tools: first a plan that changes nothing and says what would be taken, mapped and refused; then all of it.

A file's grades belong to a person named after the file, who cannot sign in. Code in a file is shown, never run; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backend import access
from backend.exchange import formats, keeping, upload
from backend.exchange.plan import BadFile, Plan
from backend.problem import Problem
from feedback_db import Store, audit, prompts
from feedback_db.types import Person, Project

FORMATS = formats.FORMATS
LABEL_FORM = {"kind": "pair", "steps": 4, "tie": True, "both_bad": True, "rationale": "optional"}


class CannotImport(Problem):
    """A file that cannot be read, or a plan that cannot be carried out; nothing of it was taken."""


class Imported(NamedTuple):
    project: Project
    kept: keeping.Kept


def plan_import(person: Person, paths: Sequence[Path | str], *, format: str = "", guess_main: bool = False) -> Plan:
    """What the first of these files would bring; the others are there for it to name; ``guess_main`` takes the one that names most
    of the others instead. Changes nothing. Raises CannotImport."""
    access.require(person, "import")
    try:
        return formats.parse(upload.gather(paths, guess_main=guess_main), format)
    except BadFile as problem:
        raise CannotImport(str(problem), problem.code, **problem.values) from None


def apply_import(store: Store, person: Person, project_id: int, plan: Plan) -> Imported:
    """Carry out a plan: all of it or nothing. What is there already is not added again. Raises CannotImport."""
    access.require(person, "import")
    if plan.is_empty:
        raise CannotImport(
            f"{plan.source} holds nothing that can be taken. Look at the report.", "nothing_taken", file=plan.source
        )
    with store.write():
        project = store.get(Project, project_id)
        if project.archived_at is not None:
            raise CannotImport(
                f"The project {project.name} is closed. Choose another one.", "project_closed", name=project.name
            )
        kept = keeping.keep(store, project_id, plan, person.id)
        facts = {
            "format": plan.format, "templates": kept.new_templates, "cases": kept.new_cases, "suites": kept.new_suites,
            "demonstrations": kept.new_demonstrations, "pairs": kept.new_pairs, "refused": plan.count("refused"),
        }  # fmt: skip
        audit.record(store, person, "import_file", "project", project_id, facts)
        return Imported(project, kept)


def project_for(store: Store, person: Person, name: str) -> Project:
    """The project of this name, made when there is none. Raises CannotImport."""
    access.require(person, "import")
    name = name.strip()
    if not name:
        raise CannotImport("The project needs a name.", "project_nameless")
    with store.write():
        return prompts.project_named(store, name) or store.add(Project(name=name, label_form=LABEL_FORM))
