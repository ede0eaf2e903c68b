"""Who made an answer, said by the answer itself: such words are covered before anybody judges it."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME_LEAST = 4  # characters; shorter names stand in words that tell nothing
CLAIMS = [  # "I am X, made by Y", in the tongues of the pages; our choice
    re.compile(
        r"\b(?:I am|I'm|[Mm]y name is|[Aa]s)\s+(?:an? )?(?:AI |artificial intelligence |language |large language |model |assistant |chatbot )*"
        r"(?:called |named |known as )?(?P<who>[A-Z][\w.-]*(?:[ -][A-Z0-9][\w.-]*)*)?[^.!?\n]{0,40}?"
        r"\b(?:made|built|created|developed|trained|designed)\s+by\s+(?P<maker>[A-Z][\w&-]*(?:[ .-][A-Z][\w&-]*)*)"
    ),
    re.compile(
        r"我(?:是|叫)(?P<who>[\w\s·-]{1,20}?)[,,。\s]{0,2}(?:是)?由(?P<maker>[\w\s·-]{1,20}?)(?:开发|训练|研发|创建|制造|推出)"
    ),
]


def names_in(models: Iterable[str]) -> frozenset[str]:
    """The names of models that an answer could tell, in lower case. Parts of names are words like any other."""
    return frozenset(name.lower() for name in models if len(name) >= NAME_LEAST)


def spans(text: str, names: Iterable[str], asked: str) -> list[list[int]]:
    """[start, end) in code points of what names the maker; what the case itself says tells nothing."""
    found = set()
    for name in names:
        if name not in asked.lower():
            found |= {one.span() for one in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)}
    for claim in CLAIMS:
        for one in claim.finditer(text):
            for group in ("who", "maker"):
                if one[group] and one[group].strip() and one[group].lower() not in asked.lower():
                    found.add(one.span(group))
    return [list(span) for span in sorted(found)]


def leaks(texts: Iterable[str], models: Iterable[str], asked: str) -> dict[str, list[list[int]]] | None:
    """Position -> spans of each text that names its maker; None when none of them does."""
    names = names_in(models)
    found = {str(place): spans(text, names, asked) for place, text in enumerate(texts)}
    return {place: one for place, one in found.items() if one} or None
