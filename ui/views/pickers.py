"""What is chosen from on several pages: projects, templates, cases, models. The lists come from activities when a page loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from backend import prompting
from feedback_db.types import Case, Model, Project, Template
from ui.context import Ui
from ui.views.words import clipped

MOST_CASES = 200  # in one list; a search narrows it

Choices = list[tuple[str, int]]


def picker(label: Any, elem_id: str, **options: Any) -> gr.Dropdown:
    """A list that a page fills when it loads.

    A tab that was open while the server was started again sends what it was given before; Gradio has forgotten those
    choices and would refuse them as unknown. The activities check every id anyway.
    """
    made = gr.Dropdown([], label=label, elem_id=elem_id, filterable=True, **options)
    made.preprocess = lambda payload: payload
    return made


def project_picker(ui: Ui) -> gr.Dropdown:
    """Shown once there is more than one project."""
    return picker(ui.text.label("pick.project"), "project", visible=False, min_width=180, scale=1)


def fill_projects(ui: Ui, request: gr.Request) -> tuple[Any, Project | None]:
    """The picker's choices, and the project to show: that of the address (?project=2), else the oldest."""
    found = prompting.projects(ui.store, ui.guard.person())
    wanted = asked_for(request, "project")
    chosen = next((project for project in found if project.id == wanted), found[0] if found else None)
    choices = [(project.name, project.id) for project in found]
    return gr.update(choices=choices, value=chosen.id if chosen else None, visible=len(found) > 1), chosen


def asked_for(request: gr.Request, name: str) -> int | None:
    """A number from the page's address, such as the 5 of ?job=5."""
    value = dict(request.query_params).get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


def first_in_language(ui: Ui, templates: Sequence[Template]) -> Template | None:
    """What a page opens with: the first template in the reader's language, else the first there is."""
    language = ui.guard.language().split("-")[0]
    return next((one for one in templates if one.language == language), templates[0] if templates else None)


def template_choices(templates: Sequence[Template]) -> Choices:
    return [(f"{template.name} · v{template.version}", template.id or 0) for template in templates]


def case_choices(ui: Ui, project_id: int, template: Template | None, holding: str = "") -> Choices:
    """The cases a template is for, clipped to a line."""
    found = prompting.cases(
        ui.store,
        ui.guard.person(),
        project_id,
        scenario=template.scenario if template else None,
        language=template.language if template else None,
        holding=holding,
        most=MOST_CASES,
    )
    return [(case_label(case), case.id or 0) for case in found]


def case_label(case: Case) -> str:
    answer = f" → {clipped(case.expected, 24)}" if case.expected else ""
    return f"{case.id}  {clipped(prompting.case_text(case))}{answer}"


def model_choices(ui: Ui, models: Sequence[Model]) -> Choices:
    def named(model: Model) -> str:
        return f"{model.name} · {ui.guard.say('pick.live')}" if model.stage == "live" else model.name

    return [(named(model), model.id or 0) for model in models]


def live_first(models: Sequence[Model]) -> int | None:
    """What a picker of models opens with: the one that is live, whatever has been trained since, else the first there is."""
    chosen = next((one for one in models if one.stage == "live"), models[0] if models else None)
    return chosen.id if chosen else None
