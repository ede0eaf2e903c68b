"""Plain text for people: every prompt turn by turn, what was expected, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterable

from backend.exchange.out.sheet import Answered, Exported, Sheet
from backend.exchange.plan import Notes
from backend.prompts.rows import rows_told
from feedback_db.cases import conversation
from feedback_db.types import Message


def text(sheet: Sheet, notes: Notes) -> Exported:
    parts = [sheet.title, "=" * max(3, min(len(sheet.title), 80)), ""]
    for one in sheet.templates:
        parts += [f"# Template {one.label} (version {one.template.version}, {one.template.mode})", ""]
        parts += _turns({"role": row["role"], "content": row.get("text", "...")} for row in rows_told(one.template))
        for i, demonstration in enumerate(one.demonstrations or (), 1):
            parts += [f"[demonstration {i}]", demonstration.input, "->", demonstration.output, ""]
    if sheet.checks:
        parts += ["# Checks", "", *(json.dumps(row, ensure_ascii=False) for row in sheet.checks)]
        parts += ["" if sheet.threshold is None else f"threshold {sheet.threshold:g}", ""]
    for place, case in enumerate(sheet.cases):
        parts += [f"# Case {place + 1}", ""]
        answers = [one for one in sheet.answers if one.case == place]
        written = sheet.written[place]
        if not written and not answers:
            parts += _turns(conversation(case.values, case.conversation))
        for label, messages in ({} if answers else written).items():
            parts += [f"## {label}", "", *_turns(messages)]
        if case.expected is not None:
            parts += ["[expected]", case.expected, ""]
        for answer in answers:
            parts += [
                f"## {answer.title}",
                "",
                *_turns(answer.messages),
                *_answer(answer),
            ]
    return Exported("prompts.txt", "text/plain", "\n".join(parts).encode("utf-8"), tuple(notes.kept))


def _turns(messages: Iterable[Message]) -> list[str]:
    return [line for turn in messages if turn["content"] for line in (f"[{turn['role']}]", turn["content"], "")]


def _answer(one: Answered) -> list[str]:
    if one.problem:
        return ["[no answer]", one.problem, ""]
    passed = "passed" if one.passed else "failed"
    return [f"[answer: {passed}, score {one.score:.2f}]", one.text, "", *(f"- {reason}" for reason in one.reasons), ""]
