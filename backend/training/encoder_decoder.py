"""Encoder-decoders (T5, BART): the encoder reads a prompt once for all its answers, the decoder writes behind it.

Raffel et al. 2020 (arXiv:1910.10683): the encoder's text ends with the end token, and the decoder reads a start token and
then the answer, so that the state at each place predicts the answer's token of that place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.training import families
from backend.training.data import pad_right
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
