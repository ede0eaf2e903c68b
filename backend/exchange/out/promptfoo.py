"""promptfoo's configuration and tables. What a model is sent there is what it is sent here, byte for byte.

promptfoo puts variables into variables (``{{label}}`` in a value fetches the label), reads ``file://`` values from the disk and takes one
line break off the end of a value. So a line break is added where there is one; a case that would be changed otherwise, and a check that
promptfoo does not know, is kept under ``metadata.whetstone``, which promptfoo passes over and an import here reads.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.exchange import asserts, our_templates, promptfoo_csv
from backend.exchange.braces import literal, pieces_of, to_nunjucks
from backend.exchange.out.sheet import Exported, Sheet, Shown
from backend.exchange.out.yaml_text import as_yaml
from backend.exchange.plan import Notes
from backend.exchange.promptfoo import EXPECTED, OURS
from backend.exchange.promptfoo_prompts import WRITTEN
from backend.exchange.tree import MOST_YAML_BYTES, json_value
from backend.prompts.chat import INPUT, gap
from backend.prompts.rows import DEMONSTRATIONS, CompiledRow, compile_rows
from backend.prompts.template import Compiled, PlainPart
from backend.suites.checks import NOT
from feedback_db.types import Case, Demonstration

HEAD = "# Written by Whetstone. The provider echo only repeats each prompt: name your own.\n"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for a formula
_REFERENCE = re.compile(r"\{\{\s*(\w+)\s*\}\}")  # what promptfoo looks for in a value

Row = dict[str, Any]


def configuration(sheet: Sheet, notes: Notes) -> Exported:
    """A configuration; as JSON where YAML would be larger than what an import here reads."""
    shared, left = _asserts(sheet, notes)
    tests: list[Row] = []
    kept: list[Row] = []
    chosen = [one for one in sheet.templates if one.demonstrations is None or not _is_plain(one)]
    shapes = {one.label: _shape(one, sheet) for one in chosen}
    for place, case in enumerate(sheet.cases):
        variables = _variables(case) | _written(sheet, place, chosen, shapes, notes)
        reason = _changed(case, variables)
        if reason:
            notes.refused(0, f"case {place + 1}", reason)
            kept.append({"at": place, **_case_row(case)})
        else:
            tests.append(_test(case, variables) | _own(sheet, place, notes))
    top: Row = {"description": sheet.title, "providers": ["echo"]}
    top["prompts"] = [
        {"label": one.label, "raw": _raw(one, shapes.get(one.label), notes)} for one in sheet.templates
    ] or [{"label": "input", "raw": "{{ input }}"}]
    if shared or sheet.threshold is not None:
        top["defaultTest"] = ({"assert": shared} if shared else {}) | (
            {} if sheet.threshold is None else {"threshold": sheet.threshold}
        )
    if tests:
        top["tests"] = tests
    ours: Row = {"checks": left} if left else {}
    if kept:
        ours["cases"] = kept
    entries = {
        one.label: entry
        for one, prompt in zip(sheet.templates, top["prompts"], strict=False)
        if (entry := our_templates.entry(one, prompt["raw"])) is not None
    }
    if entries:
        ours["templates"] = entries
    labels = {one.label: list(one.template.labels) for one in sheet.templates if one.template.labels}
    if labels:
        ours["labels"] = labels
    if ours:
        top["metadata"] = {OURS: ours}
    text = HEAD + as_yaml(top)
    if len(text.encode("utf-8")) > MOST_YAML_BYTES:
        notes.mapped(0, "", "json_instead")
        data = json.dumps(top, ensure_ascii=False, indent=1).encode("utf-8")
        return Exported("promptfooconfig.json", "application/json", data, tuple(notes.kept))
    return Exported("promptfooconfig.yaml", "application/yaml", text.encode("utf-8"), tuple(notes.kept))


def table(sheet: Sheet, notes: Notes) -> Exported:
    """The cases with their checks as a table of tests. Checks of single cases stand behind those of all, in columns of their own."""
    has_expected = any(case.expected is not None for case in sheet.cases)
    cells, configs, metric = _cells(sheet, notes)
    names = list(dict.fromkeys(name for case in sheet.cases for name in case.values or {}))
    columns = [*names, *([EXPECTED] if has_expected else [])]
    own = [_own_cells(sheet, place, metric, notes) for place in range(len(sheet.cases))]
    width = len(cells) + max(map(len, own), default=0)
    limits = sorted(
        {place for place, _ in configs}
        | {len(cells) + at for row in own for at, one in enumerate(row, 1) if one[1] is not None}
    )
    least = [row.get("threshold", sheet.threshold) for row in sheet.own] or [sheet.threshold] * len(sheet.cases)
    has_least = any(one is not None for one in least)
    tagged = any(case.tags for case in sheet.cases)
    header = [*columns, *(f"__expected{i or ''}" for i in (range(1, width + 1) if width > 1 else range(width)))]
    header += [f"__config:__expected{place if width > 1 else ''}:threshold" for place in limits]
    header += ["__metric"] if metric else []
    header += ["__threshold"] if has_least else []
    header += ["__metadata:tags[]"] if tagged else []
    held = io.StringIO()
    writer = csv.writer(held)  # with \r\n, or a cell that ends in \r would stand unquoted
    writer.writerow(header)
    for place, case in enumerate(sheet.cases):
        variables = _variables(case)
        reason = _changed(case, variables) or ("case_columns" if set(case.values or {}) != set(names) else "")
        if reason:
            notes.refused(0, f"case {place + 1}", reason)
            continue
        checked = [*((cell, dict(configs).get(at)) for at, cell in enumerate(cells, 1)), *own[place]]
        checked += [("", None)] * (width - len(checked))
        row = [variables.get(name, "") for name in columns] + [cell for cell, _ in checked]
        row += ["" if checked[at - 1][1] is None else f"{checked[at - 1][1]:g}" for at in limits]
        row += [metric] if metric else []
        row += ["" if least[place] is None else repr(least[place])] if has_least else []
        row += [",".join(tag.replace(",", "\\,") for tag in case.tags)] if tagged else []
        if any(cell.startswith(FORMULA) for cell in row[: len(columns)]):
            notes.mapped(0, f"case {place + 1}", "formula")
        writer.writerow(row)
    return Exported("promptfoo-tests.csv", "text/csv", held.getvalue().encode("utf-8"), tuple(notes.kept))


def _own_cells(sheet: Sheet, place: int, metric: str, notes: Notes) -> list[tuple[str, float | None]]:
    """A cell for each check that is a case's own, with a threshold that does not fit into it; a remark on those that fit into none."""
    found = []
    for row in sheet.own[place].get("checks", ()) if sheet.own else ():
        cell, threshold = _cell(row, metric)
        if cell:
            found.append((cell, threshold))
        else:
            notes.refused(0, f"case {place + 1}", "check_left", name=row["type"])
    return found


# ---- prompts


def _raw(one: Shown, shape: tuple[str, ...] | None, notes: Notes) -> str:
    """The turns as JSON, each content a Nunjucks template of its own."""
    if shape is not None:
        notes.mapped(0, one.label, "written_out")
        turns = [{"role": role, "content": f"{{{{ {_name(one, i)} }}}}"} for i, role in enumerate(shape)]
        return json.dumps(turns, ensure_ascii=False, indent=2)
    return json.dumps(_turns(one), ensure_ascii=False, indent=2)


def _turns(one: Shown) -> list[dict[str, str]]:
    """The rows with their variables, and the demonstrations that are always shown; the case's turns are no part of a prompt there."""
    template, shown = one.template, one.demonstrations or ()
    shape, rows = template.few_shot.get("shape", "turns"), compile_rows(template)
    turns: list[dict[str, str]] = []
    for row in rows.rows:
        if row.role == DEMONSTRATIONS:
            turns += _pairs(rows.ask, shown) if shape == "turns" else []
        elif row.text is not None:
            inside = shown if row is rows.ask and shape == "text" else ()
            turns.append({"role": row.role, "content": _content(row.text, inside, row is rows.ask)})
    return [turn for turn in turns if turn["content"]]


def _pairs(ask: CompiledRow | None, shown: Sequence[Demonstration]) -> list[dict[str, str]]:
    head, tail = _parts(ask.text) if ask is not None and ask.text is not None else ("", "")
    found = []
    for one in shown:
        asked = _with_input(head + tail, one.input) if head + tail else literal(one.input)
        found += [{"role": "user", "content": asked}, {"role": "assistant", "content": literal(one.output)}]
    return found


def _content(text: Compiled, shown: Sequence[Demonstration], asks: bool) -> str:
    if text.mode == "logic" or not asks:
        return to_nunjucks(text.body, text.mode)
    head, tail = _parts(text)
    return (
        to_nunjucks(head)
        + "".join(_example(tail, bool(text.body), one.input, one.output) for one in shown)
        + to_nunjucks(tail)
    )


def _parts(text: Compiled) -> tuple[str, str]:
    """What stands before and after the place of demonstrations in a plain text."""
    return tuple(part.source if isinstance(part, PlainPart) else "" for part in (text.head, text.tail))  # type: ignore[return-value]


def _example(tail: str, has_body: bool, given: str, output: str) -> str:
    """A demonstration inside the text: the form of the case filled with its input, then its output and an empty line."""
    stub = _with_input(tail, given) if has_body else literal(given + "\n")
    return stub + gap(_filled(tail, given) if has_body else "\n") + literal(output) + "\n\n"


def _with_input(body: str, given: str) -> str:
    return "".join(
        (literal(given) if text == INPUT else f"{{{{ {text} }}}}") if kind == "variable" else _no_brace(literal(text))
        for kind, text in pieces_of(body)
    )


def _no_brace(text: str) -> str:
    return text[:-1] + '{{ "{" }}' if text.endswith("{") else text


def _filled(body: str, given: str) -> str:
    """How the body ends when it is filled: a variable that is not the input ends in something that is not known to be a mark."""
    return "".join(
        given if kind == "variable" and text == INPUT else "x" if kind == "variable" else text
        for kind, text in pieces_of(body)
    )


def _is_plain(one: Shown) -> bool:
    """Whether the template itself can be written down: a logic template only without demonstrations."""
    return not (one.template.mode == "logic" and one.demonstrations)


def _shape(one: Shown, sheet: Sheet) -> tuple[str, ...]:
    """The roles of the turns that most cases have."""
    found = [tuple(turn["role"] for turn in row[one.label]) for row in sheet.written if one.label in row]
    return max(set(found), key=found.count) if found else ("user",)


def _written(
    sheet: Sheet, place: int, chosen: list[Shown], shapes: Mapping[str, tuple[str, ...]], notes: Notes
) -> dict[str, str]:
    """The turns of templates that choose demonstrations by case, as variables of this case."""
    found: dict[str, str] = {}
    for one in chosen:
        turns = sheet.written[place].get(one.label, ()) if place < len(sheet.written) else ()
        if tuple(turn["role"] for turn in turns) != shapes[one.label]:
            notes.refused(0, f"case {place + 1}", "case_shape", name=one.label)
            turns = ()
        for i, _ in enumerate(shapes[one.label]):
            found[_name(one, i)] = _kept_line(turns[i]["content"]) if turns else ""
    return found


def _name(one: Shown, place: int) -> str:
    return f"{WRITTEN}{one.template.id or 0}_{place + 1}"


# ---- cases


def _variables(case: Case) -> dict[str, str]:
    found = {name: _kept_line(value) for name, value in (case.values or {}).items()}
    if case.expected is not None:
        found[EXPECTED] = _kept_line(case.expected)
    return found


def _kept_line(text: str) -> str:
    """promptfoo takes one line break off the end."""
    return text + "\n" if text.endswith("\n") else text


def _changed(case: Case, variables: dict[str, str]) -> str:
    """Why promptfoo would send something else than is sent here; "" where it would not."""
    if case.conversation or not case.values:
        return "case_turns"
    if EXPECTED in case.values:
        return "case_expected"
    for value in variables.values():
        if value.startswith(("file://", "package:")):
            return "case_reference"
        if any(name in variables for name in _REFERENCE.findall(value)):
            return "case_filled"
    return ""


def _test(case: Case, variables: dict[str, str]) -> Row:
    test: Row = {"vars": variables}
    if case.tags:
        test["metadata"] = {"tags": list(case.tags)}
    return test


def _own(sheet: Sheet, place: int, notes: Notes) -> Row:
    """The assertions and the threshold that a case has beside those of all."""
    own = sheet.own[place] if sheet.own else {}
    rows = [(row, _assertion(row)) for row in own.get("checks", ())]
    for row, one in rows:
        if one is None:
            notes.refused(0, f"case {place + 1}", "check_left", name=row["type"])
    found: Row = {"assert": [one for _, one in rows if one is not None]} if any(one for _, one in rows) else {}
    return found if own.get("threshold") is None else {**found, "threshold": own["threshold"]}


def _case_row(case: Case) -> Row:
    row: Row = {"values": dict(case.values)} if case.values else {}
    if case.conversation:
        row["conversation"] = [dict(turn) for turn in case.conversation]
    if case.expected is not None:
        row[EXPECTED] = case.expected
    return {**row, "tags": list(case.tags)} if case.tags else row


# ---- checks


def _asserts(sheet: Sheet, notes: Notes) -> tuple[list[Row], list[Row]]:
    """The checks as assertions, and those that only an import here reads, with their place."""
    shared: list[Row] = []
    left: list[Row] = []
    for place, row in enumerate(sheet.checks):
        one = _assertion(row)
        if one is None:
            notes.refused(0, f"check {place + 1}", "check_left", name=row["type"])
            left.append({"at": place, "check": row})
        else:
            shared.append(one)
    return shared, left


def _assertion(row: Row) -> Row | None:
    """promptfoo's assertion of a check, where an import would read it back as the same check."""
    bare = row["type"].removeprefix(NOT)
    if bare not in promptfoo_csv.NAMES or (bare in ("latency", "perplexity") and "value" in row):
        return None
    one = dict(row)
    if "value" not in row and bare in asserts.EXPECTED_STANDS_IN:
        one["value"] = f"{{{{ {EXPECTED} }}}}"
    elif "value" in row:
        one["value"] = _nunjucks(row["value"]) if bare not in asserts.TYPED else row["value"]
    if isinstance(one.get("value"), str) and one["value"].startswith(("file://", "package:")):
        return None
    return one if asserts.convert(_texts(one), Notes(""), 0, "") == row else None


def _texts(value: Any) -> Any:
    """As a file would be read: numbers as they are written."""
    return json_value(json.dumps(value), "", 0)


def _nunjucks(value: Any) -> Any:
    if isinstance(value, str):
        return to_nunjucks(value)
    return [_nunjucks(one) for one in value] if isinstance(value, list) else value


def _cells(sheet: Sheet, notes: Notes) -> tuple[list[str], list[tuple[int, float]], str]:
    """A cell for every check, the thresholds that need a column of their own by place, and the metric they share."""
    metrics = {row.get("metric", "") for row in sheet.checks}
    metric = metrics.pop() if len(metrics) == 1 else ""
    cells: list[str] = []
    configs: list[tuple[int, float]] = []
    for place, row in enumerate(sheet.checks):
        cell, threshold = _cell(row, metric)
        if not cell:
            notes.refused(0, f"check {place + 1}", "check_left", name=row["type"])
            continue
        cells.append(cell)
        configs += [] if threshold is None else [(len(cells), threshold)]
    return cells, configs, metric


def _cell(row: Row, metric: str) -> tuple[str, float | None]:
    """The check as a cell, and a threshold that does not fit into it; no cell where it would be read back as another check."""
    one = _assertion(row)
    if one is None or "weight" in row or row.get("metric", "") != metric:
        return "", None
    name, threshold, value = one["type"], one.get("threshold"), one.get("value")
    cell = name
    inside = name.removeprefix(NOT) in promptfoo_csv.GRADED
    if inside and threshold is not None:
        cell += f"({threshold:g})"
    if isinstance(value, list):
        cell += ":" + _listed([str(item) for item in value])
    elif value is not None:
        cell += ":" + (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    given = promptfoo_csv.assertion(cell.strip(), Notes(""), 0, "")
    outside = None if inside else threshold
    given |= {} if outside is None else {"threshold": str(outside)}
    given |= {"metric": metric} if metric else {}
    return (cell, outside) if asserts.convert(given, Notes(""), 0, "") == row else ("", None)


def _listed(items: list[str]) -> str:
    held = io.StringIO()
    csv.writer(held, lineterminator="").writerow(items)
    return held.getvalue()
