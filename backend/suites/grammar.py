"""A check written as one line, ``not-contains:sorry``: the grammar of promptfoo's ``__expected`` cells, for whoever reads them.

``^(not-)?(type)(\\(num\\))?(:value)?$``. A text that names no check is compared as it is (``equals``), but one that seems to
name a check that is not there is an error: promptfoo would compare with the whole line, and every answer would fail.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from backend.suites.checks import BadCheck
from backend.suites.kinds import KINDS
from backend.suites.place import Place

OTHER_NAMES = {"grade": "llm-rubric"}  # promptfoo's own second name
CODE = ("javascript", "fn", "eval", "python", "ruby", "file", "exec", "webhook")
CELL_THRESHOLD = 0.75  # what promptfoo gives these in a cell that names none (its src/csv.ts)
CELL_THRESHOLDS = ("levenshtein", "rouge-n", "latency", "perplexity", "perplexity-score")
ALIKE = 0.85  # of difflib's ratio: closer to a name than this is a slip of the pen; our choice

_LINE = re.compile(r"^(not-)?([a-z][a-z0-9-]*)(?:\(([^()]*)\))?(?::(.*))?$", re.DOTALL)
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


def row_of_cell(text: str, at: Place) -> dict[str, Any]:
    """A cell of an ``__expected`` column as ``checks.parse`` reads it. ``at`` names line and field in errors.

    Raises BadCheck for code, for a threshold that is no number, and for a name that is not known.
    """
    bare = text.strip()
    match = _LINE.match(bare)
    name = _named(match)
    if match is None or name is None:
        return {"type": "equals", "value": bare}
    if name in CODE:
        raise BadCheck(
            f'"{name}" is code, and code is never run here. Write the check with one of ours.',
            "check_code",
            at,
            name=name,
        )
    if name not in KINDS:
        slip = difflib.get_close_matches(name, KINDS, 1, ALIKE)
        if match[3] is None and match[4] is None and not slip:
            return {"type": "equals", "value": bare}  # a word such as "refund"
        near = slip or difflib.get_close_matches(name, KINDS, 1)
        meant = f' Is "{near[0]}" meant?' if near else ""
        raise BadCheck(
            f'there is no check "{name}".{meant} To compare with the text itself write equals:{bare}',
            "check_near" if near else "check_text", at, name=name, near="".join(near), text=bare,
        )  # fmt: skip
    row = _row(match, name, at)
    if name in CELL_THRESHOLDS:
        row.setdefault("threshold", CELL_THRESHOLD)
    return row


def row_of_line(text: str, at: Place) -> dict[str, Any]:
    """A line of a suite's checks: the name must be one of ours. Raises BadCheck."""
    bare = text.strip()
    match = _LINE.match(bare)
    name = _named(match)
    if match is None or name not in KINDS:
        named = bare.split(":", 1)[0]
        known = ", ".join(sorted(KINDS))
        raise BadCheck(
            f'there is no check "{named}". Write name:value; names are {known}.',
            "check_line",
            at,
            name=named,
            known=known,
        )
    return _row(match, name, at)


def _named(match: re.Match[str] | None) -> str | None:
    return None if match is None else OTHER_NAMES.get(match[2], match[2])


def _row(match: re.Match[str], name: str, at: Place) -> dict[str, Any]:
    negated, _, threshold, value = match.groups()
    row: dict[str, Any] = {"type": f"{negated or ''}{name}"}
    if value:
        row["value"] = _value(name, value.strip())
    if threshold is not None:
        row["threshold"] = _threshold(threshold, at)
    return row


def _value(name: str, text: str) -> Any:
    if name in _JSON or (name in _LISTS and text.startswith("[")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _threshold(text: str, at: Place) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadCheck(f"({text}) is no number.", "check_no_number", at, value=f"({text})") from None
