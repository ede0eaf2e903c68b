"""Plain texts to learn from: paragraphs of a file, or one JSON object a line with the field ``text``."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from backend.exchange.reading import Refusal, Refused, decoded, lines, readable, row_of, text_in


class Found(NamedTuple):
    line: int
    text: str


class Texts(NamedTuple):
    """What became of a file: rows = texts + refused + duplicates."""

    rows: int
    texts: tuple[Found, ...]
    refused: tuple[Refusal, ...]
    duplicates: tuple[int, ...]  # lines where a text begins that stood there before


def parse_paragraphs(path: Path) -> Texts:
    """A .txt or .txt.gz file whose texts are separated by blank lines. Raises FileProblem."""
    with readable(path):
        return _sorted(_paragraphs(lines(path)))


def parse_jsonl(path: Path) -> Texts:
    """A .jsonl or .jsonl.gz file. Raises FileProblem."""
    with readable(path):
        return _sorted((number, line, True) for number, line in enumerate(lines(path), 1) if line.strip())


def _sorted(found: Iterable[tuple[int, bytes, bool]]) -> Texts:
    """Every text is taken, refused with a reason, or counted as a duplicate. Given are line, content, and whether it is JSON."""
    texts: dict[str, Found] = {}
    refused: list[Refusal] = []
    duplicates: list[int] = []
    rows = 0
    for number, content, is_json in found:
        rows += 1
        try:
            text = (text_in(row_of(content), "text") if is_json else decoded(content)).strip()
            if not text:
                raise Refused("text", "it is empty")
            if "\0" in text:
                raise Refused("text", "it holds a zero byte")
        except Refused as refusal:
            refused.append(Refusal(number, refusal.field, str(refusal)))
            continue
        if text in texts:
            duplicates.append(number)
        else:
            texts[text] = Found(number, text)
    return Texts(rows, tuple(texts.values()), tuple(refused), tuple(duplicates))


def _paragraphs(found: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Each with the line it begins at; a byte-order mark at the start of a file is none of its text."""
    waiting: list[bytes] = []
    start = 1
    for number, whole in enumerate(found, 1):
        line = whole.removeprefix(b"\xef\xbb\xbf") if number == 1 else whole
        if line.strip():
            start = start if waiting else number
            waiting.append(line.rstrip() + b"\n")
        elif waiting:
            yield start, b"".join(waiting), False
            waiting = []
    if waiting:
        yield start, b"".join(waiting), False
