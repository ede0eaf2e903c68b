"""OpenAI's chat lines: one JSON table a line with ``messages``, as fine-tuning and batches have them, or with a preferred answer.

``{"messages": [...]}`` becomes a case: its turns, and the last assistant turn as the expected answer. With ``input``,
``preferred_output`` and ``non_preferred_output`` it becomes a comparison that is judged already.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from backend.exchange.chats import chat_of
from backend.exchange.plan import MOST_CASES, BadFile, NewCase, NewPair, Notes, Plan, storable
from backend.exchange.tree import decoded, json_value, table_in, texts, typed
from backend.exchange.upload import Upload
from feedback_db.types import Message

FORMAT = "openai-chat"
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
    for number, line in enumerate(decoded(upload.data, upload.main).split("\n"), 1):
        if not line.strip():
            continue
        row = json_value(line, upload.main, number)
        if not isinstance(row, dict):
            raise BadFile("line_no_table", file=upload.main, line=number)
        if len(cases) + len(pairs) >= MOST_CASES:
            raise BadFile("file_cases", file=upload.main, most=f"{MOST_CASES:,}")
        if "preferred_output" in row or "non_preferred_output" in row:
            pair = _pair(row, notes, number)
            pairs += [pair] if pair else []
        else:
            case = _case(row, notes, number)
            cases += [case] if case else []
    if not cases and not pairs and not notes.kept:
        raise BadFile("file_empty", file=upload.main)
    name = PurePosixPath(upload.main).stem
    if cases:
        notes.taken(0, "messages", "cases_taken", n=len(cases))
    if pairs:
        notes.taken(0, "preferred_output", "pairs_taken", n=len(pairs))
    return Plan(
        format=FORMAT, source=upload.main, name=name, cases=tuple(cases), pairs=tuple(pairs), notes=tuple(notes.kept)
    )


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
