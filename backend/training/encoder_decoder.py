"""Encoder-decoders (T5, BART): the encoder reads a prompt once for all its answers, the decoder writes behind it.

Raffel et al. 2020 (arXiv:1910.10683): the encoder's text ends with the end token, and the decoder reads a start token and
then the answer, so that the state at each place predicts the answer's token of that place.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from backend.training import families
from backend.training.data import pad_right, side_by_side
from backend.training.shared_base import SharedBase


class Prompts(NamedTuple):
    """What the encoder made of B prompts."""

    states: Tensor  # (B, P, D)
    is_real: Tensor  # (B, P)

    def take(self, rows: Tensor) -> "Prompts":
        return Prompts(self.states.index_select(0, rows), self.is_real[rows])


def read(base: SharedBase, prompts: Sequence[Sequence[int]]) -> Prompts:
    """Under the open scope."""
    closed = [[*base.opening, *prompt, base.end_id] for prompt in prompts]
    padded = pad_right(closed, base.pad_id, base.device)
    return Prompts(base.states(padded.tokens, padded.is_real), padded.is_real)


def starts(base: SharedBase, rows: int) -> Tensor:
    """The token before every answer. (rows, 1)"""
    return torch.full((rows, 1), families.start_id(base.causal), device=base.device)


def predicting(base: SharedBase, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
    """The states that predict the last ``counts[n]`` tokens of sequence n, all before them being its prompt. (N, R, D)

    Equal prompts are read once; what stands after a count has no meaning.
    """
    pairs = list(zip(sequences, counts, strict=True))
    prompts = [tuple(sequence[: len(sequence) - count]) for sequence, count in pairs]
    answers = [list(sequence[len(sequence) - count :]) for sequence, count in pairs]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    rows = torch.tensor([places[prompt] for prompt in prompts], device=base.device)
    known = read(base, list(places)).take(rows)
    shifted = torch.cat([starts(base, len(pairs)), pad_right(answers, base.pad_id, base.device).tokens[:, :-1]], 1)
    return base.decoder_states(known.states, known.is_real, shifted)


def begin(base: SharedBase, prompts: Sequence[Sequence[int]], count: int) -> tuple[Tensor, "Decoder"]:
    """The states that predict the first token of ``count`` answers to each prompt, and what goes on. (P x count, D)"""
    known = read(base, prompts)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    states = base.decoder_states(*known, starts(base, len(prompts)), cache)[:, 0]
    return states.repeat_interleave(count, 0), Decoder(base, known, cache, count)


class Decoder:
    """Goes on with answers; what encoder and decoder made of a prompt is repeated for each of its answers."""

    def __init__(self, base: SharedBase, known: Prompts, cache: Any, count: int) -> None:
        cache.batch_repeat_interleave(count)
        self._base, self._cache, self._count = base, cache, count
        self._known = Prompts(*(part.repeat_interleave(count, 0) for part in known))

    def step(self, tokens: Tensor) -> Tensor:
        """The states after one more token of every answer. (R,) -> (R, D)"""
        return self._base.decoder_states(*self._known, tokens[:, None], self._cache)[:, 0]

    def keep(self, prompts: Tensor) -> None:
        """Go on with the answers to these prompts only. (P',)"""
        rows = side_by_side(prompts, self._count)
        self._cache.batch_select_indices(rows)
        self._known = self._known.take(rows)
