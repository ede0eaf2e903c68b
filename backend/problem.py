"""The one kind of error that people can put right: a sentence in English, and a code by which pages find it in other languages."""

from __future__ import annotations


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
