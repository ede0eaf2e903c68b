"""Word by word what changed between two texts."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

WORDS = re.compile(
    r"\s+|[^\W\d_\u3400-\u9fff]+|\d+|.", re.DOTALL
)  # a word, a number, a run of blanks, one sign (Chinese: one each)
MOST_WORDS = 4_000  # of a text; longer ones are compared line by line


class Piece(NamedTuple):
    """A run of text and whether it is "same", "gone" or "new"."""

    kind: str
    text: str


def difference(before: str, after: str) -> list[Piece]:
    """Word by word what left and what came; the pieces that are not "gone" are the text after, those not "new" before."""
    one, other = WORDS.findall(before), WORDS.findall(after)
    if max(len(one), len(other)) > MOST_WORDS:
        one, other = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Piece("same", "".join(one[a:b])))
            continue
        found += [Piece(kind, "".join(words)) for kind, words in (("gone", one[a:b]), ("new", other[c:d])) if words]
    return found
