"""What prompt engineers write: templates, demonstrations and cases; and what a prompt will look like before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol

from backend import access
from backend.engines.client import EngineClient, TokenCount
from backend.engines.features import current_base, embedder
from backend.problem import Problem
from backend.prompts import digest
from backend.prompts.assemble import assemble
from backend.prompts.chat import variables_of
from backend.prompts.fewshot import EMBEDDED, FewShot
from backend.prompts.rows import TURNS, check_rows
from backend.prompts.segments import Segment, segments
from feedback_db import Store, audit, people, prompts
from feedback_db.cases import conversation
from feedback_db.types import Case, Message, Person, Project, Row, Template

ANSWER_TOKENS = 96  # room a preview leaves for the answer


class BadInput(Problem):
    """Something that was typed cannot be kept; the message names the field and what to do."""


class Engine(Protocol):
    def client(self) -> EngineClient: ...


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A template as it stands in the editor."""

    name: str
    system_text: str = ""
    body: str = ""
    rows: tuple[Row, ...] = ()  # of a chat template, which has no system text and no body
    mode: str = "plain"
    few_shot: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    scenario: str | None = None
    language: str | None = None
    note: str = ""


class Version(NamedTuple):
    """One version of a template and who wrote it (empty: the app itself)."""

    template: Template
    by: str


class Preview(NamedTuple):
    """The exact messages a model would see, and how much of its context they take."""

    messages: tuple[Message, ...]
    tokens: int
    max_tokens: int  # the context of the model
    demonstration_ids: tuple[int, ...]
    dropped_ids: tuple[int, ...]  # demonstrations that did not fit
    segments: tuple[Segment, ...]  # what each part takes


def projects(store: Store, person: Person) -> list[Project]:
    access.require(person, "build")
    return prompts.projects(store)


def templates(store: Store, person: Person, project_id: int) -> list[Template]:
    """All versions, by name, newest first."""
    access.require(person, "build")
    return prompts.templates(store, project_id)


def template(store: Store, person: Person, template_id: int) -> Template:
    access.require(person, "build")
    return store.get(Template, template_id)


def versions(store: Store, person: Person, project_id: int, name: str) -> list[Version]:
    """The versions of one template, newest first, each with its author."""
    access.require(person, "build")
    found = [template for template in prompts.templates(store, project_id) if template.name == name]
    return [Version(template, people.shown_name(store, template.person_id)) for template in found]


def variables(person: Person, draft: Draft) -> tuple[str, ...]:
    """What a draft asks a case for, in order of first use. Raises TemplateProblem."""
    access.require(person, "build")
    return variables_of(_filled_in(draft))


def cases(
    store: Store,
    person: Person,
    project_id: int,
    *,
    scenario: str | None,
    language: str | None,
    holding: str = "",
    most: int | None = None,
) -> list[Case]:
    """Cases of a scenario and language, oldest first; ``holding``: only those whose text or answer holds it."""
    access.require(person, "build")
    found = prompts.cases(store, project_id, scenario=scenario, language=language)
    wanted = holding.strip().casefold()
    if wanted:
        found = [case for case in found if wanted in f"{case_text(case)}\n{case.expected or ''}".casefold()]
    return found[:most]


def case(store: Store, person: Person, case_id: int) -> Case:
    access.require(person, "build")
    return store.get(Case, case_id)


def case_text(case: Case) -> str:
    """A case as one text: what people recognise it by."""
    return "\n".join(message["content"] for message in conversation(case.values, case.conversation))


def preview(
    store: Store,
    engine: Engine,
    person: Person,
    project_id: int,
    draft: Draft,
    values: Mapping[str, str],
    case_id: int | None = None,
) -> Preview:
    """Render a draft for these values; ``case_id`` adds the turns of a stored conversation.

    Raises BadInput, TemplateProblem, FewShotProblem, PromptProblem, BudgetProblem, EngineError.
    """
    access.require(person, "build")
    template = _template(store, person, project_id, draft)
    case = _case(project_id, values, None, None, ())
    if case_id is not None:
        case = replace(case, conversation=store.get(Case, case_id).conversation)
    client = engine.client()

    def tokenize(messages: Sequence[Message]) -> TokenCount:
        return client.tokenize(messages, model="base")

    embed = embedder(store, engine)
    found = assemble(store, template, case, tokenize=tokenize, answer_tokens=ANSWER_TOKENS, embed=embed)
    parts = segments(
        template, case.values or {}, case.conversation or (), found.kept, found.dropped,
        FewShot.parse(template.few_shot).shape, lambda messages: tokenize(messages).count,
    )  # fmt: skip
    return Preview(
        found.messages, found.tokens, found.context, found.demonstration_ids, found.dropped_ids, tuple(parts)
    )


def draft_of(template: Template) -> Draft:
    """A version as it would stand in the editor."""
    return Draft(**{one.name: getattr(template, one.name) for one in fields(Draft)})


def save_template(store: Store, person: Person, project_id: int, draft: Draft) -> Template:
    """Keep a draft as the next version of its name; a draft equal to the newest version is that version."""
    access.require(person, "build")
    with store.write():
        template = _template(store, person, project_id, draft)
        newest = prompts.newest_template(store, project_id, template.name)
        if newest is not None and _says_the_same(newest, template):
            return newest
        saved = store.add(template)
        audit.record(store, person, "save_template", "template", saved.id, {"version": saved.version})
        return saved


def revert(store: Store, person: Person, template_id: int) -> Template:
    """The content of this version as the newest one: nothing is undone, a version is added. One equal to the newest is that."""
    access.require(person, "build")
    with store.write():
        old = store.get(Template, template_id)
        draft = replace(draft_of(old), note=f"= v{old.version}")
        return save_template(store, person, old.project_id, draft)


def add_case(
    store: Store,
    person: Person,
    project_id: int,
    *,
    values: Mapping[str, str],
    expected: str | None = None,
    scenario: str | None = None,
    language: str | None = None,
) -> Case:
    """Add a case; one with the same content is returned instead. Raises BadInput."""
    access.require(person, "build")
    if not any(value.strip() for value in values.values()):
        raise BadInput("A case needs at least one value that is not empty.", "empty_case")
    tags = (f"lang:{language}",) if language else ()
    case = _case(project_id, values, expected, scenario, tags, person_id=person.id)
    with store.write():
        return prompts.case_with(store, project_id, case.digest) or store.add(case)


def add_cases(
    store: Store,
    person: Person,
    project_id: int,
    rows: Sequence[tuple[Mapping[str, str], str | None]],
    *,
    scenario: str | None = None,
    language: str | None = None,
) -> list[Case]:
    """Several (values, expected answer) at once, all or none; a case that is there already is taken as it is."""
    with store.write():
        return [
            add_case(store, person, project_id, values=values, expected=expected, scenario=scenario, language=language)
            for values, expected in rows
        ]


def _case(
    project_id: int,
    values: Mapping[str, str],
    expected: str | None,
    scenario: str | None,
    tags: tuple[str, ...],
    person_id: int | None = None,
) -> Case:
    key = digest.case_digest(values=values, expected=expected)
    return Case(
        project_id=project_id,
        values=dict(values),
        expected=expected,
        scenario=scenario,
        tags=tags,
        split=digest.split_of(key),
        digest=key,
        person_id=person_id,
    )


def _says_the_same(one: Template, other: Template) -> bool:
    """Whether two versions are asked, answered and filled alike; few-shot settings left out count as their defaults."""

    def said(template: Template) -> tuple[Any, ...]:
        few_shot = FewShot.parse(template.few_shot)
        shown = few_shot if few_shot.k else FewShot()
        scope = (template.scenario, template.language, template.labels)
        return template.mode, template.system_text, template.body, template.rows, shown, *scope

    return said(one) == said(other)


def _naming_its_base(store: Store, few_shot: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the base whose embeddings choose: the one that runs now, so that a version never means another."""
    if FewShot.parse(few_shot).choose not in EMBEDDED:
        return {name: value for name, value in few_shot.items() if name != "base"}
    base = current_base(store)
    if not base:
        raise BadInput(
            "There is no base whose embeddings could choose. Start the app once, so that it registers its base.",
            "no_base",
        )
    return {**few_shot, "base": base}


def _template(store: Store, person: Person, project_id: int, draft: Draft) -> Template:
    """The row a draft would become; checks its body and its few-shot settings."""
    name = draft.name.strip()
    if not name:
        raise BadInput("A template needs a name.", "no_template_name")
    if draft.mode not in ("plain", "logic"):
        raise BadInput(f"The mode is {draft.mode!r}; it must be plain or logic.")
    few_shot = FewShot.parse(draft.few_shot)
    filled = _filled_in(replace(draft, few_shot=_naming_its_base(store, draft.few_shot)))
    if few_shot.k and few_shot.shape == "text" and filled.rows and filled.rows[-1]["role"] == TURNS:
        raise BadInput(
            "Demonstrations that are written in the last row need a user row at the end. Add one, or write them as turns.",
            "rows_as_text",
        )
    newest = prompts.newest_template(store, project_id, name)
    return replace(
        filled,
        project_id=project_id,
        name=name,
        version=newest.version + 1 if newest else 1,
        parent_id=newest.id if newest else None,
        variables=variables_of(filled),
        person_id=person.id,
    )


def _filled_in(draft: Draft) -> Template:
    """A draft as a template of no project: what it says, and its digest. Raises TemplateProblem."""
    rows = check_rows(draft.rows, draft.mode) if draft.rows else ()  # type: ignore[arg-type]
    said: dict[str, Any] = {"mode": draft.mode, "rows": rows, "few_shot": dict(draft.few_shot), "labels": draft.labels}
    said |= {"system_text": "" if rows else draft.system_text, "body": "" if rows else draft.body}
    return Template(
        project_id=0, name="", scenario=draft.scenario, language=draft.language, note=draft.note,
        digest=digest.template_digest(**said), **said,
    )  # fmt: skip
