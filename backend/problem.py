"""The one kind of error that people can put right: a sentence in English, and a code by which pages find it in other languages; and how
sentences are filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

SAID, CODE = "said", "code"  # of words that are stored with their code
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
    """Words that have a string "problem.<code>" of their own; ``values`` fill it in. ``line`` and ``at`` say where in a text."""

    code: str
    values: Mapping[str, object]
    line: int | None
    at: Phrase | None

    def __new__(cls, words: str, code: str, **values: object) -> Phrase:
        made = super().__new__(cls, words)
        made.code, made.values, made.line, made.at = code, values, None, None
        return made


class Problem(Exception):
    """``code`` names a string "problem.<code>"; ``values`` fill it in. Without a code the message is shown as it stands."""

    def __init__(self, message: str, code: str = "", **values: object):
        super().__init__(message)
        self.code = code
        self.values = values


def words_of(error: Exception) -> str:
    """What an error says, with its code where it has one: of a Problem, or of an error that was raised with a Phrase."""
    if isinstance(error, Problem) and error.code:
        return _phrase(error)
    return error.args[0] if error.args and isinstance(error.args[0], Phrase) else str(error)


def stored(words: str) -> Any:
    """Words as JSON can hold them: a text, or a table where they have a code."""
    if not isinstance(words, Phrase):
        return str(words)
    row: dict[str, Any] = {SAID: str(words), CODE: words.code}
    row["values"] = {name: _plain(value) for name, value in words.values.items()}
    row |= {"line": words.line} if words.line is not None else {}
    return row | ({"at": stored(words.at)} if words.at is not None else {})


def stored_text(words: str) -> str:
    """The same for a column that holds a text."""
    kept = stored(words)
    return kept if isinstance(kept, str) else json.dumps(kept, ensure_ascii=False)


def read_back(kept: Any) -> str:
    """What ``stored`` or ``stored_text`` made, as words again; a text from before words were stored with codes is itself, and so is
    one that only begins like these: a server elsewhere may say anything."""
    if isinstance(kept, str) and kept.startswith(f'{{"{SAID}":'):
        try:
            return _coded(json.loads(kept))
        except (ValueError, KeyError, TypeError, AttributeError):
            return kept
    return _coded(kept) if isinstance(kept, Mapping) else str(kept)


def _coded(kept: Mapping[str, Any]) -> Phrase:
    made = Phrase(kept[SAID], kept[CODE])
    made.values = {name: read_back(one) if isinstance(one, Mapping) else one for name, one in kept["values"].items()}
    made.line = kept.get("line")
    at = read_back(kept["at"]) if "at" in kept else None
    made.at = at if isinstance(at, Phrase) else None
    return made


def _phrase(coded: Any) -> Phrase:
    """Of anything that has words, a code and values: a Problem, or a place in a text."""
    made = Phrase(str(coded), coded.code)
    made.values = {
        name: _phrase(one) if hasattr(one, "code") else one for name, one in getattr(coded, "values", {}).items()
    }
    made.line = getattr(coded, "line", None)
    at = getattr(coded, "at", None)
    made.at = None if at is None else _phrase(at)
    return made


def _plain(value: object) -> Any:
    if isinstance(value, Phrase):
        return stored(value)
    if hasattr(value, "code"):
        return stored(_phrase(value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
