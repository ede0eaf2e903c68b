"""What a case asks, as people and models read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .types import Message


def conversation(values: Mapping[str, str] | None, messages: Sequence[Message] | None) -> list[Message]:
    """A case as annotators and reward models see it: its turns, or its values as one user message; both, where the turns end with an
    answer and the values ask what comes next.

    The value named ``input`` stands alone; other names are shown before their texts.
    """
    if messages and messages[-1]["role"] == "assistant" and values:
        return [*messages, *conversation(values, None)]
    if messages is not None:
        return list(messages)
    named = values or {}
    text = named["input"] if "input" in named else "\n".join(f"{name}: {value}" for name, value in named.items())
    return [{"role": "user", "content": text}]


def asked_of(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row that holds a case's JSON columns."""
    values, messages = row["values"], row["conversation"]
    return conversation(json.loads(values) if values else None, json.loads(messages) if messages else None)
