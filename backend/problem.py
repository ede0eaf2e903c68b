"""The one kind of error that people can put right: a sentence in English, and a code by which pages find it in other languages."""


class Problem(Exception):
    """``code`` names a string "problem.<code>"; ``values`` fill it in. Without a code the message is shown as it stands."""

    def __init__(self, message: str, code: str = "", **values: object):
        super().__init__(message)
        self.code = code
        self.values = values
