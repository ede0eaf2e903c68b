"""How one setting of a training job is declared: its default, and what a form or a command line says of it.

Standard library only, as settings.py.
"""

from dataclasses import field
from typing import Any

from backend.problem import Problem


class BadSettings(Problem, ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it."""


def setting(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
    pattern: str = "",
    example: str = "",
) -> Any:
    """Of a free text, ``maximum`` is its greatest length, ``pattern`` what it must match, ``example`` what it looks like."""
    facts = {"label": label, "help": help, "min": minimum, "max": maximum, "choices": choices, "advanced": advanced}
    return field(default=default, metadata={**facts, "pattern": pattern, "example": example})
