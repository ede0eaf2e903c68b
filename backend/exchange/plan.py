"""What a file of another tool holds, said in our nouns, and what became of every part of it. Nothing here is stored yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from backend.exchange.reading import FileProblem
from backend.exchange.reasons import said
from backend.prompts.problem import MAX_OUTPUT
from backend.prompts.template import variables
from feedback_db.types import Message, Row

Fate = Literal["taken", "mapped", "refused"]

MOST_CASES = 20_000  # of one file, after lists of values were multiplied
MOST_TEMPLATES = 1_000
MOST_NOTES = 2_000  # what is left out beyond is counted
MOST_SHOWN = 2_000  # characters of code or text that a note shows
MOST_CELL = MAX_OUTPUT  # bytes of one value: what a template can be filled with


class BadFile(FileProblem):
    """A file that is not taken at all. ``code`` and ``values`` name its sentence in other languages."""

    def __init__(self, code: str, **values: object):
        super().__init__(said(code, values))
        self.code = code
        self.values = values


class Note(NamedTuple):
    """What became of one part of a file. ``line`` 0: the format has no lines, and the field says where."""

    fate: Fate
    file: str
    line: int
    field: str
    code: str
    values: Mapping[str, object]
    shown: str = ""  # what stood there, when it is code or was left out

    @property
    def reason(self) -> str:
        return said(self.code, self.values)


class Notes:
    """Collects the notes of one file of an upload."""

    def __init__(self, file: str, kept: list[Note] | None = None):
        self.file = file
        self.kept: list[Note] = [] if kept is None else kept

    def within(self, file: str) -> Notes:
        """The same list, for another file of the upload."""
        return Notes(file, self.kept)

    def taken(self, line: int, field: str, code: str, **values: object) -> None:
        self._add("taken", line, field, code, values)

    def mapped(self, line: int, field: str, code: str, shown: str = "", **values: object) -> None:
        self._add("mapped", line, field, code, values, shown)

    def refused(self, line: int, field: str, code: str, shown: str = "", **values: object) -> None:
        self._add("refused", line, field, code, values, shown)

    def _add(self, fate: Fate, line: int, field: str, code: str, values: Mapping[str, object], shown: str = "") -> None:
        said(code, values)  # an unknown code is a bug that shows at once
        self.kept.append(Note(fate, self.file, line, field, code, values, shown[:MOST_SHOWN]))


@dataclass(frozen=True, kw_only=True)
class NewDemonstration:
    input: str
    output: str
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewTemplate:
    """Of a chat template there are ``rows`` and no body. ``shown`` are demonstrations that the template always shows, in this order."""

    name: str
    body: str = ""
    rows: tuple[Row, ...] = ()
    mode: Literal["plain", "logic"] = "plain"
    system_text: str = ""
    labels: tuple[str, ...] | None = None
    note: str = ""
    shown: tuple[NewDemonstration, ...] = ()
    shape: Literal["turns", "text"] = "turns"


@dataclass(frozen=True, kw_only=True)
class NewCase:
    """Values or a conversation, or earlier turns beside values; with the expected answer where the file has one."""

    values: Mapping[str, str] | None = None
    conversation: tuple[Message, ...] | None = None
    expected: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NewSuite:
    """``cases`` are places in the plan's list of cases; ``checks`` as backend/suites/checks.py reads them, and ``own`` by place of a
    case as backend/suites/own.py does."""

    name: str
    cases: tuple[int, ...]
    checks: tuple[dict[str, Any], ...]
    threshold: float | None = None
    own: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewPair:
    """Two answers to the same messages, and which of them people found better."""

    messages: tuple[Message, ...]
    better: str
    worse: str
    rationale: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that an import would add, and the notes on every part of the file."""

    format: str
    source: str  # the file's name
    name: str  # what templates, cases and suite are named after
    templates: tuple[NewTemplate, ...] = ()
    demonstrations: tuple[NewDemonstration, ...] = ()
    cases: tuple[NewCase, ...] = ()
    suites: tuple[NewSuite, ...] = ()
    pairs: tuple[NewPair, ...] = ()
    notes: tuple[Note, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        return not (self.templates or self.demonstrations or self.cases or self.suites or self.pairs)

    def count(self, fate: Fate) -> int:
        return sum(note.fate == fate for note in self.notes)


def variables_in(template: NewTemplate) -> set[str]:
    """What a template asks a case for. Raises TemplateProblem."""
    said = [template.system_text, template.body, *(row.get("text", "") for row in template.rows)]
    return {name for text in said for name in variables(text, template.mode)}


def storable(text: str, file: str, line: int, field: str) -> str:
    """The text itself. Raises BadFile when it cannot be stored: half a character pair, a zero byte, or more than 256 KB."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadFile("file_surrogate", file=file, line=line, field=field) from None
    if "\0" in text:
        raise BadFile("file_nul", file=file, line=line, field=field)
    if size > MOST_CELL:
        raise BadFile("file_cell", file=file, line=line, field=field, most=MOST_CELL // 1024)
    return text


def where(path: tuple[Any, ...]) -> str:
    """("tests", 2, "vars") as people read it: tests[3].vars, counted from one."""
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
