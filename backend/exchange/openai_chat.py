"""OpenAI's chat lines: one JSON table a line with ``messages``, as fine-tuning and batches have them, or with a preferred answer.

``{"messages": [...]}`` becomes a case: its turns, and the last assistant turn as the expected answer. With ``input``,
``preferred_output`` and ``non_preferred_output`` it becomes a comparison that is judged already. A line that our own export wrote of a
template is that template again; in any other line, what looks like a variable is text.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from backend.exchange.chats import chat_of
from backend.exchange.plan import (
    MOST_CASES,
    MOST_TEMPLATES,
    BadFile,
    NewCase,
    NewPair,
    NewTemplate,
    Notes,
    Plan,
    storable,
    variables_in,
)
from backend.exchange.tree import decoded, json_value, number, table_in, texts, typed
from backend.exchange.upload import Upload
from backend.prompts.problem import TemplateProblem
from backend.prompts.rows import PLACES, SYSTEM, USER, check_rows
from backend.prompts.template import Mode
from feedback_db.types import Message, Row

FORMAT = "openai-chat"
TEMPLATE = "whetstone_template"  # in the metadata of a line that is a template: text or chat
KNOWN = {
    "messages",
    "input",
    "preferred_output",
    "non_preferred_output",
    "custom_id",
    "body",
    "method",
    "url",
    "metadata",
}


def parse(upload: Upload) -> Plan:
    """Raises BadFile; a row that cannot be used is refused by line, and the others are taken."""
    notes = Notes(upload.main)
    cases: list[NewCase] = []
    pairs: list[NewPair] = []
    templates: list[NewTemplate] = []
    for at, line in enumerate(decoded(upload.data, upload.main).split("\n"), 1):
        if not line.strip():
            continue
        row = json_value(line, upload.main, at)
        if not isinstance(row, dict):
            raise BadFile("line_no_table", file=upload.main, line=at)
        if len(cases) + len(pairs) >= MOST_CASES:
            raise BadFile("file_cases", file=upload.main, most=f"{MOST_CASES:,}")
        if len(templates) > MOST_TEMPLATES:
            raise BadFile("many_templates", file=upload.main, most=f"{MOST_TEMPLATES:,}")
        if TEMPLATE in table_in(row, "metadata"):
            made = _template(row, table_in(row, "metadata"), notes, at)
            templates += [made] if made else []
        elif "preferred_output" in row or "non_preferred_output" in row:
            pair = _pair(row, notes, at)
            pairs += [pair] if pair else []
        else:
            case = _case(row, notes, at)
            cases += [case] if case else []
    if not cases and not pairs and not templates and not notes.kept:
        raise BadFile("file_empty", file=upload.main)
    name = PurePosixPath(upload.main).stem
    if cases:
        notes.taken(0, "messages", "cases_taken", n=len(cases))
    if pairs:
        notes.taken(0, "preferred_output", "pairs_taken", n=len(pairs))
    return Plan(
        format=FORMAT,
        source=upload.main,
        name=name,
        templates=tuple(templates),
        cases=tuple(cases),
        pairs=tuple(pairs),
        notes=tuple(notes.kept),
    )


def _template(row: dict[str, Any], told: dict[str, Any], notes: Notes, line: int) -> NewTemplate | None:
    turns = _turns(row.get("messages"), notes, line, "messages") if row.get("messages") else ()
    if turns is None:
        return None
    rows: list[Row] = [{"role": turn["role"], "text": turn["content"]} for turn in turns]
    for at, place in sorted((number(told.get(place)) or 0, place) for place in PLACES if place in told):
        rows.insert(int(at), {"role": place})
    mode: Mode = "logic" if told.get("mode") == "logic" else "plain"
    name = storable(texts(told.get("template") or "").strip()[:120] or "prompt", notes.file, line, "metadata")
    try:
        if told[TEMPLATE] == "chat":
            made = NewTemplate(name=name, rows=check_rows(rows, mode), mode=mode)
        else:
            system, body = ("".join(row["text"] for row in rows if row["role"] == role) for role in (SYSTEM, USER))
            made = NewTemplate(name=name, body=body, system_text=system, mode=mode)
        labels = json_value(texts(told["labels"]), notes.file, line) if "labels" in told else None
        made = replace(made, labels=tuple(map(texts, labels)) if isinstance(labels, list) and labels else None)
        variables_in(made)
    except TemplateProblem as problem:
        notes.refused(line, "messages", "template_problem", texts(row.get("messages")), problem=str(problem))
        return None
    notes.taken(line, "messages", "template_taken", name=name)
    return made


def _case(row: dict[str, Any], notes: Notes, line: int) -> NewCase | None:
    body = row["body"] if isinstance(row.get("body"), dict) else row
    for key in sorted(set(body) - KNOWN - {"model", "temperature", "max_tokens", "tools", "functions", "seed"}):
        notes.refused(line, key, "unknown_key", texts(body[key]), name=key)
    for key in ("tools", "functions"):
        if body.get(key):
            notes.refused(line, key, "tools", texts(body[key]))
            return None
    turns = _turns(body.get("messages"), notes, line, "messages")
    if turns is None:
        return None
    expected: str | None = None
    if turns[-1]["role"] == "assistant":
        if _is_unweighted(body["messages"][-1]):
            notes.mapped(line, "messages", "weight_zero")
        else:
            expected = turns[-1]["content"]
        turns = turns[:-1]
    if not turns or turns[-1]["role"] != "user":
        notes.refused(line, "messages", "no_question", texts(body.get("messages")))
        return None
    tags = (
        tuple(f"{key}:{texts(value)}" for key, value in table_in(row, "metadata").items())
        if isinstance(row.get("metadata"), dict)
        else ()
    )
    return NewCase(
        conversation=turns, expected=expected, tags=tuple(storable(tag, notes.file, line, "metadata") for tag in tags)
    )


def _pair(row: dict[str, Any], notes: Notes, line: int) -> NewPair | None:
    asked = row.get("input")
    turns = _turns(asked.get("messages") if isinstance(asked, dict) else None, notes, line, "input.messages")
    answers = [_turns(row.get(name), notes, line, name) for name in ("preferred_output", "non_preferred_output")]
    if turns is None or any(one is None for one in answers):
        return None
    better, worse = (
        one[0]["content"] if one and len(one) == 1 and one[0]["role"] == "assistant" else "" for one in answers
    )
    if turns[-1]["role"] != "user" or not better or not worse or better == worse:
        notes.refused(line, "preferred_output", "pair_form", texts(row))
        return None
    return NewPair(messages=turns, better=better, worse=worse)


def _turns(value: Any, notes: Notes, line: int, field: str) -> tuple[Message, ...] | None:
    turns = chat_of(value)
    if turns is None:
        notes.refused(line, field, "not_a_chat", texts(value) if value is not None else "")
        return None
    for i, turn in enumerate(turns, 1):
        storable(turn["content"], notes.file, line, f"{field}[{i}]")
    return turns


def _is_unweighted(turn: Any) -> bool:
    return isinstance(turn, dict) and typed(turn.get("weight")) == 0
