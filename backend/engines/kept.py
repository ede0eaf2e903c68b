"""What an engine was asked and what it answered, kept as rows: prompts, samplings, completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.engines.answers import Answer, Client, TokenCount
from backend.engines.features import Engine, embedder
from backend.problem import Problem
from backend.prompts.assemble import assemble
from backend.prompts.digest import sampling_digest
from feedback_db import Store, comparisons, prompts
from feedback_db.types import Case, Completion, Message, Model, Prompt, Sampling, Template


class BadSampling(Problem):
    """A sampling setting is out of range; the message names it and the range."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How answers are sampled; TRL's and OpenAI's names."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 96

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0, 2)  # as the protocol has it: engines refuse more
        _check_range("top-p", self.top_p, 0.001, 1)
        _check_range("number of tokens", self.max_tokens, 1, 100_000)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadSampling(
            f"The {name} must be between {low:g} and {high:g}, not {value!r}.",
            "sampling_range",
            name=name,
            low=low,
            high=high,
            value=value,
        )


def keep_prompt(
    store: Store,
    engine: Engine,
    client: Client,
    template: Template,
    case: Case,
    answer_tokens: int,
    person_id: int | None,
) -> Prompt:
    """The stored prompt of a template and a case, with its demonstrations and, where it was counted, its length in tokens.

    ``client`` answers it and counts its tokens; the engine's own base says what is near where embeddings choose.
    """
    estimates: set[bool] = set()

    def tokenize(messages: Sequence[Message]) -> TokenCount:
        counted = client.tokenize(messages, model="base")
        estimates.add(counted.is_estimate)
        return counted

    assembled = assemble(
        store, template, case, tokenize=tokenize, answer_tokens=answer_tokens, embed=embedder(store, engine)
    )
    assert case.id is not None
    prompt = Prompt(
        project_id=case.project_id,
        template_id=template.id,
        case_id=case.id,
        messages=assembled.messages,
        dropped_ids=assembled.dropped_ids,
        tokens=None if True in estimates else assembled.tokens,
        digest=assembled.digest,
        person_id=person_id,
    )
    return prompts.keep_prompt(store, prompt, assembled.demonstration_ids)


def keep_sampling(store: Store, sampling: SamplingSettings) -> Sampling:
    settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    return comparisons.keep_sampling(store, Sampling(digest=sampling_digest(settings), settings=settings))


def keep_answer(
    store: Store, prompt: Prompt, model: Model, sampling: Sampling, answer: Answer, *, seed: int, repeat: int
) -> Completion:
    return comparisons.keep_completion(store, _completion(prompt, model, sampling, answer, seed, repeat))


def keep_partial(
    store: Store, prompt: Prompt, model: Model, sampling: Sampling, answer: Answer, *, seed: int
) -> Completion:
    """An answer that was stopped in the middle, kept beside the whole one of the same seed, never in its place."""
    with store.write():
        made = _completion(prompt, model, sampling, replace(answer, finish_reason="cancelled"), seed, 0)
        return store.add(replace(made, repeat=comparisons.free_repeat(store, made)))


def _completion(prompt: Prompt, model: Model, sampling: Sampling, answer: Answer, seed: int, repeat: int) -> Completion:
    assert prompt.id is not None and model.id is not None and sampling.id is not None
    return Completion(
        prompt_id=prompt.id,
        model_id=model.id,
        sampling_id=sampling.id,
        seed=seed,
        repeat=repeat,
        text=answer.text,
        finish_reason=answer.finish_reason,  # type: ignore[arg-type]
        prompt_tokens=answer.prompt_tokens,
        tokens=answer.tokens,
        seconds=answer.seconds,
        first_token_seconds=answer.first_token_seconds,
        mean_logp=answer.mean_logp,
    )


def engine_name(model: Model) -> str:
    """The name by which its engine knows a model; never "live", which may change between two requests."""
    if model.engine_id is not None:
        return model.base
    return f"model-{model.id}" if model.adapter else "base"
