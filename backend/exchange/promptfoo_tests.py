"""promptfoo's tests as cases: variables, lists of values multiplied, and the assertions of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from backend.exchange import asserts, promptfoo_csv
from backend.exchange.plan import MOST_CASES, BadFile, NewCase, Notes, storable, where
from backend.exchange.promptfoo_parts import CODE, ELSEWHERE, read_any, shown
from backend.exchange.promptfoo_prompts import WRITTEN
from backend.exchange.tree import Path, Read, decoded, list_in, number, table_in, texts
from backend.exchange.tree import given as given_in
from backend.exchange.upload import Upload


@dataclass
class Test:
    """One test before its lists of values are multiplied."""

    read: Read
    path: Path
    given: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # of a scenario
    line_given: int = 0
    notes: Notes | None = None

    def line(self, *steps: Any) -> int:
        return self.line_given or self.read.line((*self.path, *steps))


def tests_of(read: Read, upload: Upload, notes: Notes, defaults: dict[str, Any]) -> list[Test]:
    found = _listed(read, ("tests",), given_in(read.value, "tests"), upload, notes, defaults)
    scenarios = given_in(read.value, "scenarios") or []
    if not isinstance(scenarios, list):
        raise BadFile("wrong_form", file=read.file, line=read.line(("scenarios",)), field="scenarios")
    for i, scenario in enumerate(scenarios):
        path: Path = ("scenarios", i)
        if not isinstance(scenario, dict):
            notes.refused(read.line(path), where(path), "file_outside", texts(scenario))
            continue
        configs = given_in(scenario, "config") or [{}]
        if not isinstance(configs, list):
            notes.refused(read.line(path), where((*path, "config")), "wrong_part", shown(configs))
            continue
        tests = _listed(read, (*path, "tests"), given_in(scenario, "tests") or [{}], upload, notes, defaults)
        for config in configs:
            if isinstance(config, dict):
                found += [replace(test, config=config) for test in tests]
        notes.mapped(read.line(path), where(path), "scenario", n=len(configs) * len(tests))
    return found


def _listed(read: Read, path: Path, given: Any, upload: Upload, notes: Notes, defaults: dict[str, Any]) -> list[Test]:
    if given is None:
        return []
    found: list[Test] = []
    for i, one in enumerate(given if isinstance(given, list) else [given]):
        at: Path = (*path, i) if isinstance(given, list) else path
        if isinstance(one, dict):
            found.append(Test(read, at, one, defaults, notes=notes))
        elif isinstance(one, str):
            found += _test_file(one, read.line(at), where(at), upload, notes, defaults)
        else:
            notes.refused(read.line(at), where(at), "wrong_part", shown(one))
    return found


def _test_file(name: str, line: int, place: str, upload: Upload, notes: Notes, defaults: dict[str, Any]) -> list[Test]:
    if ELSEWHERE.search(name):
        notes.refused(line, place, "elsewhere", name)
        return []
    if CODE.search(name):
        notes.refused(line, place, "code", name)
        return []
    inside = upload.named(name)
    if inside is None or inside == upload.main:
        notes.refused(line, place, "file_outside", name)
        return []
    within = notes.within(inside)
    if inside.endswith(".csv"):
        rows = promptfoo_csv.tests_of(upload.files[inside], inside, within)
        return [Test(Read(inside, {}, {}), (), one, defaults, line_given=at, notes=within) for at, one in rows]
    read = read_any(inside, upload.files[inside])
    listed = read.value if isinstance(read.value, list) else [read.value]
    return [
        Test(read, (i,) if isinstance(read.value, list) else (), one, defaults, notes=within)
        for i, one in enumerate(listed)
        if isinstance(one, dict)
    ]


def cases_of(
    tests: list[Test], upload: Upload, notes: Notes, wanted: set[str]
) -> tuple[list[NewCase], list[list[asserts.Placed]], list[float | None]]:
    cases: list[NewCase] = []
    placed: list[list[asserts.Placed]] = []
    thresholds: list[float | None] = []
    for test in tests:
        values = _values(test, upload)
        if values is None:
            continue
        checks = _asserts(test, upload)
        threshold = test.given.get("threshold", test.defaults.get("threshold"))
        for row in values:
            if len(cases) >= MOST_CASES:
                raise BadFile("file_cases", file=upload.main, most=f"{MOST_CASES:,}")
            missing = sorted(wanted - set(row))
            if missing:
                _told(test).mapped(test.line(), _place(test, "vars"), "empty_variable", name=", ".join(missing))
            cases.append(NewCase(values={**row, **dict.fromkeys(missing, "")}, tags=_tags(test)))
            placed.append(checks)
            thresholds.append(number(threshold))
        _told(test).taken(test.line(), _place(test) or "row", "case_taken", n=len(values))
    return cases, placed, thresholds


def _values(test: Test, upload: Upload) -> list[dict[str, str]] | None:
    """The variables of a test, once for every combination of its lists; None where the test cannot be a case."""
    notes = _told(test)
    merged: dict[str, Any] = {}
    for part in (test.defaults, test.config, test.given):
        given = given_in(part, "vars") or {}
        if not isinstance(given, dict):
            notes.refused(test.line("vars"), _place(test, "vars"), "vars_form", shown(given))
            return None
        merged.update(given)
    if test.given.get("providerOutput") is not None:
        notes.refused(
            test.line("providerOutput"),
            _place(test, "providerOutput"),
            "provider_output",
            shown(test.given["providerOutput"]),
        )
    _tell_options(test, notes)
    columns: list[list[tuple[str, str]]] = []
    expand = not (table_in(test.given, "options") or table_in(test.defaults, "options")).get("disableVarExpansion")
    for name, value in merged.items():
        if name.startswith(WRITTEN):
            continue
        field = _place(test, "vars", name)
        line = test.line("vars", name)
        options = value if isinstance(value, list) and expand and all(isinstance(v, str) for v in value) else [value]
        made = [_text_of(one, upload, notes, line, field) for one in options]
        if any(one is None for one in made) or not made:
            return None
        columns.append([(name, storable(str(one), test.read.file, line, field)) for one in made])
    count = 1
    for column in columns:
        count *= len(column)
        if count > MOST_CASES:
            raise BadFile("file_cases", file=upload.main, most=f"{MOST_CASES:,}")
    if count > 1:
        notes.mapped(test.line("vars"), _place(test, "vars"), "product", n=count)
    rows = [dict(combination) for combination in product(*columns)]
    if not any(any(value.strip() for value in row.values()) for row in rows):
        notes.refused(test.line(), _place(test), "no_values")
        return None
    return rows


def _text_of(value: Any, upload: Upload, notes: Notes, line: int, field: str) -> str | None:
    if isinstance(value, str):
        if value.startswith(("file://", "package:")):
            inside = upload.named(value) if value.startswith("file://") and not CODE.search(value) else None
            if inside is None:
                notes.refused(line, field, "code" if CODE.search(value) else "file_outside", value)
                return None
            notes.mapped(line, field, "file_value", name=inside)
            return decoded(upload.files[inside], inside).strip()
        if re.search(r"\{\{|\{%", value):
            notes.mapped(line, field, "value_is_text", value)
        return value.removesuffix("\n")  # promptfoo takes it off
    notes.mapped(line, field, "value_as_json")
    return texts(value)


def _tell_options(test: Test, notes: Notes) -> None:
    for key in ("provider", "providers", "prompts", "assertScoringFunction"):
        if test.given.get(key) is not None:
            code = "code" if key == "assertScoringFunction" else "test_option"
            notes.refused(test.line(key), _place(test, key), code, shown(test.given[key]), name=key)
    options = table_in(test.given, "options")
    for key in options if isinstance(options, dict) else ():
        if key != "disableVarExpansion":
            notes.refused(
                test.line("options", key), _place(test, "options", key), "test_option", shown(options[key]), name=key
            )


def _asserts(test: Test, upload: Upload) -> list[asserts.Placed]:
    notes = _told(test)
    found: list[asserts.Placed] = []
    common = [] if table_in(test.given, "options").get("disableDefaultAsserts") else list_in(test.defaults, "assert")
    contents = {
        f"file://{name}": data.decode("utf-8", "replace") for name, data in upload.files.items() if name != upload.main
    }
    for own, listed in (
        (False, common),
        (True, [*list_in(test.config, "assert"), *list_in(test.given, "assert")]),
    ):
        for i, one in enumerate(listed if isinstance(listed, list) else []):
            line = test.line("assert", i) if own else test.read.line(("defaultTest", "assert", i))
            columns = list_in(test.given, "columns")  # of a table
            place = columns[i] if i < len(columns) else _place(test, "assert", i)
            field = place if own else f"defaultTest.assert[{i + 1}]"
            referenced = _referenced(one, test)
            for inner, inner_field in asserts.flat(referenced, notes, line, field):
                row = asserts.convert(inner, notes, line, inner_field, contents)
                if row is not None:
                    found.append(asserts.Placed(row, line, inner_field))
    return found


def _referenced(given: Any, test: Test) -> Any:
    """``$ref: '#/assertionTemplates/name'`` stands for that assertion."""
    name = given.get("$ref", "") if isinstance(given, dict) else ""
    top = test.read.value if isinstance(test.read.value, dict) else {}
    if isinstance(name, str) and name.startswith("#/assertionTemplates/"):
        return table_in(top, "assertionTemplates").get(name.rsplit("/", 1)[-1], given)
    return given


def _tags(test: Test) -> tuple[str, ...]:
    tags: list[str] = []
    parts = (test.defaults.get("metadata"), test.given.get("metadata"))
    metadata = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    for key, value in metadata.items():
        if key == "tags" and isinstance(value, list):  # as our own export writes them
            tags += map(texts, value)
            continue
        tags += [f"{key}:{texts(one)}" for one in (value if isinstance(value, list) else [value])]
    if test.given.get("description"):
        tags.append(f"description:{texts(test.given['description'])}")
    return tuple(storable(tag, test.read.file, test.line(), "metadata") for tag in tags)


def _told(test: Test) -> Notes:
    assert test.notes is not None
    return test.notes


def _place(test: Test, *steps: Any) -> str:
    return where((*test.path, *steps))
