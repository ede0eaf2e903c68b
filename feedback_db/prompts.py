"""Projects, templates, demonstrations, cases and prompts: what was written and what models saw."""

from __future__ import annotations

from .store import Store, as_json
from .types import Case, Comment, Demonstration, Guideline, Project, Prompt, Template


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
    store: Store,
    project_id: int,
    *,
    scenario: str | None = None,
    language: str | None = None,
    named: tuple[int, ...] = (),
) -> list[Demonstration]:
    """The project's bank; a demonstration belongs to a scenario by its tags. What was taken out of the bank is there only where
    it is ``named``: a template version shows what it always showed."""
    found = store.find(
        Demonstration,
        "project_id = ? and (? is null or language is null or language = ?)"
        " and (retired_at is null or id in (select value from json_each(?)))",
        [project_id, language, language, as_json(list(named))],
    )
    return [d for d in found if scenario is None or not d.tags or scenario in d.tags]


def demonstrations_by_id(store: Store, ids: tuple[int, ...]) -> list[Demonstration]:
    """In the order of ``ids``. Raises NotFound for an id that is not there."""
    return [store.get(Demonstration, i) for i in ids]


def demonstration_with(store: Store, project_id: int, digest: bytes) -> Demonstration | None:
    return next(iter(store.find(Demonstration, "project_id = ? and digest = ?", [project_id, digest])), None)


def shown_in(store: Store, prompt_id: int) -> tuple[int, ...]:
    """Ids of the demonstrations of a prompt, in their order."""
    sql = "select demonstration_id from prompt_demonstrations where prompt_id = ? order by position"
    return tuple(row["demonstration_id"] for row in store.rows(sql, [prompt_id]))


def change_demonstration(store: Store, changed: Demonstration) -> Demonstration:
    """Label, tags and whether it is in the bank; input and output stay, since prompts have shown them."""
    with store.write() as db:
        db.conn.execute(
            "update demonstrations set label = ?, tags = ?, digest = ?, retired_at = ? where id = ?",
            [changed.label, as_json(list(changed.tags)), changed.digest, changed.retired_at, changed.id],
        )
        return store.get(Demonstration, changed.id or 0)


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


def aliases(store: Store, project_id: int) -> dict[tuple[str, str], int]:
    """(template name, alias) -> the version it points at."""
    rows = store.rows(
        "select name, alias, template_id from aliases where project_id = ? order by name, alias", [project_id]
    )
    return {(row["name"], row["alias"]): row["template_id"] for row in rows}


def point_alias(store: Store, template: Template, alias: str) -> None:
    with store.write() as db:
        db.conn.execute(
            "insert into aliases(project_id, name, alias, template_id) values (?,?,?,?)"
            " on conflict(project_id, name, alias) do update set template_id = excluded.template_id",
            [template.project_id, template.name, alias, template.id],
        )


def drop_alias(store: Store, project_id: int, name: str, alias: str) -> None:
    with store.write() as db:
        db.conn.execute(
            "delete from aliases where project_id = ? and name = ? and alias = ?", [project_id, name, alias]
        )


def version_called(store: Store, project_id: int, name: str, version: str) -> Template | None:
    """A version of a template by its number, by an alias, or "latest"."""
    if version == "latest":
        return newest_template(store, project_id, name)
    if version.isascii() and version.isdigit() and len(version) < 10:
        found = store.find(Template, "project_id = ? and name = ? and version = ?", [project_id, name, int(version)])
        return found[0] if found else None
    template_id = aliases(store, project_id).get((name, version))
    return store.get(Template, template_id) if template_id else None


def comments(store: Store, template_id: int) -> list[Comment]:
    """Oldest first, without those that were taken back."""
    return store.find(Comment, "template_id = ? and retired_at is null", [template_id])


def retire_comment(store: Store, comment_id: int) -> None:
    with store.write() as db:
        db.conn.execute("update comments set retired_at = ? where id = ?", [store.now(), comment_id])


def drop_written_with(store: Store, judgement_id: int) -> None:
    """Forget the demonstrations that a judgement brought, unless a prompt has used them."""
    store.db.conn.execute(
        "delete from demonstrations where judgement_id = ?"
        " and not exists (select 1 from prompt_demonstrations p where p.demonstration_id = demonstrations.id)",
        [judgement_id],
    )
