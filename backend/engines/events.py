"""Streams of server-sent events as servers really write them: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

DONE = "[DONE]"


class Event(NamedTuple):
    """An event with its JSON, whatever kind of JSON that is; ``name`` is empty where the server gave none."""

    name: str
    data: Any


def events_of(parts: Iterable[bytes]) -> Iterator[Event]:
    """Every event up to ``[DONE]`` or the end. Raises ValueError and RecursionError for data that is not JSON.

    Data may be one line, or several lines up to a blank one. Some servers leave out the blank line between events, so a line that is
    JSON by itself is an event by itself; what is whole without its last line's end is one too, and what is not is none.
    """
    name, pending = "", list[str]()
    for line in _lines(parts):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value.strip()
        elif field == "data" and value.strip() == DONE:
            break
        elif field == "data":
            pending.append(value)
            if len(pending) == 1 and (whole := _json(value)) is not None:
                pending = []
                yield Event(name, whole)
        elif not line:
            yield from _joined(name, pending)
            name, pending = "", []
    with suppress(ValueError):  # it broke off within an event
        yield from _joined(name, pending)


def _joined(name: str, pending: list[str]) -> Iterator[Event]:
    if any(line.strip() for line in pending):
        yield Event(name, json.loads("\n".join(pending)))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # perhaps the next lines belong to it


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Lines that end with CR LF, LF or CR, and with nothing else that Unicode knows as such: JSON may hold it. No byte order mark."""
    begun: list[bytes] = []  # of a line whose end has not come
    is_first, is_after_return = True, False
    for part in parts:
        new = part.removeprefix(b"\n") if is_after_return else part
        if not part:
            continue
        is_after_return = part.endswith(b"\r")
        if not new:
            continue
        first, *others = new.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        begun.append(first)
        for other in others:
            yield _decoded(begun, is_first)
            begun, is_first = [other], False
    if any(begun):
        yield _decoded(begun, is_first)


def _decoded(line: list[bytes], is_first: bool) -> str:
    return b"".join(line).decode("utf-8-sig" if is_first else "utf-8")
