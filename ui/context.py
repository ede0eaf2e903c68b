"""What every page is given: built once in app.py and passed down, never global."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.settings import Settings
from feedback_db import Store
from ui.text import Text

if TYPE_CHECKING:
    from ui.guard import Guard


@dataclass(frozen=True, kw_only=True)
class Ui:
    """``guard`` is filled in by ``create_app``; a handler asks it who acts: ``ui.guard.person()``."""

    store: Store
    engine: Any  # has .client() and .last_event
    jobs: Any  # starts and stops workers
    settings: Settings
    text: Text
    guard: Guard = None  # type: ignore[assignment]
