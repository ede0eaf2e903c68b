"""From a template version and a case to the prompt a model is sent: demonstrations chosen, budget kept, bytes hashed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from backend.engines.client import TokenCount
from feedback_db import Store, prompts
from feedback_db.types import Case, Demonstration, Message, Template

from .budget import BudgetProblem, fit
from .chat import build_messages, refuse_given_away, text_of
from .digest import messages_digest
from .fewshot import Embed, FewShot, choose, closeness

SERVED = "served"  # the source of cases that programs ask


class Assembled(NamedTuple):
    messages: tuple[Message, ...]
    demonstration_ids: tuple[int, ...]  # in the order in which they are shown
    dropped_ids: tuple[int, ...]  # chosen, but the context was too short for them
    tokens: int
    context: int  # tokens the model can take in all
    digest: bytes
    kept: tuple[Demonstration, ...]  # the demonstrations of ``demonstration_ids``
    dropped: tuple[Demonstration, ...]


def assemble(
    store: Store,
    template: Template,
    case: Case,
    *,
    tokenize: Callable[[Sequence[Message]], TokenCount],
    answer_tokens: int = 0,
    embed: Embed | None = None,
) -> Assembled:
    """Build the prompt of a case so that it and an answer fit the model's context.

    ``tokenize`` counts these messages, and says how many the context can take; ``embed`` is asked where embeddings choose the
    demonstrations. Raises the problems of template, fewshot, chat and budget.
    """
    if case.source != SERVED:  # a program's own users may well ask what a row asks
        refuse_given_away(template, case)
    few_shot = FewShot.parse(template.few_shot)
    named = few_shot.ids if few_shot.choose == "fixed" else ()
    pool = prompts.demonstrations(
        store, template.project_id, scenario=template.scenario, language=template.language, named=named
    )
    chosen = choose(pool, text_of(case), few_shot, embed)

    def build(kept: Sequence[Demonstration]) -> tuple[Message, ...]:
        return build_messages(template, case.values or {}, kept, few_shot.shape, conversation=case.conversation or ())

    context = tokenize(build(())).max_model_len
    if answer_tokens >= context:
        raise BudgetProblem(
            f"An answer of up to {answer_tokens:,} tokens leaves no room for a prompt: the model takes {context:,} in all. Ask for fewer.",
            "prompt_answer_room",
            tokens=f"{answer_tokens:,}",
            context=f"{context:,}",
        )
    near = closeness(few_shot, len(chosen))
    fitted = fit(chosen, build, lambda messages: tokenize(messages).count, context - answer_tokens, near)
    return Assembled(
        messages=fitted.messages,
        demonstration_ids=tuple(one.id for one in fitted.kept if one.id is not None),
        dropped_ids=fitted.dropped_ids,
        tokens=fitted.tokens,
        context=context,
        digest=messages_digest(fitted.messages),
        kept=fitted.kept,
        dropped=tuple(one for id in fitted.dropped_ids for one in chosen if one.id == id),
    )
