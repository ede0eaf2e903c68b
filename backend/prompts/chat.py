"""From a template, values and demonstrations to the exact messages a model sees.

A text template is a system text and a body, a chat template a list of rows (see rows.py). Demonstrations come in two shapes. As
``turns``, each is a user message (the body, or the last row, filled with the demonstration's input) and an assistant message (its
output), at the place that the rows have for them, or before the case's own turns. As ``text``, all of them stand inside the last user
message, at the ``{{demonstrations}}`` line or, where there is none, before the rest: each is the form of the case (the part
after that line) filled with the demonstration's input, then its output, then an empty line. The body

    Perform the following {{task}}:

    {{demonstrations}}
    Input: {{input}}
    Output:

gives exactly the bytes of ``build_prompt`` below.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.problem import Problem
from feedback_db.cases import conversation as asked_in
from feedback_db.types import Case, Demonstration, Message, Template

from .fewshot import Shape
from .logic import own_budget, with_one_budget
from .problem import MAX_OUTPUT, TemplateProblem
from .rows import (
    ASSISTANT,
    DEMONSTRATIONS,
    SPEAKERS,
    TURNS,
    USER,
    Compilation,
    CompiledRow,
    compile_rows,
    given_away,
)
from .template import checked_values, render_tail

INPUT = "input"  # the variable that a demonstration's input takes the place of


class PromptProblem(Problem, ValueError):
    """A prompt that cannot be built from what was given; the message names the value and what to do."""


def build_prompt(
    task: str, input: str, demonstrations: Sequence[Demonstration | tuple[str, str]] = (), k: int | None = None
) -> str:
    """The plain few-shot prompt: a task, the first k demonstrations, the input to answer.

    A demonstration is a record or an (input, output) pair; k = None takes all of them.
    """
    if k is not None and k < 0:
        raise PromptProblem(f"k is {k}; it cannot be below 0.", "prompt_k", value=k)
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
    """The rows of a template in their order, with demonstrations and the case's own turns at their places; rows that come out
    without text are left out.

    ``special_tokens`` are those of the model that will read the prompt: a value that holds one could end a turn or
    begin another, so it is refused by name.
    """
    if special_tokens:
        refuse_special_tokens(values, demonstrations, conversation, special_tokens)
    rows, checked = compile_rows(template), checked_values(values)
    checked = with_one_budget(checked) if template.rows else checked
    messages: list[Message] = []
    filled = 0  # characters of all rows
    for row in rows.rows:
        if row.role == DEMONSTRATIONS:
            messages += _as_turns(rows, checked, demonstrations) if shape == "turns" else ()
        elif row.role == TURNS:
            messages += [_turn(turn) for turn in conversation]
        else:
            shown = demonstrations if shape == "text" and row is rows.ask else ()
            text = row.fill(checked, "".join(_written(row, checked, one) for one in shown))
            messages += [_message(row.role, text)] if text else []
            filled += len(text)
            if row.number and filled > MAX_OUTPUT:
                raise TemplateProblem(
                    f"The rows come to more than {MAX_OUTPUT:,} characters. Shorten them or the values.",
                    None,
                    "rows_characters",
                    most=f"{MAX_OUTPUT:,}",
                )
    _refuse_unasked(template, rows, messages, demonstrations if shape == "text" else ())
    return tuple(messages)


def variables_of(template: Template) -> tuple[str, ...]:
    """All that a template asks a case for, in the order of its rows."""
    return compile_rows(template).variables


def refuse_given_away(template: Template, case: Case) -> None:
    """Raises PromptProblem where a row asks (nearly) what the case asks and the next row answers it: what a model says then
    tells nothing of what it can."""
    number = given_away(template, text_of(case))
    if number is not None:
        raise PromptProblem(
            f"Row {number} asks what this case asks, and the row after it answers. Take them out of the template, or test it with "
            "other cases.",
            "row_gives_away",
            row=number,
        )


def why_unfit(template: Template, case: Case) -> Problem | None:
    """What keeps the template from being filled from this case alone, demonstrations aside; None when nothing does."""
    try:
        refuse_given_away(template, case)
        build_messages(template, case.values or {}, (), "turns", conversation=case.conversation or ())
    except Problem as problem:
        return problem
    return None


def text_of(case: Case) -> str:
    """What a case asks, as demonstrations and rows are compared with it."""
    return asked_in(case.values, case.conversation)[-1]["content"]


def refuse_special_tokens(
    values: Mapping[str, Any],
    demonstrations: Sequence[Demonstration],
    conversation: Sequence[Message],
    special_tokens: Sequence[str],
) -> None:
    named: list[
        tuple[str, str, object, Any]
    ] = [  # its words, the code of the refusal, the name or number in it, the text
        (f'The value of "{name}"', "token_in_value", name, value) for name, value in values.items()
    ]
    for i, turn in enumerate(conversation, 1):
        named.append((f"Turn {i} of the conversation", "token_in_turn", i, turn["content"]))
    for i, one in enumerate(demonstrations, 1):
        named.append((f"The input of demonstration {i}", "token_in_input", i, one.input))
        named.append((f"The output of demonstration {i}", "token_in_output", i, one.output))
    for words, code, name, value in named:
        found = next((token for token in special_tokens if token and _holds(value, token)), None)
        if found is not None:
            raise PromptProblem(
                f"{words} holds {found!r}, which the model reads as a control token. Remove it or write it differently.",
                code,
                name=name,
                token=repr(found),
            )


def _holds(value: Any, token: str) -> bool:
    if isinstance(value, str):
        return token in value
    if isinstance(value, Mapping):
        return any(_holds(part, token) for pair in value.items() for part in pair)
    return isinstance(value, list | tuple) and any(_holds(part, token) for part in value)


def _as_turns(
    rows: Compilation, values: Mapping[str, Any], demonstrations: Sequence[Demonstration]
) -> Iterator[Message]:
    """Each as the row that asks would ask its input, and its output; where no row asks, the input asks by itself."""
    ask = rows.ask
    for one in demonstrations:
        asked = one.input if ask is None or _is_empty(ask) else ask.fill(_with_input(ask, values, one))
        yield _message(USER, asked)
        yield _message(ASSISTANT, one.output)


def _written(ask: CompiledRow, values: Mapping[str, Any], one: Demonstration) -> str:
    stub = one.input + "\n" if _is_empty(ask) else render_tail(ask.text, _with_input(ask, values, one))  # type: ignore[arg-type]
    return stub + gap(stub) + one.output + "\n\n"


def _is_empty(row: CompiledRow) -> bool:
    return row.text is None or not row.text.body


def _refuse_unasked(
    template: Template, rows: Compilation, messages: Sequence[Message], as_text: Sequence[Demonstration]
) -> None:
    if not any(message["role"] == USER for message in messages):
        raise PromptProblem(
            "The prompt asks nothing. Give the template a body, or the case a conversation.", "prompt_asks_nothing"
        )
    if template.rows and messages[-1]["role"] != USER:
        raise PromptProblem(
            "The last row came out empty, so there is nothing to answer. Give the case a value for it, or a conversation.",
            "rows_unasked",
        )
    if as_text and rows.ask is None:
        raise PromptProblem(
            "Demonstrations that are written in the last row need a user row at the end. Add one, or write them as turns.",
            "rows_as_text",
        )


def gap(stub: str) -> str:
    """A space between "Output:" and the answer; none after a line break, a space, or the full-width "："."""
    return " " if re.search(r"[!-~]\Z", stub) else ""


def _with_input(ask: CompiledRow, values: Mapping[str, Any], one: Demonstration) -> dict[str, Any]:
    if ask.text is None or INPUT not in ask.text.variables:
        raise PromptProblem(
            "Demonstrations take the place of {{input}}, and the template does not use it. "
            "Name the variable of the case {{input}}, or set k to 0.",
            "prompt_no_input",
        )
    return {**own_budget(values), INPUT: one.input}


def _turn(turn: Message) -> Message:
    if turn["role"] not in SPEAKERS:
        raise PromptProblem(
            f'A turn has the role "{turn["role"]}". Use system, user or assistant.', "prompt_role", role=turn["role"]
        )
    return _message(turn["role"], turn["content"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
