"""The compare page: templates and models side by side on one case, streamed; good pairs go on to labelling."""

from __future__ import annotations

from typing import Any

import gradio as gr

from backend import comparing, prompting, streaming
from backend.engines.kept import SamplingSettings
from backend.streaming import Runs
from ui.context import Ui
from ui.pages.compare_battle import battle_events, battle_row
from ui.pages.compare_run import LETTERS, Cases, RunRow, Setting, run_events, vote_row
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import (
    asked_for,
    case_choices,
    fill_projects,
    first_in_language,
    live_first,
    model_choices,
    picker,
    project_picker,
    template_choices,
)

NAME = "compare"
PATH = "compare"
DEFAULTS = SamplingSettings()


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        with gr.Row(elem_classes=["wh-tight", "wh-panel"]):
            project = project_picker(ui)
            search = gr.Textbox(label=label("pick.find_case"), elem_id="find-case", scale=2, min_width=120, max_lines=1)
            case = picker(label("pick.case"), "case", scale=6, min_width=260)
            seed = gr.Number(value=0, precision=0, step=1, label=label("compare.seed"), elem_id="seed", min_width=80)
            count = gr.Dropdown(
                list(range(2, len(LETTERS) + 1)),
                value=2,
                label=label("compare.columns"),
                elem_id="columns",
                min_width=80,
            )
            seeds = gr.Dropdown([1, 2, 3, 4], value=1, label=label("compare.seeds"), elem_id="seeds", min_width=80)
            run = gr.Button(label("compare.run"), variant="primary", size="sm", elem_id="run", min_width=100)
            stop = gr.Button(label("compare.stop"), size="sm", elem_id="stop", min_width=80)
        with gr.Row(elem_classes="wh-settings"):
            columns, settings = _settings(ui)
        shown = drawn("panes")
        with gr.Column(elem_classes="wh-follows"):
            with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
                send = gr.Button(
                    label("compare.send"), variant="primary", size="sm", interactive=False, elem_id="send", scale=0,
                    min_width=190,
                )  # fmt: skip
                write = gr.Button(label("compare.write"), size="sm", elem_id="write", scale=0, min_width=200)
                status = drawn("compare-status", scale=5)
            battle = battle_row(ui)
        votes = vote_row(ui)
        with gr.Row(elem_classes=["wh-tight", "wh-panel"]):
            template = picker(label("compare.many_template"), "many-template", scale=3, min_width=180)
            model = picker(label("compare.many_model"), "many-model", scale=3, min_width=180)
            many = gr.Number(value=10, precision=0, step=1, label=label("compare.many"), elem_id="many", min_width=110)
            make = gr.Button(label("compare.make"), size="sm", elem_id="make", min_width=180)
            made = drawn("made", scale=5)
    cases = Cases(project, search, case, [template, model, *(setting.template for setting in settings)], settings)
    _open_events(ui, cases)
    on_page = gr.Textbox(visible=False)
    run_row = RunRow(
        cases, seed, seeds, count, columns, run, stop, send, write, shown, status, votes, Runs(), on_page
    )  # fmt: skip
    run_events(ui, run_row)
    battle_events(ui, project, *battle, run_row)

    def make_comparisons(
        project_id: int | None,
        template_id: int | None,
        model_id: int | None,
        cases: float | None,
        progress: gr.Progress = gr.Progress(),
    ) -> dict[str, Any]:
        done = comparing.generate(
            ui.store, ui.engine, ui.guard.person(), project_id=project_id or 0, template_id=template_id or 0,
            model_id=model_id or 0, count=int(cases or 0), progress=lambda at, of: progress((at, of)),
        )  # fmt: skip
        told = ui.guard.say("compare.made", n=len(done.comparisons), alike=done.alike)
        return drawing(note(told, "ok" if done.comparisons else "warn"))

    make.click(
        make_comparisons, [project, template, model, many], made,
        api_name="make_comparisons", concurrency_id="generate", concurrency_limit=4,
    )  # fmt: skip


def _settings(ui: Ui) -> tuple[list[Any], list[Setting]]:
    """The columns' settings, above their panes; those after the second come when asked for."""
    label = ui.text.label
    columns, settings = [], []
    for at, letter in enumerate(LETTERS):
        with gr.Column(
            elem_classes=["wh-panel", f"wh-letter-{at}"], min_width=240, visible=at < 2, elem_id=f"column-{letter}"
        ) as column:
            with gr.Row(elem_classes="wh-tight"):
                template = picker(label("compare.template"), f"template-{letter}", scale=1, min_width=120)
                model = picker(label("compare.model"), f"model-{letter}", scale=1, min_width=120)
            with gr.Row(elem_classes="wh-tight"):
                temperature = gr.Number(
                    value=DEFAULTS.temperature,
                    step=0.1,
                    label=label("compare.temperature"),
                    elem_id=f"temperature-{letter}",
                    min_width=70,
                )
                top_p = gr.Number(
                    value=DEFAULTS.top_p,
                    step=0.05,
                    label=label("compare.top_p"),
                    elem_id=f"top-p-{letter}",
                    min_width=70,
                )
                max_tokens = gr.Number(
                    value=DEFAULTS.max_tokens, precision=0, step=8, label=label("compare.max_tokens"),
                    elem_id=f"max-tokens-{letter}", min_width=70,
                )  # fmt: skip
        columns.append(column)
        settings.append(Setting(template, model, temperature, top_p, max_tokens))
    return columns, settings


def _open_events(ui: Ui, cases: Cases) -> None:
    many_template, many_model = cases.others[:2]
    filled = [cases.case, many_template, many_model]
    filled += [part for setting in cases.settings for part in (setting.template, setting.model)]

    def open_page(request: gr.Request) -> list[Any]:
        projects, project = fill_projects(ui, request)
        return [projects, *_opened(ui, project.id if project else None, asked_for(request, "case"))]

    def open_project(project_id: int | None) -> list[Any]:
        return _opened(ui, project_id, None)

    def find_cases(project_id: int | None, template_id: int | None, holding: str) -> Any:
        template = prompting.template(ui.store, ui.guard.person(), template_id) if template_id else None
        found = case_choices(ui, project_id or 0, template, holding or "")
        return gr.update(choices=found, value=found[0][1] if found else None)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, [cases.project, *filled], api_name="compare_open", **quiet)
    cases.project.input(open_project, cases.project, filled, api_name="compare_project", **quiet)
    first = cases.settings[0].template
    gr.on(
        [cases.search.input, first.input], find_cases, [cases.project, first, cases.search], cases.case,
        api_name="compare_find", trigger_mode="always_last", **quiet,
    )  # fmt: skip


def _opened(ui: Ui, project_id: int | None, case_id: int | None) -> list[Any]:
    """Cases, templates and models of a project; the first two columns differ where they can."""
    person, project = ui.guard.person(), project_id or 0
    templates = prompting.templates(ui.store, person, project)
    models = streaming.policies(ui.store, person)
    shown = template_choices(templates)
    named = model_choices(ui, models)
    live = live_first(models)
    other = next((id for _, id in named if id != live), live)
    first = first_in_language(ui, templates)
    cases = case_choices(ui, project, first)
    if case_id is None or case_id not in [id for _, id in cases]:
        case_id = cases[0][1] if cases else None
    alike = [t for t in templates if first and (t.scenario, t.language) == (first.scenario, first.language)]
    second = alike[1] if len(alike) > 1 and other == live else first
    per_column = [(first, live), (second, other)] * (len(LETTERS) // 2)
    return [
        gr.update(choices=cases, value=case_id),
        gr.update(choices=shown, value=first.id if first else None),
        gr.update(choices=named, value=live),
        *(
            update
            for template, model in per_column
            for update in (
                gr.update(choices=shown, value=template.id if template else None),
                gr.update(choices=named, value=model),
            )
        ),
    ]
