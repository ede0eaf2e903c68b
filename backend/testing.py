"""What prompt engineers do to know whether version 7 really beats version 6: suites of cases with checks, and runs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backend import access
from backend.engines.kept import SamplingSettings, keep_sampling
from backend.exchange import cases_file
from backend.problem import Problem
from backend.suites import agreeing, grading, pasted, written
from backend.suites.checks import parse
from backend.suites.looking import Looks, Show
from backend.suites.own import asked_by, graders_of, row_of, suite_digest
from backend.suites.place import Place
from backend.suites.summary import Summary, summed
from feedback_db import Store, audit, models, suites
from feedback_db.types import Case, Cell, Completion, Model, Person, Suite, SuiteRun, Template

MOST_CELLS, MOST_CASES, MOST_ARMS, MOST_REPEATS = 100_000, 20_000, 8, 100

FEWEST_TOKENS, ROOM_STEP = 64, 32  # of the longest answer, unless something else is typed; our choice

SENDS: tuple[Show, ...] = ("failed", "close", "differ")  # what may go to labelling by itself


class CannotTest(Problem):
    """A suite that cannot be kept, or a run that cannot start; the message says why."""


class Progress(NamedTuple):
    run: SuiteRun
    done: int
    failed: int  # of these, without an answer


class Row(NamedTuple):
    """One case of a run: by arm its cells in the order of the repeats, each with its answer."""

    case: Case
    cells: list[list[tuple[Cell, Completion | None]]]


# ---- suites


def named(store: Store, person: Person, project_id: int) -> list[Suite]:
    """The newest version of each suite."""
    access.require(person, "compare")
    return suites.suites(store, project_id)


def newest(store: Store, person: Person, project_id: int) -> int | None:
    """The suite that somebody saved last: what a page opens with."""
    access.require(person, "compare")
    return suites.newest_made(store, project_id)


def titles(store: Store, person: Person, project_id: int) -> dict[int, str]:
    """Name and version of every suite, by id."""
    access.require(person, "compare")
    return suites.titles(store, project_id)


def suite(store: Store, person: Person, suite_id: int) -> Suite:
    access.require(person, "compare")
    return store.get(Suite, suite_id)


def checks_as_text(suite: Suite) -> str:
    return "\n".join(written.line_of(check) for check in parse(suite.checks))


def read_cases(person: Person, text: str) -> pasted.Pasted:
    """Cases pasted as CSV or JSON lines, with checks of their own where the text has some. Raises BadCases with line and field."""
    access.require(person, "compare")
    return pasted.cases_of(text)


def read_file(person: Person, name: str, data: bytes) -> pasted.Pasted:
    """Cases of a file: CSV, JSON lines, YAML or JSON, by its name. Raises BadCases with line and field."""
    access.require(person, "compare")
    if len(data) > pasted.MOST_BYTES:
        most = pasted.MOST_BYTES // 1_000_000
        raise pasted.BadCases(
            f"{name} has more than {most} MB. Give it in parts.", "cases_file_size", name=name, most=most
        )
    return cases_file.cases_in(name, data)


def answer_room(store: Store, person: Person, suite_id: int) -> int:
    """Tokens to leave for an answer so that what the suite expects is not cut; never less than FEWEST_TOKENS.

    An estimate that leans to the long side: a token for two letters or for one sign of Chinese, and a quarter for good measure.
    """
    access.require(person, "compare")
    suite = store.get(Suite, suite_id)
    longest = max((_tokens_about(store.get(Case, id).expected or "") for id in suite.case_ids), default=0)
    return max(FEWEST_TOKENS, -(-(longest * 5 // 4) // ROOM_STEP) * ROOM_STEP)


def _tokens_about(text: str) -> int:
    plain = sum(letter.isascii() for letter in text)
    return -(-plain // 2) + len(text) - plain


def own_of(found: pasted.Pasted, cases: Sequence[Case]) -> dict[int, dict[str, Any]]:
    """Case id -> what of the pasted text is that case's own; ``cases`` stand in the same order. Empty for texts without checks.

    Raises BadCases where one case stands there twice with other checks.
    """
    own: dict[int, dict[str, Any]] = {}
    lines: dict[int, int] = {}
    for written_case, case in zip(found.cases, cases, strict=True) if found.has_checks else ():
        row = row_of(written_case.checks, written_case.threshold)
        if own.setdefault(case.id or 0, row) != row:
            raise pasted.BadCases(
                f"the case of line {lines[case.id or 0]} again, with other checks. Keep one of them.", "cases_again",
                Place("line", written_case.line), line=lines[case.id or 0],
            )  # fmt: skip
        lines.setdefault(case.id or 0, written_case.line)
    return own


def threshold_of(text: str) -> float | None:
    """What was typed as the threshold; None for nothing. Raises CannotTest."""
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise CannotTest(
            f'The threshold is "{text.strip()}"; it must be a number between 0 and 1.',
            "threshold_text",
            value=text.strip(),
        ) from None


def temperatures_of(text: str) -> list[float]:
    """What was typed as temperatures, with commas between; each is a way of sampling. Raises CannotTest."""
    parts = [part.strip() for part in text.replace("，", ",").replace("、", ",").split(",") if part.strip()]
    try:
        return list(dict.fromkeys(float(part) for part in parts or ["0"]))
    except ValueError:
        raise CannotTest(
            f'The temperatures are "{text.strip()}"; write numbers with commas between: 0, 0.7, 1.',
            "temperatures_text",
            value=text.strip(),
        ) from None


def save_suite(
    store: Store,
    person: Person,
    project_id: int,
    *,
    name: str,
    case_ids: Sequence[int],
    checks: str,
    threshold: float | None = None,
    own: Mapping[int, Mapping[str, Any]] = {},
) -> Suite:
    """The next version of this name; one equal to the newest is that version. ``own``: what is asked of single cases beside the
    suite's checks (``own_of``). Raises CannotTest, BadCheck."""
    access.require(person, "compare")
    name, ids = name.strip(), tuple(dict.fromkeys(case_ids))
    if not name or len(name) > 120:
        raise CannotTest("A suite needs a name of at most 120 characters.", "no_suite_name")
    if not 1 <= len(ids) <= MOST_CASES:
        raise CannotTest(
            f"A suite takes 1 to {MOST_CASES} cases, not {len(ids)}.", "suite_cases", most=MOST_CASES, n=len(ids)
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise CannotTest(
            f"The threshold is {threshold:g}; it must lie between 0 and 1.", "suite_threshold", value=threshold
        )
    rows = tuple(check.as_row() for check in written.checks_of(checks))
    alone = {str(case_id): dict(own[case_id]) for case_id in ids if own.get(case_id)}
    unchecked = sum(not alone.get(str(case_id), {}).get("checks") for case_id in ids)
    if not rows and unchecked:
        raise CannotTest(
            "A suite needs a check, or every answer would pass."
            if unchecked == len(ids)
            else f"{unchecked} case{' has no check of its' if unchecked == 1 else 's have no check of their'} own, and the suite has none: "
            "every answer would pass.",
            "no_checks" if unchecked == len(ids) else "unchecked_cases",
            n=unchecked,
        )
    key = suite_digest(ids, rows, threshold, alone)
    with store.write():
        if any(store.get(Case, case_id).project_id != project_id for case_id in ids):
            raise CannotTest("A case belongs to another project. Take it out of the suite.", "foreign_case")
        newest = suites.newest(store, project_id, name)
        if newest is not None and newest.digest == key:
            return newest
        saved = store.add(
            Suite(
                project_id=project_id, name=name, version=newest.version + 1 if newest else 1, case_ids=ids, checks=rows,
                threshold=threshold, own=alone, digest=key, person_id=person.id,
            )
        )  # fmt: skip
        audit.record(store, person, "save_suite", "suite", saved.id, {"version": saved.version})
        return saved


# ---- runs


def start(
    store: Store,
    person: Person,
    suite_id: int,
    columns: Sequence[tuple[int, int]],
    *,
    samplings: Sequence[SamplingSettings] = (SamplingSettings(temperature=0.0),),
    repeats: int = 1,
    seed: int = 0,
    follows: bool = False,
    judge: int | None = None,
    sends: Sequence[Show] = (),
) -> SuiteRun:
    """Begin to answer the suite in each (template id, model id), sampled in each of these ways. ``running.advance`` does the work.

    ``follows``: the same is asked again of every policy that is trained later. ``judge``: id of the model that reads rubrics.
    ``sends``: which cases go to labelling when the run is done. Raises CannotTest.
    """
    access.require(person, "compare")
    suite = store.get(Suite, suite_id)
    several = tuple(dict.fromkeys((*column, sampling) for column in columns for sampling in samplings))
    total = len(several) * len(suite.case_ids) * repeats
    _check_size(len(several), repeats, total)
    if not set(sends) <= set(SENDS):
        raise CannotTest(f"What goes to labelling by itself is one of {', '.join(SENDS)}.")
    with store.write():
        for template_id, model_id, _ in several:
            template, model = store.get(Template, template_id), store.get(Model, model_id)
            if template.project_id != suite.project_id or model.kind == "reward":
                raise CannotTest("A column needs a template of this project and a model that writes.", "suite_column")
        arms = tuple(
            {"template": t, "model": m, "sampling": keep_sampling(store, sampling).id or 0}
            for t, m, sampling in several
        )
        run = store.add(
            SuiteRun(
                project_id=suite.project_id, suite_id=suite_id, arms=arms, repeats=repeats, seed=seed, total=total,
                follows=follows, graders=_graders(store, suite, judge), sends=tuple(sends), person_id=person.id,
            )
        )  # fmt: skip
        audit.record(store, person, "start_run", "run", run.id, {"cells": total})
        return run


def _check_size(columns: int, repeats: int, total: int) -> None:
    if not 1 <= columns <= MOST_ARMS:
        raise CannotTest(
            f"Choose 1 to {MOST_ARMS} columns, not {columns}.", "suite_arms", most=MOST_ARMS, n=columns
        )  # fmt: skip
    if not 1 <= repeats <= MOST_REPEATS:
        raise CannotTest(
            f"Ask each case 1 to {MOST_REPEATS} times, not {repeats}.", "suite_repeats", most=MOST_REPEATS, n=repeats
        )
    if total > MOST_CELLS:
        raise CannotTest(
            f"{total:,} answers are too many for one run; at most {MOST_CELLS:,}.",
            "suite_cells",
            most=MOST_CELLS,
            n=total,
        )


def _graders(store: Store, suite: Suite, judge: int | None) -> dict[str, int]:
    """The models that the suite's checks ask, fixed for the whole run. Raises CannotTest where one is missing."""
    found: dict[str, int] = {}
    for grader in sorted(graders_of(suite)):
        if grader == grading.OF_RUN:
            model = store.get(Model, judge) if judge else None
            if model is None or model.kind == "reward":
                raise CannotTest("A check of this suite reads a rubric: choose the model that judges.", "no_judge")
        else:
            name = grader.removeprefix(f"{grading.REWARD}:")
            model = (
                models.reward_named(store, suite.project_id, name)
                if name
                else models.live(store, "reward", suite.project_id)
            )
            if model is None:
                raise CannotTest(
                    f"There is no reward model {name}."
                    if name
                    else "No reward model is live. Promote one, or name one in the check.",
                    "no_such_reward" if name else "no_live_reward",
                    name=name,
                )
        found[grader] = model.id or 0
    return found


def stop(store: Store, person: Person, run_id: int) -> SuiteRun:
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    return suites.set_state(store, run_id, "stopped") if run.state == "running" else run


def go_on(store: Store, person: Person, run_id: int) -> SuiteRun:
    """What has an answer is not asked again; what failed is."""
    access.require(person, "compare")
    with store.write():
        suites.forget_failed(store, run_id)
        return suites.set_state(store, run_id, "running")


def runs(store: Store, person: Person, project_id: int) -> list[Progress]:
    """Newest first."""
    access.require(person, "compare")
    return [Progress(run, run.done, run.failed) for run in suites.runs(store, project_id)]


def progress(store: Store, person: Person, run_id: int) -> Progress:
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    return Progress(run, run.done, run.failed)


def summary(store: Store, person: Person, run_id: int, looks: Looks | None = None) -> Summary:
    """``looks``: what was read before, so that only new cells are."""
    access.require(person, "compare")
    return summed((looks or Looks()).of(store, store.get(SuiteRun, run_id)))


def cut_off(store: Store, person: Person, run_id: int) -> int:
    """Answers of a run that reached the longest that was allowed, so that their end may be missing."""
    access.require(person, "compare")
    return suites.cut_off(store, run_id)


def agreement(
    store: Store, person: Person, run_id: int, kept: agreeing.Agreements | None = None
) -> list[agreeing.Agreement]:
    """How far the reward model and the judge of a run agree with what people said of its answers; of none while it is under way."""
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    return [] if run.state == "running" else (kept or agreeing.Agreements()).of(store, run)


def grader(store: Store, person: Person, model_id: int) -> Model:
    access.require(person, "compare")
    return store.get(Model, model_id)


def rows(
    store: Store,
    person: Person,
    run_id: int,
    *,
    show: Show = "all",
    start: int = 0,
    most: int = 20,
    looks: Looks | None = None,
) -> tuple[list[Row], int]:
    """A page of a run's cases, and how many there are in all; in the order of ``case_ids``."""
    wanted = case_ids(store, person, run_id, show=show, looks=looks)
    run = store.get(SuiteRun, run_id)
    return _rows(store, run, wanted[start : start + most]), len(wanted)


def case_ids(store: Store, person: Person, run_id: int, *, show: Show = "all", looks: Looks | None = None) -> list[int]:
    """A run's cases in the suite's order, ``show`` as looking.Look has it. Of a run that follows training regressions come first:
    cases that the first column passes and another fails."""
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    look = (looks or Looks()).of(store, run)
    found = look.shown(show)
    if not run.follows:
        return found
    worse = set(look.shown("worse"))
    return [*(one for one in found if one in worse), *(one for one in found if one not in worse)]


def row(store: Store, person: Person, run_id: int, case_id: int) -> Row:
    access.require(person, "compare")
    return _rows(store, store.get(SuiteRun, run_id), [case_id])[0]


def check_names(store: Store, person: Person, run_id: int, case_id: int) -> list[str]:
    """The checks of a case, in the order of its cells' results."""
    access.require(person, "compare")
    suite = store.get(Suite, store.get(SuiteRun, run_id).suite_id)
    return [check.name for check in asked_by(suite)(case_id).checks]


def _rows(store: Store, run: SuiteRun, case_ids: Sequence[int]) -> list[Row]:
    cells = suites.cells(store, run.id or 0, case_ids)
    answers = suites.completions(store, [cell.completion_id for cell in cells if cell.completion_id is not None])
    found: list[Row] = []
    for case_id in case_ids:
        of_case = [cell for cell in cells if cell.case_id == case_id]
        by_arm = [
            [(cell, answers.get(cell.completion_id or 0)) for cell in of_case if cell.arm == arm]
            for arm in range(len(run.arms))
        ]
        found.append(Row(store.get(Case, case_id), by_arm))
    return found


def follow(store: Store) -> list[SuiteRun]:
    """New runs for policies that were trained since: the same templates with the base, the live policy and the new one, so
    that every change is told against the base. The app itself calls this again and again."""
    made: list[SuiteRun] = []
    for last in suites.followed(store):
        for model in suites.not_seen_by(store, last)[-1:]:
            base, live = models.resolve(store, "base"), models.live(store, "policy")
            several = list(
                dict.fromkeys(one.id for one in (base, live, model) if one is not None and one.id is not None)
            )
            asked = list(dict.fromkeys((arm["template"], arm["sampling"]) for arm in last.arms))[
                : MOST_ARMS // len(several)
            ]
            arms = tuple({"template": t, "model": m, "sampling": s} for t, s in asked for m in several)
            cases = len(store.get(Suite, last.suite_id).case_ids)
            made.append(
                store.add(
                    SuiteRun(
                        project_id=last.project_id, suite_id=last.suite_id, arms=arms, repeats=last.repeats, seed=last.seed,
                        total=len(arms) * cases * last.repeats, follows=True, graders=last.graders, sends=last.sends,
                        person_id=last.person_id,
                    )
                )
            )  # fmt: skip
    return made
