"""Sample answers from the policy, and note everything the update will need."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from backend.training import encoder_decoder, families
from backend.training.data import pad_left
from backend.training.draws import generator
from backend.training.run import Run
from backend.training.shared_base import SharedBase

ROWS = 128  # sampled side by side; our choice


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
    decode = _decode if base.family == "decoder" else _decode_from_encoder
    draw = generator(seed, step, purpose)
    found: list[Sampled] = []
    size = max(1, ROWS // count)
    with base.scope(adapter):
        for start in range(0, len(prompts), size):
            few = prompts[start : start + size]
            uniform = torch.rand(length, len(few) * count, generator=draw, dtype=torch.float64)
            found += decode(base, few, count, temperature, uniform, run)
    return found


def end_ids(base: SharedBase) -> set[int]:
    """Every token that ends an answer: the tokenizer's, and those the model's own settings name."""
    named: Any = base.causal.generation_config.eos_token_id if base.causal.generation_config else None
    more = named if isinstance(named, list) else [named] if named is not None else []
    return {base.end_id, *more}


def _decode(
    base: SharedBase, prompts: Sequence[Sequence[int]], count: int, temperature: float, uniform: Tensor, run: Run
) -> list[Sampled]:
    """Each prompt is read once, its keys and values repeated; answers that ended leave the batch."""
    padded = pad_left(prompts, base.pad_id, base.device)
    cache = DynamicCache(config=base.causal.config)
    is_real = padded.is_real
    out = base.backbone(
        input_ids=padded.tokens,
        attention_mask=is_real.long(),
        past_key_values=cache,
        use_cache=True,
        **base.positions(is_real),
    )
    states = out.last_hidden_state[:, -1:].repeat_interleave(count, 0)
    cache.batch_repeat_interleave(count)
    is_real = is_real.repeat_interleave(count, 0)
    position = is_real.sum(1)  # (rows,) of the next token
    rows = torch.arange(len(prompts) * count)  # which answer each row of the batch is
    written: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(written)
    ends = torch.tensor(sorted(end_ids(base)))
    for t in range(len(uniform)):
        run.check()
        tokens = pick(base.logits(states)[:, 0] / temperature, uniform[t, rows])  # (rows,)
        is_end = torch.isin(tokens, ends)
        for row, token, over in zip(rows.tolist(), tokens.tolist(), is_end.tolist(), strict=True):
            written[row].append(token)
            ended[row] = over
        if bool(is_end.all()) or t == len(uniform) - 1:
            break
        if bool(is_end.any()):
            stay = (~is_end).nonzero()[:, 0]
            cache.batch_select_indices(stay.to(base.device))
            tokens, rows = tokens[stay], rows[stay]
            is_real, position = is_real[stay.to(base.device)], position[stay.to(base.device)]
        is_real = torch.cat([is_real, torch.ones_like(is_real[:, :1])], 1)
        places = {"position_ids": position[:, None]} if base.positions(is_real) else {}
        out = base.backbone(
            input_ids=tokens[:, None].to(base.device),
            attention_mask=is_real.long(),
            past_key_values=cache,
            use_cache=True,
            **places,
        )
        states = out.last_hidden_state
        position = position + 1
    return [Sampled(tokens, over) for tokens, over in zip(written, ended, strict=True)]


def _decode_from_encoder(
    base: SharedBase, prompts: Sequence[Sequence[int]], count: int, temperature: float, uniform: Tensor, run: Run
) -> list[Sampled]:
    """The encoder reads each prompt once, and the decoder its start; what they made of it is repeated for the answers."""
    known = encoder_decoder.read(base, prompts)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    states = base.decoder_states(*known, encoder_decoder.starts(base, len(prompts)), cache).repeat_interleave(count, 0)
    cache.batch_repeat_interleave(count)
    rows = torch.arange(len(prompts) * count)  # which answer each row of the batch is
    known = known.take((rows // count).to(base.device))
    written: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(written)
    ends = torch.tensor(sorted(end_ids(base)))
    for t in range(len(uniform)):
        run.check()
        tokens = pick(base.logits(states)[:, 0] / temperature, uniform[t, rows])  # (rows,)
        is_end = torch.isin(tokens, ends)
        for row, token, over in zip(rows.tolist(), tokens.tolist(), is_end.tolist(), strict=True):
            written[row].append(token)
            ended[row] = over
        if bool(is_end.all()) or t == len(uniform) - 1:
            break
        if bool(is_end.any()):
            stay = (~is_end).nonzero()[:, 0]
            cache.batch_select_indices(stay.to(base.device))
            known = known.take(stay.to(base.device))
            tokens, rows = tokens[stay], rows[stay]
        states = base.decoder_states(*known, tokens[:, None].to(base.device), cache)
    return [Sampled(tokens, over) for tokens, over in zip(written, ended, strict=True)]


def pick(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token per row by inverting the cumulated distribution, so that a row's token depends on its own draw only.

    logits (B, V), uniform (B,) in [0, 1) -> (B,) on the CPU.
    """
    cumulated = logits.cpu().double().softmax(-1).cumsum(-1)
    threshold = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
