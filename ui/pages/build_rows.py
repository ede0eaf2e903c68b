"""The rows of a chat template on the build page: what the editor shows, what it sends, and the way from a text template and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from backend.prompts.rows import ASSISTANT, DEMONSTRATIONS, PLACES, SYSTEM, TURNS, USER, row
from feedback_db.types import Row
from ui.context import Ui
from ui.views.drawn import drawn

ROLES = (SYSTEM, USER, ASSISTANT, DEMONSTRATIONS, TURNS)
TEXT, CHAT = "text", "chat"


def rows_editor() -> Any:
    """An empty editor; ``rows_shown`` fills it."""
    return drawn("rows", "rows", module="rows", visible=False)


def rows_shown(ui: Ui, rows: Iterable[Row]) -> dict[str, Any]:
    """The value of the editor: the rows, and its words in the language of the page."""
    say = ui.guard.say
    words = {
        name: say(f"rows.{name}")
        for name in ("label", "row", "role", "up", "down", "drag", "add", "delete", "undo", "hint")
    }
    roles = {role: say(f"rows.role.{role}") for role in ROLES}
    places = {role: say(f"rows.place.{role}") for role in PLACES}
    return {"rows": [dict(one) for one in rows], "words": {**words, "roles": roles, "places": places}}


def rows_in(value: Any) -> tuple[Row, ...]:
    """The rows that an editor sent, whatever it sent."""
    given = value.get("rows") if isinstance(value, Mapping) else None
    return tuple(
        row(str(one.get("role", "")), str(one.get("text") or ""))
        for one in (given if isinstance(given, list) else [])
        if isinstance(one, Mapping)
    )


def as_rows(system_text: str, body: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """A text template as rows; the rows that stood between its two texts before are there again."""
    between = [one for one in rows if one["role"] != SYSTEM]
    if between and between[-1]["role"] == USER:
        between.pop()
    first = [row(SYSTEM, system_text)] if system_text.strip() else []
    return (*first, *between, row(USER, body))


def as_text(rows: Sequence[Row]) -> tuple[str, str]:
    """(system text, body) of rows: what is said to the system, and the last user row."""
    system = next((one["text"] for one in rows if one["role"] == SYSTEM), "")
    return system, next((one["text"] for one in reversed(rows) if one["role"] == USER), "")


def kind_events(ui: Ui, form: Any, then: Callable[[Any, str], None], quiet: dict[str, Any]) -> None:
    """Text becomes chat and back without losing a word; ``then`` takes an event and a name, and draws what follows from the texts."""

    def switch(kind: str, system_text: str, body: str, given: Any) -> list[Any]:
        rows = rows_in(given)
        if kind == CHAT:
            rows = as_rows(system_text or "", body or "", rows)
        elif rows:
            system_text, body = as_text(rows)
        return shown_as(ui, kind, system_text or "", body or "", rows)

    parts = [form.system_text, form.body, form.rows]
    then(form.kind.input(switch, [form.kind, *parts], parts, api_name="build_kind", **quiet), "build_kind")


def shown_as(ui: Ui, kind: str, system_text: str, body: str, rows: Sequence[Row]) -> list[Any]:
    """System text, body and rows of the form: either the two texts are seen, or the rows."""
    is_chat = kind == CHAT
    return [
        gr.update(value=system_text, visible=not is_chat),
        gr.update(value=body, visible=not is_chat),
        gr.update(value=rows_shown(ui, rows), visible=is_chat),
    ]
