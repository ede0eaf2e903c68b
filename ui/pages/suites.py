"""The test page: suites of cases with checks, and runs that tell whether one template or model really beats another."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import gradio as gr

from backend import comparing, prompting, streaming, testing
from backend.engines.kept import SamplingSettings
from backend.suites import injection, running
from backend.suites.checks import parse
from feedback_db.types import Suite
from ui.context import Ui
from ui.guard import needs
from ui.pages.suites_view import case_shown, cases_shown, run_shown, runs_shown
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import asked_for, fill_projects, model_choices, picker, project_picker, template_choices

NAME = "suites"
PATH = "test"
EVERY_SECONDS = 1.0
PAGE = 20
SPLITS = ("all", "train", "val", "test")
SHOWS = ("all", "failed", "differ", "worse")
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


class Asked(NamedTuple):
    """What a run is asked for."""

    templates: Any
    models: Any
    temperature: Any
    max_tokens: Any
    repeats: Any
    seed: Any
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
    send: Any


def page(ui: Ui) -> None:
    label = ui.text.label
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=340, elem_classes="wh-panel"):
                project = project_picker(ui)
                suite = picker(label("suites.suite"), "suite")
                with gr.Accordion(label("suites.edit"), open=True, elem_id="edit-suite") as editor:
                    form = _form(ui)
                    with gr.Row(elem_classes="wh-tight"):
                        save = gr.Button(label("suites.save"), size="sm", elem_id="save-suite", scale=2)
                        ready = gr.Button(label("suites.injection"), size="sm", elem_id="injection-suite", scale=1)
                saved = drawn("suite-status")
                asked = _asked(ui)
                run = gr.Button(label("suites.run"), variant="primary", size="sm", elem_id="run-suite")
                started = drawn("run-status")
            with gr.Column(scale=8, min_width=480, elem_classes="wh-panel"):
                runs = drawn("runs")
                watch, previous, after = _watch(ui)
        timer = gr.Timer(EVERY_SECONDS, active=False)
    seen = gr.State(None)
    filled = [editor, suite, form.name, form.template, form.checks, form.threshold, asked.templates, asked.models]
    shown = [
        runs,
        watch.run,
        watch.told,
        watch.stop,
        watch.go_on,
        watch.start,
        watch.cases,
        watch.case,
        watch.answers,
        watch.send,
        seen,
    ]

    def open_page(request: gr.Request) -> list[Any]:
        projects, chosen = fill_projects(ui, request)
        project_id = chosen.id or 0 if chosen else 0
        newest = testing.newest(ui.store, ui.guard.person(), project_id)
        return [
            gr.Timer(active=True),
            projects,
            *_filled(ui, project_id, newest),
            *_shown(ui, project_id, asked_for(request, "run")),
        ]

    def open_project(project_id: int | None) -> list[Any]:
        return [*_filled(ui, project_id or 0, None), *_shown(ui, project_id or 0, None)]

    def choose_suite(project_id: int | None, suite_id: int | None) -> list[Any]:
        return _filled(ui, project_id or 0, suite_id)

    @needs("compare")
    def save_suite(project_id: int | None, suite_id: int | None, *given: Any) -> list[Any]:
        made = _saved(ui, project_id or 0, suite_id, Form(*given))
        told = ui.guard.say(
            "suites.saved", name=made.name, version=made.version, n=len(made.case_ids), checks=len(made.checks)
        )
        return [drawing(note(told, "ok")), "", *_filled(ui, project_id or 0, made.id)[:6]]

    @needs("compare")
    def add_injection(project_id: int | None) -> list[Any]:
        made = _injection(ui, project_id or 0)
        told = ui.guard.say("suites.injection_added", name=made.name, n=len(made.case_ids))
        return [drawing(note(told, "ok")), *_filled(ui, project_id or 0, made.id)]

    @needs("compare")
    def start_run(project_id: int | None, suite_id: int | None, *given: Any) -> list[Any]:
        if not suite_id:
            return [drawing(note(ui.guard.say("suites.choose"), "warn")), *[gr.skip()] * len(shown)]
        a = Asked(*given)
        sampling = SamplingSettings(temperature=float(a.temperature or 0), max_tokens=int(a.max_tokens or 0))
        made = testing.start(
            ui.store, ui.guard.person(), suite_id, list(product(a.templates or [], a.models or [])), sampling=sampling,
            repeats=int(a.repeats or 0), seed=int(a.seed or 0), follows=bool(a.follows),
        )  # fmt: skip
        told = ui.guard.say("suites.started", id=made.id, n=f"{made.total:,}")
        return [drawing(note(told, "ok")), *_shown(ui, project_id or 0, made.id)]

    @needs("compare")
    def stop_run(project_id: int | None, run_id: int | None) -> list[Any]:
        testing.stop(ui.store, ui.guard.person(), run_id or 0)
        return _shown(ui, project_id or 0, run_id)

    @needs("compare")
    def go_on(project_id: int | None, run_id: int | None) -> list[Any]:
        testing.go_on(ui.store, ui.guard.person(), run_id or 0)
        return _shown(ui, project_id or 0, run_id)

    def choose_run(project_id: int | None, event: gr.EventData) -> list[Any]:
        return _shown(ui, project_id or 0, int(event._data["id"]))

    def look_again(
        project_id: int | None, run_id: int | None, show: str, start: int, case_id: int | None, was: Any
    ) -> list[Any]:
        found = testing.runs(ui.store, ui.guard.person(), project_id or 0)
        if _told(found, run_id) == was:
            return [gr.skip()] * len(shown)
        return _shown(ui, project_id or 0, run_id, show, start, case_id)

    def turn(by: int) -> Any:
        def turned(project_id: int | None, run_id: int | None, show: str, start: int) -> list[Any]:
            return _shown(ui, project_id or 0, run_id, show, max(0, start + by))

        return turned

    def choose_case(run_id: int | None, event: gr.EventData) -> list[Any]:
        case_id = int(event._data["id"])
        return [case_id, _answers(ui, run_id or 0, case_id), gr.update(interactive=True)]

    @needs("compare")
    def send(run_id: int | None, case_id: int | None) -> dict[str, Any]:
        row = testing.row(ui.store, ui.guard.person(), run_id or 0, case_id or 0)
        texts: dict[str, int] = {}
        for cells in row.cells:
            for _, answer in cells:
                if answer is not None and answer.id is not None:
                    texts.setdefault(answer.text, answer.id)
        if len(texts) < 2:
            return drawing(note(ui.guard.say("suites.one_text"), "warn"))
        made = comparing.send_to_labelling(ui.store, ui.guard.person(), list(texts.values()))
        return drawing(note(ui.guard.say("suites.sent", id=made.id), "ok"))

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, [timer, project, *filled, *shown], api_name="suites_open", **quiet)
    project.input(open_project, project, [*filled, *shown], api_name="suites_project", **quiet)
    suite.input(choose_suite, [project, suite], filled, api_name="choose_suite", **quiet)
    save.click(save_suite, [project, suite, *form], [saved, form.pasted, *filled[:6]], api_name="save_suite")
    ready.click(add_injection, project, [saved, *filled], api_name="add_injection")
    run.click(start_run, [project, suite, *asked], [started, *shown], api_name="start_run")
    watch.stop.click(stop_run, [project, watch.run], shown, api_name="stop_run")
    watch.go_on.click(go_on, [project, watch.run], shown, api_name="go_on")
    runs.select(choose_run, project, shown, api_name="choose_run", **quiet)
    timer.tick(
        look_again,
        [project, watch.run, watch.show, watch.start, watch.case, seen],
        shown,
        api_name="suites_tick",
        **quiet,
    )
    paged = [project, watch.run, watch.show, watch.start]
    watch.show.input(
        lambda project_id, run_id, show, _: _shown(ui, project_id or 0, run_id, show),
        paged,
        shown,
        api_name="show_cases",
        **quiet,
    )
    previous.click(turn(-PAGE), paged, shown, api_name="previous_cases", **quiet)
    after.click(turn(PAGE), paged, shown, api_name="next_cases", **quiet)
    watch.cases.select(choose_case, watch.run, [watch.case, watch.answers, watch.send], api_name="choose_case", **quiet)
    watch.send.click(send, [watch.run, watch.case], started, api_name="send_answers")


def _form(ui: Ui) -> Form:
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
    checks = gr.Textbox(
        value=SUGGESTED, label=label("suites.checks"), info=label("suites.checks_hint"), elem_id="suite-checks", lines=3, max_lines=12,
    )  # fmt: skip
    threshold = gr.Textbox(label=label("suites.threshold"), elem_id="suite-threshold", max_lines=1)
    return Form(name, template, split, most, pasted, checks, threshold)


def _asked(ui: Ui) -> Asked:
    label = ui.text.label
    templates = picker(label("suites.templates"), "suite-templates", multiselect=True)
    models = picker(label("suites.models"), "suite-models", multiselect=True)
    with gr.Row(elem_classes="wh-tight"):
        temperature = gr.Number(
            value=0.0, step=0.1, label=label("suites.temperature"), elem_id="suite-temperature", min_width=70
        )
        max_tokens = gr.Number(
            value=64, precision=0, label=label("suites.max_tokens"), elem_id="suite-max-tokens", min_width=70
        )
        repeats = gr.Number(value=1, precision=0, label=label("suites.repeats"), elem_id="suite-repeats", min_width=70)
        seed = gr.Number(value=0, precision=0, label=label("suites.seed"), elem_id="suite-seed", min_width=70)
    follows = gr.Checkbox(label=label("suites.follows"), elem_id="suite-follows")
    return Asked(templates, models, temperature, max_tokens, repeats, seed, follows)


def _watch(ui: Ui) -> tuple[Watch, Any, Any]:
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
    answers = drawn("run-answers")
    send = gr.Button(
        label("suites.to_labelling"), size="sm", interactive=False, elem_id="send-answers", scale=0, min_width=220
    )
    watch = Watch(gr.State(None), told, stop, again, show, gr.State(0), cases, gr.State(None), answers, send)
    return watch, previous, after


def _filled(ui: Ui, project_id: int, suite_id: int | None) -> list[Any]:
    """The pickers, and the form as the chosen suite has it."""
    person = ui.guard.person()
    found = testing.named(ui.store, person, project_id)
    templates = template_choices(prompting.templates(ui.store, person, project_id))
    models = model_choices(ui, streaming.policies(ui.store, person))
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
        gr.update(choices=models, value=[models[0][1]] if models else []),
    ]


def _saved(ui: Ui, project_id: int, suite_id: int | None, given: Form) -> Suite:
    """The suite as the form has it. Cases: those the suite had, then the template's, then the pasted ones."""
    person = ui.guard.person()
    ids = list(testing.suite(ui.store, person, suite_id).case_ids) if suite_id else []
    scenario = language = None
    if given.template:
        template = prompting.template(ui.store, person, given.template)
        scenario, language = template.scenario, template.language
        found = prompting.cases(ui.store, person, project_id, scenario=scenario, language=language)
        ids += [case.id or 0 for case in found if given.split in ("all", case.split)][: int(given.most or 0)]
    if (given.pasted or "").strip():
        rows = [(one.values, one.expected) for one in testing.read_cases(person, given.pasted)]
        made = prompting.add_cases(ui.store, person, project_id, rows, scenario=scenario, language=language)
        ids += [case.id or 0 for case in made]
    return testing.save_suite(
        ui.store, person, project_id, name=given.name or "", case_ids=ids, checks=given.checks or "",
        threshold=testing.threshold_of(given.threshold or ""),
    )  # fmt: skip


def _injection(ui: Ui, project_id: int) -> Suite:
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


def _shown(
    ui: Ui, project_id: int, run_id: int | None, show: str = "all", start: int = 0, case_id: int | None = None
) -> list[Any]:
    """Everything about runs, in the order of ``shown``."""
    person = ui.guard.person()
    found = testing.runs(ui.store, person, project_id)
    one = next((one for one in found if one.run.id == run_id), found[0] if found else None)
    if one is None or one.run.id is None:
        hidden = gr.update(visible=False)
        return [
            runs_shown(ui, found, None),
            None,
            drawing(),
            hidden,
            hidden,
            0,
            drawing(),
            None,
            drawing(),
            gr.update(interactive=False),
            _told(found, None),
        ]
    arms = running.arms_of(ui.store, one.run)
    told = run_shown(ui, one, arms, testing.summary(ui.store, person, one.run.id))
    rows, n = testing.rows(ui.store, person, one.run.id, show=show, start=start, most=PAGE)  # type: ignore[arg-type]
    if start >= n:
        start = max(0, (n - 1) // PAGE * PAGE)
        rows, n = testing.rows(ui.store, person, one.run.id, show=show, start=start, most=PAGE)  # type: ignore[arg-type]
    return [
        runs_shown(ui, found, one.run.id),
        one.run.id,
        told,
        gr.update(visible=one.run.state == "running"),
        gr.update(visible=one.run.state == "stopped" or (one.run.state == "done" and one.failed > 0)),
        start,
        cases_shown(ui, rows, n, start, case_id),
        case_id,
        _answers(ui, one.run.id, case_id) if case_id else drawing(),
        gr.update(interactive=case_id is not None),
        _told(found, one.run.id),
    ]


def _answers(ui: Ui, run_id: int, case_id: int) -> dict[str, Any]:
    person = ui.guard.person()
    run = testing.progress(ui.store, person, run_id).run
    names = [check.name for check in parse(testing.suite(ui.store, person, run.suite_id).checks)]
    return case_shown(ui, testing.row(ui.store, person, run_id, case_id), names)


def _told(found: list[testing.Progress], run_id: int | None) -> list[Any]:
    """Changes whenever a run has come further."""
    return [[one.run.id, one.run.state, one.done, one.run.id == run_id] for one in found]
