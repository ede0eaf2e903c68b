"""Templates of ours inside the files of other tools: what such a file has no words for stands beside it, and an import here reads it.

Places for demonstrations and turns, and demonstrations that are asked without words of their own, are not seen in a list of turns. An
entry holds the template itself and the digest of the prompt that it belongs to: a prompt that somebody changed is read as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend.exchange.chats import as_template
from backend.exchange.out.sheet import Shown
from backend.exchange.plan import NewDemonstration, NewTemplate, Notes, storable
from backend.exchange.tree import list_in, texts
from backend.prompts.chat import PromptProblem
from backend.prompts.digest import digest_of
from backend.prompts.problem import TemplateProblem
from backend.prompts.rows import check_rows
from backend.prompts.template import Mode, compile_template
from feedback_db.types import Row

Entry = dict[str, Any]


def entry(one: Shown, raw: str) -> Entry | None:
    """What an import needs beside the prompt to get the template back; None where the prompt says it all, or where the demonstrations
    depend on the case."""
    template, shape = one.template, one.template.few_shot.get("shape", "turns")
    shown = tuple(NewDemonstration(input=d.input, output=d.output) for d in one.demonstrations or ())
    in_turns = bool(shown) and shape == "turns"
    if one.demonstrations is None or not (template.rows or in_turns):
        return None
    wanted = NewTemplate(
        name=one.label, body=template.body, rows=template.rows, mode=template.mode, system_text=template.system_text, shown=shown,
        shape=shape,
    )  # fmt: skip
    if as_template(raw, one.label, Notes(""), 0, "") == wanted:
        return None
    said = {"mode": template.mode, "rows": [dict(row) for row in template.rows]} if template.rows else {
        "mode": template.mode, "system_text": template.system_text, "body": template.body
    }  # fmt: skip
    kept = [{"input": d.input, "output": d.output} for d in shown]
    return {"of": digest_of(raw).hex(), **said, **({"demonstrations": kept, "shape": shape} if kept else {})}


def restored(held: Any, raw: str, name: str, notes: Notes, line: int, field: str) -> NewTemplate | None:
    """The template of an entry; None where there is none, or where it belongs to another prompt or cannot be used."""
    if not isinstance(held, Mapping) or texts(held.get("of") or "") != digest_of(raw).hex():
        return None
    mode: Mode = "logic" if texts(held.get("mode") or "") == "logic" else "plain"
    try:
        made = made_of(held, name, mode, notes, line, field)
    except (TemplateProblem, PromptProblem) as problem:
        notes.refused(line, field, "template_problem", texts(held), problem=str(problem))
        return None
    shown = tuple(
        NewDemonstration(input=_text(one, "input", notes, line), output=_text(one, "output", notes, line))
        for one in list_in(dict(held), "demonstrations")
        if isinstance(one, dict)
    )
    notes.taken(line, field, "template_taken", name=made.name)
    return replace(made, shown=shown, shape="text" if texts(held.get("shape") or "") == "text" else "turns")


def made_of(held: Mapping[str, Any], name: str, mode: Mode, notes: Notes, line: int, field: str) -> NewTemplate:
    """A template of ``rows``, or of ``system_text`` and ``body``. Raises TemplateProblem."""
    title = storable(name.strip()[:120] or "prompt", notes.file, line, field)
    given = list_in(dict(held), "rows")
    if given:
        rows: list[Row] = [
            {"role": texts(one.get("role") or ""), "text": _text(one, "text", notes, line)}
            for one in given
            if isinstance(one, dict)
        ]
        return NewTemplate(name=title, rows=check_rows(rows, mode), mode=mode)
    system, body = (_text(held, key, notes, line) for key in ("system_text", "body"))
    for text in (system, body):
        compile_template(text, mode)
    return NewTemplate(name=title, body=body, system_text=system, mode=mode)


def _text(held: Mapping[str, Any], key: str, notes: Notes, line: int) -> str:
    value = held.get(key)
    return storable(texts(value) if value is not None else "", notes.file, line, key)
