"""SHA-256 digests of what a prompt is made of, and the split that a case belongs to by its digest.

A digest is taken over canonical JSON (sorted keys, no spaces, Chinese as it is), so it is the same in every process and
on every machine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from feedback_db.store import as_json
from feedback_db.types import Message, Row, Split


def digest_of(value: Any) -> bytes:
    """The 32 bytes that name a value of plain JSON types."""
    return hashlib.sha256(as_json(value).encode("utf-8")).digest()


def messages_digest(messages: Sequence[Message]) -> bytes:
    """Equal digests mean that a model saw the same prompt."""
    return digest_of([{"role": message["role"], "content": message["content"]} for message in messages])


def template_digest(
    *,
    mode: str,
    system_text: str,
    body: str,
    rows: Sequence[Row] = (),
    few_shot: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> bytes:
    """Covers all that changes the bytes of a prompt, and the closed set of answers; not the name, version or note."""
    return digest_of(
        {
            **({"rows": [dict(row) for row in rows]} if rows else {}),  # text templates keep the digest they always had
            "mode": mode,
            "system_text": system_text,
            "body": body,
            "few_shot": dict(few_shot or {}),
            "labels": None if labels is None else list(labels),
        }
    )


def case_digest(
    *,
    values: Mapping[str, str] | None = None,
    conversation: Sequence[Message] | None = None,
    expected: str | None = None,
) -> bytes:
    return digest_of(
        {
            "values": None if values is None else dict(values),
            "conversation": None if conversation is None else [dict(message) for message in conversation],
            "expected": expected,
        }
    )


def demonstration_digest(*, input: str, output: str, label: str | None = None) -> bytes:
    return digest_of({"input": input, "output": output, "label": label})


def sampling_digest(settings: Mapping[str, Any]) -> bytes:
    return digest_of(dict(settings))


def split_of(digest: bytes) -> Split:
    """80 % train, 10 % val, 10 % test. A function of the content alone: no case ever changes its split."""
    tenth = int.from_bytes(digest[:8], "big") % 10
    if tenth < 8:
        return "train"
    return "val" if tenth == 8 else "test"
