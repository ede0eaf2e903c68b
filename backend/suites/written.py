"""The checks of a suite as people write them in a text field.

A check is a line: ``contains:refund``, ``not-icontains:sorry``, ``levenshtein(3):kitten``, ``is-json`` (grammar.py); a line that
begins with a brace is the check as JSON.
"""

from __future__ import annotations

import json
from typing import Any

from backend.suites import grammar
from backend.suites.checks import BadCheck, Check, parse
from backend.suites.place import Place, moved


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
            raise moved(problem, BadCheck, Place("line", number)) from None
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


def _row(line: str, number: int) -> dict[str, Any]:
    if not line.startswith("{"):
        return grammar.row_of_line(line, Place("line", number))
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadCheck(
            f"no JSON: {error.msg} at column {error.colno}.", "check_no_json", Place("line", number),
            error=error.msg, column=error.colno,
        ) from None  # fmt: skip
    return dict(row)
