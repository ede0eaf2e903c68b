"""Given answers, for SFT and DPO: a prompt and its answer as token ids, and the log-probability of the answer's tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.training.data import Tokens, pad_left
from backend.training.maths import token_logp
from backend.training.shared_base import SharedBase


class Written(NamedTuple):
    prefix: list[int]
    answer: list[int]  # the end token included, if the answer ended

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.answer)


class AnswerLogp(NamedTuple):
    """Answers stand at the right, as long as the longest of them."""

    logp: Tensor  # (B, R)
    is_answer: Tensor  # (B, R) True at the answer's tokens, the end token included


def written(tokens: Tokens, prefix: Sequence[int], answers: Sequence[list[int]]) -> list[Written] | None:
    """Answers to one prompt, which loses its front when the longest leaves too little room; None when one is empty or
    too long by itself. ``tokens`` counts both."""
    if not all(answers):
        tokens.counts["answers_empty"] += 1
        return None
    joined = tokens.joined(prefix, answers)
    if joined is None:
        return None
    return [Written(both[: -len(answer)], answer) for both, answer in zip(joined, answers, strict=True)]


def answer_logp(base: SharedBase, some: Sequence[Written]) -> AnswerLogp:
    """Under the open scope; the output layer is asked at the answers' positions only."""
    padded = pad_left([one.prefix + one.answer for one in some], base.pad_id, base.device)
    lengths = torch.tensor([len(one.answer) for one in some], device=base.device)
    width = int(lengths.max())
    states = base.states(padded.tokens, padded.is_real)[:, -width - 1 : -1]  # the state before a token predicts it
    is_answer = torch.arange(width, device=base.device)[None] >= width - lengths[:, None]
    return AnswerLogp(token_logp(base.logits(states), padded.tokens[:, -width:]), is_answer)
