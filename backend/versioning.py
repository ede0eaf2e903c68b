"""Versioning: what changed between two versions of a template, in words and in what they do; names that point at versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from backend import access
from backend.problem import Problem
from backend.prompts.fewshot import FewShot
from backend.prompts.rows import rows_told, written
from backend.stats.paired import Flips, mcnemar
from feedback_db import Store, audit, behaviour, people, prompts
from feedback_db.behaviour import Outcome
from feedback_db.types import Case, Comment, Completion, Model, Person, Suite, Template

ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
LONGEST_COMMENT = 4_000  # characters
MOST_FLIPPED = 40  # cases told of; the counts are of all


class CannotVersion(Problem):
    """An alias, a comment or a comparison of versions that cannot be; the message says why."""


class Change(NamedTuple):
    """One field of a template whose content differs."""

    field: str  # system_text, body, rows, mode, labels, scenario, language, or few_shot.k ...
    before: str
    after: str


class Flipped(NamedTuple):
    """A case that one version passes and the other fails."""

    case: Case
    gained: bool  # the newer one passes
    before: str  # the answers
    after: str


class Behaviour(NamedTuple):
    """What two versions did with the cases that both were run on, with one model and sampling."""

    suite: Suite
    model: Model
    runs: tuple[int, int]
    n: int
    passed: tuple[int, int]
    flips: Flips
    flipped: list[Flipped]  # losses first


class Said(NamedTuple):
    comment: Comment
    by: str
    own: bool


# ---- names that point at versions


def aliases(store: Store, person: Person, project_id: int, name: str) -> dict[int, list[str]]:
    """Version id -> its aliases, for one template."""
    access.require(person, "build")
    found: dict[int, list[str]] = {}
    for (of, alias), template_id in prompts.aliases(store, project_id).items():
        if of == name:
            found.setdefault(template_id, []).append(alias)
    return found


def point(store: Store, person: Person, template_id: int, alias: str) -> None:
    """Let an alias (production, staging ...) point at this version; it leaves the version it pointed at. Raises CannotVersion."""
    access.require(person, "build")
    alias = alias.strip().lower()
    if not ALIAS.fullmatch(alias) or alias == "latest" or alias.isdigit():
        raise CannotVersion(
            f'"{alias[:40]}" cannot be an alias: 1 to 40 lower-case letters, digits, dots, hyphens or underscores, '
            "not only digits, not latest.",
            "bad_alias",
            alias=alias[:40],
        )
    with store.write():
        template = store.get(Template, template_id)
        before = prompts.aliases(store, template.project_id).get((template.name, alias))
        if before == template_id:
            return
        prompts.point_alias(store, template, alias)
        audit.record(store, person, "point_alias", "template", template_id, {"alias": alias, "before": before})


def unpoint(store: Store, person: Person, template_id: int, alias: str) -> None:
    """Take an alias away from this version."""
    access.require(person, "build")
    with store.write():
        template = store.get(Template, template_id)
        if prompts.aliases(store, template.project_id).get((template.name, alias)) == template_id:
            prompts.drop_alias(store, template.project_id, template.name, alias)
            audit.record(store, person, "drop_alias", "template", template_id, {"alias": alias})


# ---- comments


def comments(store: Store, person: Person, template_id: int) -> list[Said]:
    """Oldest first."""
    access.require(person, "build")
    return [
        Said(one, people.shown_name(store, one.person_id), one.person_id == person.id)
        for one in prompts.comments(store, template_id)
    ]


def comment(store: Store, person: Person, template_id: int, text: str) -> Comment:
    access.require(person, "build")
    text = text.strip()
    if not 1 <= len(text) <= LONGEST_COMMENT:
        raise CannotVersion(
            f"A comment has 1 to {LONGEST_COMMENT:,} characters; this one has {len(text):,}.",
            "bad_comment",
            most=LONGEST_COMMENT,
            n=len(text),
        )
    with store.write():
        store.get(Template, template_id)
        return store.add(Comment(template_id=template_id, text=text, person_id=person.id))


def take_back(store: Store, person: Person, comment_id: int) -> None:
    """One's own comment, or as an admin anybody's. Raises CannotVersion."""
    access.require(person, "build")
    with store.write():
        if store.get(Comment, comment_id).person_id != person.id and not access.has_role(person, "admin"):
            raise CannotVersion("This comment is somebody else's.", "foreign_comment")
        prompts.retire_comment(store, comment_id)


# ---- what changed


def changes(store: Store, person: Person, before_id: int, after_id: int) -> list[Change]:
    """Field by field, from one version to another; fields that are equal are left out."""
    access.require(person, "build")
    both = [store.get(Template, id) for id in (before_id, after_id)]
    as_rows = any(one.rows for one in both)
    before, after = (_fields(one, as_rows) for one in both)
    names = dict.fromkeys([*before, *after])
    return [
        Change(name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name, "") != after.get(name, "")
    ]


def behaviours(store: Store, person: Person, before_id: int, after_id: int) -> list[Behaviour]:
    """Every suite, model and sampling that both versions were run with: which cases flipped, and whether that is more than
    chance (exact McNemar)."""
    access.require(person, "build")
    first, other = behaviour.tried(store, before_id), behaviour.tried(store, after_id)
    found: list[Behaviour] = []
    for place in sorted(set(first) & set(other), reverse=True):
        old, new = (behaviour.outcomes(store, *where[place]) for where in (first, other))
        both = [case_id for case_id in old if case_id in new]
        if not both:
            continue
        flips = mcnemar([old[case].passed for case in both], [new[case].passed for case in both])
        differ = sorted((case for case in both if old[case].passed != new[case].passed), key=lambda c: new[c].passed)
        found.append(
            Behaviour(
                store.get(Suite, place.suite_id), store.get(Model, place.model_id), (first[place][0], other[place][0]),
                len(both), (sum(old[c].passed for c in both), sum(new[c].passed for c in both)), flips,
                [_flipped(store, old[case], new[case]) for case in differ[:MOST_FLIPPED]],
            )
        )  # fmt: skip
    return found


def _flipped(store: Store, old: Outcome, new: Outcome) -> Flipped:
    before, after = (store.get(Completion, one.completion_id).text if one.completion_id else "" for one in (old, new))
    return Flipped(store.get(Case, new.case_id), new.passed, before, after)


def _fields(template: Template, as_rows: bool) -> Mapping[str, str]:
    """``as_rows``: a text template beside a chat template is told as rows too."""
    set_to = FewShot.parse(template.few_shot)
    few_shot: dict[str, Any] = {"few_shot.k": set_to.k}
    if set_to.k:  # without examples the other settings say nothing
        few_shot = {f"few_shot.{name}": value for name, value in set_to.as_row().items()}
    said = {"system_text": template.system_text, "body": template.body}
    if as_rows:
        said = {"rows": written(rows_told(template))}
    shown = {
        **said, "mode": template.mode,
        "labels": ", ".join(template.labels or ()), "scenario": template.scenario or "",
        "language": template.language or "", **few_shot,
    }  # fmt: skip
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in shown.items()
    }
