"""Templates: text with ``{{variables}}``, compiled safely and filled once.

Two modes. In ``plain`` (the default) one regex fills ``{{name}}`` and every other brace is text. ``logic`` is a small
part of Jinja: conditions, loops, filters; no calls, no assignments, no arithmetic, nothing that can run for long.

A line that holds only ``{{demonstrations}}`` marks the place of the demonstrations when they are written as text. It is
replaced, line break included, by the demonstrations; where there are none it vanishes. The body after it is the form
of the case, and each demonstration is written in that same form (see chat.py).

Values go in once: a brace inside a value is text and is never looked at again.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from .logic import LogicPart, compile_logic
from .problem import MAX_OUTPUT, MAX_SOURCE_BYTES, TemplateProblem

Mode = Literal["plain", "logic"]
MARKER = "demonstrations"

_VARIABLE = re.compile(r"\{\{[ \t]*([^\W\d]\w*)[ \t]*\}\}")
_MARKER_LINE = re.compile(r"^[ \t]*\{\{[ \t]*demonstrations[ \t]*\}\}[ \t]*(?:\r?\n|\Z)", re.MULTILINE)


@dataclass(frozen=True)
class PlainPart:
    """A stretch of a plain template; ``first_line`` is where it begins in the body."""

    source: str
    first_line: int

    @cached_property
    def variables(self) -> dict[str, int]:
        """Name -> line of its first use."""
        found: dict[str, int] = {}
        for match in _VARIABLE.finditer(self.source):
            found.setdefault(match[1], self.first_line + self.source.count("\n", 0, match.start()))
        return found

    def render(self, values: Mapping[str, Any]) -> str:
        if not self.variables:
            return self.source
        missing = next((name for name in self.variables if name not in values), None)
        if missing is not None:
            raise TemplateProblem.undefined(missing, self.variables[missing])
        return _VARIABLE.sub(lambda match: _as_text(match[1], values[match[1]]), self.source)


Part = PlainPart | LogicPart


@dataclass(frozen=True)
class Compiled:
    """A template that is ready to be filled: ``head`` stands before the demonstrations, ``tail`` is the form of the case."""

    body: str
    mode: Mode
    head: Part | None  # None: the body marks no place for demonstrations
    tail: Part
    variables: tuple[str, ...]


def compile_template(body: str, mode: Mode = "plain") -> Compiled:
    """Check and prepare a body. Raises TemplateProblem with the line and what to do."""
    if mode not in ("plain", "logic"):
        raise TemplateProblem(
            f'There is no template mode "{mode}". Choose "plain" or "logic".', None, "template_mode", mode=mode
        )
    size = len(_encoded(body))
    if size > MAX_SOURCE_BYTES:
        raise TemplateProblem(
            f"The template has {size:,} bytes; at most {MAX_SOURCE_BYTES:,} are allowed. Shorten it.", None, "template_bytes",
            size=f"{size:,}", most=f"{MAX_SOURCE_BYTES:,}",
        )  # fmt: skip
    head_source, tail_source, tail_line = _divided(body)
    head = None if head_source is None else _part(head_source, 1, mode)
    tail = _part(tail_source, tail_line, mode)
    used = {**(head.variables if head else {}), **tail.variables}
    if MARKER in used:
        raise TemplateProblem(
            "{{demonstrations}} marks the place of the demonstrations; put it on a line of its own, once.",
            used[MARKER],
            "template_marker",
        )
    names = dict.fromkeys([*(head.variables if head else ()), *tail.variables])
    return Compiled(body, mode, head, tail, tuple(names))


def variables(body: str, mode: Mode = "plain") -> tuple[str, ...]:
    """The variables a body asks for, in the order of their first use."""
    return compile_template(body, mode).variables


def render(compiled: Compiled, values: Mapping[str, Any]) -> str:
    """The body filled with values, without demonstrations."""
    return render_around(compiled, values, "")


def render_around(compiled: Compiled, values: Mapping[str, Any], demonstrations: str) -> str:
    """The body filled with values, and a text at the place of the demonstrations (before the body if none is marked)."""
    return fill(compiled, checked_values(values), demonstrations)


def fill(compiled: Compiled, checked: Mapping[str, Any], demonstrations: str = "") -> str:
    """As ``render_around``, of values that were checked already: once for all texts of a prompt."""
    head = compiled.head.render(checked) if compiled.head else ""
    text = head + demonstrations + compiled.tail.render(checked)
    if len(text) > MAX_OUTPUT:
        raise TemplateProblem(
            f"The prompt has {len(text):,} characters; at most {MAX_OUTPUT:,} are allowed. Shorten its values.",
            None,
            "prompt_characters",
            size=f"{len(text):,}",
            most=f"{MAX_OUTPUT:,}",
        )
    return text


def render_tail(compiled: Compiled, values: Mapping[str, Any]) -> str:
    """Only the form of the case: what stands after the marked place, or the whole body."""
    return compiled.tail.render(checked_values(values))


def checked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain JSON types, each of at most 256 KB and writable as UTF-8."""
    return {str(name): _plain_value(str(name), value) for name, value in values.items()}


def _divided(body: str) -> tuple[str | None, str, int]:
    """The text before the marker line (None without one), the text after it, and the line on which that begins."""
    match = _MARKER_LINE.search(body)
    if match is None:
        return None, body, 1
    return body[: match.start()], body[match.end() :], 1 + body.count("\n", 0, match.end())


def _part(source: str, first_line: int, mode: Mode) -> Part:
    return PlainPart(source, first_line) if mode == "plain" else compile_logic(source, first_line)


def _encoded(text: str, name: str | None = None) -> bytes:
    """Of a value of this name, or of the template itself."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        what = "The template" if name is None else f'The value of "{name}"'
        raise TemplateProblem(
            f"{what} holds half of a character pair that cannot be stored. Type or paste the text again.",
            None,
            "half_in_template" if name is None else "half_in_value",
            name=name,
        ) from None


def _plain_value(name: str, value: Any) -> Any:
    size = 0
    for text in _texts(name, value):
        size += len(_encoded(text, name))
        if size > MAX_OUTPUT:
            raise TemplateProblem(
                f'The value of "{name}" is larger than {MAX_OUTPUT // 1024} KB. Shorten it.', None, "value_large",
                name=name, most=MAX_OUTPUT // 1024,
            )  # fmt: skip
    return str.__str__(value) if isinstance(value, str) else value


def _texts(name: str, value: Any, depth: int = 0) -> Iterator[str]:
    """Every text inside a value, one character for anything else; refuses what is not plain JSON."""
    if isinstance(value, str):
        yield value
    elif value is None or isinstance(value, bool | float):
        yield "-"
    elif type(value) is int:
        if value.bit_length() > 4096:
            raise TemplateProblem(
                f'The number in "{name}" has too many digits. Give it as a text.', None, "value_digits", name=name
            )
        yield "-"
    elif isinstance(value, list | tuple | dict) and depth < 8:
        yield "--"
        for item in value:
            yield from _texts(name, item, depth + 1)
            if isinstance(value, dict):
                yield from _texts(name, value[item], depth + 1)
    else:
        raise TemplateProblem(
            f'The value of "{name}" is of a kind that cannot be written ({type(value).__name__}). '
            "Give a text, a number, or a list or table of them at most 8 deep.",
            None,
            "value_kind",
            name=name,
            kind=type(value).__name__,
        )


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise TemplateProblem(
        f'The value of "{name}" is a {type(value).__name__}; a plain template takes texts and numbers. '
        'Give a text, or switch the template to "logic".',
        None,
        "value_not_plain",
        name=name,
        kind=type(value).__name__,
    )
