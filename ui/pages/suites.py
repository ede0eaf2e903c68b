"""The test page: suites of cases with checks, and runs that tell whether one template or model really beats another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import gradio as gr

from backend import sending, testing
from backend.engines.kept import SamplingSettings
from backend.suites import running
from backend.suites.agreeing import Agreements
from backend.suites.looking import Looks
from backend.suites.sending import Pick, Sent
from ui.context import Ui
from ui.guard import needs
from ui.pages.suites_form import (
    Asked,
    Form,
    asked_fields,
    filled,
    form_fields,
    injection_suite,
    room,
    saved,
    watch_fields,
)
from ui.pages.suites_view import case_shown, cases_shown, run_shown, runs_shown
from ui.views.drawn import drawing, drawn, note
from ui.views.pickers import asked_for, fill_projects, picker, project_picker

NAME = "suites"
PATH = "test"
EVERY_SECONDS = 1.0
PAGE = 50

Marks = list[list[int]]  # [case id, column]


def page(ui: Ui) -> None:
    label = ui.text.label
    view = _View(ui)
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=340, elem_classes="wh-panel"):
                project = project_picker(ui)
                suite = picker(label("suites.suite"), "suite")
                with gr.Accordion(label("suites.edit"), open=True, elem_id="edit-suite") as editor:
                    form = form_fields(ui)
                    with gr.Row(elem_classes="wh-tight"):
                        save = gr.Button(label("suites.save"), size="sm", elem_id="save-suite", scale=2)
                        ready = gr.Button(label("suites.injection"), size="sm", elem_id="injection-suite", scale=1)
                told_saved = drawn("suite-status")
                asked = asked_fields(ui)
                run = gr.Button(label("suites.run"), variant="primary", size="sm", elem_id="run-suite")
                started = drawn("run-status")
            with gr.Column(scale=8, min_width=480, elem_classes="wh-panel"):
                runs = drawn("runs")
                watch, previous, after = watch_fields(ui)
        timer = gr.Timer(EVERY_SECONDS, active=False)
    seen = gr.State(None)
    fields = [
        editor,
        suite,
        form.name,
        form.template,
        form.checks,
        form.threshold,
        asked.templates,
        asked.models,
        asked.judge,
        asked.max_tokens,
    ]
    cases = [watch.cases, watch.case, watch.answers, watch.marks, watch.send]
    shown = [runs, watch.run, watch.told, watch.stop, watch.go_on, watch.start, *cases, seen]
    at = [project, watch.run, watch.show, watch.start, watch.case, watch.marks]

    def open_page(request: gr.Request) -> list[Any]:
        projects, chosen = fill_projects(ui, request)
        project_id = chosen.id or 0 if chosen else 0
        newest = testing.newest(ui.store, ui.guard.person(), project_id)
        return [
            gr.Timer(active=True),
            projects,
            *filled(ui, project_id, newest),
            *view.all(project_id, asked_for(request, "run")),
        ]

    def open_project(project_id: int | None) -> list[Any]:
        return [*filled(ui, project_id or 0, None), *view.all(project_id, None)]

    def choose_suite(project_id: int | None, suite_id: int | None) -> list[Any]:
        return filled(ui, project_id or 0, suite_id)

    @needs("compare")
    def save_suite(project_id: int | None, suite_id: int | None, *given: Any) -> list[Any]:
        made, left_out = saved(ui, project_id or 0, suite_id, Form(*given))
        own = sum(bool(row) for row in made.own.values())
        said = ui.guard.say(
            "suites.saved", name=made.name, version=made.version, n=len(made.case_ids), checks=len(made.checks)
        )
        parts = [
            note(said, "ok"),
            note(ui.guard.say("suites.own_checks", n=own)) if own else None,
            note(ui.guard.say("suites.left_out", names=", ".join(left_out)), "warn") if left_out else None,
        ]
        return [drawing(*parts), "", None, room(ui, made.id), *filled(ui, project_id or 0, made.id)[:6]]

    @needs("compare")
    def add_injection(project_id: int | None) -> list[Any]:
        made = injection_suite(ui, project_id or 0)
        said = ui.guard.say("suites.injection_added", name=made.name, n=len(made.case_ids))
        return [drawing(note(said, "ok")), *filled(ui, project_id or 0, made.id)]

    @needs("compare")
    def start_run(project_id: int | None, suite_id: int | None, *given: Any) -> list[Any]:
        if not suite_id:
            return [drawing(note(ui.guard.say("suites.choose"), "warn")), *[gr.skip()] * len(shown)]
        a = Asked(*given)
        samplings = [
            SamplingSettings(temperature=one, max_tokens=int(a.max_tokens or 0))
            for one in testing.temperatures_of(str(a.temperatures or ""))
        ]
        made = testing.start(
            ui.store, ui.guard.person(), suite_id, list(product(a.templates or [], a.models or [])), samplings=samplings,
            repeats=int(a.repeats or 0), seed=int(a.seed or 0), follows=bool(a.follows), judge=a.judge or None,
            sends=a.sends or [],
        )  # fmt: skip
        said = ui.guard.say("suites.started", id=made.id, n=f"{made.total:,}")
        return [drawing(note(said, "ok")), *view.all(project_id, made.id)]

    @needs("compare")
    def stop_run(project_id: int | None, run_id: int | None) -> list[Any]:
        testing.stop(ui.store, ui.guard.person(), run_id or 0)
        return view.all(project_id, run_id)

    @needs("compare")
    def go_on(project_id: int | None, run_id: int | None) -> list[Any]:
        testing.go_on(ui.store, ui.guard.person(), run_id or 0)
        return view.all(project_id, run_id)

    def choose_run(project_id: int | None, event: gr.EventData) -> list[Any]:
        return view.all(project_id, int(event._data["id"]))

    def look_again(project_id: int | None, run_id: int | None, *place: Any) -> list[Any]:
        *where, was = place
        if view.stamp(project_id, run_id) == was:
            return [gr.skip()] * len(shown)
        return view.all(project_id, run_id, *where)

    def turn(by: int) -> Any:
        def turned(
            project_id: int | None, run_id: int | None, show: str, start: int, _: Any, marks: Marks
        ) -> list[Any]:
            return view.all(project_id, run_id, show, max(0, start + by), None, marks)

        return turned

    def show_cases(project_id: int | None, run_id: int | None, show: str, *_: Any) -> list[Any]:
        return view.all(project_id, run_id, show)

    def choose_case(
        _: Any, run_id: int | None, show: str, start: int, case_id: int | None, marks: Marks, event: gr.EventData
    ) -> list[Any]:
        if "mark" in event._data:
            return view.cases(run_id or 0, show, start, case_id, view.marked(run_id or 0, marks, event._data["mark"]))
        return view.cases(run_id or 0, show, start, int(event._data["id"]), marks)

    @needs("compare")
    def send_marked(run_id: int | None, marks: Marks, mode: str) -> dict[str, Any]:
        arms: dict[int, set[int]] = {}
        for case_id, arm in marks:
            arms.setdefault(case_id, set()).add(arm)
        picks = [Pick(case_id, frozenset(several)) for case_id, several in arms.items()]
        made = sending.send_picked(ui.store, ui.guard.person(), run_id or 0, picks, mode=mode)  # type: ignore[arg-type]
        return _sent(ui, made)

    @needs("compare")
    def send_shown(run_id: int | None, show: str, mode: str) -> dict[str, Any]:
        person = ui.guard.person()
        return _sent(ui, sending.send_shown(ui.store, person, run_id or 0, show, mode=mode, looks=view.looks))  # type: ignore[arg-type]

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, [timer, project, *fields, *shown], api_name="suites_open", **quiet)
    project.input(open_project, project, [*fields, *shown], api_name="suites_project", **quiet)
    suite.input(choose_suite, [project, suite], fields, api_name="choose_suite", **quiet)
    save.click(
        save_suite,
        [project, suite, *form],
        [told_saved, form.pasted, form.file, asked.max_tokens, *fields[:6]],
        api_name="save_suite",
    )
    ready.click(add_injection, project, [told_saved, *fields], api_name="add_injection")
    run.click(start_run, [project, suite, *asked], [started, *shown], api_name="start_run")
    watch.stop.click(stop_run, [project, watch.run], shown, api_name="stop_run")
    watch.go_on.click(go_on, [project, watch.run], shown, api_name="go_on")
    runs.select(choose_run, project, shown, api_name="choose_run", **quiet)
    timer.tick(look_again, [*at, seen], shown, api_name="suites_tick", **quiet)
    watch.show.input(show_cases, at, shown, api_name="show_cases", **quiet)
    previous.click(turn(-PAGE), at, shown, api_name="previous_cases", **quiet)
    after.click(turn(PAGE), at, shown, api_name="next_cases", **quiet)
    # One after the other: a box that is marked while another still is must not be lost, and both start from the same marks.
    watch.cases.select(
        choose_case,
        at,
        cases,
        api_name="choose_case",
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_limit=1,
    )
    watch.send.click(send_marked, [watch.run, watch.marks, watch.mode], watch.sent, api_name="send_marked")
    watch.send_all.click(send_shown, [watch.run, watch.show, watch.mode], watch.sent, api_name="send_shown")


class _View:
    """What the page shows of runs, with what was read of them before, so that a look reads new cells only."""

    def __init__(self, ui: Ui) -> None:
        self.ui = ui
        self.looks = Looks()
        self.agreements = Agreements()

    def all(
        self,
        project_id: int | None,
        run_id: int | None,
        show: str = "all",
        start: int = 0,
        case_id: int | None = None,
        marks: Marks | None = None,
    ) -> list[Any]:
        """Everything about runs, in the order of ``shown``."""
        ui, person = self.ui, self.ui.guard.person()
        found = testing.runs(ui.store, person, project_id or 0)
        titles = testing.titles(ui.store, person, project_id or 0)
        one = next((one for one in found if one.run.id == run_id), found[0] if found else None)
        hidden = gr.update(visible=False)
        if one is None or one.run.id is None:
            nothing = [drawing(), None, drawing(), [], self._send_button([])]
            return [
                runs_shown(ui, found, titles, None),
                None,
                drawing(),
                hidden,
                hidden,
                0,
                *nothing,
                self._stamp(found, None),
            ]
        arms = running.arms_of(ui.store, one.run)
        agreed = [
            (testing.grader(ui.store, person, one.model_id), one)
            for one in testing.agreement(ui.store, person, one.run.id, self.agreements)
        ]
        told = run_shown(
            ui,
            one,
            arms,
            testing.summary(ui.store, person, one.run.id, self.looks),
            agreed,
            testing.cut_off(ui.store, person, one.run.id),
            len(self._shown_ids(one.run.id, "worse")) if one.run.follows else 0,
        )
        start = self._start(one.run.id, show, start)
        return [
            runs_shown(ui, found, titles, one.run.id),
            one.run.id,
            told,
            gr.update(visible=one.run.state == "running"),
            gr.update(visible=one.run.state == "stopped" or (one.run.state == "done" and one.failed > 0)),
            start,
            *self.cases(one.run.id, show, start, case_id, marks or [] if one.run.id == run_id else []),
            self._stamp(found, one.run.id),
        ]

    def cases(self, run_id: int, show: str, start: int, case_id: int | None, marks: Marks) -> list[Any]:
        """The page of cases, the one that is open, and what is marked."""
        rows, n = self._rows(run_id, show, start)
        shown = cases_shown(self.ui, rows, n, start, case_id, {(case, arm) for case, arm in marks})
        answers = self._answers(run_id, case_id) if case_id else drawing()
        return [shown, case_id, answers, marks, self._send_button(marks)]

    def marked(self, run_id: int, marks: Marks, event: dict[str, Any]) -> Marks:
        """With the cell of the event taken in or out; of a row all its columns."""
        run = testing.progress(self.ui.store, self.ui.guard.person(), run_id).run
        arm = event.get("arm")
        touched = {(int(event["id"]), one) for one in (range(len(run.arms)) if arm is None else [int(arm)])}
        before = {(case, one) for case, one in marks}
        return [list(one) for one in sorted(before - touched if touched <= before else before | touched)]

    def stamp(self, project_id: int | None, run_id: int | None) -> list[Any]:
        return self._stamp(testing.runs(self.ui.store, self.ui.guard.person(), project_id or 0), run_id)

    def _stamp(self, found: Sequence[testing.Progress], run_id: int | None) -> list[Any]:
        """Changes whenever a run has come further."""
        return [[one.run.id, one.run.state, one.done, one.run.id == run_id] for one in found]

    def _rows(self, run_id: int, show: str, start: int) -> tuple[list[testing.Row], int]:
        person = self.ui.guard.person()
        return testing.rows(self.ui.store, person, run_id, show=show, start=start, most=PAGE, looks=self.looks)  # type: ignore[arg-type]

    def _start(self, run_id: int, show: str, start: int) -> int:
        """The last page where there is none so far on."""
        n = len(self._shown_ids(run_id, show))
        return start if start < n else max(0, (n - 1) // PAGE * PAGE)

    def _shown_ids(self, run_id: int, show: str) -> list[int]:
        person = self.ui.guard.person()
        return testing.case_ids(self.ui.store, person, run_id, show=show, looks=self.looks)  # type: ignore[arg-type]

    def _answers(self, run_id: int, case_id: int) -> dict[str, Any]:
        person = self.ui.guard.person()
        names = testing.check_names(self.ui.store, person, run_id, case_id)
        return case_shown(self.ui, testing.row(self.ui.store, person, run_id, case_id), names)

    def _send_button(self, marks: Marks) -> Any:
        name = self.ui.guard.say("suites.marked_to_labelling", n=len(marks))
        return gr.update(value=name if marks else self.ui.guard.say("suites.to_labelling"), interactive=bool(marks))


def _sent(ui: Ui, made: Sent) -> dict[str, Any]:
    """What became of a click: how many comparisons, what a win in them speaks for, and what made none."""
    say, n = ui.guard.say, made.training + made.votes
    return drawing(
        note(say("suites.sent", n=n, training=made.training, votes=made.votes), "ok") if n else None,
        note(say("suites.sent_none"), "warn") if not n else None,
        note(say("suites.known", n=made.known)) if made.known else None,
        note(say("suites.alone", n=made.alone), "warn") if made.alone else None,
    )
