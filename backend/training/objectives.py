"""What a base learns from plain text, by its family: each text becomes a question whose answer's tokens are scored.

decoder          causal: the next token, over whole texts.
encoder_decoder  span corruption: write what was cut out (Raffel et al. 2020).
encoder          masked: guess 15 % of the tokens from both sides (Devlin et al. 2019).
permutation      the tokens that come last in a random order (Yang et al. 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from backend.training import tree
from backend.training.answers import AnswerLogp, Written, answer_logp, scored
from backend.training.corruption import hidden_in, masked, noise, prediction_order, without_spans
from backend.training.data import pad_right
from backend.training.families import WRITERS, Family, UnsupportedBase
from backend.training.settings import PretrainSettings
from backend.training.shared_base import SharedBase

NAMES: dict[Family, str] = {
    "decoder": "causal",
    "encoder_decoder": "span_corruption",
    "encoder": "masked",
    "permutation": "permutation",
}


class Question(NamedTuple):
    tokens: list[int]  # what the base reads
    answer: list[int]  # what it must predict
    places: list[int]  # where in ``tokens`` the answer's tokens belong; empty where the base writes behind them

    def whole(self, family: Family) -> list[int]:
        """All that a forward pass has to hold."""
        return self.tokens + self.answer if family in WRITERS else self.tokens


class Kit(NamedTuple):
    """The special tokens that the objective needs; see ``kit_of``."""

    beginning: list[int]  # of a decoder's text
    mask_id: int
    sentinels: list[int]
    special: frozenset[int]  # never hidden
    ordinary: list[int]  # what may stand in for a token


def kit_of(base: SharedBase) -> Kit:
    """Raises UnsupportedBase when the tokenizer lacks what the family's objective needs."""
    tokenizer = base.tokenizer
    special = frozenset(tokenizer.all_special_ids)
    sentinels: list[int] = []
    words = tokenizer.get_vocab()
    while (word := f"<extra_id_{len(sentinels)}>") in words:
        sentinels.append(words[word])
    if base.family == "encoder_decoder" and len(sentinels) < 2:
        raise UnsupportedBase(
            "The base's tokenizer lacks the tokens <extra_id_0>, <extra_id_1> and so on, which stand for the spans that are "
            "cut out. Use a T5 with its own tokenizer."
        )
    if base.family == "encoder" and tokenizer.mask_token_id is None:
        raise UnsupportedBase(
            "The base's tokenizer names no mask token, which stands for the words that are hidden. Use the tokenizer that "
            "belongs to the base."
        )
    begin = tokenizer.bos_token_id if base.family == "decoder" else None
    return Kit(
        beginning=[] if begin is None else [int(begin)],
        mask_id=-1 if tokenizer.mask_token_id is None else int(tokenizer.mask_token_id),
        sentinels=sentinels,
        special=special,
        ordinary=[token for token in range(len(tokenizer)) if token not in special],
    )


def ask(base: SharedBase, kit: Kit, tokens: list[int], settings: PretrainSettings, draw: torch.Generator) -> Question:
    """One piece of text, two tokens or more, as a question."""
    s = settings
    may_hide = [token not in kit.special for token in tokens]
    if base.family == "decoder":
        start = kit.beginning or tokens[:1]
        return Question(start, tokens if kit.beginning else tokens[1:], [])
    if base.family == "encoder_decoder":
        most = len(kit.sentinels) - 1
        is_removed = noise(len(tokens), s.noise_density, s.mean_noise_span_length, most, draw)
        spans = without_spans(tokens, is_removed, kit.sentinels)
        return Question(spans.tokens, [*spans.targets, base.end_id], [])
    if base.family == "encoder":
        seen, places = masked(tokens, may_hide, s.mlm_probability, kit.mask_id, kit.ordinary, draw)
        return Question(seen, [tokens[place] for place in places], places)
    order = prediction_order(may_hide, s.plm_probability, s.max_span_length, draw)
    return Question(tokens, [tokens[place] for place in order], order)


def question_logp(base: SharedBase, some: Sequence[Question]) -> AnswerLogp:
    """Log-probabilities of the answers' tokens, under the open scope."""
    if base.family in WRITERS:
        return answer_logp(base, [Written(one.tokens, one.answer) for one in some])
    answers = [one.answer for one in some]
    width = max(len(answer) for answer in answers)
    places = torch.tensor([one.places + [0] * (width - len(one.places)) for one in some], device=base.device)  # (B, R)
    if base.family == "encoder":
        rows, states = tree.read(base, [[one.tokens] for one in some])
        return scored(base, states[rows.row[:, None], rows.columns.gather(1, places)], answers)
    padded = pad_right([one.tokens for one in some], base.pad_id, base.device)
    length = padded.tokens.shape[1]
    hidden = torch.stack([hidden_in(one.places, length) for one in some]).to(base.device)
    asked = torch.nn.functional.one_hot(places, length)  # (B, R, T); behind an answer's end it asks for nothing of use
    return scored(base, base.permuted_states(padded.tokens, padded.is_real, hidden, asked), answers)
