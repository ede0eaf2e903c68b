"""Templates as rows: who says what, in which order, and where the demonstrations and the case's own turns go.

A chat template is a free list of rows. A text template (a system text and one body) is four rows of the same kind, so there is one way
from a template to messages. Rows of the roles ``demonstrations`` and ``turns`` are places and have no text of their own.

The last row asks: demonstrations are asked in its form, and ``{{demonstrations}}`` on a line of its own may stand in it. Where the last
row is the place of the case's turns, the case asks by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from feedback_db.types import Row, Template

from .fewshot import leaks
from .problem import MAX_SOURCE_BYTES, TemplateProblem
from .template import Compiled, Mode, compile_template, fill

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
DEMONSTRATIONS, TURNS = "demonstrations", "turns"
SPEAKERS = (SYSTEM, USER, ASSISTANT)
PLACES = (DEMONSTRATIONS, TURNS)
MOST_ROWS = 64  # our choice
COMPILED_AT_ONCE = 64  # templates whose compiled rows are kept; our choice


class RowProblem(TemplateProblem):
    """A list of rows that cannot be a chat template; ``row`` counts from 1."""

    def __init__(self, row: int, message: str, code: str = "", **values: object):
        within = message.replace("Line ", "line ", 1) if message.startswith("Line ") else message
        super().__init__(f"Row {row}{',' if within is not message else ':'} {within}")
        self.row, self.code, self.values = row, code, {"row": row, **values}


def within(row: int, problem: TemplateProblem) -> RowProblem:
    """What is wrong with the text of a row."""
    if problem.line is None:
        return RowProblem(row, str(problem), "row_text", problem=problem)
    inner = TemplateProblem(problem.sentence, None, problem.code, **problem.values)
    return RowProblem(row, str(problem), "row_line", line=problem.line, problem=inner)


class CompiledRow(NamedTuple):
    """A row that is ready to be filled. ``number`` is its place in a chat template from 1, 0 where the author wrote no row."""

    role: str
    text: Compiled | None  # None: a place
    number: int

    def fill(self, values: Mapping[str, Any], demonstrations: str = "") -> str:
        """The text with these values (of ``checked_values``). Raises TemplateProblem, which names the row of a chat template."""
        assert self.text is not None
        try:
            return fill(self.text, values, demonstrations)
        except TemplateProblem as problem:
            raise (within(self.number, problem) if self.number else problem) from None


class Compilation(NamedTuple):
    """All rows in order, places included."""

    rows: tuple[CompiledRow, ...]

    @property
    def ask(self) -> CompiledRow | None:
        """The row that asks; None where the case asks by itself."""
        return self.rows[-1] if self.rows[-1].text else None

    @property
    def variables(self) -> tuple[str, ...]:
        """What the rows ask a case for, in the order of first use."""
        return tuple(dict.fromkeys(name for row in self.rows if row.text for name in row.text.variables))


def row(role: str, text: str = "") -> Row:
    """A row as it is stored: a place has no text."""
    return {"role": role} if role in PLACES else {"role": role, "text": text}


def rows_of(template: Template) -> tuple[Row, ...]:
    """A chat template's own rows, or a text template as rows."""
    if template.rows:
        return template.rows
    return row(SYSTEM, template.system_text), row(DEMONSTRATIONS), row(TURNS), row(USER, template.body)


def compile_rows(template: Template) -> Compilation:
    """The rows of a template, ready to be filled. What a chat template says nothing of has its place before the row that asks:
    the demonstrations, and then the case's own turns. Raises TemplateProblem, which names the row of a chat template."""
    return _compiled(_as_key(rows_of(template)), template.mode, bool(template.rows))


def check_rows(rows: Iterable[Mapping[str, Any]], mode: Mode) -> tuple[Row, ...]:
    """The rows as they are stored, every one of them usable. Raises TemplateProblem."""
    checked = tuple(row(str(one.get("role", "")), str(one.get("text") or "")) for one in rows)
    roles = [one["role"] for one in checked]
    if len(checked) > MOST_ROWS:
        raise RowProblem(
            MOST_ROWS + 1, f"a template has at most {MOST_ROWS} rows. Delete some.", "rows_many", most=MOST_ROWS
        )
    for place, one in enumerate(checked):
        _check_row(place + 1, one, roles[:place])
    if not roles or roles[-1] not in (USER, TURNS):
        raise RowProblem(
            max(1, len(roles)),
            "the model answers the last row, so that must be a user row or the place of the case's turns. Add one.",
            "rows_last",
        )
    size = sum(len(one.get("text", "").encode("utf-8", "surrogatepass")) for one in checked)
    if size > MAX_SOURCE_BYTES:
        raise TemplateProblem(
            f"The rows have {size:,} bytes; at most {MAX_SOURCE_BYTES:,} are allowed. Shorten them.", None, "rows_bytes",
            size=f"{size:,}", most=f"{MAX_SOURCE_BYTES:,}",
        )  # fmt: skip
    _compiled(_as_key(checked), mode, True)
    return checked


def ask_of(template: Template) -> str:
    """The text of the row that asks; "" where the case asks by itself."""
    return rows_of(template)[-1].get("text", "")


def without_system(template: Template) -> Template:
    """The same template without what it says to the system."""
    if not template.rows:
        return replace(template, system_text="")
    return replace(template, rows=tuple(one for one in template.rows if one["role"] != SYSTEM))


def system_of(template: Template) -> str:
    """What a template says to the system, before it is filled."""
    return next((one["text"] for one in rows_of(template) if one["role"] == SYSTEM), "")


def rows_told(template: Template) -> tuple[Row, ...]:
    """The rows that an author wrote: without places that are there by themselves, and texts that are empty."""
    return tuple(one for one in rows_of(template) if template.rows or one.get("text"))


def written(rows: Iterable[Row]) -> str:
    """The rows as one text, as versions are compared and read."""
    return "\n\n".join(f"[{one['role']}]" + (f"\n{one['text']}" if "text" in one else "") for one in rows)


def given_away(template: Template, asked: str) -> int | None:
    """The number of a row that asks (nearly) what a case asks and is answered by the next row; None where there is none.

    Only rows without variables are looked at: what a case fills in is the case's own.
    """
    if not template.rows:
        return None
    rows = compile_rows(template).rows
    fixed = (
        one
        for one, after in pairwise(rows)
        if one.role == USER and after.role == ASSISTANT and one.text and not one.text.variables
    )
    return next((one.number for one in fixed if leaks(one.fill({}), asked)), None)


def _check_row(number: int, one: Row, before: Sequence[str]) -> None:
    role = one["role"]
    if role not in (*SPEAKERS, *PLACES):
        known = ", ".join((*SPEAKERS, *PLACES))
        raise RowProblem(number, f'there is no role "{role}". Use {known}.', "rows_role", role=role, known=known)
    if role in PLACES and role in before:
        first = before.index(role) + 1
        what = f"the place of the {role} is row {first} already. Delete one of the two."
        raise RowProblem(number, what, "rows_place", first=first)
    if role == SYSTEM and before:
        raise RowProblem(
            number, "a template has one system row at most, and it stands first. Move it, or join its text with the first.",
            "rows_system",
        )  # fmt: skip
    if role in SPEAKERS and not one["text"].strip():
        raise RowProblem(
            number, f"the {role} row is empty. Write its text, or delete the row.", "rows_empty", role=role
        )


def _as_key(rows: Iterable[Row]) -> tuple[tuple[str, str], ...]:
    return tuple((one["role"], one.get("text", "")) for one in rows)


@lru_cache(COMPILED_AT_ONCE)
def _compiled(given: tuple[tuple[str, str], ...], mode: Mode, is_chat: bool) -> Compilation:
    rows = [
        CompiledRow(role, None if role in PLACES else _text(place, text, mode, given, is_chat), is_chat * (place + 1))
        for place, (role, text) in enumerate(given)
    ]
    roles = [role for role, _ in given]
    if TURNS not in roles:
        rows.insert(len(rows) - 1, CompiledRow(TURNS, None, 0))
    if DEMONSTRATIONS not in roles:
        rows.insert(next(at for at, one in enumerate(rows) if one.role == TURNS), CompiledRow(DEMONSTRATIONS, None, 0))
    return Compilation(tuple(rows))


def _text(place: int, text: str, mode: Mode, given: Sequence[tuple[str, str]], is_chat: bool) -> Compiled:
    if not is_chat:
        return compile_template(text, mode)
    try:
        found = compile_template(text, mode)
    except TemplateProblem as problem:
        raise within(place + 1, problem) from None
    if found.head is not None and place + 1 < len(given):
        raise RowProblem(
            place + 1, "{{demonstrations}} may stand in the last row only. Add a row for the demonstrations instead.",
            "rows_marker",
        )  # fmt: skip
    return found
