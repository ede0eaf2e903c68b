"""Exporting a template, a suite or a run: for promptfoo, as JSON lines, as plain text, or as one HTML page.

What is written down is what a model is sent: the demonstrations are those that would be chosen, and of a run those that were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from backend import access
from backend.engines.features import Engine, embedder
from backend.exchange.out import html, jsonl, promptfoo, text
from backend.exchange.out.sheet import Answered, Exported, Sheet, Shown
from backend.exchange.plan import Notes
from backend.problem import Problem, read_back
from backend.prompts.chat import build_messages, refuse_given_away
from backend.prompts.fewshot import Embed, FewShot, choose
from backend.suites.checks import parse
from feedback_db import Store, prompts, suites
from feedback_db.cases import conversation
from feedback_db.types import Case, Demonstration, Message, Model, Person, Prompt, Sampling, Suite, SuiteRun, Template

What = Literal["template", "suite", "run"]
WRITERS: dict[str, Callable[[Sheet, Notes], Exported]] = {
    "promptfoo": promptfoo.configuration,
    "promptfoo-csv": promptfoo.table,
    "jsonl": jsonl.lines,
    "text": text.text,
    "html": html.page,
}
FORMATS = tuple(WRITERS)


class CannotExport(Problem):
    """Something that cannot be written in this format; the message says why."""


class Choice(NamedTuple):
    """Something that can be exported."""

    what: What
    id: int
    name: str


def choices(store: Store, person: Person, project_id: int, what: What) -> list[Choice]:
    """What of this kind a project has, newest or by name."""
    access.require(person, "build")
    if what == "template":
        return [
            Choice(what, one.id or 0, f"{one.name} · v{one.version}") for one in prompts.templates(store, project_id)
        ]
    if what == "suite":
        return [Choice(what, one.id or 0, f"{one.name} · v{one.version}") for one in suites.suites(store, project_id)]
    return [
        Choice(what, run.id or 0, f"{run.id} · {store.get(Suite, run.suite_id).name}")
        for run in suites.runs(store, project_id)
    ]


def export(
    store: Store,
    person: Person,
    what: What,
    id: int,
    format: str,
    *,
    template_ids: Sequence[int] = (),
    engine: Engine | None = None,
) -> Exported:
    """``template_ids`` are the templates that a suite is written in; ``engine`` reads texts for templates that choose by embeddings.

    Raises CannotExport, NotFound, EngineError.
    """
    access.require(person, "build")
    if format not in WRITERS:
        raise CannotExport(
            f'There is no format "{format}". There are: {", ".join(FORMATS)}.',
            "no_such_format",
            format=format,
            formats=", ".join(FORMATS),
        )
    notes, embed = Notes(what), embedder(store, engine)
    if what == "template":
        sheet = Sheet(title=store.get(Template, id).name, templates=_shown(store, [store.get(Template, id)], ()))
    elif what == "suite":
        sheet = _of_suite(store, embed, store.get(Suite, id), template_ids, notes)
    else:
        sheet = _of_run(store, embed, store.get(SuiteRun, id), notes)
    if format == "promptfoo-csv" and not sheet.cases:
        raise CannotExport("A template has no cases, so there is no table. Export a suite or a run.", "no_table")
    made = WRITERS[format](sheet, notes)
    return made._replace(name=f"{_file_name(sheet.title)}.{made.name}")


def _of_suite(store: Store, embed: Embed, suite: Suite, template_ids: Sequence[int], notes: Notes) -> Sheet:
    cases = tuple(store.get(Case, case_id) for case_id in suite.case_ids)
    templates = [store.get(Template, one) for one in dict.fromkeys(template_ids)]
    if any(one.project_id != suite.project_id for one in templates):
        raise CannotExport("A template belongs to another project. Choose one of this project.", "foreign_template")
    shown = _shown(store, templates, cases)
    pools = {one.label: _pool(store, one.template) for one in shown if one.demonstrations is None}
    written = tuple(_written(shown, pools, embed, case, f"case {i}", notes) for i, case in enumerate(cases, 1))
    return Sheet(
        title=suite.name,
        templates=shown,
        cases=cases,
        written=written,
        checks=suite.checks,
        threshold=suite.threshold,
        own=tuple(suite.own.get(str(case.id), {}) for case in cases) if suite.own else (),
    )


def _of_run(store: Store, embed: Embed, run: SuiteRun, notes: Notes) -> Sheet:
    suite = store.get(Suite, run.suite_id)
    sheet = _of_suite(store, embed, suite, [arm["template"] for arm in run.arms], notes)
    labels = {one.template.id: one.label for one in sheet.templates}
    samplings = {arm["sampling"]: store.get(Sampling, arm["sampling"]) for arm in run.arms}
    models = {arm["model"]: store.get(Model, arm["model"]).name for arm in run.arms}
    places = {case_id: place for place, case_id in enumerate(suite.case_ids)}
    names = [check.name for check in parse(suite.checks)]
    cells = [cell for cell in suites.cells(store, run.id or 0) if cell.case_id in places]
    given = suites.completions(store, [cell.completion_id for cell in cells if cell.completion_id is not None])
    answers = []
    for cell in sorted(cells, key=lambda cell: (places[cell.case_id], cell.arm, cell.repeat)):
        arm, answer = run.arms[cell.arm], given.get(cell.completion_id or 0)
        failed = [
            f"{name}: {read_back(result[2])}"
            for name, result in zip(names, cell.results, strict=False)
            if not result[1]
        ]
        answers.append(
            Answered(
                label=labels[arm["template"]], model=models[arm["model"]], case=places[cell.case_id], repeat=cell.repeat,
                messages=store.get(Prompt, answer.prompt_id).messages if answer else (),
                text=answer.text if answer else "", score=cell.score, passed=bool(cell.passed), reasons=tuple(failed),
                problem=str(read_back(cell.problem)),
                temperature=samplings[arm["sampling"]].settings["temperature"] if len(samplings) > 1 else None,
            )
        )  # fmt: skip
    return Sheet(
        title=f"{suite.name} run {run.id}", templates=sheet.templates, cases=sheet.cases, written=sheet.written,
        checks=sheet.checks, threshold=sheet.threshold, answers=tuple(answers),
    )  # fmt: skip


def _shown(store: Store, templates: Sequence[Template], cases: Sequence[Case]) -> tuple[Shown, ...]:
    """Each template with the demonstrations that it shows whatever is asked; None where they depend on the case."""
    names = [one.name for one in templates]
    found = []
    for one in templates:
        few_shot = FewShot.parse(one.few_shot)
        pool = _pool(store, one)
        fixed: tuple[Demonstration, ...] | None = None
        if few_shot.choose in ("fixed", "seeded", "balanced") and few_shot.order != "nearest_last":
            fixed = tuple(choose(pool, "", few_shot))
            asked = (choose(pool, _asked(case), few_shot) for case in cases)
            if any([d.id for d in chosen] != [d.id for d in fixed] for chosen in asked):
                fixed = None
        label = one.name if names.count(one.name) == 1 else f"{one.name} v{one.version}"
        found.append(Shown(label=label, template=one, demonstrations=fixed))
    return tuple(found)


def _written(
    shown: Sequence[Shown],
    pools: Mapping[str, list[Demonstration]],
    embed: Embed,
    case: Case,
    place: str,
    notes: Notes,
) -> Mapping[str, tuple[Message, ...]]:
    """The messages of a case in every template, whatever the context of a model; a remark where they cannot be built."""
    found: dict[str, tuple[Message, ...]] = {}
    for one in shown:
        few_shot = FewShot.parse(one.template.few_shot)
        chosen = one.demonstrations
        try:
            if chosen is None:
                chosen = tuple(choose(pools[one.label], _asked(case), few_shot, embed))
            refuse_given_away(one.template, case)
            found[one.label] = build_messages(
                one.template, case.values or {}, chosen, few_shot.shape, conversation=case.conversation or ()
            )
        except Problem as problem:
            notes.refused(0, place, "case_unbuilt", name=one.label, problem=str(problem))
    return found


def _pool(store: Store, template: Template) -> list[Demonstration]:
    return prompts.demonstrations(store, template.project_id, scenario=template.scenario, language=template.language)


def _asked(case: Case) -> str:
    return conversation(case.values, case.conversation)[-1]["content"]


def _file_name(title: str) -> str:
    """Letters, digits and dashes: a name from a user never becomes a path."""
    return re.sub(r"[^\w-]+", "-", title).strip("-")[:60] or "export"
