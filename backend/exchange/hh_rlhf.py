"""HH-RLHF: one JSON object a line, ``chosen`` and ``rejected``, each a whole conversation with its answer.

A conversation is text in which every turn begins with a marker, "\\n\\nHuman:" or "\\n\\nAssistant:"; what follows the last
"\\n\\nAssistant:" is the answer. Both conversations of a row must be the same up to there, or the row compares answers
to two different questions and is refused. White space around a turn is not part of it.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from feedback_db.store import as_json
from feedback_db.types import Message

FIELDS = ("chosen", "rejected")
MOST_LINE_BYTES = 1 << 20
MOST_FILE_BYTES = 1 << 30  # unpacked: a small .gz can hold much more than it seems

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_ANSWER = "\n\nAssistant:"


class FileProblem(ValueError):
    """A file that cannot be read at all; nothing of it is taken."""


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


class Refusal(NamedTuple):
    line: int
    field: str
    reason: str


class Parsed(NamedTuple):
    rows: int
    pairs: tuple[Pair, ...]
    refused: tuple[Refusal, ...]
    duplicates: tuple[int, ...]  # lines that repeat an earlier one


class _Refused(ValueError):
    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


def parse_file(path: Path) -> Parsed:
    """Read a .jsonl or .jsonl.gz file. Raises FileProblem when it is not one."""
    try:
        return parse_lines(_lines(path))
    except FileNotFoundError:
        raise FileProblem(f"There is no file {path.name}. Check the path.") from None
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise FileProblem(f"{path.name} cannot be read ({error}). Download or copy it again.") from None


def parse_lines(lines: Iterable[bytes]) -> Parsed:
    """Every line is taken, refused with a reason, or counted as a duplicate; empty lines are passed over."""
    pairs: list[Pair] = []
    refused: list[Refusal] = []
    duplicates: list[int] = []
    seen: set[bytes] = set()
    rows = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        rows += 1
        try:
            pair = parse_row(number, _row(line))
        except _Refused as refusal:
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
        raise _Refused("rejected", "the conversations differ before the answer, so the answers cannot be compared")
    for field, answer in zip(FIELDS, answers, strict=True):
        if not answer:
            raise _Refused(field, "the answer is empty")
        if _MARKER.search(answer):
            raise _Refused(field, "the conversation goes on after the answer")
    if answers[0] == answers[1]:
        raise _Refused("rejected", "both answers are the same, so none is preferred")
    return Pair(line, _turns(contexts[0]), answers[0], answers[1])


def _lines(path: Path) -> Iterator[bytes]:
    size = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            size += len(line)
            if len(line) > MOST_LINE_BYTES:
                raise FileProblem(f"{path.name} has a line of more than 1 MB. Is it one JSON object a line?")
            if size > MOST_FILE_BYTES:
                raise FileProblem(f"{path.name} holds more than 1 GB. Split it and import the parts.")
            yield line


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise _Refused("line", "it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise _Refused("line", "it is not JSON") from None
    if not isinstance(row, dict):
        raise _Refused("line", "it is not a JSON object")
    return row


def _split(row: dict[str, Any], field: str) -> tuple[str, str]:
    """The conversation before the last answer, and the answer."""
    if field not in row:
        raise _Refused(field, "it is missing")
    text = row[field]
    if not isinstance(text, str):
        raise _Refused(field, "it is not a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused(field, "it holds half of a character pair") from None
    context, marker, answer = text.rpartition(_ANSWER)
    if not marker:
        raise _Refused(field, "it has no answer that begins with Assistant:")
    return context, answer.strip()


def _turns(context: str) -> tuple[Message, ...]:
    before, *rest = _MARKER.split(context)
    if before.strip() or not rest:
        raise _Refused("chosen", "the conversation does not begin with Human: or Assistant:")
    turns = [{"role": _ROLES[name], "content": text.strip()} for name, text in zip(rest[::2], rest[1::2], strict=True)]
    if any(not turn["content"] for turn in turns):
        raise _Refused("chosen", "a turn of the conversation is empty")
    if turns[-1]["role"] != "user":
        raise _Refused("chosen", "the conversation before the answer does not end with a human turn")
    return tuple(turns)


def as_row(pair: Pair) -> dict[str, str]:
    """The row that a pair came from, but for white space around its turns. Refuses a text that holds a marker."""
    for text in [*(turn["content"] for turn in pair.messages), pair.chosen, pair.rejected]:
        if _MARKER.search(text) or text != text.strip():
            raise ValueError("A turn that holds a marker or begins with white space cannot be written in this format.")
    names = {role: name for name, role in _ROLES.items()}
    context = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in pair.messages)
    return {"chosen": f"{context}{_ANSWER} {pair.chosen}", "rejected": f"{context}{_ANSWER} {pair.rejected}"}
