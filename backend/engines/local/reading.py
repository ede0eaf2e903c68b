"""What the model says of texts it only reads: scores by reward adapters, and embeddings by the bare base.

Runs on the model's thread. The score is that of the training code (backend.training.judge): a member's head on the last
hidden state at the last token, normalised; of several members the mean. The value at an earlier token is what the score
would be if the answer stopped at that token: of a decoder the same head read there, of an encoder, whose tokens see what
comes after them, the score of the text cut there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from backend.registry.artifacts import BadArtifact
from backend.training import judge
from backend.training.data import Tokens

from . import encoder_decoder
from .model import ALIGNED, Base, ModelProblem, verify_adapter
from .resolver import Resolved

READ_TOKENS = 1024  # padded tokens read in one turn, so that rows that are written wait for no long reading; our choice
CUTS_READ = 1024  # texts that an encoder reads at most for one request's credit; our choice
HEADS_KEPT = 32  # reward models whose heads stay in memory, a few kilobytes each; our choice


class Reward(NamedTuple):
    """What a reward model says of one answer, in its normalised scores."""

    score: float
    members: list[float]  # one score per member of an ensemble
    values: list[float]  # one per token of the answer, the mean over the members; the last one is the score


class Asked(NamedTuple):
    """Answers to one conversation, as the reward model reads them."""

    sequences: list[list[int]]  # conversation and answer, one per answer
    answer_tokens: list[int]  # how many of each sequence's last tokens are the answer
    cut_tokens: int  # tokens the conversation lost at its front to fit what the model was trained on


class RewardModel(NamedTuple):
    """A verified reward model; its heads are in memory, its adapters are fetched when they are needed."""

    name: str
    folder: Path
    digest: str
    heads: list[judge.Head]  # one per member
    longest: int  # tokens of a sequence it was trained on


class Reader:
    """Keeps the heads of reward models; their adapters live in the base beside those of the policies."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._models: dict[str, RewardModel] = {}

    def open(self, model: Resolved) -> RewardModel:
        """Verify and load a reward model's heads. Raises ModelProblem."""
        if model.digest not in self._models:
            while len(self._models) >= HEADS_KEPT:
                self._models.pop(next(iter(self._models)))
            self._models[model.digest] = self._opened(model)
        return self._models[model.digest]

    def _opened(self, model: Resolved) -> RewardModel:
        folder = model.adapter
        if folder is None or not (folder / judge.HEAD).is_file():
            raise ModelProblem(f"The model {model.name} has no {judge.HEAD}: it is not a reward model. Choose another.")
        facts = verify_adapter(folder, model.digest, self._base.digest, self._base.tokens_digest)
        place = judge.Place(self._base.width, self._base.device)
        try:
            members = range(1, judge.members_in(folder) + 1)
            heads = [judge.load_head(place, folder, judge.files_of(number)[1]) for number in members]
        except (BadArtifact, OSError, SafetensorError) as problem:
            raise ModelProblem(str(problem)) from problem
        longest = (facts.get("settings") or {}).get("max_length") or self._base.context
        return RewardModel(model.name, folder, model.digest, heads, min(int(longest), self._base.context))

    def ask(self, model: RewardModel, messages: Sequence[dict[str, str]], answers: Sequence[tuple[str, bool]]) -> Asked:
        """The sequences for a conversation and its answers, each with whether it ended. Raises ModelProblem.

        As in training: where they are too long the conversation loses its front, the same for all answers.
        """
        tokens = Tokens(self._base.tokenizer, model.longest)
        prefix = self._base.chat_tokens(messages)
        own = [tokens.answer(text, has_ended) for text, has_ended in answers]
        if not all(own):
            raise ModelProblem("An answer that is empty and has not ended has no token to be scored at.")
        sequences = tokens.joined(prefix, own)
        if sequences is None:
            raise ModelProblem(
                f"An answer has {max(map(len, own))} tokens; this reward model reads at most {tokens.longest}, the "
                "conversation included. Shorten the answer."
            )
        return Asked(sequences, [len(one) for one in own], len(prefix) + len(own[0]) - len(sequences[0]))

    def rewards(self, model: RewardModel, asked: Asked, keep: Collection[str]) -> list[Reward]:
        """Score every answer; ``keep`` are adapters that may not make room. Raises ModelProblem."""
        said: list[list[torch.Tensor]] = []  # by member, by answer: (answer tokens,)
        for number, head in enumerate(model.heads, 1):
            name = member_name(model.digest, number)
            file, _ = judge.files_of(number)
            self._base.ensure_adapter(name, model.folder, keep=keep, file=file, digest=model.digest)
            with self._base.scope(name):
                states = last_states(self._base, asked.sequences)
            said.append([head(own[-count:]).cpu() for own, count in zip(states, asked.answer_tokens, strict=True)])
        found = []
        for values in zip(*said, strict=True):  # of one answer, by member
            each = torch.stack(values)  # (members, answer tokens)
            if not bool(torch.isfinite(each).all()):
                raise ModelProblem(f"The model {model.name} gave a score that is not a number. Train it again.")
            mean = each.mean(0).tolist()
            found.append(Reward(mean[-1], each[:, -1].tolist(), mean))
        return found

    def embeddings(self, rows: Sequence[Sequence[int]], keep: Collection[str] = ()) -> list[list[float]]:
        """The mean of the bare base's last hidden states over each text's tokens, scaled to length 1. (N, D)

        Of an encoder-decoder they are its encoder's, the end token's among them, as sentences are read in Ni et al. 2021
        (arXiv:2108.08877).
        """
        if self._base.is_encoder_decoder:
            rows = [[*row, self._base.closing] for row in rows]
        with self._base.scope(None):
            means = torch.stack([states.float().mean(0) for states in last_states(self._base, rows)])
        return torch.nn.functional.normalize(means, dim=-1).tolist()


def to_read(base: Base, asked: Asked, wants_credit: bool) -> Asked:
    """The texts to be read for these scores: of an encoder one for every token whose value is wanted. Raises ModelProblem."""
    if not base.is_encoder_decoder:
        return asked
    if not wants_credit:
        return asked._replace(answer_tokens=[1] * len(asked.sequences))
    if sum(asked.answer_tokens) > CUTS_READ:
        raise ModelProblem(
            f"credit: this base reads a text once for every token of an answer, at most {CUTS_READ} in all; these answers have "
            f"{sum(asked.answer_tokens)}. Ask about fewer or shorter ones."
        )
    cut = [
        sequence[: len(sequence) - count + until]
        for sequence, count in zip(asked.sequences, asked.answer_tokens, strict=True)
        for until in range(1, count + 1)
    ]
    return asked._replace(sequences=cut, answer_tokens=[1] * len(cut))


def of_answers(rewards: Sequence[Reward], asked: Asked) -> list[Reward]:
    """From what was said of the texts of ``to_read`` to one reward per answer."""
    if len(rewards) == len(asked.sequences):
        return list(rewards)
    ends = list(accumulate(asked.answer_tokens))
    return [
        rewards[end - 1]._replace(values=[one.score for one in rewards[end - count : end]])
        for end, count in zip(ends, asked.answer_tokens, strict=True)
    ]


def member_name(digest: str, number: int) -> str:
    """The adapter's name in memory: the first member's is the digest, as a policy's."""
    return digest if number == 1 else f"member{number}-{digest}"


def parts(lengths: Sequence[int], tokens: int = READ_TOKENS) -> list[list[int]]:
    """Places of texts, those of like length together, so that no part is more than ``tokens`` when it is padded."""
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if found and lengths[at] * (len(found[-1]) + 1) <= tokens:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def last_states(base: Base, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The last hidden states of each row, (tokens, D); padded at the right, where padding is seen by nobody."""
    if base.is_encoder_decoder:
        found = encoder_decoder.read(base, [[*base.opening, *row] for row in rows])
        return [states[len(base.opening) :] for states in found]
    longest = -(-max(len(row) for row in rows) // ALIGNED) * ALIGNED
    tokens = torch.full((len(rows), min(longest, max(base.context, *map(len, rows)))), base.pad_token)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = torch.tensor(row, dtype=torch.long)
    backbone: Any = getattr(base.model, str(base.model.base_model_prefix))
    states = backbone(input_ids=tokens.to(base.device), use_cache=False).last_hidden_state
    return [own[: len(row)] for own, row in zip(states, rows, strict=True)]
