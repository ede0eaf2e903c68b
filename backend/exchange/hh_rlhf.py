"""HH-RLHF: one JSON object a line, ``chosen`` and ``rejected``, each a whole conversation with its answer.

A conversation is text in which every turn begins with a marker, "\\n\\nHuman:" or "\\n\\nAssistant:"; what follows the last
"\\n\\nAssistant:" is the answer. Both conversations of a row must be the same up to there, or the row compares answers
to two different questions and is refused. White space around a turn is not part of it.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from backend.exchange.reading import Refusal, Refused, lines, readable, row_of, text_in
from feedback_db.store import as_json
from feedback_db.types import Message

FIELDS = ("chosen", "rejected")

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_ANSWER = "\n\nAssistant:"


class Pair(NamedTuple):
    line: int
    messages: tuple[Message, ...]  # the conversation up to the answer
    chosen: str
    rejected: str

    @property
    def digest(self) -> bytes:
        """Equal digests mean the same conversation and the same two answers, in the same order of preference."""
        content = [list(self.messages), self.chosen, self.rejected]
        return hashlib.sha256(as_json(content).encode("utf-8")).digest()


class Parsed(NamedTuple):
    rows: int
    pairs: tuple[Pair, ...]
    refused: tuple[Refusal, ...]
    duplicates: tuple[int, ...]  # lines that repeat an earlier one


def parse_file(path: Path) -> Parsed:
    """Read a .jsonl or .jsonl.gz file. Raises FileProblem when it is not one."""
    with readable(path):
        return parse_lines(lines(path))


def parse_lines(found: Iterable[bytes]) -> Parsed:
    """Every line is taken, refused with a reason, or counted as a duplicate; empty lines are passed over."""
    pairs: list[Pair] = []
    refused: list[Refusal] = []
    duplicates: list[int] = []
    seen: set[bytes] = set()
    rows = 0
    for number, line in enumerate(found, 1):
        if not line.strip():
            continue
        rows += 1
        try:
            pair = parse_row(number, row_of(line))
        except Refused as refusal:
            refused.append(Refusal(number, refusal.field, str(refusal)))
            continue
        if pair.digest in seen:
            duplicates.append(number)
        else:
            seen.add(pair.digest)
            pairs.append(pair)
    return Parsed(rows, tuple(pairs), tuple(refused), tuple(duplicates))


def parse_row(line: int, row: dict[str, Any]) -> Pair:
    contexts, answers = zip(*(_split(row, field) for field in FIELDS), strict=True)
    if contexts[0] != contexts[1]:
        raise Refused("rejected", "the conversations differ before the answer, so the answers cannot be compared")
    for field, answer in zip(FIELDS, answers, strict=True):
        if not answer:
            raise Refused(field, "the answer is empty")
        if _MARKER.search(answer):
            raise Refused(field, "the conversation goes on after the answer")
    if answers[0] == answers[1]:
        raise Refused("rejected", "both answers are the same, so none is preferred")
    return Pair(line, _turns(contexts[0]), answers[0], answers[1])


def _split(row: dict[str, Any], field: str) -> tuple[str, str]:
    """The conversation before the last answer, and the answer."""
    text = text_in(row, field)
    context, marker, answer = text.rpartition(_ANSWER)
    if not marker:
        raise Refused(field, "it has no answer that begins with Assistant:")
    return context, answer.strip()


def _turns(context: str) -> tuple[Message, ...]:
    before, *rest = _MARKER.split(context)
    if before.strip() or not rest:
        raise Refused("chosen", "the conversation does not begin with Human: or Assistant:")
    turns = [{"role": _ROLES[name], "content": text.strip()} for name, text in zip(rest[::2], rest[1::2], strict=True)]
    if any(not turn["content"] for turn in turns):
        raise Refused("chosen", "a turn of the conversation is empty")
    if turns[-1]["role"] != "user":
        raise Refused("chosen", "the conversation before the answer does not end with a human turn")
    return tuple(turns)


def as_row(pair: Pair) -> dict[str, str]:
    """The row that a pair came from, but for white space around its turns. Refuses a text that holds a marker."""
    for text in [*(turn["content"] for turn in pair.messages), pair.chosen, pair.rejected]:
        if _MARKER.search(text) or text != text.strip():
            raise ValueError("A turn that holds a marker or begins with white space cannot be written in this format.")
    names = {role: name for name, role in _ROLES.items()}
    context = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in pair.messages)
    return {"chosen": f"{context}{_ANSWER} {pair.chosen}", "rejected": f"{context}{_ANSWER} {pair.rejected}"}
