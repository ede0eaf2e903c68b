"""Read-only parts of a page: Python says what to show, ui/static/views.js draws it with textContent, so that it stays text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import gradio as gr

from ui.shell import static_version

Part = dict[str, Any]
Cell = str | dict[str, Any]


def drawn(elem_id: str, kind: str = "parts", *, module: str = "views", **options: Any) -> gr.HTML:
    """An empty place for parts, drawn by a function of a module in ui/static; the template is constant, and no value ever reaches it as HTML."""
    return gr.HTML(
        html_template='<div class="view"></div>',
        js_on_load=(
            f"import('/static/{static_version()}/{module}.js')"
            f".then(m => m.{kind}(element.querySelector('.view'), props, watch, trigger)) // 'select'"
        ),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["wh-view"],
        **options,
    )


def drawing(*parts: Part | None) -> dict[str, Any]:
    """The value of a drawn place."""
    return {"parts": [part for part in parts if part is not None]}


def note(text: str, tone: str = "info") -> Part | None:
    """A sentence; tones are info, ok, warn and bad. Nothing when there is nothing to say."""
    return {"t": "note", "text": text, "tone": tone} if text else None


def heading(text: str, aside: str = "") -> Part:
    return {"t": "heading", "text": text, "aside": aside}


def cards(items: Iterable[tuple[str, str, str]]) -> Part:
    """(label, figure, what it rests on)."""
    return {"t": "cards", "items": [{"label": label, "value": value, "hint": hint} for label, value, hint in items]}


def shelf(groups: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> Part:
    """(title, items): cards to choose from; {"id", "title", "badge", "text", "foot", "chosen"}. A click triggers ``select``."""
    return {
        "t": "shelf",
        "groups": [{"title": title, "items": [dict(item) for item in items]} for title, items in groups],
    }


def facts(rows: Iterable[tuple[str, Cell]]) -> Part:
    return {"t": "facts", "rows": [[name, cell] for name, cell in rows]}


def table(
    columns: Sequence[str],
    rows: Iterable[tuple[int, Sequence[Cell]]],
    *,
    caption: str,
    empty: str,
    chosen: int | None = None,
    selects: bool | Literal["button"] = False,
    numbers: Sequence[int] = (),
    marks: Sequence[tuple[int, int]] | None = None,
    marking: tuple[str, str] = ("", ""),
    tall: bool = False,
) -> Part:
    """Rows are (id, cells). With ``selects`` the first cell is a button that triggers ``select`` with the id; the
    whole row is one too unless it says "button".

    With ``marks``, (row id, column after the first) that are marked, rows and their cells have boxes that trigger ``select`` with
    {"mark": {"id", "arm"}}, without ``arm`` for a whole row; ``marking`` is the word for it and a letter per column. A ``tall``
    table scrolls within its frame.
    """
    shown = [{"id": id, "cells": list(cells), "chosen": id == chosen} for id, cells in rows]
    return {
        "t": "table",
        "caption": caption,
        "columns": list(columns),
        "rows": shown,
        "empty": empty,
        "selects": selects,
        "numbers": list(numbers),
        **(
            {}
            if marks is None
            else {"marks": [list(mark) for mark in marks], "mark": marking[0], "letters": marking[1]}
        ),
        **({"tall": True} if tall else {}),
    }


def link(text: str, href: str) -> Cell:
    """``href`` is made by our code from ids, never from what somebody typed."""
    return {"text": text, "href": href}


def badge(text: str, tone: str = "info") -> Cell:
    return {"text": text, "badge": tone}


def messages(items: Iterable[Mapping[str, str]]) -> Part:
    """{"role", "label", "text", "foot"}: a conversation, role by role, every character as it is.

    With {"act", "id"} an entry has a button that triggers ``select`` with the id.
    """
    return {"t": "messages", "items": [dict(item) for item in items]}


def segments(parts: Iterable[tuple[str, str, int]], of: int, text: str) -> Part:
    """A bar of (kind, name, tokens) up to a limit, and a legend; what is ``dropped`` stands in the legend alone."""
    return {"t": "segments", "of": of, "text": text, "parts": [list(part) for part in parts]}


def budget(used: int, of: int, text: str) -> Part:
    return {"t": "budget", "used": used, "of": of, "text": text}


def command(label: str, text: str, copy: str = "") -> Part:
    """Something to be typed elsewhere; ``copy`` names the button that copies it."""
    return {"t": "command", "label": label, "text": text, "copy": copy}


def panes(items: Iterable[Mapping[str, Any]], words: Mapping[str, str] | None = None, *, key: str = "") -> Part:
    """{"badge", "title", "text", "foot", "state", "void", "problem", "logps", "acts"}, side by side; a void one is compared with none.

    ``acts`` have spaces between; ``words`` name them and the ways of looking; a click on an act triggers ``select`` with {"act", "at",
    "key"}. ``key`` says whose texts these are, so that nothing is said of others (``SHOWN_KEY`` reads it from the page).
    """
    return {"t": "panes", "items": [dict(item) for item in items], "words": dict(words or {}), "key": key}


SHOWN_KEY = "document.querySelector('.vw-panes')?.dataset.key ?? ''"  # for ``js`` of events: the key of the panes that are drawn


def diff(pieces: Iterable[tuple[str, str]], label: str) -> Part:
    """(same, gone or new, text): one text, with what left it and what came."""
    return {"t": "diff", "label": label, "pieces": [[kind, text] for kind, text in pieces]}


def bars(caption: str, groups: Iterable[tuple[str, Sequence[tuple[str, float, bool]]]]) -> Part:
    """Rows of shares by (label, share, whether it is right), each row with a name."""
    shown = [{"name": name, "bars": [list(one) for one in own]} for name, own in groups]
    return {"t": "bars", "caption": caption, "groups": shown}


def strip(caption: str, dots: Iterable[tuple[float, str, str]]) -> Part | None:
    """A dot for each (share, kind, hint) on a line from 0 to 100 %; kinds are own, kept and other. Nothing without dots."""
    shown = [list(dot) for dot in dots]
    return {"t": "strip", "caption": caption, "dots": shown} if shown else None


def curve(caption: str, x: str, points: Iterable[Mapping[str, Any]]) -> Part | None:
    """{"name", "value", "low", "high", "lowest", "highest", "chosen", "hint"}: shares over steps of x, with their interval as a band
    and their range as whiskers. Nothing without points."""
    shown = [dict(point) for point in points]
    return {"t": "curve", "caption": caption, "x": x, "points": shown} if shown else None


def rungs(caption: str, rows: Iterable[tuple[str, float, float, float, str]]) -> Part | None:
    """A bar for each (name, share, low, high, what is said of it), with its interval as a whisker. Nothing without rows."""
    shown = [list(row) for row in rows]
    return {"t": "rungs", "caption": caption, "rows": shown} if shown else None
