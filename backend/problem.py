"""The one kind of error that people can put right: a sentence in English, and a code by which pages find it in other languages; and how
sentences are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACE = re.compile(r"{(\w+)(?:\|([^{}|]*)\|([^{}|]*))?}")


def filled(said: str, values: Mapping[str, object]) -> str:
    """A sentence with its values: {n} is the value of n, {n|case|cases} is it with the word for one or for several. Nothing is read
    of a value but its text, and a place without a value stays."""
    return _PLACE.sub(lambda found: _at(found, values), said)


def _at(found: re.Match[str], values: Mapping[str, object]) -> str:
    if found[1] not in values:
        return found[0]
    value = str(values[found[1]])
    return value if found[2] is None else f"{value} {found[2] if value == '1' else found[3]}"


class Phrase(str):
    """Words within a message that have a string "problem.<code>" of their own."""

    code: str

    def __new__(cls, words: str, code: str) -> Phrase:
        made = super().__new__(cls, words)
        made.code = code
        return made


class Problem(Exception):
    """``code`` names a string "problem.<code>"; ``values`` fill it in. Without a code the message is shown as it stands."""

    def __init__(self, message: str, code: str = "", **values: object):
        super().__init__(message)
        self.code = code
        self.values = values
