"""A file of cases for a suite: CSV and JSON lines as they are pasted, and YAML or JSON with a list of cases or of promptfoo's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from backend.exchange.plan import BadFile
from backend.exchange.tree import Read, decoded, read_json, read_yaml, typed
from backend.suites.pasted import BadCases, Pasted, Written, all_of, cases_of, written_of

LINES = (".csv", ".jsonl", ".ndjson", ".txt")
TREES = (".yaml", ".yml", ".json")
ENDINGS = (*LINES, *TREES)


def cases_in(name: str, data: bytes) -> Pasted:
    """The cases of a file, by the ending of its name. Raises BadCases with line and field; then nothing is taken."""
    ending = PurePath(name).suffix.lower()
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise BadCases(
            f'"{name}" is no file of cases. Choose one that ends in {known}.', "cases_ending", name=name, known=known
        )
    try:
        if ending in LINES:
            return cases_of(decoded(data, name))
        read = read_json(data, name) if ending == ".json" else read_yaml(data, name)
    except BadFile as problem:
        raise BadCases(str(problem), problem.code, None, **problem.values) from None
    left_out: dict[str, None] = {}
    speaks: set[str] = set()
    return all_of(_tests(read, left_out, speaks), left_out, speaks)


def _tests(read: Read, left_out: dict[str, None], speaks: set[str]) -> Iterator[Written]:
    """Of a list, or of the list ``tests`` of a configuration."""
    above: tuple[Any, ...] = ()
    rows = read.value
    if isinstance(rows, dict) and isinstance(rows.get("tests"), list):
        left_out.update(dict.fromkeys(name for name in rows if name != "tests"))
        above, rows = ("tests",), rows["tests"]
    if not isinstance(rows, list):
        raise BadCases(f"{read.file}: there is no list of cases, nor one under tests.", "cases_no_list", file=read.file)
    for place, row in enumerate(rows):
        line = read.line((*above, place)) or place + 1
        yield written_of(_checks_typed(row), line, left_out, speaks)


def _checks_typed(row: Any) -> Any:
    """Values stay as they are written, 007 and NO; a number in a check is a number."""
    if not isinstance(row, dict):
        return row
    return {name: typed(value) if name in ("assert", "threshold") else value for name, value in row.items()}
