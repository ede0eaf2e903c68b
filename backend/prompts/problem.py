"""What can be wrong with a template, and the sizes that bound every one of them."""

from backend.problem import Problem

MAX_SOURCE_BYTES = 65_536
MAX_NODES = 2_000
MAX_DEPTH = 60  # of nested expressions: deeper ones exhaust the parser before they say anything
MAX_LOOP_DEPTH = 2
MAX_STEPS = 20_000  # loop steps of one rendering
MAX_OUTPUT = 262_144  # characters of a value, of a filter's result and of the whole text
MAX_WORK = 4_000_000  # characters read and written by filters and comparisons, and nodes run in loops; our choice


class TemplateProblem(Problem, ValueError):
    """A template or a value that cannot be used; the message names the line and what to do.

    The string of ``code`` is the sentence without the line, which pages put before it in their language.
    """

    def __init__(self, message: str, line: int | None = None, code: str = "", **values: object):
        super().__init__(message if line is None else f"Line {line}: {message}", code, **values)
        self.line = line
        self.sentence = message  # without the line

    @classmethod
    def undefined(cls, name: str, line: int) -> "TemplateProblem":
        return cls(
            f'the variable "{name}" has no value. Give it one, or take {{{{{name}}}}} out of the template.',
            line,
            "template_undefined",
            name=name,
        )
