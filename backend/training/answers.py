"""Given answers, for SFT, DPO and KTO: a prompt and its answer as token ids, and the log-probability of the answer's tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.training import tree
from backend.training.data import Tokens
from backend.training.maths import token_logp
from backend.training.shared_base import SharedBase


class Written(NamedTuple):
    prefix: list[int]
    answer: list[int]  # the end token included, if the answer ended

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.answer)


class AnswerLogp(NamedTuple):
    """Answers stand at the left, R as long as the longest of them."""

    logp: Tensor  # (B, R), 0 after an answer's end
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


def groups_of(some: Sequence[Written], together: int = 1) -> list[list[list[int]]]:
    """Whole sequences; ``together`` answers in a row have one prompt, which is then read once (tree.py)."""
    whole = [one.prefix + one.answer for one in some]
    return [whole[start : start + together] for start in range(0, len(whole), together)]


def answer_logp(base: SharedBase, some: Sequence[Written], together: int = 1) -> AnswerLogp:
    """Under the open scope; the output layer, which is wide, is asked at the answers' tokens only."""
    counts = [len(one.answer) for one in some]
    states = tree.predicting(base, groups_of(some, together), counts)  # (B, R, D)
    return scored(base, states, [one.answer for one in some])


def scored(base: SharedBase, states: Tensor, answers: Sequence[Sequence[int]]) -> AnswerLogp:
    """What the states (B, R, D) say of the tokens they predict: token r of answer b by state r of row b."""
    is_answer = torch.arange(states.shape[1])[None] < torch.tensor([len(answer) for answer in answers])[:, None]
    is_answer = is_answer.to(base.device)
    tokens = torch.tensor([token for answer in answers for token in answer], device=base.device)  # (M,) of all answers
    found = token_logp(base.logits(states[is_answer])[None], tokens[None])[0]
    logp = torch.zeros(is_answer.shape, device=base.device).masked_scatter(is_answer, found)
    return AnswerLogp(logp, is_answer)
