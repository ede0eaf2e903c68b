"""The versions' tab of the build page: what changed, in words and in what it does; names, comments, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import gradio as gr

from backend import prompting, versioning
from backend.prompts.word_diff import difference
from backend.versioning import Behaviour, Change
from ui.context import Ui
from ui.guard import needs
from ui.views import drawn
from ui.views.pickers import picker
from ui.views.words import clipped, clock

ALIASES = ("production", "staging")


class Versions(NamedTuple):
    """The parts of the tab; what is open is the version in the page's picker."""

    table: Any
    alias: Any
    point: Any
    unpoint: Any
    revert: Any
    told: Any
    against: Any
    changes: Any
    comments: Any
    comment: Any
    say: Any

    @property
    def shown(self) -> list[Any]:
        """What ``versions_shown`` fills."""
        return [self.table, self.alias, self.against, self.changes, self.comments, self.told]


def versions_tab(ui: Ui) -> Versions:
    label = ui.text.label
    table = drawn.drawn("versions")
    with gr.Row(elem_classes="wh-tight"):
        alias = gr.Dropdown(
            [*ALIASES], value=ALIASES[0], label=label("build.alias"), elem_id="alias", allow_custom_value=True, scale=3,
            min_width=130,
        )  # fmt: skip
        point = gr.Button(label("build.point"), size="sm", elem_id="point-alias", scale=2, min_width=110)
        unpoint = gr.Button(label("build.unpoint"), size="sm", elem_id="drop-alias", scale=2, min_width=110)
        revert = gr.Button(label("build.revert"), size="sm", elem_id="revert", scale=2, min_width=130)
    told = drawn.drawn("versions-status")
    against = picker(label("build.against"), "against")
    changes = drawn.drawn("changes")
    comments = drawn.drawn("comments")
    with gr.Row(elem_classes="wh-tight"):
        comment = gr.Textbox(label=label("build.comment"), elem_id="comment", scale=5, max_lines=4)
        say = gr.Button(label("build.say"), size="sm", elem_id="say", min_width=100)
    return Versions(table, alias, point, unpoint, revert, told, against, changes, comments, comment, say)


def versions_shown(ui: Ui, project_id: int, name: str, chosen: int | None, told: str = "") -> list[Any]:
    """The versions of a name, with the one that is open against the one before it."""
    say, person = ui.guard.say, ui.guard.person()
    found = prompting.versions(ui.store, person, project_id, name)
    aliases = versioning.aliases(ui.store, person, project_id, name)
    rows = [
        (
            version.template.id or 0,
            (
                f"v{version.template.version}",
                drawn.badge(", ".join(aliases[version.template.id or 0]), "ok")
                if version.template.id in aliases
                else "",
                version.template.note or "–",
                str(version.template.few_shot.get("k", 0)),
                version.by or say("pick.the_app"),
                clock(version.template.created_at),
            ),
        )
        for version in found
    ]
    columns = [say(f"build.{column}") for column in ("version", "aliases", "note", "k", "by", "when")]
    table = drawn.table(
        columns, rows, caption=say("build.versions"), empty=say("build.no_versions"), chosen=chosen, selects=True
    )
    others = [(f"v{one.template.version}", one.template.id or 0) for one in found if one.template.id != chosen]
    parent = next((one.template.parent_id for one in found if one.template.id == chosen), None)
    before = parent if any(id == parent for _, id in others) else None
    known = sorted({*ALIASES, *(alias for names in aliases.values() for alias in names)})
    return [
        drawn.drawing(table),
        gr.update(choices=known),
        gr.update(choices=others, value=before, visible=bool(others and chosen)),
        changes_shown(ui, before, chosen),
        comments_shown(ui, chosen),
        drawn.drawing(drawn.note(told, "ok")),
    ]


def changes_shown(ui: Ui, before: int | None, after: int | None) -> dict[str, Any]:
    """What changed from one version to another, and which cases flipped wherever both were run."""
    if not before or not after:
        return drawn.drawing()
    say, person = ui.guard.say, ui.guard.person()
    old, new = (prompting.template(ui.store, person, id).version for id in (before, after))
    changed = versioning.changes(ui.store, person, before, after)
    told = versioning.behaviours(ui.store, person, before, after)
    return drawn.drawing(
        drawn.heading(say("build.what_changed", before=old, after=new)),
        *([*_words(ui, changed)] or [drawn.note(say("build.nothing_changed"))]),
        drawn.heading(say("build.what_it_does")),
        *([part for one in told for part in _behaviour(ui, one)] or [drawn.note(say("build.not_run"))]),
    )


def comments_shown(ui: Ui, template_id: int | None) -> dict[str, Any]:
    if not template_id:
        return drawn.drawing()
    say = ui.guard.say
    found = versioning.comments(ui.store, ui.guard.person(), template_id)
    parts = [
        drawn.messages(
            {
                "role": "comment",
                "label": one.by or say("pick.the_app"),
                "text": one.comment.text,
                "foot": clock(one.comment.created_at),
                **({"act": say("build.take_back"), "id": str(one.comment.id)} if one.own else {}),
            }
            for one in found
        )
    ]
    return drawn.drawing(drawn.heading(say("build.comments"), str(len(found))), *(parts if found else []))


def versions_events(
    ui: Ui, tab: Versions, project: Any, template: Any, reopened: tuple[Any, list[Any]], quiet: Any
) -> None:
    """``reopened`` gives (handler, outputs) that open a version in the editor."""
    reopen, opened = reopened

    def again(project_id: int | None, template_id: int, told: str) -> list[Any]:
        name = prompting.template(ui.store, ui.guard.person(), template_id).name
        return versions_shown(ui, project_id or 0, name, template_id, told)

    def none_open() -> list[Any]:
        told = drawn.drawing(drawn.note(ui.guard.say("build.open_one"), "warn"))
        return [*[gr.skip()] * (len(tab.shown) - 1), told]

    @needs("build")
    def point(project_id: int | None, template_id: int | None, alias: str) -> list[Any]:
        if not template_id:
            return none_open()
        versioning.point(ui.store, ui.guard.person(), template_id, alias or "")
        return again(project_id, template_id, ui.guard.say("build.pointed", alias=(alias or "").strip().lower()))

    @needs("build")
    def unpoint(project_id: int | None, template_id: int | None, alias: str) -> list[Any]:
        if not template_id:
            return none_open()
        versioning.unpoint(ui.store, ui.guard.person(), template_id, (alias or "").strip().lower())
        return again(project_id, template_id, "")

    @needs("build")
    def revert(project_id: int | None, template_id: int | None) -> list[Any]:
        if not template_id:
            return [gr.skip()] * (len(opened) - 1) + [drawn.drawing(drawn.note(ui.guard.say("build.open_one"), "warn"))]
        made = prompting.revert(ui.store, ui.guard.person(), template_id)
        told = drawn.note(ui.guard.say("build.saved", name=made.name, version=made.version), "ok")
        return [*reopen(project_id, made.id)[:-1], drawn.drawing(told)]

    def compare(before: int | None, after: int | None) -> dict[str, Any]:
        return changes_shown(ui, before, after)

    @needs("build")
    def say(template_id: int | None, text: str) -> list[Any]:
        if not template_id:
            return [gr.skip(), text, drawn.drawing(drawn.note(ui.guard.say("build.open_one"), "warn"))]
        versioning.comment(ui.store, ui.guard.person(), template_id, text or "")
        return [comments_shown(ui, template_id), "", drawn.drawing()]

    @needs("build")
    def take_back(template_id: int | None, event: gr.EventData) -> dict[str, Any]:
        versioning.take_back(ui.store, ui.guard.person(), int(event._data["id"]))
        return comments_shown(ui, template_id)

    where = [project, template]
    tab.point.click(point, [*where, tab.alias], tab.shown, api_name="point_alias")
    tab.unpoint.click(unpoint, [*where, tab.alias], tab.shown, api_name="drop_alias")
    tab.revert.click(revert, where, opened, api_name="revert_template")
    tab.against.input(compare, [tab.against, template], tab.changes, api_name="build_changes", **quiet)
    gr.on(
        [tab.say.click, tab.comment.submit], say, [template, tab.comment], [tab.comments, tab.comment, tab.told],
        api_name="comment_template",
    )  # fmt: skip
    tab.comments.select(take_back, template, tab.comments, api_name="take_back_comment")


def _words(ui: Ui, changed: Iterable[Change]) -> Iterable[Any]:
    """Texts word by word, then the settings that changed in one list."""
    say = ui.guard.say
    settings = []
    for one in changed:
        field = one.field.removeprefix("few_shot.")
        name = say(f"build.{FIELDS.get(field, field)}")
        if field in TEXTS:
            yield drawn.diff([(piece.kind, piece.text) for piece in difference(one.before, one.after)], name)
        else:
            old, new = (say(f"build.{field}.{v}") if field in WORDED and v else _brief(field, v) for v in one[1:])
            settings.append((name, f"{old} → {new}"))
    if settings:
        yield drawn.facts(settings)


def _brief(field: str, value: str) -> str:
    return (value[:8] if field == "base" else value) or "–"


TEXTS = ("system_text", "body", "rows")
WORDED = ("mode", "choose", "order", "shape")
FIELDS = {"system_text": "system", "ids": "bank_ids"}


def _behaviour(ui: Ui, one: Behaviour) -> list[Any]:
    say, flips = ui.guard.say, one.flips
    rows = [
        (
            flipped.case.id or 0,
            (
                drawn.badge(say("build.gained" if flipped.gained else "build.lost"), "ok" if flipped.gained else "bad"),
                clipped(prompting.case_text(flipped.case)),
                clipped(flipped.before),
                clipped(flipped.after),
            ),
        )
        for flipped in one.flipped
    ]
    columns = [say(f"build.{name}") for name in ("flip", "input", "answer_before", "answer_after")]
    told = say(
        "build.flips", before=one.passed[0], after=one.passed[1], n=one.n, gained=flips.gained, lost=flips.lost,
        p=f"{flips.p:.2g}",
    )  # fmt: skip
    return [
        drawn.heading(f"{one.suite.name} · v{one.suite.version}", one.model.name),
        drawn.note(told, "warn" if flips.lost > flips.gained else "info"),
        drawn.table(columns, rows, caption=told, empty=say("build.none_flipped")),
        drawn.facts(
            [(say("build.run"), drawn.link(str(run), f"/studio/test?run={run}")) for run in dict.fromkeys(one.runs)]
        ),
    ]
