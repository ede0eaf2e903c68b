"""promptfoo's tables of tests: every column is a variable, except those that begin with two underscores.

``__expected``, ``__expected2`` and so on hold an assertion each: ``contains:refund``, ``not-icontains:sorry``, ``similar(0.9):text``;
a cell that begins with no assertion's name is compared with the whole answer. A cell is data: what looks like a template in it
stays text, so no cell can fetch the expected answer of its row.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator
from typing import Any

from backend.exchange.plan import MOST_CASES, MOST_CELL, BadFile, Notes, storable
from backend.exchange.tree import Plain, decoded, number
from backend.suites.grammar import ALIKE
from backend.suites.kinds import KINDS

Row = dict[str, Any]

GRADED = (  # promptfoo gives these a threshold when the cell has none; similar has its own
    "answer-relevance", "classifier", "context-faithfulness", "context-recall", "context-relevance", "cost", "latency", "levenshtein",
    "perplexity", "perplexity-score", "rouge-n", "similar", "starts-with",
)  # fmt: skip
LISTS = ("contains-all", "contains-any", "icontains-all", "icontains-any")
NAMES = frozenset(  # promptfoo 0.121's assertion types
    "agent-rubric answer-relevance bleu classifier contains contains-all contains-any contains-html contains-json contains-sql "
    "contains-xml context-faithfulness context-recall context-relevance conversation-relevance cost equals factuality finish-reason "
    "g-eval gleu guardrails icontains icontains-all icontains-any is-html is-json is-refusal is-sql is-valid-function-call "
    "is-valid-openai-function-call is-valid-openai-tools-call is-xml javascript latency levenshtein llm-rubric pi meteor "
    "model-graded-closedqa model-graded-factuality moderation perplexity perplexity-score python regex rouge-n ruby similar "
    "similar:cosine similar:dot similar:euclidean starts-with tool-call-f1 skill-used trajectory:goal-success "
    "trajectory:tool-args-match trajectory:step-count trajectory:tool-sequence trajectory:tool-used trace-error-spans "
    "trace-span-count trace-span-duration search-rubric webhook word-count select-best human max-score".split()
)

_CELL = re.compile(
    rf"(not-)?({'|'.join(sorted(NAMES, key=len, reverse=True))})(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?\Z",
    re.DOTALL | re.ASCII,
)
_LIKE_A_NAME = re.compile(r"(?:not-)?[a-z]+(?:-[a-z]+)+(?:\(.*?\))?:|(?:not-)?[a-z]+-[a-z-]+\Z")
_WORD = re.compile(r"(?:not-)?([A-Za-z]+)(?:\(.*?\))?:")
_CONFIG = re.compile(r"__config:__expected(\d*):(\w+)\Z")


class Line:
    """One row: its line in the file, and its cells by column."""

    def __init__(self, line: int, cells: dict[str, str]):
        self.line, self.cells = line, cells


def read_table(data: bytes, file: str) -> tuple[list[str], list[Line]]:
    """The header and the rows. Raises BadFile with the line: ragged rows and doubled columns shift what they mean."""
    text = decoded(data, file)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[Line] = []
    line = 1
    before = csv.field_size_limit(MOST_CELL)
    try:
        for fields in reader:
            if fields and not header:
                header = [name.strip() for name in fields]
                _check_header(header, file, line)
            elif fields:
                if len(fields) != len(header):
                    raise BadFile("csv_ragged", file=file, line=line, n=len(fields), header=len(header))
                cells = dict(zip(header, fields, strict=True))
                rows.append(Line(line, {name: storable(cell, file, line, name) for name, cell in cells.items()}))
                if len(rows) > MOST_CASES:
                    raise BadFile("file_cases", file=file, most=f"{MOST_CASES:,}")
            line = reader.line_num + 1
    except csv.Error as error:
        if "field larger" in str(error):
            raise BadFile("file_cell", file=file, line=line, field="cell", most=MOST_CELL // 1024) from None
        raise BadFile("csv_broken", file=file, line=line, problem=str(error)) from None
    finally:
        csv.field_size_limit(before)
    if not header:
        raise BadFile("file_empty", file=file)
    return header, rows


def tests_of(data: bytes, file: str, notes: Notes) -> list[tuple[int, Row]]:
    """The rows as tests, as a YAML file would have them, each with its line."""
    header, rows = read_table(data, file)
    for name in header:
        if name.startswith("_") and not name.startswith("__") and name[1:].startswith(_SPECIAL):
            notes.mapped(1, name, "csv_underscore", name=name)
    return [(row.line, _test(row, header, notes)) for row in rows]


_SPECIAL = (
    "expected",
    "prefix",
    "suffix",
    "description",
    "providerOutput",
    "metric",
    "threshold",
    "metadata",
    "config",
)


def _test(row: Line, header: list[str], notes: Notes) -> Row:
    variables: dict[str, str] = {}
    asserts: list[Row] = []
    test: Row = {}
    metadata: dict[str, Any] = {}
    options: dict[str, str] = {}
    columns: list[str] = []
    for name in header:
        cell = row.cells[name]
        if not name.startswith("__"):
            variables[name] = cell
        elif name.startswith("__expected"):
            if cell.strip():
                asserts.append(assertion(cell.strip(), notes, row.line, name))
                columns.append(name)
        elif name in ("__prefix", "__suffix"):
            options.update({name[2:]: cell} if cell else {})
        elif name in ("__description", "__providerOutput", "__metric", "__threshold"):
            test.update({name[2:]: Plain(cell) if name == "__threshold" else cell} if cell.strip() else {})
        elif name.startswith("__metadata:"):
            if cell.strip():
                metadata[name[11:].removesuffix("[]")] = _split(cell) if name.endswith("[]") else cell
        elif not _CONFIG.match(name):
            notes.refused(row.line, name, "csv_column", cell, name=name)
    metric = test.pop("metric", None)
    for one in asserts:
        one.update({"metric": metric} if metric else {})
    _configure(row, header, asserts, notes)
    return {**test, "vars": variables, "assert": asserts, "columns": columns, "options": options, "metadata": metadata}


def _configure(row: Line, header: list[str], asserts: list[Row], notes: Notes) -> None:
    """``__config:__expected2:threshold`` belongs to the second assertion that the row has."""
    for name in header:
        match = _CONFIG.match(name)
        if not match or not row.cells[name].strip():
            continue
        place = int(match[1] or 1) - 1
        if match[2] != "threshold" or not 0 <= place < len(asserts) or number(row.cells[name]) is None:
            notes.refused(row.line, name, "csv_config", row.cells[name], name=name)
        else:
            asserts[place]["threshold"] = Plain(row.cells[name].strip())


def assertion(cell: str, notes: Notes, line: int, field: str) -> Row:
    """An ``__expected`` cell as an assertion. A name that promptfoo does not know is told: it compares with the whole cell."""
    for prefix in ("javascript:", "fn:", "eval:"):
        if cell.startswith(prefix):
            return {"type": "javascript", "value": cell.removeprefix(prefix).strip()}
    if cell.startswith("python:"):
        return {"type": "python", "value": cell.removeprefix("python:").strip()}
    if cell.startswith("file://"):
        return {"type": "python" if ".py" in cell else "javascript", "value": cell}
    if cell.startswith(("grade:", "llm-rubric:")):
        return {"type": "llm-rubric", "value": cell.partition(":")[2]}
    match = _CELL.match(cell)
    if match is None:
        if _is_like_a_name(cell):
            notes.mapped(line, field, "csv_prefix", cell, name=cell.partition(":")[0][:60])
        return {"type": "equals", "value": cell}
    negated, name, threshold, value = match.groups()
    found: Row = {"type": f"{negated or ''}{name}"}
    if value:
        found["value"] = listed(value) if name in LISTS else value.strip()
    if name in GRADED:
        found["threshold"] = Plain(threshold or ("0.8" if name == "similar" else "0.75"))
        if threshold is None and name in KINDS:
            notes.mapped(line, field, "csv_threshold", cell, name=name)
    elif threshold is not None and name in KINDS:
        notes.mapped(line, field, "csv_no_threshold", cell, name=name)
    return found


def _is_like_a_name(cell: str) -> bool:
    """Whether somebody may have meant a check: contains-some:a, contain:a, Contains: a; neither Note: a nor https://a."""
    if _LIKE_A_NAME.match(cell):
        return True
    word = _WORD.match(cell)
    if word is None:
        return False
    follows = cell[word.end() :]
    is_close = bool(difflib.get_close_matches(word[1].lower(), NAMES, 1, ALIKE))
    return is_close or (word[1].islower() and not follows.startswith((" ", "//")) and bool(follows))


def listed(text: str) -> list[str]:
    """Texts between commas; one in double quotes may hold commas, and a double quote written twice."""
    found = next(iter(csv.reader([text], skipinitialspace=True)), [])
    return [one.strip() for one in found if one.strip()]


def _split(cell: str) -> list[str]:
    return [part.strip().replace("\\,", ",") for part in re.split(r"(?<!\\),", cell)]


def _check_header(header: list[str], file: str, line: int) -> None:
    for name in header:
        storable(name, file, line, "header")
        if not name:
            raise BadFile("csv_nameless", file=file, line=line)
        if header.count(name) > 1:
            raise BadFile("file_double_key", file=file, line=line, key=name)


def prompts_of(data: bytes, file: str) -> Iterator[tuple[int, str, str]]:
    """A table of prompts: line, text, and label ("" without one)."""
    header, rows = read_table(data, file)
    if "prompt" not in header:
        raise BadFile("csv_prompt", file=file, line=1)
    for row in rows:
        yield row.line, row.cells["prompt"], row.cells.get("label", "")
