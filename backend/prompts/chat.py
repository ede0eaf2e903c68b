"""From a template, values and demonstrations to the exact messages a model sees.

Demonstrations come in two shapes. As ``turns``, each is a user message (the body filled with the demonstration's input)
and an assistant message (its output). As ``text``, all of them stand inside the one user message, at the body's
``{{demonstrations}}`` line or, where there is none, before the body: each is the form of the case (the part of the body
after that line) filled with the demonstration's input, then its output, then an empty line. The body

    Perform the following {{task}}:

    {{demonstrations}}
    Input: {{input}}
    Output:

gives exactly the bytes of ``build_prompt`` below.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.problem import Problem
from feedback_db.types import Demonstration, Message, Template

from .fewshot import Shape
from .template import Compiled, compile_template, render, render_around, render_tail

INPUT = "input"  # the variable that a demonstration's input takes the place of
ROLES = ("system", "user", "assistant")


class PromptProblem(Problem, ValueError):
    """A prompt that cannot be built from what was given; the message names the value and what to do."""


def build_prompt(
    task: str, input: str, demonstrations: Sequence[Demonstration | tuple[str, str]] = (), k: int | None = None
) -> str:
    """The plain few-shot prompt: a task, the first k demonstrations, the input to answer.

    A demonstration is a record or an (input, output) pair; k = None takes all of them.
    """
    if k is not None and k < 0:
        raise PromptProblem(f"k is {k}; it cannot be below 0.")
    pairs = [
        (one.input, one.output) if isinstance(one, Demonstration) else (one[0], one[1]) for one in demonstrations[:k]
    ]
    shown = "".join(f"Input: {i}\nOutput: {o}\n\n" for i, o in pairs)
    return f"Perform the following {task}:\n\n" + shown + f"Input: {input}\nOutput:"


def build_messages(
    template: Template,
    values: Mapping[str, Any],
    demonstrations: Sequence[Demonstration],
    shape: Shape,
    *,
    conversation: Sequence[Message] = (),
    special_tokens: Sequence[str] = (),
) -> tuple[Message, ...]:
    """System text, demonstrations, the case's own turns, then the body; parts without text are left out.

    ``special_tokens`` are those of the model that will read the prompt: a value that holds one could end a turn or
    begin another, so it is refused by name.
    """
    if special_tokens:
        refuse_special_tokens(values, demonstrations, conversation, special_tokens)
    body = compile_template(template.body, template.mode)
    messages: list[Message] = []
    system_text = render(compile_template(template.system_text, template.mode), values)
    if system_text:
        messages.append(_message("system", system_text))
    if shape == "turns":
        for one in demonstrations:
            messages.append(_message("user", _asked(template, body, values, one)))
            messages.append(_message("assistant", one.output))
    messages += [_turn(turn) for turn in conversation]
    shown = demonstrations if shape == "text" else ()
    text = render_around(body, values, "".join(_written(template, body, values, one) for one in shown))
    if text:
        messages.append(_message("user", text))
    if not any(message["role"] == "user" for message in messages):
        raise PromptProblem("The prompt asks nothing. Give the template a body, or the case a conversation.")
    return tuple(messages)


def variables_of(template: Template) -> tuple[str, ...]:
    """All that a template asks for: the variables of its system text and of its body."""
    system = compile_template(template.system_text, template.mode).variables
    return tuple(dict.fromkeys([*system, *compile_template(template.body, template.mode).variables]))


def refuse_special_tokens(
    values: Mapping[str, Any],
    demonstrations: Sequence[Demonstration],
    conversation: Sequence[Message],
    special_tokens: Sequence[str],
) -> None:
    named = [(f'the value of "{name}"', value) for name, value in values.items()]
    named += [(f"turn {i} of the conversation", turn["content"]) for i, turn in enumerate(conversation, 1)]
    for i, one in enumerate(demonstrations, 1):
        named += [(f"the input of demonstration {i}", one.input), (f"the output of demonstration {i}", one.output)]
    for name, value in named:
        found = next((token for token in special_tokens if token and _holds(value, token)), None)
        if found is not None:
            raise PromptProblem(
                f"{name[0].upper()}{name[1:]} holds {found!r}, which the model reads as a control token. "
                "Remove it or write it differently."
            )


def _holds(value: Any, token: str) -> bool:
    if isinstance(value, str):
        return token in value
    if isinstance(value, Mapping):
        return any(_holds(part, token) for pair in value.items() for part in pair)
    return isinstance(value, list | tuple) and any(_holds(part, token) for part in value)


def _asked(template: Template, body: Compiled, values: Mapping[str, Any], one: Demonstration) -> str:
    """The body as it would ask the demonstration's input; a template without a body asks the input itself."""
    if not template.body:
        return one.input
    return render(body, _with_input(body, values, one))


def _written(template: Template, body: Compiled, values: Mapping[str, Any], one: Demonstration) -> str:
    stub = render_tail(body, _with_input(body, values, one)) if template.body else one.input + "\n"
    return stub + gap(stub) + one.output + "\n\n"


def gap(stub: str) -> str:
    """A space between "Output:" and the answer; none after a line break, a space, or the full-width "："."""
    return " " if re.search(r"[!-~]\Z", stub) else ""


def _with_input(body: Compiled, values: Mapping[str, Any], one: Demonstration) -> dict[str, Any]:
    if INPUT not in body.variables:
        raise PromptProblem(
            "Demonstrations take the place of {{input}}, and the template does not use it. "
            "Name the variable of the case {{input}}, or set k to 0."
        )
    return {**values, INPUT: one.input}


def _turn(turn: Message) -> Message:
    if turn["role"] not in ROLES:
        raise PromptProblem(f'A turn has the role "{turn["role"]}". Use system, user or assistant.')
    return _message(turn["role"], turn["content"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
