"""Prompts of others, a text or a list of turns, as templates: the system text, demonstrations, and the body that asks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from backend.exchange.braces import CannotConvert, Converted, constant_of, from_nunjucks, pieces_of, to_nunjucks
from backend.exchange.plan import BadFile, NewDemonstration, NewTemplate, Notes, storable
from backend.exchange.tree import json_value, read_yaml, texts
from backend.prompts.fewshot import MOST_DEMONSTRATIONS
from backend.prompts.problem import TemplateProblem
from backend.prompts.template import Mode, compile_template
from feedback_db.types import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
INPUT = "input"  # what a demonstration's input takes the place of


def chat_of(value: Any) -> tuple[Message, ...] | None:
    """A list of {"role", "content"} as messages, or None when it is no such list, or holds more than text."""
    if not isinstance(value, list) or not value:
        return None
    turns: list[Message] = []
    for one in value:
        if not isinstance(one, dict) or str(one.get("role")) not in ROLES:
            return None
        content = one.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            if len(parts) != len(content) or not all(isinstance(part, str) for part in parts):
                return None
            content = "".join(str(part) for part in parts)
        if not isinstance(content, str) or set(one) & {"tool_calls", "function_call"}:
            return None
        turns.append({"role": ROLES[str(one["role"])], "content": str(content)})
    return tuple(turns)


def as_template(
    text: str, name: str, notes: Notes, line: int, field: str, *, of_promptfoo: bool = True
) -> NewTemplate | None:
    """A prompt's source: the JSON or YAML of a chat, or one text. None where it is refused, with a note."""
    storable(text, notes.file, line, field)
    turns = _turns_in(text)
    made = template_of(
        turns or ({"role": "user", "content": text},), name, notes, line, field, of_promptfoo=of_promptfoo and not turns
    )
    if made is not None:
        notes.taken(line, field, "template_taken", name=made.name)
    return made


def template_of(
    turns: Sequence[Message], name: str, notes: Notes, line: int, field: str, *, of_promptfoo: bool = True
) -> NewTemplate | None:
    """Turns as a template: leading system turns, then question and answer pairs as demonstrations, then what is asked."""
    count = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    system, rest = turns[:count], turns[count:]
    if not rest or rest[-1]["role"] != "user" or any(turn["role"] == "system" for turn in rest):
        notes.refused(line, field, "chat_form", _shown(turns))
        return None
    try:
        both = _alike(
            from_nunjucks("\n\n".join(turn["content"] for turn in system), of_promptfoo=of_promptfoo),
            from_nunjucks(rest[-1]["content"], of_promptfoo=of_promptfoo),
        )
    except (CannotConvert, TemplateProblem) as problem:
        notes.refused(line, field, "template_problem", _shown(turns), problem=str(problem))
        return None
    shown = _demonstrations(rest[:-1], both[1])
    if shown is None:
        notes.refused(line, field, "chat_turns", _shown(turns))
        return None
    if shown:
        notes.mapped(line, field, "turns_shown", n=len(shown))
    if both[1].mode == "logic":
        notes.mapped(line, field, "logic")
    system_text, body = both[0].body, both[1].body
    return NewTemplate(name=storable(name.strip()[:120] or "prompt", notes.file, line, field), body=body, mode=both[1].mode,
                       system_text=system_text, shown=shown)  # fmt: skip


def _alike(system: Converted, body: Converted) -> tuple[Converted, Converted]:
    """Both in one mode: a template has one for its system text and its body."""
    if system.mode == body.mode:
        return system, body
    mode: Mode = "logic"
    both = [Converted(to_nunjucks(one.body) if one.mode == "plain" else one.body, mode) for one in (system, body)]
    for one in both:
        compile_template(one.body, mode)
    return both[0], both[1]


def _demonstrations(turns: Sequence[Message], body: Converted) -> tuple[NewDemonstration, ...] | None:
    """Turns before the question as demonstrations, when the body would ask them in the same words; else None."""
    if not turns:
        return ()
    pieces = pieces_of(body.body)
    names = [text for kind, text in pieces if kind == "variable"]
    roles = [turn["role"] for turn in turns]
    if names != [INPUT] or body.mode != "plain" or roles != ["user", "assistant"] * (len(turns) // 2):
        return None
    before, after = pieces[0][1], pieces[-1][1]
    found = []
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        text, answer = constant_of(asked["content"]), constant_of(answered["content"])
        if text is None or answer is None:
            return None
        if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
            return None
        found.append(NewDemonstration(input=text[len(before) : len(text) - len(after)], output=answer))
    return tuple(found) if len(found) <= MOST_DEMONSTRATIONS else None


def _turns_in(text: str) -> tuple[Message, ...] | None:
    bare = text.strip()
    try:
        if bare.startswith("["):
            return chat_of(json_value(bare, "prompt", 0))
        if re.match(r"-\s+role\s*:", bare):
            return chat_of(read_yaml(bare.encode("utf-8"), "prompt").value)
    except BadFile:
        pass
    return None


def _shown(turns: Sequence[Message]) -> str:
    if len(turns) == 1:
        return turns[0]["content"]
    return texts([{"role": turn["role"], "content": turn["content"]} for turn in turns])
