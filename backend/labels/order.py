"""An order of answers as somebody types it: letters, the best first, = between equals, as in "B > A = C"."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

from backend.problem import Problem


class BadOrder(Problem):
    """What was typed is no order of these answers; the message says how one is written."""


def ranks_of(text: str, size: int) -> tuple[int, ...]:
    """The rank of each place, 1 is best, of 2 to 16 answers. Full-width signs and small letters are as good. Raises BadOrder."""
    plain = "".join(unicodedata.normalize("NFKC", text).upper().split())
    groups = [group.split("=") for group in plain.split(">")]
    letters = list(ascii_uppercase[:size])
    if sorted(letter for group in groups for letter in group) != letters:
        raise BadOrder(
            f"Name each of {letters[0]} to {letters[-1]} once, the best first, with = between equals: B > A = C.",
            "bad_order",
            first=letters[0],
            last=letters[-1],
        )
    ranks: dict[str, int] = {}
    best = 1
    for group in groups:
        ranks |= dict.fromkeys(group, best)
        best += len(group)
    return tuple(ranks[letter] for letter in letters)


def written(ranks: Sequence[int]) -> str:
    """The same order as text."""
    groups = [[ascii_uppercase[at] for at, one in enumerate(ranks) if one == rank] for rank in sorted(set(ranks))]
    return " > ".join(" = ".join(group) for group in groups)
