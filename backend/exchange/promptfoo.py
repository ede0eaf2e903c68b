"""promptfoo's configuration files: prompts become templates, tests become cases, assertions the checks of a suite.

Written after the schema of promptfoo 0.121. Code is shown and never run; nothing is fetched; a file is looked up inside the upload only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from backend.exchange import asserts, promptfoo_csv
from backend.exchange.chats import chat_of
from backend.exchange.plan import (
    MOST_CASES,
    BadFile,
    NewCase,
    NewSuite,
    NewTemplate,
    Notes,
    Plan,
    storable,
    variables_in,
)
from backend.exchange.promptfoo_parts import read_any, shown
from backend.exchange.promptfoo_prompts import affixes_of, prompts_of
from backend.exchange.promptfoo_tests import Test, cases_of, tests_of
from backend.exchange.tree import Read, list_in, number, table_in, texts
from backend.exchange.tree import given as given_in
from backend.exchange.upload import Upload
from backend.suites.own import row_of

FORMAT = "promptfoo"
EXPECTED = "expected"
OURS = "whetstone"  # under ``metadata``: what a suite of ours has and promptfoo does not
RUN_SETTINGS = (
    "providers",
    "targets",
    "evaluateOptions",
    "commandLineOptions",
    "outputPath",
    "sharing",
    "env",
    "tracing",
)
PASSED_OVER = {"description", "tags", "metadata", "prompts", "tests", "scenarios", "defaultTest", "assertionTemplates"}


def parse(upload: Upload) -> Plan:
    """A configuration, or a bare list or table of tests. Raises BadFile."""
    notes = Notes(upload.main)
    read = read_any(upload.main, upload.data)
    top = read.value
    if isinstance(top, list):
        top = {"tests": top}
        read = Read(read.file, top, {("tests", *path): line for path, line in read.lines.items()})
    if not isinstance(top, dict) or not set(top) & {"prompts", "tests", "scenarios", "defaultTest"}:
        raise BadFile("not_promptfoo", file=upload.main)
    _tell_settings(read, notes)
    defaults = _default_test(read, upload, notes)
    templates = prompts_of(read, upload, notes, affixes_of(read, defaults, notes), _our_templates(read))
    tests = tests_of(read, upload, notes, defaults)
    name = texts(top["description"]).strip()[:80] if top.get("description") else PurePosixPath(upload.main).stem
    asked = [variables_in(one) for one in templates]
    wanted = set.intersection(*asked) if asked else set()
    cases, placed, thresholds = cases_of(tests, upload, notes, wanted)
    cases = _expected_variable(cases, set().union(*asked), notes)
    cases, suite = _suite(read, name, cases, placed, thresholds, notes)
    templates = _with_labels(templates, read)
    return Plan(
        format=FORMAT,
        source=upload.main,
        name=storable(name, upload.main, read.line(("description",)), "description"),
        templates=tuple(templates),
        cases=tuple(cases),
        suites=(suite,) if suite else (),
        notes=tuple(notes.kept),
    )


def parse_csv(upload: Upload) -> Plan:
    """A table of tests by itself."""
    notes = Notes(upload.main)
    read = Read(upload.main, {}, {})
    tests = [
        Test(read, (), given, line_given=line, notes=notes)
        for line, given in promptfoo_csv.tests_of(upload.data, upload.main, notes)
    ]
    name = PurePosixPath(upload.main).stem
    cases, placed, thresholds = cases_of(tests, upload, notes, set())
    cases = _expected_variable(cases, set(), notes)
    cases, suite = _suite(read, name, cases, placed, thresholds, notes)
    return Plan(
        format="promptfoo-csv", source=upload.main, name=name, cases=tuple(cases), suites=(suite,) if suite else (),
        notes=tuple(notes.kept),
    )  # fmt: skip


# ---- what is not part of a suite


def _tell_settings(read: Read, notes: Notes) -> None:
    for key, value in read.value.items():
        if key in RUN_SETTINGS:
            notes.refused(read.line((key,)), key, "run_setting", shown(value), name=key)
        elif key in ("extensions", "nunjucksFilters"):
            notes.refused(read.line((key,)), key, "code", shown(value))
        elif key not in PASSED_OVER:
            notes.refused(read.line((key,)), key, "unknown_key", shown(value), name=key)


def _default_test(read: Read, upload: Upload, notes: Notes) -> dict[str, Any]:
    given = given_in(read.value, "defaultTest")
    if given is None:
        return {}
    if isinstance(given, str):
        found = upload.named(given)
        if found is None or not found.endswith((".yaml", ".yml", ".json")):
            notes.refused(read.line(("defaultTest",)), "defaultTest", "file_outside", texts(given))
            return {}
        inner = read_any(found, upload.files[found])
        return inner.value if isinstance(inner.value, dict) else {}
    if not isinstance(given, dict):
        raise BadFile("wrong_form", file=read.file, line=read.line(("defaultTest",)), field="defaultTest")
    return given


# ---- the suite


def _expected_variable(cases: list[NewCase], asked: set[str], notes: Notes) -> list[NewCase]:
    """A variable "expected" that no prompt asks for is the expected answer: only assertions may see it."""
    held = [case for case in cases if EXPECTED in (case.values or {})]
    if not held or EXPECTED in asked or any(set(case.values or {}) == {EXPECTED} for case in held):
        return cases
    notes.mapped(0, "vars.expected", "expected_variable", n=len(held))
    return [
        replace(
            case,
            values={k: v for k, v in (case.values or {}).items() if k != EXPECTED},
            expected=(case.values or {}).get(EXPECTED) or None,
        )
        for case in cases
    ]


def _suite(
    read: Read,
    name: str,
    cases: list[NewCase],
    placed: list[list[asserts.Placed]],
    thresholds: list[float | None],
    notes: Notes,
) -> tuple[list[NewCase], NewSuite | None]:
    """The cases with their expected answers, and the suite of them where any check is left."""
    kept = asserts.shared(placed, notes, any(case.expected is not None for case in cases))
    cases = [
        replace(case, expected=case.expected if right is None else right)
        for case, right in zip(cases, kept.expected, strict=True)
    ]
    metadata = read.value.get("metadata") if isinstance(read.value, dict) else None
    ours = metadata.get(OURS) if isinstance(metadata, dict) else None
    checks = list(kept.checks)
    if isinstance(ours, dict):
        cases, checks = _ours(ours, read, cases, checks, notes)
    thresholds = [_in_range(one, notes) for one in thresholds]
    alike = len(set(thresholds)) <= 1
    own = {
        place: row
        for place, (rows, least) in enumerate(zip(kept.own, thresholds, strict=True))
        if (row := row_of(rows, None if alike else least))
    }
    if not cases or not (checks or all(own.get(place, {}).get("checks") for place in range(len(cases)))):
        if cases:
            notes.mapped(0, "tests", "no_suite")
        return cases, None
    threshold = thresholds[0] if alike else None
    notes.taken(0, "assert", "suite_taken", n=len(cases), checks=len(checks))
    places = tuple(range(len(cases)))
    return cases, NewSuite(name=name, cases=places, checks=tuple(checks), threshold=threshold, own=own)


def _in_range(threshold: float | None, notes: Notes) -> float | None:
    if threshold is not None and not 0 <= threshold <= 1:
        notes.refused(0, "threshold", "threshold_range", value=f"{threshold:g}")
        return None
    return threshold


def _with_labels(templates: list[NewTemplate], read: Read) -> list[NewTemplate]:
    """The closed sets of answers that our own export keeps beside the prompts."""
    ours = table_in(read.value, "metadata").get(OURS)
    held = ours.get("labels") if isinstance(ours, dict) else None
    if not isinstance(held, dict):
        return templates
    return [
        replace(one, labels=tuple(map(texts, held[one.name]))) if isinstance(held.get(one.name), list) else one
        for one in templates
    ]


def _our_templates(read: Read) -> dict[str, Any]:
    ours = table_in(read.value, "metadata").get(OURS)
    held = ours.get("templates") if isinstance(ours, dict) else None
    return held if isinstance(held, dict) else {}


def _ours(
    given: dict[str, Any], read: Read, cases: list[NewCase], checks: list[asserts.Row], notes: Notes
) -> tuple[list[NewCase], list[asserts.Row]]:
    """What our own export keeps beside the file: checks and cases that promptfoo would not run as they stand."""
    line = read.line(("metadata", OURS))
    for one in list_in(given, "checks"):
        row = (
            asserts.convert(one.get("check"), notes, line, "metadata.whetstone.checks")
            if isinstance(one, dict)
            else None
        )
        if row is not None:
            checks.insert(_at(one), row)
    for one in list_in(given, "cases"):
        if isinstance(one, dict):
            values = {str(k): storable(texts(v), read.file, line, str(k)) for k, v in table_in(one, "values").items()}
            turns = chat_of(one["conversation"]) if one.get("conversation") else None
            right = one.get("expected")
            case = NewCase(
                values=values if values or not turns else None, conversation=turns, expected=None if right is None else texts(right),
                tags=tuple(texts(tag) for tag in list_in(one, "tags")),
            )  # fmt: skip
            cases.insert(_at(one), case)
    return cases, checks


def _at(one: dict[str, Any]) -> int:
    """The place that a part had in our own list."""
    return int(min(max(number(one.get("at")) or 0, 0), MOST_CASES))
