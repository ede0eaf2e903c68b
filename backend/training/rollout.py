"""Sample answers from the policy, and note everything the update will need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from backend.decoder.stack import Adapters
from backend.training import encoder_decoder, families, llama
from backend.training.data import pad_left, side_by_side
from backend.training.draws import generator
from backend.training.run import Run
from backend.training.shared_base import SharedBase

ROWS = 128  # sampled side by side; our choice
DROPPED = (
    0.75  # prompts leave the batch when no more than this share of them goes on: leaving copies the rest; our choice
)


class Sampled(NamedTuple):
    tokens: list[int]  # the end token included, if it was sampled
    has_ended: bool


class Trajectory(NamedTuple):
    """B prompts answered. P prompt positions (left-padded), R response positions (right-padded)."""

    tokens: Tensor  # (B, P+R)
    is_real: Tensor  # (B, P+R) True where a token is not padding
    is_response: Tensor  # (B, R) True up to and including the end token
    has_ended: Tensor  # (B,) True if the end token is there
    logp_old: Tensor  # (B, R) under the policy that sampled, by the forward that training uses
    logp_ref: Tensor  # (B, R) under the reference
    values: Tensor  # (B, R)
    score: Tensor  # (B,)
    spread: Tensor  # (B,) deviation of the score among the members of the reward model

    def take(self, rows: Sequence[int] | Tensor) -> "Trajectory":
        """These rows, without the positions at either side that are padding in all of them."""
        few = [x[rows] for x in self]
        tokens, is_real, is_response = few[:3]
        responses = is_response.shape[1]
        front = int(is_real.any(0).int().argmax())
        kept = max(1, int(is_response.any(0).sum()))
        columns = slice(front, tokens.shape[1] - responses + kept)
        few[:3] = [tokens[:, columns], is_real[:, columns], is_response[:, :kept]]
        few[4:7] = [x[:, :kept] for x in few[4:7]]
        return Trajectory(*few)


def lay_out(base: SharedBase, prompts: Sequence[Sequence[int]], answers: Sequence[Sampled]) -> Trajectory:
    """Prompts on the left, answers on the right, numbers still zero. Prompt i belongs to answer i."""
    prompt = pad_left(prompts, base.pad_id)
    width = max(len(answer.tokens) for answer in answers)
    response = torch.tensor([a.tokens + [base.pad_id] * (width - len(a.tokens)) for a in answers])
    is_response = torch.arange(width)[None] < torch.tensor([len(a.tokens) for a in answers])[:, None]
    path = Trajectory(
        tokens=torch.cat([prompt.tokens, response], 1),
        is_real=torch.cat([prompt.is_real, is_response], 1),
        is_response=is_response,
        has_ended=torch.tensor([a.has_ended for a in answers]),
        logp_old=torch.zeros(len(answers), width),
        logp_ref=torch.zeros(len(answers), width),
        values=torch.zeros(len(answers), width),
        score=torch.zeros(len(answers)),
        spread=torch.zeros(len(answers)),
    )
    return Trajectory(*(x.to(base.device) for x in path))


@torch.no_grad()
def sample(
    base: SharedBase,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    count: int,
    length: int,
    temperature: float,
    seed: int,
    step: int,
    run: Run,
    purpose: str = "sample",
) -> list[Sampled]:
    """``count`` answers to each prompt, side by side: answer k of prompt i has place i * count + k.

    The full distribution is sampled: top-k or top-p would make the KL estimates wrong (they may read negative).
    """
    families.require_writer(base.family, "sampling")
    draw = generator(seed, step, purpose)
    found: list[Sampled] = []
    size = max(1, ROWS // count)
    with base.scope(adapter), _reading(base, adapter, min(size, len(prompts)) * count) as adapters:
        for start in range(0, len(prompts), size):
            few = prompts[start : start + size]
            uniform = torch.rand(length, len(few) * count, generator=draw, dtype=torch.float64)
            with torch.inference_mode(adapters is not None):  # transformers' modules may keep what they compute
                found += _decode(base, few, count, temperature, uniform, run, adapters)
    return found


@contextmanager
def _reading(base: SharedBase, adapter: str | None, rows: int) -> Iterator[Adapters | None]:
    """Within: what the base's stack is to be given, where it has one."""
    if base.stack is None:
        yield None
        return
    with base.stack.for_few_rows(adapter, rows) as adapters:
        yield adapters


def end_ids(base: SharedBase) -> set[int]:
    """Every token that ends an answer: the tokenizer's, and those the model's own settings name."""
    named: Any = base.causal.generation_config.eos_token_id if base.causal.generation_config else None
    more = named if isinstance(named, list) else [named] if named is not None else []
    return {base.end_id, *more}


def _decode(
    base: SharedBase,
    prompts: Sequence[Sequence[int]],
    count: int,
    temperature: float,
    uniform: Tensor,
    run: Run,
    adapters: Adapters | None,
) -> list[Sampled]:
    """Each prompt is read once for its ``count`` answers; those that ended leave the batch."""
    states, decoder = begin(base, prompts, count, len(uniform), adapters)
    rows = torch.arange(len(prompts) * count)  # which answer each row of the batch is
    written: list[list[int]] = [[] for _ in rows]
    ended = torch.zeros(len(written), dtype=torch.bool)
    ends = torch.tensor(sorted(end_ids(base)))
    for t in range(len(uniform)):
        run.check()
        logits = (
            base.logits(states, temperature) if base.stack is None else base.stack.logits(states).float() / temperature
        )
        tokens = pick(logits, uniform[t, rows])  # (rows,)
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            if not ended[row]:
                written[row].append(token)
        ended[rows] |= torch.isin(tokens, ends)
        goes_on = ~ended[rows].view(-1, count).all(1)  # (prompts,)
        if not bool(goes_on.any()) or t == len(uniform) - 1:
            break
        if int(goes_on.sum()) <= DROPPED * len(goes_on):
            prompts_left = goes_on.nonzero()[:, 0]
            decoder.keep(prompts_left.to(base.device))
            stay = side_by_side(prompts_left, count)
            tokens, rows = tokens[stay], rows[stay]
        states = decoder.step(tokens.to(base.device))
    return [Sampled(tokens, over) for tokens, over in zip(written, ended.tolist(), strict=True)]


class Decoder(Protocol):
    """Goes on with the answers to prompts that were read; K answers to a prompt stand side by side."""

    def step(self, tokens: Tensor) -> Tensor:
        """The states after one more token of every answer. (R,) -> (R, D)"""

    def keep(self, prompts: Tensor) -> None:
        """Go on with the answers to these prompts only. (P',)"""


def begin(
    base: SharedBase, prompts: Sequence[Sequence[int]], count: int, length: int, adapters: Adapters | None
) -> tuple[Tensor, Decoder]:
    """Read every prompt once: the states that predict the first token of each of its answers, and what goes on from there.

    Answers of ``length`` tokens at most; states (P x ``count``, D).
    """
    if base.family == "encoder_decoder":
        return encoder_decoder.begin(base, prompts, count)
    if base.stack is not None and adapters is not None:
        decoder = llama.Decoder(base.stack, adapters, prompts, count, length)
        return decoder.states, decoder
    padded = pad_left(prompts, base.pad_id, base.device)
    cache = DynamicCache(config=base.causal.config)
    out = base.backbone(
        input_ids=padded.tokens,
        attention_mask=padded.is_real.long(),
        past_key_values=cache,
        use_cache=True,
        **base.positions(padded.is_real),
    )
    states = out.last_hidden_state[:, -1].repeat_interleave(count, 0)
    return states, Repeated(base, cache, padded.is_real, count)


class Repeated:
    """For any decoder that transformers knows: its own forward, a prompt's keys and values repeated for each answer."""

    def __init__(self, base: SharedBase, cache: Any, is_real: Tensor, count: int) -> None:
        cache.batch_repeat_interleave(count)
        self._base, self._cache, self._count = base, cache, count
        self._is_real = is_real.repeat_interleave(count, 0)

    def step(self, tokens: Tensor) -> Tensor:
        self._is_real = torch.cat([self._is_real, torch.ones_like(self._is_real[:, :1])], 1)
        places = {name: ids[:, -1:] for name, ids in self._base.positions(self._is_real).items()}
        out = self._base.backbone(
            input_ids=tokens[:, None],
            attention_mask=self._is_real.long(),
            past_key_values=self._cache,
            use_cache=True,
            **places,
        )
        states: Tensor = out.last_hidden_state[:, -1]
        return states

    def keep(self, prompts: Tensor) -> None:
        rows = side_by_side(prompts, self._count)
        self._cache.batch_select_indices(rows)
        self._is_real = self._is_real[rows]


def pick(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token per row by inverting the cumulated distribution, so that a row's token depends on its own draw only.

    logits (B, V), uniform (B,) in [0, 1) -> (B,) on the CPU.
    """
    cumulated = logits.cpu().double().softmax(-1).cumsum(-1)
    threshold = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
