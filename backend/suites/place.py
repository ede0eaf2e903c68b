"""Where in the text of a suite something is wrong, and the errors that say so in every language."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

from backend.problem import Problem


class Place(NamedTuple):
    """Line or check ``number``, both from 1; ``field`` is the column or key in it, ``type`` the kind of check that stands there."""

    of: Literal["line", "check"]
    number: int
    field: str = ""
    type: str = ""

    def __str__(self) -> str:
        named = f", {self.field}" if self.field else ""
        return f"{self.of.capitalize()} {self.number}{named}" + (f" ({self.type})" if self.type else "")

    @property
    def code(self) -> str:
        """Names the string of this place, as the code of an error does."""
        return f"at_{self.of}{'_field' if self.field else ''}{'_type' if self.type else ''}"

    @property
    def values(self) -> dict[str, object]:
        return {"number": self.number, "field": self.field, "type": self.type}


class Misplaced(Problem, ValueError):
    """Something that cannot be read. The string of ``code`` is the sentence; pages put the place before it in their language."""

    def __init__(self, sentence: str, code: str = "", at: Place | None = None, **values: object):
        super().__init__(sentence if at is None else f"{at}: {sentence}", code, **values)
        self.sentence, self.at = sentence, at


Error = TypeVar("Error", bound=Misplaced)


def moved(problem: Misplaced, to: type[Error], at: Place) -> Error:
    """The same at another place, which keeps the kind of check that was named."""
    kind = problem.at.type if problem.at else ""
    return to(problem.sentence, problem.code, at._replace(type=kind), **problem.values)
