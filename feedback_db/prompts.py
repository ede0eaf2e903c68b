"""Projects, templates, demonstrations, cases and prompts: what was written and what models saw."""

from __future__ import annotations

from .store import Store
from .types import Case, Demonstration, Guideline, Project, Prompt, Template


def project_named(store: Store, name: str) -> Project | None:
    return next(iter(store.find(Project, "name = ?", [name])), None)


def projects(store: Store) -> list[Project]:
    """Open projects, oldest first."""
    return store.find(Project, "archived_at is null")


def guideline(store: Store, project_id: int) -> Guideline | None:
    """The newest version of a project's guideline."""
    return next(iter(store.find(Guideline, "project_id = ?", [project_id], "version desc", 1)), None)


def templates(store: Store, project_id: int) -> list[Template]:
    """All versions that are not retired, by name, newest version first."""
    return store.find(Template, "project_id = ? and retired_at is null", [project_id], "name, version desc")


def newest_template(store: Store, project_id: int, name: str) -> Template | None:
    return next(iter(store.find(Template, "project_id = ? and name = ?", [project_id, name], "version desc", 1)), None)


def demonstrations(
    store: Store, project_id: int, *, scenario: str | None = None, language: str | None = None
) -> list[Demonstration]:
    """The project's bank; a demonstration belongs to a scenario by its tags."""
    found = store.find(
        Demonstration,
        "project_id = ? and (? is null or language is null or language = ?)",
        [project_id, language, language],
    )
    return [d for d in found if scenario is None or not d.tags or scenario in d.tags]


def demonstrations_by_id(store: Store, ids: tuple[int, ...]) -> list[Demonstration]:
    """In the order of ``ids``. Raises NotFound for an id that is not there."""
    return [store.get(Demonstration, i) for i in ids]


def demonstration_with(store: Store, project_id: int, digest: bytes) -> Demonstration | None:
    return next(iter(store.find(Demonstration, "project_id = ? and digest = ?", [project_id, digest])), None)


def cases(
    store: Store, project_id: int, *, scenario: str | None = None, language: str | None = None, split: str | None = None
) -> list[Case]:
    """A case's language stands in its tags as ``lang:en``."""
    found = store.find(
        Case,
        "project_id = ? and (? is null or scenario = ?) and (? is null or split = ?)",
        [project_id, scenario, scenario, split, split],
    )
    return [c for c in found if language is None or f"lang:{language}" in c.tags]


def case_with(store: Store, project_id: int, digest: bytes) -> Case | None:
    return next(iter(store.find(Case, "project_id = ? and digest = ?", [project_id, digest])), None)


def keep_prompt(store: Store, prompt: Prompt, demonstration_ids: tuple[int, ...]) -> Prompt:
    """The stored prompt with these bytes for this case and template: the one that is there, or this one, now added."""
    with store.write() as db:
        found = store.find(
            Prompt,
            "case_id = ? and coalesce(template_id, 0) = ? and digest = ?",
            [prompt.case_id, prompt.template_id or 0, prompt.digest],
        )
        if found:
            return found[0]
        added = store.add(prompt)
        db.conn.executemany(
            "insert into prompt_demonstrations(prompt_id, position, demonstration_id) values (?,?,?)",
            [(added.id, position, d) for position, d in enumerate(demonstration_ids)],
        )
        return added


def retire_template(store: Store, template_id: int) -> None:
    with store.write() as db:
        db.conn.execute("update templates set retired_at = ? where id = ?", [store.now(), template_id])


def drop_written_with(store: Store, judgement_id: int) -> None:
    """Forget the demonstrations that a judgement brought, unless a prompt has used them."""
    store.db.conn.execute(
        "delete from demonstrations where judgement_id = ?"
        " and not exists (select 1 from prompt_demonstrations p where p.demonstration_id = demonstrations.id)",
        [judgement_id],
    )
