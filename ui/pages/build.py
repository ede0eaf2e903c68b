"""The build page: write a template, choose demonstrations, see the exact prompt, keep a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from backend import prompting
from backend.prompts.problem import TemplateProblem
from feedback_db.types import Template
from ui.context import Ui
from ui.pages.build_bank import Bank, bank_events, bank_shown, bank_tab, winners_shown
from ui.pages.build_form import Form, draft_of, editor, values_of
from ui.pages.build_rows import CHAT, TEXT, kind_events, shown_as
from ui.pages.build_serve import Serving, serving_events, serving_tab
from ui.pages.build_versions import Versions, versions_events, versions_shown, versions_tab
from ui.pages.build_view import prompt_shown
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import (
    asked_for,
    case_choices,
    case_label,
    fill_projects,
    first_in_language,
    picker,
    project_picker,
    template_choices,
)

NAME = "build"
PATH = ""
MOST_VARIABLES = 12  # fields for the values of one case
AFTER_PAINT = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
"""A picker that got new choices has no value until it is drawn: what is asked before that would lack it."""


class Side(NamedTuple):
    """What stands beside the editor."""

    project: Any
    template: Any
    new: Any
    status: Any
    search: Any
    case: Any
    boxes: list[Any]
    expected: Any
    keep_case: Any
    prompt: Any
    bank: Bank
    versions: Versions
    served: Serving


def page(ui: Ui) -> None:
    with gr.Column(elem_classes=["wh-page", "wh-wide"]), gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=420, elem_classes="wh-panel"):
            with gr.Row(elem_classes="wh-tight"):
                project = project_picker(ui)
                template = picker(ui.text.label("build.template"), "template", scale=3, min_width=200)
                new = gr.Button(ui.text.label("build.new"), size="sm", elem_id="new", min_width=90)
                gr.Button(ui.text.label("tune.open"), link="/studio/tune", size="sm", elem_id="to-tune", min_width=90)
            form, save = editor(ui)
            status = drawn("build-status")
        with gr.Column(scale=6, min_width=420, elem_classes="wh-panel"):
            side = _side(ui, form, project, template, new, status)
    _events(ui, form, save, side)


def _side(ui: Ui, form: Form, project: Any, template: Any, new: Any, status: Any) -> Side:
    label = ui.text.label
    with gr.Tabs():
        with gr.Tab(label("build.tab.prompt"), elem_id="tab-prompt"):
            with gr.Row(elem_classes="wh-tight"):
                search = gr.Textbox(
                    label=label("pick.find_case"), elem_id="find-case", scale=2, min_width=120, max_lines=1
                )
                case = picker(label("pick.case"), "case", scale=5, min_width=220)
            boxes = [
                gr.Textbox(visible=False, lines=1, max_lines=6, elem_id=f"value-{n}", elem_classes="wh-value")
                for n in range(MOST_VARIABLES)
            ]
            with gr.Row(elem_classes="wh-tight"):
                expected = gr.Textbox(label=label("build.expected"), elem_id="expected", scale=4, max_lines=2)
                keep_case = gr.Button(label("build.keep_case"), size="sm", elem_id="keep-case", min_width=150)
            prompt = drawn("prompt")
        with gr.Tab(label("build.tab.bank"), elem_id="tab-bank"):
            bank = bank_tab(ui, form)
        with gr.Tab(label("build.tab.versions"), elem_id="tab-versions"):
            versions = versions_tab(ui)
        with gr.Tab(label("build.tab.serve"), elem_id="tab-serve") as tab:
            served = serving_tab(ui, tab)
    return Side(
        project, template, new, status, search, case, boxes, expected, keep_case, prompt, bank, versions, served
    )  # fmt: skip


def _events(ui: Ui, form: Form, save: Any, side: Side) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    names = gr.State([])  # the variables that the fields for values stand for, in order
    opened = [
        side.template,
        *form,
        names,
        *side.boxes,
        side.search,
        side.case,
        side.expected,
        *side.versions.shown,
        *side.bank.winning,
        side.bank.search,
        side.status,
    ]

    def open_page(request: gr.Request) -> list[Any]:
        projects, project = fill_projects(ui, request)
        return [projects, *_opened(ui, project.id if project else None, asked_for(request, "template"))]

    def open_project(project_id: int | None) -> list[Any]:
        return _opened(ui, project_id, None)

    def open_template(project_id: int | None, template_id: int | None) -> list[Any]:
        return _opened(ui, project_id, template_id)

    def open_version(project_id: int | None, event: gr.EventData) -> list[Any]:
        return _opened(ui, project_id, int(event._data["id"]))

    def start_new(project_id: int | None) -> list[Any]:
        return _opened(ui, project_id, 0)

    def read_variables(known: list[str], *given: Any) -> list[Any]:
        return _boxes(known, _variables(ui, given[: len(form)]), given[len(form) :])

    def show_prompt(project_id: int | None, case_id: int | None, known: list[str], *given: Any) -> dict[str, Any]:
        draft, values = draft_of(given[: len(form)]), dict(zip(known, given[len(form) :], strict=False))
        return prompt_shown(ui, project_id or 0, draft, {name: text or "" for name, text in values.items()}, case_id)

    def find_cases(project_id: int | None, template_id: int | None, holding: str) -> Any:
        template = prompting.template(ui.store, ui.guard.person(), template_id) if template_id else None
        return gr.update(choices=case_choices(ui, project_id or 0, template, holding or ""))

    def show_case(case_id: int | None, known: list[str]) -> list[Any]:
        return _case_values(ui, case_id, known)

    def save_version(project_id: int | None, *given: Any) -> list[Any]:
        saved = prompting.save_template(ui.store, ui.guard.person(), project_id or 0, draft_of(given))
        templates = template_choices(prompting.templates(ui.store, ui.guard.person(), project_id or 0))
        told = note(ui.guard.say("build.saved", name=saved.name, version=saved.version), "ok")
        versions = versions_shown(ui, project_id or 0, saved.name, saved.id)
        return [gr.update(choices=templates, value=saved.id), *versions, drawing(told)]

    def keep_case(project_id: int | None, known: list[str], expected: str, *given: Any) -> list[Any]:
        draft, typed = draft_of(given[: len(form)]), dict(zip(known, given[len(form) :], strict=False))
        kept = prompting.add_case(
            ui.store, ui.guard.person(), project_id or 0, values={name: text or "" for name, text in typed.items()},
            expected=expected or None, scenario=draft.scenario, language=draft.language,
        )  # fmt: skip
        template = Template(
            project_id=0, name="", body="", digest=b"", scenario=draft.scenario, language=draft.language
        )
        told = drawing(note(ui.guard.say("build.case_kept", id=kept.id, split=kept.split), "ok"))
        others = [choice for choice in case_choices(ui, project_id or 0, template) if choice[1] != kept.id]
        return [gr.update(choices=[(case_label(kept), kept.id), *others], value=kept.id), told]

    drawn_from = [side.project, side.case, names, *form, *side.boxes]

    def then_prompt(event: Any, name: str) -> None:
        # always_last: what comes while a prompt is on its way is drawn after it, or the last letters typed would be missing
        shown = event.then(None, None, None, js=AFTER_PAINT, api_name=f"{name}_painted", trigger_mode="always_last")
        shown.then(
            show_prompt,
            drawn_from,
            side.prompt,
            api_name=name,
            concurrency_id="preview",
            concurrency_limit=4,
            show_progress="hidden",
            trigger_mode="always_last",
        )

    def then_variables(event: Any, name: str) -> None:
        shown = event.then(None, None, None, js=AFTER_PAINT, api_name=f"{name}_shown")
        read = [names, *form, *side.boxes], [names, *side.boxes]
        then_prompt(shown.then(read_variables, *read, api_name=f"{name}_variables", **quiet), f"{name}_prompt")

    then_prompt(
        gr.on(None, open_page, None, [side.project, *opened], api_name="build_open", **quiet), "build_open_prompt"
    )
    then_prompt(
        side.project.input(open_project, side.project, opened, api_name="build_project", **quiet),
        "build_project_prompt",
    )
    chosen = [side.project, side.template]
    then_prompt(
        side.template.input(open_template, chosen, opened, api_name="build_template", **quiet), "build_template_prompt"
    )
    then_prompt(
        side.versions.table.select(open_version, side.project, opened, api_name="build_version", **quiet),
        "build_version_prompt",
    )
    then_prompt(side.new.click(start_new, side.project, opened, api_name="build_new", **quiet), "build_new_prompt")

    texts = gr.on(
        [form.body.input, form.system_text.input, form.mode.input, form.rows.select],
        read_variables, [names, *form, *side.boxes], [names, *side.boxes],
        api_name="build_variables", trigger_mode="always_last", **quiet,
    )  # fmt: skip
    then_prompt(texts, "build_text_prompt")
    kind_events(ui, form, then_variables, quiet)
    fields = [form.name.input, form.labels.input, form.k.input, form.order.input, form.shape.input, form.seed.input]
    gr.on(
        [*fields, *(box.input for box in side.boxes)],
        show_prompt, drawn_from, side.prompt, api_name="build_prompt", trigger_mode="always_last",
        concurrency_id="preview", show_progress="hidden",
    )  # fmt: skip
    searched = [side.project, side.template, side.search]
    side.search.input(find_cases, searched, side.case, api_name="build_find", trigger_mode="always_last", **quiet)
    picked = side.case.input(
        show_case, [side.case, names], [*side.boxes, side.expected], api_name="build_case", **quiet
    )
    then_prompt(picked, "build_case_prompt")
    after_save = [side.template, *side.versions.shown, side.status]
    save.click(save_version, [side.project, *form], after_save, api_name="save_template")
    bank_events(ui, form, side.bank, side.project, then_prompt, quiet)
    serving_events(ui, side.served, side.project, side.template, names, side.boxes, quiet)
    versions_events(ui, side.versions, side.project, side.template, (open_template, opened), quiet)
    side.keep_case.click(
        keep_case,
        [side.project, names, side.expected, *form, *side.boxes],
        [side.case, side.status],
        api_name="add_case",
    )


def _opened(ui: Ui, project_id: int | None, template_id: int | None) -> list[Any]:
    """Everything on the page for one version: None is the first one there is, 0 an empty sheet."""
    person, project = ui.guard.person(), project_id or 0
    found = prompting.templates(ui.store, person, project)
    template = next((one for one in found if one.id == template_id), None)
    if template is None and template_id != 0:
        template = first_in_language(ui, found)
    fields = values_of(template)
    rows = list(template.rows) if template else []
    draft = draft_of([*fields, {"rows": rows}, {"picked": template.few_shot.get("ids", []) if template else []}])
    scenarios = sorted({one.scenario for one in found if one.scenario})
    fields[Form._fields.index("scenario")] = gr.update(choices=scenarios, value=draft.scenario)
    place = Form._fields.index("system_text")
    system_text, body, editor = shown_as(ui, CHAT if rows else TEXT, draft.system_text, draft.body, rows)
    fields[place : place + 2] = [system_text, body]
    cases = case_choices(ui, project, template)
    case_id = cases[0][1] if cases else None
    asked = list(prompting.variables(person, draft))
    *values, expected = _case_values(ui, case_id, asked)
    boxes = [gr.update(**_named(asked, n), value=values[n]) for n in range(MOST_VARIABLES)]
    return [
        gr.update(choices=template_choices(found), value=template.id if template else None),
        *fields,
        editor,
        bank_shown(ui, project, draft, template.few_shot.get("ids", []) if template else []),
        asked,
        *boxes,
        "",
        gr.update(choices=cases, value=case_id),
        expected,
        *versions_shown(ui, project, draft.name, template.id if template else None),
        *winners_shown(ui, project),
        "",
        drawing(),
    ]


def _variables(ui: Ui, values: Sequence[Any]) -> list[str] | None:
    """What the draft asks for now; None while it cannot be read (the preview says why)."""
    try:
        return list(prompting.variables(ui.guard.person(), draft_of(values)))
    except TemplateProblem:
        return None


def _boxes(known: list[str], asked: list[str] | None, typed: Sequence[Any]) -> list[Any]:
    """The fields for the values of a case: what was typed for a variable stays with its name."""
    if asked is None or asked == known:
        return [known, *(gr.skip() for _ in range(MOST_VARIABLES))]
    before = dict(zip(known, typed, strict=False))
    shown = [
        gr.update(**_named(asked, n), value=before.get(asked[n], "") if n < len(asked) else "")
        for n in range(MOST_VARIABLES)
    ]
    return [asked, *shown]


def _named(asked: list[str], n: int) -> dict[str, Any]:
    return {"visible": True, "label": asked[n]} if n < len(asked) else {"visible": False}


def _case_values(ui: Ui, case_id: int | None, asked: list[str]) -> list[Any]:
    """The values of a stored case for these variables, padded to all fields, then its expected answer."""
    case = prompting.case(ui.store, ui.guard.person(), case_id) if case_id else None
    values = (case.values if case else None) or {}
    texts = [values.get(name, "") for name in asked[:MOST_VARIABLES]]
    return [*texts, *[""] * (MOST_VARIABLES - len(texts)), (case.expected if case else "") or ""]
