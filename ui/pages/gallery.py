"""The gallery page: ready scenarios as cards, what is inside, and taking one into a project."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import gradio as gr

from backend import prompting, scenarios
from backend.exchange.scenario import LANGUAGES, Scenario
from backend.scenarios import Added
from feedback_db.cases import conversation
from ui.context import Ui
from ui.guard import needs
from ui.views.drawn import cards, drawing, drawn, facts, heading, link, messages, note, shelf
from ui.views.pickers import fill_projects, project_picker

NAME = "gallery"
PATH = "gallery"
ALL = "all"


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]), gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=420, elem_classes="wh-panel"):
            language = gr.Radio(
                [(label(f"gallery.language.{one}"), one) for one in (ALL, *LANGUAGES)], value=ALL,
                label=label("gallery.language"), elem_id="gallery-language",
            )  # fmt: skip
            shown = drawn("gallery")
        with gr.Column(scale=6, min_width=420, elem_classes="wh-panel"):
            with gr.Row(elem_classes="wh-tight"):
                project = project_picker(ui)
                add = gr.Button(
                    label("gallery.add"), variant="primary", size="sm", elem_id="add-scenario", scale=1, min_width=160
                )
            with gr.Row(elem_classes="wh-tight"):
                name = gr.Textbox(
                    label=label("gallery.name"), elem_id="new-project", max_lines=1, scale=1, min_width=160
                )
                make = gr.Button(label("gallery.make"), size="sm", elem_id="make-project", scale=1, min_width=160)
            status = drawn("gallery-status")
            inside = drawn("scenario")
    chosen = gr.State(None)  # [key, language] of the scenario that is shown

    def open_page(request: gr.Request) -> list[Any]:
        projects, _ = fill_projects(ui, request)
        reads = ui.guard.language().split("-")[0]
        language = reads if reads in LANGUAGES else ALL
        return [projects, language, _shelf(ui, language, None), drawing(note(ui.guard.say("gallery.choose")))]

    def filter_language(language: str, chosen: list[str] | None) -> dict[str, Any]:
        return _shelf(ui, language, chosen)

    def choose(language: str, event: gr.EventData) -> list[Any]:
        key, of = str(event._data["id"]).rsplit(".", 1)
        found = scenarios.scenario(ui.guard.person(), key, of)
        return [
            [found.key, found.language],
            _shelf(ui, language, [key, of]),
            _inside(ui, found),
            found.title,
            drawing(),
        ]

    @needs("build")
    def add_scenario(project_id: int | None, chosen: list[str] | None) -> Any:
        return _taken(ui, chosen, lambda found: scenarios.add(ui.store, ui.guard.person(), found, project_id or 0))

    @needs("build")
    def make_project(name: str, chosen: list[str] | None) -> Any:
        return _taken(ui, chosen, lambda found: scenarios.add_to_new(ui.store, ui.guard.person(), found, name or ""))

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, [project, language, shown, inside], api_name="gallery_open", **quiet)
    language.input(filter_language, [language, chosen], shown, api_name="gallery_language", **quiet)
    shown.select(choose, language, [chosen, shown, inside, name, status], api_name="choose_scenario", **quiet)
    add.click(add_scenario, [project, chosen], [status, project], api_name="add_scenario")
    make.click(make_project, [name, chosen], [status, project], api_name="make_project")


def _shelf(ui: Ui, language: str, chosen: list[str] | None) -> dict[str, Any]:
    say = ui.guard.say
    found = scenarios.gallery(ui.guard.person(), language=None if language == ALL else language)
    groups = [
        (say(f"gallery.area.{area}"), [_card(ui, one, [one.key, one.language] == chosen) for one in of_area])
        for area, of_area in groupby(found, lambda one: one.area)
    ]
    return drawing(note(say("gallery.intro")), shelf(groups))


def _card(ui: Ui, one: Scenario, is_chosen: bool) -> dict[str, Any]:
    counted = ui.guard.say("gallery.inside", cases=len(one.cases), demonstrations=len(one.demonstrations))
    spoken = ui.guard.say(f"gallery.language.{one.language}")
    return {
        "id": f"{one.key}.{one.language}",
        "title": one.title,
        "badge": spoken,
        "text": one.about,
        "foot": counted,
        "chosen": is_chosen,
    }


def _inside(ui: Ui, one: Scenario) -> dict[str, Any]:
    """The newest template version, a case with its answer, the guideline, and how many there are of everything."""
    say = ui.guard.say
    newest, case = one.templates[-1], one.cases[0]
    counts = scenarios.splits(one)
    hard = sum("hard" in case.tags for case in one.cases)
    checks = ", ".join(dict.fromkeys(str(check["type"]) for check in one.checks))
    written = [("system", newest.system_text), ("user", newest.body)]
    asked = conversation(case.values, case.conversation)
    return drawing(
        heading(one.title, say(f"gallery.area.{one.area}")),
        note(one.about),
        cards(
            [
                (say("gallery.cases"), str(len(one.cases)), f"{say('gallery.splits', **counts)}; {say('gallery.hard', n=hard)}"),
                (say("gallery.demonstrations"), str(len(one.demonstrations)), ""),
                (say("gallery.versions"), str(len(one.templates)), ""),
                (say("gallery.checks"), str(len(one.checks)), checks),
            ]
        ),
        heading(say("gallery.template", n=len(one.templates), note=newest.note)),
        messages(_turn(ui, role, text) for role, text in written if text),
        heading(say("gallery.a_case")),
        messages(
            [
                *(_turn(ui, turn["role"], turn["content"]) for turn in asked),
                {"role": "assistant", "label": say("gallery.expected"), "text": case.expected or ""},
            ]
        ),
        heading(say("gallery.guideline")),
        note(one.guideline),
    )  # fmt: skip


def _turn(ui: Ui, role: str, text: str) -> dict[str, str]:
    return {"role": role, "label": ui.guard.say(f"gallery.role.{role}"), "text": text}


def _taken(ui: Ui, chosen: list[str] | None, take: Callable[[Scenario], Added]) -> list[Any]:
    """What came of it with the ways on, and the picker at the project that has it now."""
    if not chosen:
        return [drawing(note(ui.guard.say("gallery.no_choice"), "warn")), gr.skip()]
    found = scenarios.scenario(ui.guard.person(), chosen[0], chosen[1])
    added = take(found)
    projects = prompting.projects(ui.store, ui.guard.person())
    picker = gr.update(
        choices=[(one.name, one.id) for one in projects], value=added.project.id, visible=len(projects) > 1
    )
    return [_told(ui, found, added), picker]


def _told(ui: Ui, found: Scenario, added: Added) -> dict[str, Any]:
    say = ui.guard.say
    is_new = added.templates or added.demonstrations or added.cases
    counts = {"templates": added.templates, "demonstrations": added.demonstrations, "cases": added.cases}
    names = {"title": found.title, "project": added.project.name}
    told = say("gallery.added", **names, **counts) if is_new else say("gallery.there", **names)
    project = added.project.id
    is_json = any(check["type"] == "is-json" for check in found.checks)
    to_test = say("gallery.to_test_json" if is_json else "gallery.to_test")
    return drawing(
        note(told, "ok"),
        facts(
            [
                (say("nav.build"), link(say("gallery.to_build"), f"/studio/?project={project}&template={added.template.id}")),
                (say("nav.suites"), link(to_test, f"/studio/test?project={project}")),
                (say("nav.label"), link(say("gallery.to_label"), f"/label/?project={project}")),
            ]
        ),
    )  # fmt: skip
