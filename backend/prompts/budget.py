"""Keeping a prompt within a token limit by leaving out whole demonstrations, and nothing else."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from backend.problem import Problem
from feedback_db.types import Demonstration, Message


class BudgetProblem(Problem, ValueError):
    """Instruction and case alone are larger than the model's limit."""


class Fitted(NamedTuple):
    messages: tuple[Message, ...]
    kept: tuple[Demonstration, ...]
    dropped_ids: tuple[int, ...]  # in the order in which they were given up
    tokens: int


def fit(
    demonstrations: Sequence[Demonstration],
    build: Callable[[Sequence[Demonstration]], tuple[Message, ...]],
    count_tokens: Callable[[Sequence[Message]], int],
    limit: int,
    closeness: Sequence[float] | None = None,
) -> Fitted:
    """The prompt with as many demonstrations as fit, the farthest given up first.

    ``closeness[i]`` says how near ``demonstrations[i]`` is to the case; without it, position decides: what stands first
    is farthest. ``build`` makes the messages from the demonstrations kept, in their order. The number given up is found
    by bisection, because counting may mean asking the engine.
    """
    near = list(range(len(demonstrations))) if closeness is None else list(closeness)
    farthest_first = sorted(range(len(demonstrations)), key=lambda i: (near[i], i))

    def without(count: int) -> Fitted:
        given_up = set(farthest_first[:count])
        kept = tuple(one for i, one in enumerate(demonstrations) if i not in given_up)
        messages = build(kept)
        ids = tuple(demonstrations[i].id or 0 for i in farthest_first[:count])
        return Fitted(messages, kept, ids, count_tokens(messages))

    whole = without(0)
    if whole.tokens <= limit:
        return whole
    fitted = without(len(demonstrations))
    if fitted.tokens > limit:
        raise BudgetProblem(
            f"Instruction and case alone need {fitted.tokens:,} tokens; the limit is {limit:,}. "
            "Shorten them, or use a model with a longer context.",
            "prompt_budget",
            tokens=f"{fitted.tokens:,}",
            limit=f"{limit:,}",
        )
    too_few, enough = 0, len(demonstrations)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        tried = without(middle)
        if tried.tokens <= limit:
            enough, fitted = middle, tried
        else:
            too_few = middle
    return fitted
