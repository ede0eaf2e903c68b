"""OpenAI's chat lines: one prompt a line, with the expected or the given answer as the last turn."""

from __future__ import annotations

import json
from typing import Any

from backend.exchange.openai_chat import TEMPLATE
from backend.exchange.out.sheet import Exported, Sheet, Shown
from backend.exchange.plan import Notes
from backend.prompts.rows import rows_told
from feedback_db.cases import conversation
from feedback_db.types import Message

Row = dict[str, Any]


def lines(sheet: Sheet, notes: Notes) -> Exported:
    """Answers of a run, or cases in every template, or, without cases, the templates with their variables."""
    if sheet.answers:
        rows = [
            _row(
                (*one.messages, {"role": "assistant", "content": one.text}),
                template=one.label, model=one.model, repeat=str(one.repeat), passed=str(one.passed).lower(), score=f"{one.score:g}",
                **({} if one.temperature is None else {"temperature": f"{one.temperature:g}"}),
            )
            for one in sheet.answers
            if not one.problem
        ]  # fmt: skip
    elif sheet.cases:
        rows = list(_cases(sheet))
    else:
        rows = [_template(one, notes) for one in sheet.templates]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Exported("chats.jsonl", "application/jsonl", text.encode("utf-8"), tuple(notes.kept))


def _cases(sheet: Sheet) -> list[Row]:
    rows = []
    for case, written in zip(sheet.cases, sheet.written, strict=True):
        known = {"expected": case.expected} if case.expected is not None else {}
        plain = {"": tuple(conversation(case.values, case.conversation))} if not sheet.templates else {}
        for label, messages in (plain or written).items():
            last = ({"role": "assistant", "content": known["expected"]},) if known else ()
            rows.append(_row((*messages, *last), **({"template": label} if label else {})))
    return rows


def _row(messages: tuple[Message, ...], **metadata: str) -> Row:
    return {"messages": [dict(turn) for turn in messages], **({"metadata": metadata} if metadata else {})}


def _template(one: Shown, notes: Notes) -> Row:
    """A template with its variables; an import here reads it back as one by what stands in its metadata."""
    rows = rows_told(one.template)
    said: tuple[Message, ...] = tuple({"role": row["role"], "content": row["text"]} for row in rows if "text" in row)
    places = {row["role"]: str(at) for at, row in enumerate(rows) if "text" not in row}
    kind = "chat" if one.template.rows else "text"
    labels = {"labels": json.dumps(list(one.template.labels), ensure_ascii=False)} if one.template.labels else {}
    if one.demonstrations or one.demonstrations is None:
        notes.refused(0, one.label, "shown_left")
    return _row(said, template=one.label, **{TEMPLATE: kind}, mode=one.template.mode, **places, **labels)
