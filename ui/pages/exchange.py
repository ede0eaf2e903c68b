"""The exchange page: files of other tools come in after a report, templates, suites and runs go out in their formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from backend import exporting, importing, prompting
from backend.exchange.plan import Fate, Note, Plan
from ui.context import Ui
from ui.guard import needs
from ui.views.drawn import badge, drawing, drawn, heading, link, note, table
from ui.views.pickers import fill_projects, picker, project_picker, template_choices
from ui.views.words import clipped

NAME = "exchange"
PATH = "exchange"
MOST_SHOWN = 200  # remarks on the page
MOST_TEXT = 600  # characters of what stood in the file
FATES: tuple[Fate, ...] = ("taken", "mapped", "refused")
WHATS: tuple[exporting.What, ...] = ("template", "suite", "run")
TONES = {"taken": "ok", "mapped": "info", "refused": "warn"}


def page(ui: Ui) -> None:
    label = ui.text.label
    plan = gr.State(None)
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        project = project_picker(ui)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=420, elem_classes="wh-panel"):
                told = drawn("import-hint")
                files = gr.UploadButton(
                    label("exchange.files"), file_count="multiple", size="sm", variant="primary", elem_id="import-files"
                )
                with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
                    format = gr.Dropdown(
                        [(label("exchange.format.auto"), ""), *((name, name) for name in importing.FORMATS)], value="",
                        label=label("exchange.format"), elem_id="import-format", scale=3, min_width=160,
                    )  # fmt: skip
                    look = gr.Button(label("exchange.look"), size="sm", elem_id="import-look", scale=1, min_width=110)
                    apply = gr.Button(
                        label("exchange.apply"), variant="primary", size="sm", interactive=False, elem_id="import-apply", scale=1, min_width=140,
                    )  # fmt: skip
                report = drawn("import-report")
            with gr.Column(scale=5, min_width=340, elem_classes="wh-panel"):
                hint = drawn("export-hint")
                what = gr.Radio(
                    [(label(f"exchange.what.{one}"), one) for one in WHATS], value="suite", label=label("exchange.what"), elem_id="export-what",
                )  # fmt: skip
                which = picker(label("exchange.which"), "export-which")
                templates = picker(label("exchange.templates"), "export-templates", multiselect=True)
                out = gr.Dropdown(
                    [(label(f"exchange.out.{name}"), name) for name in exporting.FORMATS], value=exporting.FORMATS[0],
                    label=label("exchange.format"), elem_id="export-format",
                )  # fmt: skip
                with gr.Row(elem_classes="wh-tight"):
                    write = gr.Button(label("exchange.write"), size="sm", elem_id="export-write")
                    download = gr.DownloadButton(
                        label("exchange.download"),
                        size="sm",
                        variant="primary",
                        interactive=False,
                        elem_id="export-download",
                    )
                written = drawn("export-report")

    def open_page(request: gr.Request) -> list[Any]:
        projects, chosen = fill_projects(ui, request)
        project_id = chosen.id or 0 if chosen else 0
        heads = [
            drawing(heading(ui.guard.say(f"exchange.{one}")), note(ui.guard.say(f"exchange.{one}_hint")))
            for one in ("import", "export")
        ]
        return [*heads, projects, *_choices(ui, project_id, "suite")]

    def choose_what(project_id: int | None, chosen: str) -> list[Any]:
        return [*_choices(ui, project_id or 0, chosen), gr.update(interactive=False)]

    @needs("import")
    def look_at(given: list[str] | None, chosen: str) -> list[Any]:
        if not given:
            return [drawing(note(ui.guard.say("exchange.choose"), "warn")), None, gr.update(interactive=False)]
        found = importing.plan_import(ui.guard.person(), given, format=chosen or "", guess_main=True)
        return [_report(ui, found), found, gr.update(interactive=not found.is_empty)]

    @needs("import")
    def apply_it(project_id: int | None, found: Plan | None) -> list[Any]:
        if found is None:
            return [drawing(note(ui.guard.say("exchange.look_first"), "warn")), None, gr.update(interactive=False)]
        done = importing.apply_import(ui.store, ui.guard.person(), project_id or 0, found)
        kept = done.kept
        said = ui.guard.say(
            "exchange.did", project=done.project.name, templates=kept.new_templates, cases=kept.new_cases, suites=kept.new_suites,
            demonstrations=kept.new_demonstrations, pairs=kept.new_pairs,
        )  # fmt: skip
        there = {
            "t": "facts",
            "rows": [["", link(ui.guard.say("exchange.to_test"), f"/studio/test?project={done.project.id}")]],
        }
        return [drawing(note(said, "ok"), there), None, gr.update(interactive=False)]

    @needs("build")
    def write_it(chosen: str, id: int | None, template_ids: list[int] | None, name: str) -> list[Any]:
        if not id:
            return [drawing(note(ui.guard.say("exchange.choose_which"), "warn")), gr.update(interactive=False)]
        made = exporting.export(
            ui.store, ui.guard.person(), _what(chosen), id, name, template_ids=template_ids or [], engine=ui.engine
        )
        path = save_bytes_to_cache(made.data, made.name, download.GRADIO_CACHE)
        said = ui.guard.say("exchange.written", name=made.name, size=f"{len(made.data) / 1000:.1f}")
        shown = _notes(ui, made.remarks) if made.remarks else None
        return [drawing(note(said, "ok"), shown), gr.update(value=path, interactive=True)]

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    pickers = [which, templates]
    gr.on(None, open_page, None, [told, hint, project, *pickers], api_name="exchange_open", **quiet)
    for changed in (project, what):
        changed.input(
            choose_what, [project, what], [*pickers, download], api_name=f"exchange_{changed.elem_id}", **quiet
        )
    look.click(look_at, [files, format], [report, plan, apply], api_name="look_at_import")
    files.upload(look_at, [files, format], [report, plan, apply], api_name="look_at_upload")
    apply.click(apply_it, [project, plan], [report, plan, apply], api_name="apply_import")
    write.click(write_it, [what, which, templates, out], [written, download], api_name="write_export")


def _what(chosen: str) -> exporting.What:
    return next((one for one in WHATS if one == chosen), "suite")


def _choices(ui: Ui, project_id: int, what: str) -> list[Any]:
    """What there is to export of a kind, and the templates that a suite may be written in."""
    person = ui.guard.person()
    found = exporting.choices(ui.store, person, project_id, _what(what))
    listed = [(one.name, one.id) for one in found]
    templates = template_choices(prompting.templates(ui.store, person, project_id))
    return [
        gr.update(choices=listed, value=listed[0][1] if listed else None),
        gr.update(choices=templates, value=[], visible=what == "suite"),
    ]


def _report(ui: Ui, plan: Plan) -> dict[str, Any]:
    shown = {one for template in plan.templates for one in template.shown} | set(plan.demonstrations)
    said = ui.guard.say(
        "exchange.would", file=plan.source, format=plan.format, templates=len(plan.templates), cases=len(plan.cases),
        suites=len(plan.suites), demonstrations=len(shown), pairs=len(plan.pairs),
    )  # fmt: skip
    counts = " · ".join(f"{ui.guard.say(f'exchange.{fate}')} {plan.count(fate)}" for fate in FATES)
    more = len(plan.notes) - MOST_SHOWN
    return drawing(
        note(said, "warn" if plan.is_empty else "info"),
        heading(ui.guard.say("exchange.report"), counts),
        _notes(ui, plan.notes),
        note(ui.guard.say("exchange.more", n=more)) if more > 0 else None,
    )


def _notes(ui: Ui, notes: Sequence[Note]) -> dict[str, Any]:
    """What was refused first: it is what somebody has to act on."""
    order = {"refused": 0, "mapped": 1, "taken": 2}
    say = ui.guard.say
    rows = []
    for number, one in enumerate(sorted(notes, key=lambda one: order[one.fate])[:MOST_SHOWN]):
        place = say("exchange.line", file=one.file, line=one.line) if one.line else one.file
        reason = {"text": say(f"exchange.why.{one.code}", **one.values), "sub": one.shown[:MOST_TEXT]}
        cells = [
            badge(say(f"exchange.{one.fate}"), TONES[one.fate]),
            {"text": place, "sub": clipped(one.field)},
            reason if one.shown else reason["text"],
        ]
        rows.append((number, cells))
    columns = [say(f"exchange.{name}") for name in ("fate", "place", "reason")]
    return table(columns, rows, caption=say("exchange.report"), empty=say("exchange.empty"), tall=True)
