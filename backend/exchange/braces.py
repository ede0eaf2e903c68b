"""Template languages of others to ours and back: Nunjucks and Jinja to plain or logic, plain to Nunjucks.

A plain template knows ``{{name}}`` and nothing else; every other brace is text. In Nunjucks ``{{``, ``{%`` and ``{#`` always begin
something, so they are written there as ``{{ "{{" }}``: the constant is printed as it is. Reading that back gives the brace again.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

from backend.prompts.problem import TemplateProblem
from backend.prompts.template import Mode, compile_template

Piece = tuple[Literal["text", "variable"], str]

NAME = re.compile(r"[^\W\d]\w*\Z")
_PLAIN = re.compile(r"\{\{[ \t]*([^\W\d]\w*)[ \t]*\}\}")
_OPENS = re.compile(r"\{\{|\{%|\{#")
_TOKEN = re.compile(
    r"\{%-?\s*raw\s*-?%\}(?P<raw>.*?)\{%-?\s*endraw\s*-?%\}"
    r"|\{\{\s*(?P<name>[^\W\d]\w*)\s*\}\}"
    r"|\{\{\s*(?P<constant>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')\s*\}\}"
    r"|\{#.*?#\}",
    re.DOTALL,
)
_HALF = re.compile(r"\{%[^%]*$|\{\{[^}]*$|\{#[^#]*$", re.MULTILINE)  # promptfoo takes such a prompt as text


class Converted(NamedTuple):
    body: str
    mode: Mode


class CannotConvert(ValueError):
    """A template that ours cannot say; the message says why."""


def from_nunjucks(text: str, *, of_promptfoo: bool = True) -> Converted:
    """A Nunjucks or Jinja template as ours: plain where it only names variables, else logic. Raises CannotConvert."""
    if of_promptfoo and _HALF.search(text) and not re.search(r"\{%\s*(end)?raw\s*%\}", text):
        return compose([("text", text)])
    pieces = _read(text)
    return _logic(text) if pieces is None else compose(pieces)


def constant_of(text: str) -> str | None:
    """The text that a Nunjucks template always prints; None where it depends on anything."""
    pieces = _read(text)
    if pieces is None or any(kind == "variable" for kind, _ in pieces):
        return None
    return "".join(piece for _, piece in pieces)


def _read(text: str) -> list[Piece] | None:
    """Texts and variables in turn; None where there is more: conditions, loops, filters, white space taken away."""
    pieces: list[Piece] = []
    place = 0
    for match in _TOKEN.finditer(text):
        pieces.append(("text", text[place : match.start()]))
        place = match.end()
        if match["name"]:
            pieces.append(("variable", match["name"]))
        elif match["raw"] is not None:
            pieces.append(("text", match["raw"]))
            if match[0].startswith("{%-") or "-%}" in match[0]:
                return None
        elif match["constant"]:
            pieces.append(("text", _constant(match["constant"])))
    pieces.append(("text", text[place:]))
    return None if _OPENS.search(_TOKEN.sub("", text)) else pieces


def compose(pieces: list[Piece]) -> Converted:
    """The template of these pieces. Text that would read as a variable makes it a logic template, where it is a constant."""
    wanted = _joined(pieces)
    body = "".join(f"{{{{{text}}}}}" if kind == "variable" else text for kind, text in wanted)
    if _joined(pieces_of(body)) == wanted:
        return _checked(body, "plain")
    return _checked("".join(_written(kind, text, wanted, i) for i, (kind, text) in enumerate(wanted)), "logic")


def pieces_of(body: str) -> list[Piece]:
    """A plain template, text and variables in turn."""
    found: list[Piece] = []
    place = 0
    for match in _PLAIN.finditer(body):
        found += [("text", body[place : match.start()]), ("variable", match[1])]
        place = match.end()
    return [*found, ("text", body[place:])]


def to_nunjucks(body: str, mode: Mode = "plain") -> str:
    """A template as Nunjucks reads it; a logic template is written in what both languages share."""
    if mode == "logic":
        return re.sub(r"\|\s*tojson\b(\(\))?", "| dump", body)
    pieces = _joined(pieces_of(body))
    return "".join(_written(kind, text, pieces, i) for i, (kind, text) in enumerate(pieces))


def literal(text: str) -> str:
    """A text that Nunjucks prints as it is."""
    return _OPENS.sub(lambda match: f'{{{{ "{match[0]}" }}}}', text)


def _written(kind: str, text: str, pieces: list[Piece], place: int) -> str:
    if kind == "variable":
        return f"{{{{ {text} }}}}"
    out = literal(text)
    sticks = out.endswith("{") and place + 1 < len(pieces)  # to the brace that follows
    return out[:-1] + '{{ "{" }}' if sticks else out


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Without empty texts, and texts that follow each other as one."""
    joined: list[Piece] = []
    for kind, text in pieces:
        if kind == "text" and joined and joined[-1][0] == "text":
            joined[-1] = ("text", joined[-1][1] + text)
        elif text:
            joined.append((kind, text))
    return joined


def _constant(quoted: str) -> str:
    if quoted[0] == '"':
        try:
            return str(json.loads(quoted))
        except ValueError:
            return quoted[1:-1]
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])


def _logic(text: str) -> Converted:
    body = re.sub(r"\|\s*dump\b(\(\))?", "| tojson", text)
    return _checked(re.sub(r"(\{%-?\s*)elseif\b", r"\1elif", body), "logic")


def _checked(body: str, mode: Mode) -> Converted:
    try:
        compile_template(body, mode)
    except TemplateProblem as problem:
        raise CannotConvert(str(problem)) from None
    return Converted(body, mode)
