"""Prompts of others, a text or a list of turns, as templates: the system text, demonstrations, and the body that asks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from backend.exchange.braces import CannotConvert, Converted, constant_of, from_nunjucks, pieces_of, to_nunjucks
from backend.exchange.plan import BadFile, NewDemonstration, NewTemplate, Notes, storable
from backend.exchange.tree import json_value, read_yaml, texts
from backend.prompts.fewshot import MOST_DEMONSTRATIONS
from backend.prompts.problem import TemplateProblem
from backend.prompts.rows import SYSTEM, TURNS, USER, check_rows, row
from backend.prompts.template import Mode, compile_template
from feedback_db.types import Message, Row

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
INPUT = "input"  # what a demonstration's input takes the place of
ASKED, ANSWERED = ("inputs", "input"), ("outputs", "output")
_LOOP = re.compile(
    r"\{%-?\s*for\s+\w+\s+in\s+\w+\s*-?%\}(?P<inner>(?:(?!\{%).){1,2000})\{%-?\s*endfor\s*-?%\}\s*,?", re.DOTALL
)
_WRITES_TURNS = re.compile(
    r"\.role\b.*\.content\b|\.inputs?\b.*\.outputs?\b", re.DOTALL
)  # what is written of each turn


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


def history_of(value: Any) -> tuple[Message, ...] | None:
    """Earlier turns in the forms that other tools have them: turns with roles, or answers beside what was asked. None where it is
    neither."""
    turns = chat_of(value)
    if turns is not None or not isinstance(value, list) or not value:
        return turns
    found: list[Message] = []
    for one in value:
        pair = [_only(one, names) for names in (ASKED, ANSWERED)] if isinstance(one, dict) else [None]
        if any(text is None for text in pair):
            return None
        found += [{"role": role, "content": str(text)} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return tuple(found)


def with_turns(text: str, marker: str) -> str:
    """The text with ``marker`` in the place of every loop that writes out earlier turns, role by role."""
    return _LOOP.sub(lambda match: marker if _WRITES_TURNS.search(match["inner"]) else match[0], text)


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
    """Turns as a template: leading system turns, then earlier turns, then what is asked.

    Earlier turns are demonstrations where they ask in a form that the question shares, and rows of a chat template otherwise. A turn
    of the role ``turns`` is the place of the case's own.
    """
    count = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    rest = turns[count:]
    if not rest or rest[-1]["role"] not in (USER, TURNS) or any(turn["role"] == "system" for turn in rest):
        notes.refused(line, field, "chat_form", _shown(turns))
        return None
    system = "\n\n".join(turn["content"] for turn in turns[:count])
    told = [row(turn["role"], turn["content"]) for turn in rest]
    try:
        rows = _converted([*([row(SYSTEM, system)] if system else []), *told], of_promptfoo)
        made = _made(rows.rows, rows.mode, rest)
    except (CannotConvert, TemplateProblem) as problem:
        notes.refused(line, field, "template_problem", _shown(turns), problem=str(problem))
        return None
    if made.shown:
        notes.mapped(line, field, "turns_shown", n=len(made.shown))
    elif made.rows:
        notes.mapped(line, field, "turns_rows", n=sum(turn["role"] != TURNS for turn in rest[:-1]))
    if any(turn["role"] == TURNS for turn in rest):
        notes.mapped(line, field, "turns_place")
    if made.mode == "logic":
        notes.mapped(line, field, "logic")
    return replace(made, name=storable(name.strip()[:120] or "prompt", notes.file, line, field))


class _Rows(NamedTuple):
    rows: list[Row]
    mode: Mode


def _converted(told: Sequence[Row], of_promptfoo: bool) -> _Rows:
    """Rows in our language, all in one mode: logic where any of them is."""
    found = [from_nunjucks(one["text"], of_promptfoo=of_promptfoo) if "text" in one else None for one in told]
    mode: Mode = "logic" if any(one and one.mode == "logic" for one in found) else "plain"
    rows = []
    for one, said in zip(told, found, strict=True):
        body = "" if said is None else said.body
        rows.append(row(one["role"], to_nunjucks(body) if said and said.mode != mode else body))
    for one in rows:
        compile_template(one.get("text", ""), mode)
    return _Rows(rows, mode)


def _made(rows: Sequence[Row], mode: Mode, rest: Sequence[Message]) -> NewTemplate:
    """A text template where nothing stands before the question but a system text and demonstrations, else a chat template."""
    system = rows[0]["text"] if rows[0]["role"] == SYSTEM else ""
    asks = rows[-1].get("text", "")
    if rest[-1]["role"] == USER:
        shown = _demonstrations(rest[:-1], Converted(asks, mode))
        if shown is not None:
            return NewTemplate(name="", body=asks, mode=mode, system_text=system, shown=shown)
    return NewTemplate(name="", rows=check_rows(rows, mode), mode=mode)


def _demonstrations(turns: Sequence[Message], body: Converted) -> tuple[NewDemonstration, ...] | None:
    """Turns before the question as demonstrations, when the body has words of its own and would ask them in these; else None."""
    if not turns:
        return ()
    pieces = pieces_of(body.body)
    names = [text for kind, text in pieces if kind == "variable"]
    roles = [turn["role"] for turn in turns]
    if names != [INPUT] or body.mode != "plain" or roles != ["user", "assistant"] * (len(turns) // 2):
        return None
    before, after = pieces[0][1], pieces[-1][1]
    if not (before + after).strip():
        return None  # any turn is asked like a bare {{input}}: that says nothing of what it is
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
            return _chat_with_turns(bare)
        if re.match(r"-\s+role\s*:", bare):
            return chat_of(read_yaml(bare.encode("utf-8"), "prompt").value)
    except BadFile:
        pass
    return None


def _chat_with_turns(text: str) -> tuple[Message, ...] | None:
    """The JSON of a chat, in which a loop over earlier turns is their place."""
    marked = re.sub(r",\s*\]\s*\Z", "]", with_turns(text, json.dumps({"role": TURNS}) + ","))
    value = json_value(marked, "prompt", 0)
    if not isinstance(value, list) or marked == text:
        return chat_of(value)
    turns = chat_of([one for one in value if one != {"role": TURNS}])
    if turns is None:
        return None
    said = iter(turns)
    return tuple({"role": TURNS, "content": ""} if one == {"role": TURNS} else next(said) for one in value)


def _only(value: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The text of one of these fields; in a table the text of its only field."""
    inner = next((value[name] for name in names if name in value), None)
    if isinstance(inner, dict) and len(inner) == 1:
        (inner,) = inner.values()
    return str(inner) if isinstance(inner, str) else None


def _shown(turns: Sequence[Message]) -> str:
    if len(turns) == 1:
        return turns[0]["content"]
    return texts([{"role": turn["role"], "content": turn["content"]} for turn in turns])
