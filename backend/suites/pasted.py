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

from backend.suites.checks import BadCheck, parse
from backend.suites.grammar import row_of_cell
from backend.suites.place import Misplaced, Place, moved

MOST_BYTES = 5_000_000
EXPECTED = "expected"
CHECK, METRIC, THRESHOLD = "__expected", "__metric", "__threshold"
TOLD_ONLY = ("__description", "__metadata:")  # they change neither what is asked nor what is checked
TEST_KEYS = {"vars", "assert", "threshold", "description", "metadata", EXPECTED}
HEADER = Place("line", 1)
_OWN = re.compile(r"__expected(\d*)")
_CONFIG = re.compile(r"__config:__expected(\d*):threshold")


class BadCases(Misplaced):
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
        most = MOST_BYTES // 1_000_000
        raise BadCases(f"The cases have more than {most} MB. Paste them in parts.", "cases_size", most=most)
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
        raise BadCases(
            "There are no cases. Give CSV with a header, one JSON table per line, or a list of tests.", "cases_none"
        )
    names = set(found[0].values)
    for one in found:
        if set(one.values) != names:
            other = ", ".join(sorted(set(one.values) ^ names))
            raise BadCases(
                f"the variables differ from those of the first case ({other}).", "cases_differ", Place("line", one.line),
                names=other,
            )  # fmt: skip
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
                raise BadCases(
                    f"{len(fields)} field{'s' * (len(fields) != 1)}, but the header has {len(header)}.", "cases_ragged",
                    Place("line", reader.line_num), n=len(fields), header=len(header),
                )  # fmt: skip
            row = dict(zip(header, fields, strict=True))
            values = {name: value for name, value in row.items() if not name.startswith("__")}
            yield _case(
                reader.line_num, values, _checks_of_row(row, reader.line_num), row.get(THRESHOLD, "").strip() or None
            )
    except csv.Error as error:
        raise BadCases(
            f"{error}. A quote inside a quoted field is written twice.", "cases_csv", Place("line", reader.line_num),
            error=error.args[0] if error.args else "",
        ) from None  # fmt: skip


def _check_header(header: Sequence[str]) -> None:
    if any(not name for name in header):
        raise BadCases("a column has no name.", "cases_nameless", HEADER)
    double = next((name for name in header if header.count(name) > 1), None)
    if double:
        raise BadCases(f'the column "{double}" is there twice.', "cases_double", HEADER, name=double)
    for name in header:
        _check_column(name, header)
    if not any(name != EXPECTED and not name.startswith("__") for name in header):
        raise BadCases("there is no variable beside the expected answer.", "cases_no_variable", HEADER)


def _check_column(name: str, header: Sequence[str]) -> None:
    """A column that begins like promptfoo's own and is none we take would silently change what is tested."""
    if re.fullmatch(r"_(expected\d*|metric|threshold)", name):
        raise BadCases(
            f'the column "{name}" has one underscore; write _{name}, or name the variable otherwise.',
            "cases_underscore", HEADER, name=name,
        )  # fmt: skip
    config = _CONFIG.fullmatch(name)
    if config and f"{CHECK}{config[1]}" not in header:
        column = f"{CHECK}{config[1]}"
        raise BadCases(
            f'"{name}" sets a threshold for the column {column}, which is not there.', "cases_config", HEADER,
            name=name, column=column,
        )  # fmt: skip
    known = name in (METRIC, THRESHOLD) or _OWN.fullmatch(name) or config or name.startswith(TOLD_ONLY)
    if name.startswith("__") and not known:
        columns = f"{CHECK}, {CHECK}1 ..., {METRIC}, {THRESHOLD}, __config:{CHECK}1:threshold"
        raise BadCases(
            f'the column "{name}" is not taken. Known are {columns}; what stands before or after a prompt belongs into the '
            "template.",
            "cases_column", HEADER, name=name, known=columns,
        )  # fmt: skip


def _checks_of_row(row: Mapping[str, str], line: int) -> list[dict[str, Any]]:
    """In the order of the columns. The metric is that of all checks of the row."""
    found = []
    for name, cell in row.items():
        own = _OWN.fullmatch(name)
        if own is None or not cell.strip():
            continue
        at = Place("line", line, name)
        try:
            check = row_of_cell(cell, at)
        except BadCheck as problem:
            raise moved(problem, BadCases, at) from None
        least = row.get(f"__config:{CHECK}{own[1]}:threshold", "").strip()
        if least:
            check["threshold"] = _number(least, Place("line", line, f"__config:{name}:threshold"))
        if row.get(METRIC, "").strip():
            check["metric"] = row[METRIC].strip()
        found.append(_checked(check, at))
    return found


def _json_lines(text: str, left_out: dict[str, None], speaks: set[str]) -> Iterator[Written]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadCases(f"no JSON: {error.msg}.", "cases_no_json", Place("line", number), error=error.msg) from None
        except RecursionError:
            raise BadCases("no JSON: nested too deeply.", "cases_deep", Place("line", number)) from None
        yield written_of(row, number, left_out, speaks)


def written_of(row: Any, number: int, left_out: dict[str, None], speaks: set[str]) -> Written:
    """A table of variables, or a test of promptfoo's, that stands on this line. What is read and means nothing here goes into
    ``left_out``, what names checks into ``speaks``. Raises BadCases."""
    at = Place("line", number)
    if not isinstance(row, dict):
        raise BadCases('a case is a table, like {"input": "...", "expected": "..."}.', "cases_no_table", at)
    if not isinstance(row.get("vars"), dict):
        return _case(number, _texts(row, number), (), None)
    unknown = sorted(set(row) - TEST_KEYS)
    if unknown:
        known = ", ".join(sorted(TEST_KEYS))
        raise BadCases(
            f'"{unknown[0]}" is not taken. A test has {known}.', "cases_key", at, name=unknown[0], known=known
        )
    left_out.update(dict.fromkeys(name for name in ("description", "metadata") if name in row))
    speaks.update({"assert", "threshold"} & set(row))
    said = {EXPECTED: row[EXPECTED]} if row.get(EXPECTED) is not None else {}
    return _case(number, _texts({**row["vars"], **said}, number), _asserted(row, number), row.get("threshold"))


def _texts(row: Mapping[str, Any], line: int) -> dict[str, str]:
    wrong = next((name for name, value in row.items() if not isinstance(value, str | int | float)), None)
    if wrong is not None:
        raise BadCases(f'"{wrong}" must be a text or a number.', "cases_value", Place("line", line), name=wrong)
    return {str(name): str(value) for name, value in row.items()}


def _asserted(row: Mapping[str, Any], line: int) -> list[dict[str, Any]]:
    several = row.get("assert") or []
    if not isinstance(several, list):
        raise BadCases(
            '"assert" must be a list, like [{"type": "contains", "value": "..."}].', "cases_assert", Place("line", line)
        )
    return [_checked(one, Place("line", line, f"assert {number}")) for number, one in enumerate(several, 1)]


def _checked(check: Any, at: Place) -> dict[str, Any]:
    """The check as it is kept. Raises BadCases with line and field."""
    if isinstance(check, Mapping) and str(check.get("type", "")).removeprefix("not-") == "grade":
        check = {**check, "type": str(check["type"]).replace("grade", "llm-rubric")}
    try:
        (found,) = parse([check])
    except BadCheck as problem:
        raise moved(problem, BadCases, at) from None
    return found.as_row()


def _case(line: int, row: Mapping[str, str], checks: Sequence[dict[str, Any]], threshold: Any) -> Written:
    values = {name: value for name, value in row.items() if name != EXPECTED}
    if not any(value.strip() for value in values.values()):
        raise BadCases("every variable is empty.", "cases_empty", Place("line", line))
    at = Place("line", line, "threshold")
    least = None if threshold is None else _number(threshold, at)
    if least is not None and not 0 <= least <= 1:
        raise BadCases(f"{least:g} must lie between 0 and 1.", "cases_threshold", at, value=f"{least:g}")
    return Written(line, values, row.get(EXPECTED) or None, tuple(checks), least)


def _number(value: Any, at: Place) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadCases(f"{value!r} is no number.", "check_no_number", at, value=repr(value))
    return found
