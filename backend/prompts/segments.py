"""What each part of a prompt costs in tokens, so that it is seen before anything runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from feedback_db.types import Demonstration, Message, Template

from .chat import PromptProblem, build_messages
from .fewshot import Shape
from .problem import TemplateProblem
from .rows import system_of, without_system

Kind = Literal["system", "instruction", "demonstration", "case", "dropped"]


class Segment(NamedTuple):
    """A part of the prompt; ``dropped`` is a demonstration that was chosen and does not fit."""

    kind: Kind
    tokens: int
    demonstration_id: int | None = None


def segments(
    template: Template,
    values: Mapping[str, Any],
    conversation: Sequence[Message],
    kept: Sequence[Demonstration],
    dropped: Sequence[Demonstration],
    shape: Shape,
    count: Callable[[Sequence[Message]], int],
) -> list[Segment]:
    """Each part as the difference of counts of growing prompts, so that the parts but ``dropped`` add up to the whole.

    The instruction is the body, or every row but the system's, with all values empty; what the values and the turns of the case add is the case. A
    dropped demonstration is what it would add on its own.
    """

    def tokens(template: Template, values: Mapping[str, Any], turns: Sequence[Message], shown: Any = ()) -> int:
        return count(build_messages(template, values, shown, shape, conversation=turns))

    bare = tokens(template, values, conversation)
    system = bare - tokens(without_system(template), values, conversation) if system_of(template) else 0
    try:
        instruction = tokens(without_system(template), dict.fromkeys(values, ""), ())
    except (PromptProblem, TemplateProblem):  # nothing stands there without the values
        instruction = 0
    instruction = max(0, min(instruction, bare - system))
    found = [Segment("system", system)] if system else []
    found.append(Segment("instruction", instruction))
    before = bare
    for number, one in enumerate(kept, 1):
        after = tokens(template, values, conversation, kept[:number])
        found.append(Segment("demonstration", after - before, one.id))
        before = after
    found.append(Segment("case", bare - system - instruction))
    alone = [(one, tokens(template, values, conversation, [one])) for one in dropped]
    return found + [Segment("dropped", after - bare, one.id) for one, after in alone]
