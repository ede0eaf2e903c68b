"""What prompt engineers do to know whether version 7 really beats version 6: suites of cases with checks, and runs of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from backend import access
from backend.engines.kept import SamplingSettings, keep_sampling
from backend.problem import Problem
from backend.prompts.digest import digest_of
from backend.suites import written
from backend.suites.checks import parse
from backend.suites.summary import Summary, summed
from feedback_db import Store, audit, models, suites
from feedback_db.types import Case, Cell, Completion, Model, Person, Suite, SuiteRun, Template

MOST_CELLS, MOST_CASES, MOST_ARMS, MOST_REPEATS = 100_000, 20_000, 8, 100

Show = Literal["all", "failed", "differ", "worse"]


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
    """The suite that was saved last: what a page opens with."""
    return max((one.id or 0 for one in named(store, person, project_id)), default=None)


def suite(store: Store, person: Person, suite_id: int) -> Suite:
    access.require(person, "compare")
    return store.get(Suite, suite_id)


def checks_as_text(suite: Suite) -> str:
    return "\n".join(written.line_of(check) for check in parse(suite.checks))


def read_cases(person: Person, text: str) -> list[written.Written]:
    """Cases pasted as CSV or JSON lines. Raises BadCases with line and field."""
    access.require(person, "compare")
    return written.cases_of(text)


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


def save_suite(
    store: Store,
    person: Person,
    project_id: int,
    *,
    name: str,
    case_ids: Sequence[int],
    checks: str,
    threshold: float | None = None,
) -> Suite:
    """The next version of this name; one equal to the newest is that version. Raises CannotTest, BadCheck."""
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
    if not rows:
        raise CannotTest("A suite needs a check, or every answer would pass.", "no_checks")
    key = digest_of({"cases": list(ids), "checks": list(rows), "threshold": threshold})
    with store.write():
        if any(store.get(Case, case_id).project_id != project_id for case_id in ids):
            raise CannotTest("A case belongs to another project. Take it out of the suite.", "foreign_case")
        newest = suites.newest(store, project_id, name)
        if newest is not None and newest.digest == key:
            return newest
        saved = store.add(
            Suite(
                project_id=project_id, name=name, version=newest.version + 1 if newest else 1, case_ids=ids, checks=rows,
                threshold=threshold, digest=key, person_id=person.id,
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
    sampling: SamplingSettings = SamplingSettings(temperature=0.0),
    repeats: int = 1,
    seed: int = 0,
    follows: bool = False,
) -> SuiteRun:
    """Begin to answer the suite in each (template id, model id). ``advance`` does the work; with ``follows`` the same is
    asked again of every policy that is trained later. Raises CannotTest."""
    access.require(person, "compare")
    suite = store.get(Suite, suite_id)
    several = tuple(dict.fromkeys(columns))
    if not 1 <= len(several) <= MOST_ARMS:
        raise CannotTest(
            f"Choose 1 to {MOST_ARMS} columns, not {len(several)}.", "suite_arms", most=MOST_ARMS, n=len(several)
        )
    if not 1 <= repeats <= MOST_REPEATS:
        raise CannotTest(
            f"Ask each case 1 to {MOST_REPEATS} times, not {repeats}.", "suite_repeats", most=MOST_REPEATS, n=repeats
        )
    total = len(several) * len(suite.case_ids) * repeats
    if total > MOST_CELLS:
        raise CannotTest(
            f"{total:,} answers are too many for one run; at most {MOST_CELLS:,}.",
            "suite_cells",
            most=MOST_CELLS,
            n=total,
        )
    with store.write():
        for template_id, model_id in several:
            template, model = store.get(Template, template_id), store.get(Model, model_id)
            if template.project_id != suite.project_id or model.kind == "reward":
                raise CannotTest("A column needs a template of this project and a model that writes.", "suite_column")
        kept = keep_sampling(store, sampling)
        arms = tuple({"template": t, "model": m, "sampling": kept.id or 0} for t, m in several)
        run = store.add(
            SuiteRun(
                project_id=suite.project_id, suite_id=suite_id, arms=arms, repeats=repeats, seed=seed, total=total,
                follows=follows, person_id=person.id,
            )
        )  # fmt: skip
        audit.record(store, person, "start_run", "run", run.id, {"cells": total})
        return run


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
    return [Progress(run, *suites.counted(store, run.id or 0)) for run in suites.runs(store, project_id)]


def progress(store: Store, person: Person, run_id: int) -> Progress:
    access.require(person, "compare")
    return Progress(store.get(SuiteRun, run_id), *suites.counted(store, run_id))


def summary(store: Store, person: Person, run_id: int) -> Summary:
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    return summed(suites.told(store, run_id), len(run.arms))


def rows(
    store: Store, person: Person, run_id: int, *, show: Show = "all", start: int = 0, most: int = 20
) -> tuple[list[Row], int]:
    """A page of a run's cases, and how many there are in all. ``differ``: columns do not agree; ``worse``: a column fails
    what the first passes. The suite's order."""
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    suite = store.get(Suite, run.suite_id)
    is_shown = set(suite.case_ids) if show == "all" else _shown(store, run, show)
    wanted = [case_id for case_id in suite.case_ids if case_id in is_shown]
    return _rows(store, run, wanted[start : start + most]), len(wanted)


def row(store: Store, person: Person, run_id: int, case_id: int) -> Row:
    access.require(person, "compare")
    return _rows(store, store.get(SuiteRun, run_id), [case_id])[0]


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


def _shown(store: Store, run: SuiteRun, show: Show) -> set[int]:
    passes: dict[int, dict[int, bool]] = {}
    for row in suites.told(store, run.id or 0):
        by_arm = passes.setdefault(int(row["case_id"]), {})
        by_arm[int(row["arm"])] = by_arm.get(int(row["arm"]), True) and bool(row["passed"])
    if show == "failed":
        return {case for case, by_arm in passes.items() if not all(by_arm.values())}
    if show == "differ":
        return {case for case, by_arm in passes.items() if len(set(by_arm.values())) > 1}
    return {case for case, by_arm in passes.items() if by_arm.get(0, False) and not all(by_arm.values())}


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
            templates = list(dict.fromkeys(arm["template"] for arm in last.arms))[: MOST_ARMS // len(several)]
            sampling = last.arms[0]["sampling"]
            arms = tuple({"template": t, "model": m, "sampling": sampling} for t in templates for m in several)
            cases = len(store.get(Suite, last.suite_id).case_ids)
            made.append(
                store.add(
                    SuiteRun(
                        project_id=last.project_id, suite_id=last.suite_id, arms=arms, repeats=last.repeats, seed=last.seed,
                        total=len(arms) * cases * last.repeats, follows=True, person_id=last.person_id,
                    )
                )
            )  # fmt: skip
    return made
