"""Checks and cases as people write them in a text field.

A check is a line: ``contains:refund``, ``not-icontains:sorry``, ``levenshtein(3):kitten``, ``is-json``; a line that begins with a
brace is the check as JSON. The grammar of the line is that of promptfoo's ``__expected`` cells, but a name that is not known is
an error where promptfoo compares with the whole line. Cases are CSV with a header, or JSON lines; the column ``expected`` is
the expected answer, the others are variables.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from backend.problem import Problem
from backend.suites.checks import BadCheck, Check, parse
from backend.suites.kinds import KINDS

MOST_BYTES = 5_000_000
EXPECTED = "expected"
_LINE = re.compile(r"^(not-)?([a-z0-9-]+)(?:\((-?[0-9.]+)\))?(?::(.*))?$", re.DOTALL)
_LISTS = ("contains-any", "contains-all", "icontains-any", "icontains-all", "one-of")
_JSON = (
    "is-json",
    "contains-json",
    "json-fields",
    "list-f1",
    "word-count",
    "length",
    "lines",
    "tokens",
    "number",
    "latency",
)


class BadCases(Problem, ValueError):
    """Cases that cannot be read; the message names line and field."""


class Written(NamedTuple):
    line: int
    values: dict[str, str]
    expected: str | None


def checks_of(text: str) -> tuple[Check, ...]:
    """Empty lines and lines that begin with # are left out. Raises BadCheck with the line."""
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare and not bare.startswith("#"):
            rows.append((number, _row(bare, number)))
    found: list[Check] = []
    for number, row in rows:
        try:
            found += parse([row])
        except BadCheck as problem:
            raise BadCheck(str(problem).replace("Check 1", f"Line {number}", 1)) from None
    return parse([check.as_row() for check in found])


def line_of(check: Check) -> str:
    """The check as a line that ``checks_of`` reads back."""
    row = check.as_row()
    value = row.get("value")
    if (
        set(row) <= {"type", "value", "threshold"}
        and (value is None or isinstance(value, str))
        and "\n" not in str(value)
    ):
        line = row["type"] + (f"({check.threshold:g})" if check.threshold is not None else "")
        line += "" if value is None else f":{value}"
        if checks_of(line)[0] == check:
            return line
    return json.dumps(row, ensure_ascii=False)


def cases_of(text: str) -> list[Written]:
    """Raises BadCases; nothing is taken of a text that has a mistake."""
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise BadCases(f"The cases have more than {MOST_BYTES // 1_000_000} MB. Paste them in parts.")
    bare = text.lstrip("\ufeff \t\r\n")
    found = list(_json_lines(text) if bare.startswith("{") else _table(text.lstrip("\ufeff")))
    if not found:
        raise BadCases("There are no cases. Paste CSV with a header, or one JSON table per line.")
    names = set(found[0].values)
    for one in found:
        if set(one.values) != names:
            other = ", ".join(sorted(set(one.values) ^ names))
            raise BadCases(f"Line {one.line}: the variables differ from those of the first case ({other}).")
    return found


def _row(line: str, number: int) -> dict[str, Any]:
    if line.startswith("{"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadCheck(f"Line {number}: no JSON: {error.msg} at column {error.colno}.") from None
        return dict(row)
    match = _LINE.match(line)
    if match is None or match[2] not in KINDS:
        name = line.split(":", 1)[0]
        raise BadCheck(
            f'Line {number}: there is no check "{name}". Write name:value; names are {", ".join(sorted(KINDS))}.'
        )
    negated, name, threshold, value = match.groups()
    check: dict[str, Any] = {"type": f"{negated or ''}{name}"}
    if value:
        check["value"] = _value(name, value.strip())
    if threshold is not None:
        check["threshold"] = _threshold(threshold, number)
    return check


def _value(name: str, text: str) -> Any:
    if name in _JSON or (name in _LISTS and text.startswith("[")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _threshold(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadCheck(f"Line {number}: ({text}) is no number.") from None


def _table(text: str) -> Iterator[Written]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = [name.strip() for name in fields]
                _check_header(header)
                continue
            if len(fields) != len(header):
                raise BadCases(f"Line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}.")
            yield _case(reader.line_num, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise BadCases(f"Line {reader.line_num}: {error}. A quote inside a quoted field is written twice.") from None


def _check_header(header: list[str]) -> None:
    if any(not name for name in header):
        raise BadCases("Line 1: a column has no name.")
    double = next((name for name in header if header.count(name) > 1), None)
    if double:
        raise BadCases(f'Line 1: the column "{double}" is there twice.')
    if header == [EXPECTED]:
        raise BadCases("Line 1: there is no variable beside the expected answer.")


def _json_lines(text: str) -> Iterator[Written]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadCases(f"Line {number}: no JSON: {getattr(error, 'msg', 'nested too deeply')}.") from None
        if not isinstance(row, dict):
            raise BadCases(f'Line {number}: a case is a table, like {{"input": "...", "expected": "..."}}.')
        wrong = next((name for name, value in row.items() if not isinstance(value, str | int | float)), None)
        if wrong is not None:
            raise BadCases(f'Line {number}: "{wrong}" must be a text or a number.')
        yield _case(number, {str(name): str(value) for name, value in row.items()})


def _case(line: int, row: dict[str, str]) -> Written:
    values = {name: value for name, value in row.items() if name != EXPECTED}
    if not any(value.strip() for value in values.values()):
        raise BadCases(f"Line {line}: every variable is empty.")
    expected = row.get(EXPECTED)
    return Written(line, values, expected if expected else None)
