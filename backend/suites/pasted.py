"""Cases as people paste or upload them: CSV with a header, or JSON lines.

The column ``expected`` is the expected answer, the others are variables. promptfoo's test files are read too, with checks and a
threshold that are a case's own: CSV with ``__expected``, ``__expected1`` ..., ``__metric``, ``__threshold`` and
``__config:__expected1:threshold``; JSON lines of ``{"vars": {...}, "assert": [...], "threshold": .5}``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backend.problem import Problem
from backend.suites.checks import BadCheck, parse
from backend.suites.grammar import row_of_cell

MOST_BYTES = 5_000_000
EXPECTED = "expected"
CHECK, METRIC, THRESHOLD = "__expected", "__metric", "__threshold"
TOLD_ONLY = ("__description", "__metadata:")  # they change neither what is asked nor what is checked
TEST_KEYS = {"vars", "assert", "threshold", "description", "metadata", EXPECTED}
_OWN = re.compile(r"__expected(\d*)")
_CONFIG = re.compile(r"__config:__expected(\d*):threshold")


class BadCases(Problem, ValueError):
    """Cases that cannot be read; the message names line and field."""


class Written(NamedTuple):
    """``checks`` are the case's own, beside those of the suite, as ``checks.parse`` reads them; ``threshold`` is its own too."""

    line: int
    values: dict[str, str]
    expected: str | None
    checks: tuple[dict[str, Any], ...] = ()
    threshold: float | None = None


class Pasted(NamedTuple):
    cases: list[Written]
    left_out: tuple[str, ...]  # columns or keys that were read and mean nothing here
    has_checks: bool  # whether the file speaks of checks at all: then a case without any has none of its own


def cases_of(text: str) -> Pasted:
    """Raises BadCases; nothing is taken of a text that has a mistake."""
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise BadCases(f"The cases have more than {MOST_BYTES // 1_000_000} MB. Paste them in parts.")
    bare = text.lstrip("\ufeff \t\r\n")
    left_out: dict[str, None] = {}
    speaks: set[str] = set()
    rows = (
        _json_lines(text, left_out, speaks) if bare.startswith("{") else _table(text.lstrip("\ufeff"), left_out, speaks)
    )
    return all_of(rows, left_out, speaks)


def all_of(rows: Iterable[Written], left_out: Mapping[str, None], speaks: Collection[str]) -> Pasted:
    """These cases, which must have the same variables. Raises BadCases."""
    found = list(rows)
    if not found:
        raise BadCases("There are no cases. Give CSV with a header, one JSON table per line, or a list of tests.")
    names = set(found[0].values)
    for one in found:
        if set(one.values) != names:
            other = ", ".join(sorted(set(one.values) ^ names))
            raise BadCases(f"Line {one.line}: the variables differ from those of the first case ({other}).")
    return Pasted(found, tuple(left_out), bool(speaks))


def _table(text: str, left_out: dict[str, None], speaks: set[str]) -> Iterator[Written]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = [name.strip() for name in fields]
                _check_header(header)
                left_out.update(dict.fromkeys(name for name in header if name.startswith(TOLD_ONLY)))
                speaks.update(name for name in header if _OWN.fullmatch(name) or name == THRESHOLD)
                continue
            if len(fields) != len(header):
                raise BadCases(f"Line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}.")
            row = dict(zip(header, fields, strict=True))
            values = {name: value for name, value in row.items() if not name.startswith("__")}
            yield _case(
                reader.line_num, values, _checks_of_row(row, reader.line_num), row.get(THRESHOLD, "").strip() or None
            )
    except csv.Error as error:
        raise BadCases(f"Line {reader.line_num}: {error}. A quote inside a quoted field is written twice.") from None


def _check_header(header: Sequence[str]) -> None:
    if any(not name for name in header):
        raise BadCases("Line 1: a column has no name.")
    double = next((name for name in header if header.count(name) > 1), None)
    if double:
        raise BadCases(f'Line 1: the column "{double}" is there twice.')
    for name in header:
        _check_column(name, header)
    if not any(name != EXPECTED and not name.startswith("__") for name in header):
        raise BadCases("Line 1: there is no variable beside the expected answer.")


def _check_column(name: str, header: Sequence[str]) -> None:
    """A column that begins like promptfoo's own and is none we take would silently change what is tested."""
    if re.fullmatch(r"_(expected\d*|metric|threshold)", name):
        raise BadCases(
            f'Line 1: the column "{name}" has one underscore; write _{name}, or name the variable otherwise.'
        )
    config = _CONFIG.fullmatch(name)
    if config and f"{CHECK}{config[1]}" not in header:
        raise BadCases(f'Line 1: "{name}" sets a threshold for the column {CHECK}{config[1]}, which is not there.')
    known = name in (METRIC, THRESHOLD) or _OWN.fullmatch(name) or config or name.startswith(TOLD_ONLY)
    if name.startswith("__") and not known:
        raise BadCases(
            f'Line 1: the column "{name}" is not taken. Known are {CHECK}, {CHECK}1 ..., {METRIC}, {THRESHOLD} and '
            f"__config:{CHECK}1:threshold; what stands before or after a prompt belongs into the template."
        )


def _checks_of_row(row: Mapping[str, str], line: int) -> list[dict[str, Any]]:
    """In the order of the columns. The metric is that of all checks of the row."""
    found = []
    for name, cell in row.items():
        own = _OWN.fullmatch(name)
        if own is None or not cell.strip():
            continue
        where = f"Line {line}, {name}"
        try:
            check = row_of_cell(cell, where)
        except BadCheck as problem:
            raise BadCases(str(problem)) from None
        least = row.get(f"__config:{CHECK}{own[1]}:threshold", "").strip()
        if least:
            check["threshold"] = _number(least, f"Line {line}, __config:{name}:threshold")
        if row.get(METRIC, "").strip():
            check["metric"] = row[METRIC].strip()
        found.append(_checked(check, where))
    return found


def _json_lines(text: str, left_out: dict[str, None], speaks: set[str]) -> Iterator[Written]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadCases(f"Line {number}: no JSON: {getattr(error, 'msg', 'nested too deeply')}.") from None
        yield written_of(row, number, left_out, speaks)


def written_of(row: Any, number: int, left_out: dict[str, None], speaks: set[str]) -> Written:
    """A table of variables, or a test of promptfoo's, that stands on this line. What is read and means nothing here goes into
    ``left_out``, what names checks into ``speaks``. Raises BadCases."""
    if not isinstance(row, dict):
        raise BadCases(f'Line {number}: a case is a table, like {{"input": "...", "expected": "..."}}.')
    if not isinstance(row.get("vars"), dict):
        return _case(number, _texts(row, number), (), None)
    unknown = sorted(set(row) - TEST_KEYS)
    if unknown:
        raise BadCases(f'Line {number}: "{unknown[0]}" is not taken. A test has {", ".join(sorted(TEST_KEYS))}.')
    left_out.update(dict.fromkeys(name for name in ("description", "metadata") if name in row))
    speaks.update({"assert", "threshold"} & set(row))
    said = {EXPECTED: row[EXPECTED]} if row.get(EXPECTED) is not None else {}
    return _case(number, _texts({**row["vars"], **said}, number), _asserted(row, number), row.get("threshold"))


def _texts(row: Mapping[str, Any], line: int) -> dict[str, str]:
    wrong = next((name for name, value in row.items() if not isinstance(value, str | int | float)), None)
    if wrong is not None:
        raise BadCases(f'Line {line}: "{wrong}" must be a text or a number.')
    return {str(name): str(value) for name, value in row.items()}


def _asserted(row: Mapping[str, Any], line: int) -> list[dict[str, Any]]:
    several = row.get("assert") or []
    if not isinstance(several, list):
        raise BadCases(f'Line {line}: "assert" must be a list, like [{{"type": "contains", "value": "..."}}].')
    return [_checked(one, f"Line {line}, assert {place}") for place, one in enumerate(several, 1)]


def _checked(check: Any, where: str) -> dict[str, Any]:
    """The check as it is kept. Raises BadCases with line and field."""
    if isinstance(check, Mapping) and str(check.get("type", "")).removeprefix("not-") == "grade":
        check = {**check, "type": str(check["type"]).replace("grade", "llm-rubric")}
    try:
        (found,) = parse([check])
    except BadCheck as problem:
        raise BadCases(str(problem).replace("Check 1", where, 1)) from None
    return found.as_row()


def _case(line: int, row: Mapping[str, str], checks: Sequence[dict[str, Any]], threshold: Any) -> Written:
    values = {name: value for name, value in row.items() if name != EXPECTED}
    if not any(value.strip() for value in values.values()):
        raise BadCases(f"Line {line}: every variable is empty.")
    least = None if threshold is None else _number(threshold, f"Line {line}, threshold")
    if least is not None and not 0 <= least <= 1:
        raise BadCases(f"Line {line}, threshold: {least:g} must lie between 0 and 1.")
    return Written(line, values, row.get(EXPECTED) or None, tuple(checks), least)


def _number(value: Any, where: str) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadCases(f"{where}: {value!r} is no number.")
    return found
