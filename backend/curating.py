"""Curating: the bank of demonstrations that prompts draw from, what is known of each, and the answers worth adding to it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from backend import access
from backend.problem import Problem
from backend.prompts.digest import demonstration_digest
from backend.prompts.fewshot import normalised
from feedback_db import Store, audit, bank, prompts
from feedback_db.bank import Fared
from feedback_db.cases import conversation
from feedback_db.types import Case, Demonstration, Person

MOST_WINNERS = 50
LONGEST_TAG = 60  # characters


class BadDemonstration(Problem):
    """A demonstration that cannot be kept; the message says what to do."""


class Known(NamedTuple):
    """A demonstration, and how it fared where people judged."""

    demonstration: Demonstration
    own: Fared | None  # as an answer, if it was one
    shown: Fared | None  # the answers to prompts that showed it


class Winning(NamedTuple):
    """An answer to a training case that people preferred."""

    completion_id: int
    input: str
    output: str
    fared: Fared


def demonstrations(
    store: Store, person: Person, project_id: int, *, scenario: str | None, language: str | None
) -> list[Demonstration]:
    access.require(person, "build")
    return prompts.demonstrations(store, project_id, scenario=scenario, language=language)


def known(
    store: Store,
    person: Person,
    project_id: int,
    *,
    scenario: str | None,
    language: str | None,
    holding: str = "",
    named: tuple[int, ...] = (),
) -> list[Known]:
    """The bank with its figures; ``holding``: only those whose text, label, tags or source hold it. What was taken out of the
    bank is there where it is ``named``."""
    access.require(person, "build")
    own, shown = bank.of_their_own(store, project_id), bank.in_prompts(store, project_id)
    found = prompts.demonstrations(store, project_id, scenario=scenario, language=language, named=named)
    wanted = normalised(holding)
    return [
        Known(one, own.get(one.id or 0), shown.get(one.id or 0))
        for one in found
        if not wanted
        or wanted in normalised("\n".join((one.input, one.output, one.label or "", one.source, *one.tags)))
    ]


def demonstration(store: Store, person: Person, demonstration_id: int) -> Demonstration:
    access.require(person, "build")
    return store.get(Demonstration, demonstration_id)


def add_demonstration(
    store: Store,
    person: Person,
    project_id: int,
    *,
    input: str,
    output: str,
    label: str | None = None,
    scenario: str | None = None,
    language: str | None = None,
    tags: tuple[str, ...] = (),
) -> Demonstration:
    """Add a worked example to the bank; one that is there already is returned, and put back if it was taken out.

    ``scenario`` is the first of its tags. Raises BadDemonstration.
    """
    access.require(person, "build")
    if not input.strip() or not output.strip():
        raise BadDemonstration("A demonstration needs both an input and an output.", "empty_demonstration")
    key = demonstration_digest(input=input, output=output, label=label)
    tagged = _tags((scenario, *tags) if scenario else tags)
    with store.write():
        existing = prompts.demonstration_with(store, project_id, key)
        if existing is not None:
            return _put_back(store, existing)
        return store.add(
            Demonstration(
                project_id=project_id, input=input, output=output, label=label, tags=tagged, language=language, digest=key,
                person_id=person.id,
            )
        )  # fmt: skip


def change_demonstration(
    store: Store,
    person: Person,
    demonstration_id: int,
    *,
    input: str,
    output: str,
    label: str | None,
    tags: tuple[str, ...],
) -> Demonstration:
    """Label and tags change where they stand. Another input or output is another demonstration: it is added, and the one before
    leaves the bank, since prompts and template versions may hold it. Raises BadDemonstration, NotFound."""
    access.require(person, "build")
    with store.write():
        before = store.get(Demonstration, demonstration_id)
        key = demonstration_digest(input=input, output=output, label=label)
        there = prompts.demonstration_with(store, before.project_id, key)
        if there is not None and there.id != before.id:
            raise BadDemonstration(
                f"The bank has this demonstration already: number {there.id}.", "same_demonstration", id=there.id
            )
        if (input, output) != (before.input, before.output):
            remove_demonstration(store, person, demonstration_id)
            return add_demonstration(
                store, person, before.project_id, input=input, output=output, label=label, tags=tags,
                language=before.language,
            )  # fmt: skip
        audit.record(store, person, "change_demonstration", "demonstration", before.id, {"label": label})
        return prompts.change_demonstration(store, replace(before, label=label, tags=_tags(tags), digest=key))


def remove_demonstration(store: Store, person: Person, demonstration_id: int) -> Demonstration:
    """Out of the bank: nothing draws it any more. Versions that name it go on showing it. Raises NotFound."""
    access.require(person, "build")
    with store.write():
        audit.record(store, person, "remove_demonstration", "demonstration", demonstration_id, {})
        return prompts.change_demonstration(
            store, replace(store.get(Demonstration, demonstration_id), retired_at=store.now())
        )


def winners(store: Store, person: Person, project_id: int) -> list[Winning]:
    """Answers that people preferred and that are in no demonstration yet, the surest first. Only of training cases: what a model
    is tested on must not stand in its prompt."""
    access.require(person, "build")
    found = bank.winners(store, project_id, MOST_WINNERS)
    return [Winning(one.completion_id, _asked(store, one.case_id), one.text, one.fared) for one in found]


def keep_winners(store: Store, person: Person, project_id: int, completion_ids: list[int]) -> list[Demonstration]:
    """Put these winning answers into the bank, all or none; who is no winner (any more) is left out."""
    access.require(person, "build")
    wanted = set(completion_ids)
    kept: list[Demonstration] = []
    with store.write():
        for one in bank.winners(store, project_id, MOST_WINNERS):
            if one.completion_id not in wanted:
                continue
            case = store.get(Case, one.case_id)
            asked = _asked(store, one.case_id)
            key = demonstration_digest(input=asked, output=one.text)
            there = prompts.demonstration_with(store, project_id, key)
            kept.append(
                _put_back(store, there)
                if there is not None
                else store.add(
                    Demonstration(
                        project_id=project_id, input=asked, output=one.text, source="winner", digest=key,
                        tags=(case.scenario,) if case.scenario else (), completion_id=one.completion_id,
                        judgement_id=one.judgement_id, person_id=person.id,
                        language=next((tag[5:] for tag in case.tags if tag.startswith("lang:")), None),
                    )
                )
            )  # fmt: skip
    return kept


def _asked(store: Store, case_id: int) -> str:
    case = store.get(Case, case_id)
    return conversation(case.values, case.conversation)[-1]["content"]


def _put_back(store: Store, one: Demonstration) -> Demonstration:
    return prompts.change_demonstration(store, replace(one, retired_at=None)) if one.retired_at else one


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    kept = tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    long = next((tag for tag in kept if len(tag) > LONGEST_TAG), None)
    if long is not None:
        raise BadDemonstration(
            f'The tag "{long[:20]}…" has {len(long)} characters; at most {LONGEST_TAG}.', "long_tag", most=LONGEST_TAG
        )
    return kept
