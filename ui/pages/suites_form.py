"""What the test page asks for: the fields of a suite, of a run, and of looking at one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from backend import prompting, streaming, testing
from backend.exchange import cases_file
from backend.suites import injection
from backend.suites.pasted import Pasted
from feedback_db.types import Suite
from ui.context import Ui
from ui.views.drawn import drawn
from ui.views.pickers import live_first, model_choices, picker, template_choices

SPLITS = ("all", "train", "val", "test")
SHOWS = ("all", "failed", "differ", "worse", "close")
MODES = ("same", "across")
SUGGESTED = "equals"


class Form(NamedTuple):
    """What a suite is made of."""

    name: Any
    template: Any
    split: Any
    most: Any
    pasted: Any
    checks: Any
    threshold: Any
    file: Any


class Asked(NamedTuple):
    """What a run is asked for."""

    templates: Any
    models: Any
    temperatures: Any
    max_tokens: Any
    repeats: Any
    seed: Any
    judge: Any
    sends: Any
    follows: Any


class Watch(NamedTuple):
    """What is shown of one run."""

    run: Any  # its id
    told: Any
    stop: Any
    go_on: Any
    show: Any
    start: Any  # the place of the first case shown
    cases: Any
    case: Any  # the id of the one that is open
    answers: Any
    marks: Any  # [case id, column] of the marked cells
    mode: Any
    send: Any
    send_all: Any
    sent: Any


def form_fields(ui: Ui) -> Form:
    label = ui.text.label
    name = gr.Textbox(label=label("suites.name"), elem_id="suite-name", max_lines=1)
    with gr.Row(elem_classes="wh-tight"):
        template = picker(label("suites.of_template"), "suite-template", scale=4, min_width=160)
        split = gr.Dropdown(
            [(label(f"suites.split.{one}"), one) for one in SPLITS], value="all", label=label("suites.split"),
            elem_id="suite-split", scale=2, min_width=80,
        )  # fmt: skip
        most = gr.Number(
            value=100, precision=0, label=label("suites.most"), elem_id="suite-most", scale=1, min_width=70
        )
    pasted = gr.Textbox(
        label=label("suites.paste"), info=label("suites.paste_hint"), elem_id="suite-cases", lines=3, max_lines=8
    )
    file = gr.File(label=label("suites.file"), file_types=list(cases_file.ENDINGS), height=110, elem_id="suite-file")
    checks = gr.Textbox(
        value=SUGGESTED, label=label("suites.checks"), info=label("suites.checks_hint"), elem_id="suite-checks", lines=3, max_lines=12,
    )  # fmt: skip
    threshold = gr.Textbox(label=label("suites.threshold"), elem_id="suite-threshold", max_lines=1)
    return Form(name, template, split, most, pasted, checks, threshold, file)


def asked_fields(ui: Ui) -> Asked:
    label = ui.text.label
    templates = picker(label("suites.templates"), "suite-templates", multiselect=True)
    models = picker(label("suites.models"), "suite-models", multiselect=True)
    with gr.Row(elem_classes="wh-tight"):
        temperatures = gr.Textbox(
            value="0", label=label("suites.temperature"), elem_id="suite-temperature", max_lines=1, min_width=90
        )
        max_tokens = gr.Number(
            value=testing.FEWEST_TOKENS,
            precision=0,
            label=label("suites.max_tokens"),
            elem_id="suite-max-tokens",
            min_width=70,
        )
        repeats = gr.Number(value=1, precision=0, label=label("suites.repeats"), elem_id="suite-repeats", min_width=70)
        seed = gr.Number(value=0, precision=0, label=label("suites.seed"), elem_id="suite-seed", min_width=70)
    judge = picker(label("suites.judge"), "suite-judge", info=label("suites.judge_hint"))
    sends = gr.CheckboxGroup(
        [(label(f"suites.send.{one}"), one) for one in testing.SENDS], label=label("suites.sends"), info=label("suites.sends_hint"),
        elem_id="suite-sends",
    )  # fmt: skip
    follows = gr.Checkbox(label=label("suites.follows"), elem_id="suite-follows")
    return Asked(templates, models, temperatures, max_tokens, repeats, seed, judge, sends, follows)


def watch_fields(ui: Ui) -> tuple[Watch, Any, Any]:
    """And the buttons that turn its pages."""
    label = ui.text.label
    told = drawn("run-told")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        show = gr.Radio(
            [(label(f"suites.show.{one}"), one) for one in SHOWS], value="all", label=label("suites.show"), elem_id="show-cases", scale=6,
        )  # fmt: skip
        previous = gr.Button(label("suites.previous"), size="sm", elem_id="previous-cases", scale=0, min_width=90)
        after = gr.Button(label("suites.next"), size="sm", elem_id="next-cases", scale=0, min_width=90)
        stop = gr.Button(label("suites.stop"), size="sm", visible=False, elem_id="stop-run", scale=0, min_width=90)
        again = gr.Button(label("suites.go_on"), size="sm", visible=False, elem_id="go-on", scale=0, min_width=90)
    cases = drawn("run-cases")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        mode = gr.Radio(
            [(label(f"suites.mode.{one}"), one) for one in MODES], value="same", label=label("suites.mode"), elem_id="send-mode", scale=6,
        )  # fmt: skip
        send = gr.Button(
            label("suites.to_labelling"), size="sm", interactive=False, elem_id="send-marked", scale=0, min_width=170
        )
        send_all = gr.Button(label("suites.all_to_labelling"), size="sm", elem_id="send-shown", scale=0, min_width=170)
    sent = drawn("send-status")
    answers = drawn("run-answers")
    places = gr.State(None), told, stop, again, show, gr.State(0), cases, gr.State(None), answers, gr.State([])
    return Watch(*places, mode, send, send_all, sent), previous, after


def filled(ui: Ui, project_id: int, suite_id: int | None) -> list[Any]:
    """The pickers, and the form as the chosen suite has it."""
    person = ui.guard.person()
    found = testing.named(ui.store, person, project_id)
    templates = template_choices(prompting.templates(ui.store, person, project_id))
    policies = streaming.policies(ui.store, person)
    models, live = model_choices(ui, policies), live_first(policies)
    chosen = testing.suite(ui.store, person, suite_id) if suite_id else None
    choices = [(ui.guard.say("suites.new"), 0), *((f"{one.name} · v{one.version}", one.id or 0) for one in found)]
    return [
        gr.update(open=chosen is None),
        gr.update(choices=choices, value=suite_id or 0),
        chosen.name if chosen else "",
        gr.update(choices=templates, value=None if chosen or not templates else templates[0][1]),
        testing.checks_as_text(chosen) if chosen else SUGGESTED,
        "" if chosen is None or chosen.threshold is None else f"{chosen.threshold:g}",
        gr.update(choices=templates),
        gr.update(choices=models, value=[live] if live else []),
        gr.update(choices=[(ui.guard.say("suites.no_judge"), 0), *models], value=0),
        room(ui, suite_id),
    ]


def room(ui: Ui, suite_id: int | None) -> int:
    """Tokens that the longest answer may have, as the suite's expected answers want it."""
    return testing.answer_room(ui.store, ui.guard.person(), suite_id) if suite_id else testing.FEWEST_TOKENS


class Saved(NamedTuple):
    suite: Suite
    left_out: tuple[str, ...]  # columns of what was pasted that mean nothing here


def saved(ui: Ui, project_id: int, suite_id: int | None, given: Form) -> Saved:
    """The suite as the form has it. Cases: those the suite had, then the template's, then the pasted ones with checks of their own."""
    person = ui.guard.person()
    before = testing.suite(ui.store, person, suite_id) if suite_id else None
    ids = list(before.case_ids) if before else []
    own = {int(case_id): row for case_id, row in before.own.items()} if before else {}
    scenario = language = None
    left_out: tuple[str, ...] = ()
    if given.template:
        template = prompting.template(ui.store, person, given.template)
        scenario, language = template.scenario, template.language
        found = prompting.cases(ui.store, person, project_id, scenario=scenario, language=language)
        ids += [case.id or 0 for case in found if given.split in ("all", case.split)][: int(given.most or 0)]
    for read in _given_cases(ui, given):
        rows = [(one.values, one.expected) for one in read.cases]
        made = prompting.add_cases(ui.store, person, project_id, rows, scenario=scenario, language=language)
        ids += [case.id or 0 for case in made]
        own |= testing.own_of(read, made)
        left_out = tuple(dict.fromkeys([*left_out, *read.left_out]))
    suite = testing.save_suite(
        ui.store, person, project_id, name=given.name or "", case_ids=ids, checks=given.checks or "",
        threshold=testing.threshold_of(given.threshold or ""), own=own,
    )  # fmt: skip
    return Saved(suite, left_out)


def _given_cases(ui: Ui, given: Form) -> list[Pasted]:
    """What was pasted, and what stands in the chosen file; both are read before anything is kept."""
    person, found = ui.guard.person(), []
    if (given.pasted or "").strip():
        found.append(testing.read_cases(person, given.pasted))
    if given.file:
        path = Path(given.file)
        found.append(testing.read_file(person, path.name, path.read_bytes()))
    return found


def injection_suite(ui: Ui, project_id: int) -> Suite:
    """The ready-made injection suite in the reader's language, and a template that keeps its canary."""
    person = ui.guard.person()
    language: injection.Language = "zh" if ui.guard.language().startswith("zh") else "en"
    name = injection.NAME[language]
    draft = prompting.Draft(
        name=name, system_text=injection.SYSTEM[language], body=injection.BODY, scenario=name, language=language
    )
    prompting.save_template(ui.store, person, project_id, draft)
    made = prompting.add_cases(
        ui.store, person, project_id, injection.cases(language), scenario=name, language=language
    )
    ids = [case.id or 0 for case in made]
    return testing.save_suite(ui.store, person, project_id, name=name, case_ids=ids, checks=injection.CHECKS)
