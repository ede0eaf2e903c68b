"""Files of lines: read with a limit, unpacked when they are .gz; what a format refuses is told by line, field and reason."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

MOST_LINE_BYTES = 1 << 20
MOST_FILE_BYTES = 1 << 30  # unpacked: a small .gz can hold much more than it seems


class FileProblem(ValueError):
    """A file that cannot be read at all; nothing of it is taken."""


class Refusal(NamedTuple):
    line: int
    field: str
    reason: str


class Refused(ValueError):
    """A row that cannot be used; the field says where, the message why."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Inside, a file that is missing or damaged is a FileProblem."""
    try:
        yield
    except FileNotFoundError:
        raise FileProblem(f"There is no file {path.name}. Check the path.") from None
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise FileProblem(f"{path.name} cannot be read ({error}). Download or copy it again.") from None


def lines(path: Path) -> Iterator[bytes]:
    size = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            size += len(line)
            if len(line) > MOST_LINE_BYTES:
                raise FileProblem(f"{path.name} has a line of more than 1 MB. Check that the format is the right one.")
            if size > MOST_FILE_BYTES:
                raise FileProblem(f"{path.name} holds more than 1 GB. Split it and import the parts.")
            yield line


def row_of(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises Refused."""
    try:
        row = json.loads(decoded(line))
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("line", "it is not JSON") from None
    if not isinstance(row, dict):
        raise Refused("line", "it is not a JSON object")
    return row


def decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("line", "it is not UTF-8") from None


def text_in(row: dict[str, Any], field: str) -> str:
    """A text that can be stored. Raises Refused."""
    if field not in row:
        raise Refused(field, "it is missing")
    text = row[field]
    if not isinstance(text, str):
        raise Refused(field, "it is not a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(field, "it holds half of a character pair") from None
    return text
