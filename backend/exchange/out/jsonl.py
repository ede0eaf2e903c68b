"""OpenAI's chat lines: one prompt a line, with the expected or the given answer as the last turn."""

from __future__ import annotations

import json
from typing import Any

from backend.exchange.out.sheet import Exported, Sheet
from backend.exchange.plan import Notes
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
            )
            for one in sheet.answers
            if not one.problem
        ]  # fmt: skip
    elif sheet.cases:
        rows = list(_cases(sheet))
    else:
        rows = [
            _row(_source(one.template.system_text, one.template.body), template=one.label) for one in sheet.templates
        ]
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


def _source(system_text: str, body: str) -> tuple[Message, ...]:
    turns: tuple[Message, ...] = ({"role": "system", "content": system_text}, {"role": "user", "content": body})
    return tuple(turn for turn in turns if turn["content"])
