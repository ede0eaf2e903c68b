"""YAML and JSON of strangers as one kind of tree: tables, lists and texts, with the line of every part.

Nothing is converted on the way in: 007 stays 007 and NO stays NO. A scalar written without quotes is a ``Plain`` text, so that
``typed`` can still tell 5 from "5" where a number is meant. YAML is read from libyaml's events, without any constructor: tags
other than those named, aliases, anchors' merges, second documents and doubled keys are refused with their line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from backend.exchange.plan import BadFile, storable

MOST_YAML_BYTES = 1 << 20
MOST_JSON_BYTES = 50_000_000
MOST_DEPTH = 64
MOST_NODES = 2_000_000

Path = tuple[Any, ...]

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\Z", re.ASCII)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Plain(str):
    """A text that was written without quotes."""

    __slots__ = ()


class Tagged(str):
    """A text behind one of the tags that were let through."""

    __slots__ = ()


class Read(NamedTuple):
    """A file as a tree; ``lines`` has the line of every part by its path (YAML only)."""

    file: str
    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Of the part itself, or of the nearest part around it that has one; 0 when none has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def typed(value: Any) -> Any:
    """What YAML 1.2's core schema, or JSON, means by it."""
    if isinstance(value, Plain):
        return _typed(str(value))
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    return [typed(inner) for inner in value] if isinstance(value, list) else value


def number(value: Any) -> float | None:
    """A number, written with or without quotes; None when it is none, or not a finite one."""
    if isinstance(value, str) and _NUMBER.match(value.strip()):
        found = float(value)
        return found if abs(found) < 1e300 else None
    return None


def texts(value: Any) -> str:
    """A tree as one text: a text as it is, the rest as JSON."""
    return str(value) if isinstance(value, str) else json.dumps(typed(value), ensure_ascii=False)


def table_in(table: Any, key: str) -> dict[str, Any]:
    """The table under a key; an empty one where there is none, or something else."""
    found = table.get(key) if isinstance(table, dict) else None
    return found if isinstance(found, dict) else {}


def list_in(table: Any, key: str) -> list[Any]:
    """The list under a key; an empty one where there is none, or something else."""
    found = table.get(key) if isinstance(table, dict) else None
    return found if isinstance(found, list) else []


def given(table: dict[str, Any], key: str) -> Any:
    """What stands under a key; None where nothing does, or null."""
    found = table.get(key)
    return None if isinstance(found, Plain) and typed(found) is None else found


def decoded(data: bytes, file: str) -> str:
    """UTF-8, with or without a byte-order mark. Raises BadFile with the line."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile("file_utf8", file=file, line=data.count(b"\n", 0, error.start) + 1) from None


# ---- YAML


def read_yaml(data: bytes, file: str, tags: tuple[str, ...] = ()) -> Read:
    """Raises BadFile. ``tags`` are those that a table may carry; they are not looked at any further."""
    if len(data) > MOST_YAML_BYTES:
        raise BadFile("file_yaml_size", file=file)
    text = decoded(data, file)
    lines: dict[Path, int] = {}
    events = _events(text, file)
    try:
        value = _document(events, file, lines, tags)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "a character that YAML does not allow"
        raise BadFile("file_yaml", file=file, line=mark.line + 1 if mark else 1, problem=problem) from None
    return Read(file, value, lines)


def _events(text: str, file: str) -> Iterator[Any]:
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if count > MOST_NODES:
            raise BadFile("file_nodes", file=file)
        yield event


def _document(events: Iterator[Any], file: str, lines: dict[Path, int], tags: tuple[str, ...]) -> Any:
    value: Any = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise BadFile("file_yaml_documents", file=file, line=event.start_mark.line + 1)
        elif isinstance(event, yaml.NodeEvent):
            value = _node(event, events, file, lines, (), tags)
    return value


def _node(
    event: Any, events: Iterator[Any], file: str, lines: dict[Path, int], path: Path, tags: tuple[str, ...]
) -> Any:
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        raise BadFile("file_yaml_alias", file=file, line=line, name=event.anchor)
    if event.tag is not None and event.tag not in (*tags, "!"):
        raise BadFile("file_yaml_tag", file=file, line=line, tag=event.tag)
    if len(path) > MOST_DEPTH:
        raise BadFile("file_depth", file=file, line=line, most=MOST_DEPTH)
    lines[path] = line
    if isinstance(event, yaml.ScalarEvent):
        if event.tag not in (None, "!"):
            return Tagged(event.value)
        return Plain(event.value) if event.style in (None, "") and event.tag is None else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, file, lines, (*path, len(items)), tags))
        return items
    table: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        at = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            raise BadFile("file_yaml_key", file=file, line=at)
        key = storable(event.value, file, at, "key")
        if key in table:
            raise BadFile("file_double_key", file=file, line=at, key=key)
        table[key] = _node(next(events), events, file, lines, (*path, key), tags)
    return table


# ---- JSON


def read_json(data: bytes, file: str) -> Read:
    """Raises BadFile. Numbers, true, false and null are Plain texts, digit for digit as they stand in the file."""
    if len(data) > MOST_JSON_BYTES:
        raise BadFile("file_json_size", file=file, most=MOST_JSON_BYTES // 1_000_000)
    text = decoded(data, file)
    return Read(file, json_value(text, file, 0), {})


def json_value(text: str, file: str, line: int) -> Any:
    """``line`` is where the text begins, for a file of JSON lines; 0 takes the lines of the text itself."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            double = next(name for name in names if names.count(name) > 1)
            raise BadFile("file_double_key", file=file, line=line, key=double)
        return made

    def refused(constant: str) -> Any:
        raise BadFile("file_constant", file=file, line=line, constant=constant)

    try:
        value = json.loads(text, object_pairs_hook=table, parse_int=Plain, parse_float=Plain, parse_constant=refused)
    except json.JSONDecodeError as error:
        raise BadFile(
            "file_json", file=file, line=line or error.lineno, problem=error.msg, column=error.colno
        ) from None
    except RecursionError:
        raise BadFile("file_depth", file=file, line=line, most=MOST_DEPTH) from None
    return _plain(value, file, line, 0)


def _plain(value: Any, file: str, line: int, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise BadFile("file_depth", file=file, line=line, most=MOST_DEPTH)
    if isinstance(value, dict):
        return {key: _plain(inner, file, line, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, file, line, depth + 1) for inner in value]
    if value is None or isinstance(value, bool):
        return Plain(json.dumps(value))
    return value


def _typed(text: str) -> Any:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?\d{1,18}", text, re.ASCII):
        return int(text)
    found = number(Plain(text))
    return text if found is None else found
