"""ChainForge flows: prompt nodes become templates, what feeds their variables cases, simple evaluators checks, grades judgements.

A flow is read, never run: evaluators in code are recognised where they say no more than "begins with", "holds" or "equals" a
column, and are shown otherwise. Answers of one prompt that somebody graded good and bad make a judged comparison.
"""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from backend.exchange.braces import CannotConvert, Piece, compose
from backend.exchange.chainforge_checks import DRAWN, Flow, Node, checks_of, code_of, name_of, pairs_of, pasts_of
from backend.exchange.plan import MOST_CASES, BadFile, NewCase, NewSuite, NewTemplate, Notes, Plan, storable
from backend.exchange.tree import list_in, read_json, table_in, texts, typed
from backend.exchange.upload import Upload
from backend.prompts.template import variables

FORMAT = "chainforge"
_BRACE = re.compile(r"\\([{}])|\{(=?)([^{}\n]*)\}")

PAST = "past chats"  # in a row, the turns before as JSON; no variable has a blank in its name

Rows = list[dict[str, str]]


class Source(NamedTuple):
    """Rows that belong together; ``columns`` has for each variable the key it takes, the other keys ride along."""

    rows: Rows
    columns: dict[str, str]


def parse(upload: Upload) -> Plan:
    """Raises BadFile."""
    notes = Notes(upload.main)
    flow = _flow(read_json(upload.data, upload.main).value, upload.main)
    stem = PurePosixPath(upload.main).stem
    name = stem if stem != "flow" else "ChainForge flow"
    templates: list[NewTemplate] = []
    cases: list[NewCase] = []
    suites: list[NewSuite] = []
    for node in flow.nodes.values():
        if node.type in ("prompt", "chat"):
            made = _templates(
                node, name, len([n for n in flow.nodes.values() if n.type in ("prompt", "chat")]) > 1, notes
            )
            templates += made
            if node.type == "chat" and not any(_is_past(edge) for edge in flow.into(node.id)):
                notes.mapped(0, node.id, "chat_node")
            rows = _rows(flow, node, {piece for one in made for piece in _variables(one)}, notes) if made else None
            checks, column = checks_of(flow, node, notes)
            suites += _case_rows(
                rows or [], column, checks, f"{name} {node.id}" if suites else name, cases, flow, notes
            )
        elif node.type not in {*DRAWN, "textfields", "table", "csv", "evaluator", "simpleval", "llmeval", "multieval"}:
            notes.refused(
                0, node.id, "code" if node.type in ("script", "processor") else "node", code_of(node), name=node.type
            )
    pairs = pairs_of(flow, notes)
    return Plan(
        format=FORMAT, source=upload.main, name=name[:80], templates=tuple(templates), cases=tuple(cases), suites=tuple(suites),
        pairs=tuple(pairs), notes=tuple(notes.kept),
    )  # fmt: skip


def _flow(top: Any, file: str) -> Flow:
    flow = top.get("flow", top) if isinstance(top, dict) else None
    if (
        not isinstance(flow, dict)
        or not isinstance(flow.get("nodes"), list)
        or not isinstance(flow.get("edges", []), list)
    ):
        raise BadFile("not_chainforge", file=file)
    nodes = {}
    for one in flow["nodes"]:
        if isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("data"), dict):
            nodes[one["id"]] = Node(one["id"], texts(one.get("type", "")), one["data"])
    wanted = ("source", "target", "sourceHandle", "targetHandle")
    edges = [
        {key: texts(one.get(key) or "") for key in wanted} for one in flow.get("edges", []) if isinstance(one, dict)
    ]
    cache = top.get("cache")
    return Flow(nodes, edges, cache if isinstance(cache, dict) else {}, file)


# ---- templates


def _templates(node: Node, name: str, several: bool, notes: Notes) -> list[NewTemplate]:
    given = node.data.get("prompt", "")
    variants = given if isinstance(given, list) else [given]
    labels = node.data.get("promptVariantLabel")
    systems = {_system(model) for model in list_in(node.data, "llms") if isinstance(model, dict)} - {""} or {""}
    found = []
    for i, text in enumerate(variants):
        field = f"{node.id}.prompt" + (f"[{i + 1}]" if len(variants) > 1 else "")
        label = (
            texts(labels[i])
            if isinstance(labels, list) and i < len(labels)
            else str(i + 1)
            if len(variants) > 1
            else ""
        )
        for j, system in enumerate(sorted(systems)):
            parts = [name, node.id if several else "", label, str(j + 1) if len(systems) > 1 else ""]
            title = " · ".join(part for part in parts if part)[:120]
            try:
                body = _converted(storable(texts(text), notes.file, 0, field), notes, field)
                head = compose([("text", storable(system, notes.file, 0, field))])
            except CannotConvert as problem:
                notes.refused(0, field, "template_problem", texts(text), problem=str(problem))
                continue
            if head.mode != body[1]:
                notes.refused(0, field, "template_problem", system, problem="the system text holds braces")
                continue
            found.append(NewTemplate(name=title, body=body[0], mode=body[1], system_text=head.body))
            notes.taken(0, field, "template_taken", name=title)
    if list_in(node.data, "llms"):
        notes.refused(
            0, f"{node.id}.llms", "run_setting", ", ".join(_model(one) for one in node.data["llms"]), name="llms"
        )
    return found


def _converted(text: str, notes: Notes, field: str) -> tuple[str, Any]:
    """``{name}`` is a variable, ``\\{`` a brace, ``{}`` and a group over two lines text, ``{=name}`` a model's setting."""
    pieces: list[Piece] = []
    place = 0
    for match in _BRACE.finditer(text):
        pieces.append(("text", text[place : match.start()]))
        place = match.end()
        if match[1]:
            pieces.append(("text", match[1]))
        elif match[2]:
            notes.refused(0, field, "setting_variable", match[0])
        elif not match[3].strip():
            pieces.append(("text", match[0]))
        elif re.fullmatch(r"[^\W\d]\w*", name_of(match[3])):
            pieces.append(("variable", name_of(match[3])))
        else:
            raise CannotConvert(f'"{match[3]}" is no name of a variable')
    converted = compose([*pieces, ("text", text[place:])])
    return converted.body, converted.mode


def _variables(template: NewTemplate) -> tuple[str, ...]:
    return variables(template.body, template.mode)


# ---- what feeds the variables


def _rows(flow: Flow, node: Node, wanted: set[str], notes: Notes) -> Rows | None:
    """Every combination of what its sources hold; columns of one table stay row by row. None where a source is no data."""
    sources: dict[str, Source] = {}
    for edge in flow.into(node.id):
        variable, origin = name_of(edge["targetHandle"]), flow.nodes.get(edge["source"])
        if origin is None or origin.type in DRAWN:
            continue
        pasts = pasts_of(flow, origin) if _is_past(edge) else []
        if pasts:
            notes.mapped(0, f"{node.id}.{variable}", "history_taken")
            kept = [{PAST: json.dumps(turns, ensure_ascii=False)} for turns in pasts]
            sources[f"{origin.id} {PAST}"] = Source(kept, {})
            continue
        if _is_past(edge) or origin.type in ("prompt", "chat", "split", "join"):
            notes.refused(0, f"{node.id}.{variable}", "chained", origin.id)
            return None
        if origin.type == "table":
            source = sources.setdefault(origin.id, Source(_table(origin, flow.file), {}))
            key = _column(origin, edge["sourceHandle"])
            if key is None:
                notes.refused(0, f"{node.id}.{variable}", "no_column", edge["sourceHandle"])
                return None
            source.columns[variable] = key
        elif origin.type in ("textfields", "csv"):
            held = _texts_of(origin, flow.file)
            sources[f"{origin.id} {variable}"] = Source([{variable: text} for text in held], {variable: variable})
        else:
            notes.refused(0, f"{node.id}.{variable}", "node", code_of(origin), name=origin.type)
            return None
    given = {variable for source in sources.values() for variable in source.columns}
    if wanted - given:
        notes.refused(0, node.id, "unfed", name=", ".join(sorted(wanted - given)))
        return None
    if not sources:
        return None
    count = 1
    for source in sources.values():
        count *= len(source.rows)
        if count > MOST_CASES:
            raise BadFile("file_cases", file=flow.file, most=f"{MOST_CASES:,}")
    combined = []
    for rows in product(*(source.rows for source in sources.values())):
        row: dict[str, str] = {}
        for one, source in zip(rows, sources.values(), strict=True):
            row |= one | {variable: one.get(key, "") for variable, key in source.columns.items()}
            for key in set(source.columns.values()) - set(source.columns):
                row.pop(key, None)
        combined.append(row)
    if len(sources) > 1:
        notes.mapped(0, node.id, "product", n=count)
    return combined


def _is_past(edge: dict[str, str]) -> bool:
    """Whether an edge brings the turns before."""
    return name_of(edge["targetHandle"]).startswith("past_chats")


def _table(node: Node, file: str) -> Rows:
    """The rows by column key, and by the column's header where that is another name."""
    headers = {
        texts(c.get("key")): texts(c.get("header") or c.get("key"))
        for c in list_in(node.data, "columns")
        if isinstance(c, dict)
    }
    rows = []
    for one in list_in(node.data, "rows"):
        if isinstance(one, dict):
            cells = {key: texts(value) for key, value in one.items() if key not in ("__uid", "uid")}
            if typed(next(iter(cells.values()), None)) is not None and any(cell.strip() for cell in cells.values()):
                rows.append(
                    {
                        name_of(headers.get(key, key)): storable(cell, file, 0, f"{node.id}.{key}")
                        for key, cell in cells.items()
                    }
                )
    return rows


def _column(node: Node, handle: str) -> str | None:
    for one in list_in(node.data, "columns"):
        if isinstance(one, dict) and handle in (texts(one.get("key")), texts(one.get("header"))):
            return name_of(texts(one.get("header") or one.get("key")))
    return None


def _texts_of(node: Node, file: str) -> list[str]:
    if node.type == "csv":
        held = [part.strip() for part in re.split(r"[,\n]", texts(node.data.get("text") or ""))]
    else:
        fields, shown = table_in(node.data, "fields"), table_in(node.data, "fields_visibility")
        held = (
            [texts(text) for key, text in fields.items() if typed(shown.get(key, "true")) is not False]
            if isinstance(fields, dict)
            else []
        )
    return [storable(text, file, 0, node.id) for text in held if text.strip()]


def _case_rows(
    rows: Rows,
    column: str,
    checks: tuple[dict[str, Any], ...],
    name: str,
    cases: list[NewCase],
    flow: Flow,
    notes: Notes,
) -> list[NewSuite]:
    """Adds the cases; the column that the evaluators compare with is the expected answer and no variable any more."""
    start = len(cases)
    for row in rows:
        expected = row.get(column) if column else None
        values = {key: value for key, value in row.items() if key != PAST and (not column or key != column)}
        past = tuple(json.loads(row[PAST])) if PAST in row else None
        cases.append(NewCase(values=values if values or not past else None, conversation=past, expected=expected))
    if not rows:
        return []
    notes.taken(0, "rows", "cases_taken", n=len(rows))
    if not checks:
        return []
    notes.taken(0, "evaluators", "suite_taken", n=len(rows), checks=len(checks))
    return [NewSuite(name=name[:120], cases=tuple(range(start, len(cases))), checks=checks)]


def _system(model: dict[str, Any]) -> str:
    settings = model.get("settings")
    text = settings.get("system_msg") if isinstance(settings, dict) else None
    return str(text) if isinstance(text, str) and typed(text) is not None else ""


def _model(model: Any) -> str:
    return texts(model.get("name") or model.get("model") or "") if isinstance(model, dict) else texts(model)
