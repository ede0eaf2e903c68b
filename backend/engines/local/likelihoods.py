"""How likely given answers are after given conversations, where what the texts share is read once.

The texts of a request are a tree: the beginning of all conversations (instruction and demonstrations), what is each one's own,
and behind that its answers. The beginning is read for the prefix cache, so that the next request finds it there; the rest of all
texts is one reading in which a token sees the beginning, its own conversation and its own answer. Elsewhere than on a stack every
text is read whole, which says the same and takes longer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder.stack import Adapters, Attend, Stack

from . import attention
from .attention import Places
from .model import Base
from .prefixes import Prefixes
from .prepared import Prepared
from .prompts import Fewest, Prompt, Reader
from .reading import parts
from .resolver import Resolved
from .rooms import Rooms

READ_AT_ONCE = (
    1024  # own tokens of texts in one turn, so that rows that are written wait for no long reading; our choice
)
SCORES_AT_ONCE = 1 << 25  # float32 attention scores of one layer that are held at once: 128 MB; our choice
LOGITS_AT_ONCE = 1 << 25  # float32 logits held at once: 128 MB; our choice


class Text(NamedTuple):
    """A conversation up to where an answer begins, and the answers that are asked about; tokens."""

    context: list[int]
    answers: list[list[int]]

    def own(self, shared: int) -> int:
        """How many tokens have to be read behind the first ``shared``: of an answer all but the last."""
        return len(self.context) - shared + sum(len(answer) - 1 for answer in self.answers)


def shared_by(texts: Sequence[Text]) -> int:
    """Tokens with which every conversation begins, each keeping at least one of its own."""
    first, *others = [text.context[:-1] for text in texts]
    for other in others:
        first = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, other, strict=False))]
    return len(first)


def turns(base: Base, texts: Sequence[Text], shared: int) -> list[list[int]]:
    """Places of texts that are read together, a part in each turn of the model's thread."""
    if base.stack is None:
        return parts([len(text.context) + max(map(len, text.answers)) for text in texts], READ_AT_ONCE)
    most = max(1, SCORES_AT_ONCE // (int(base.stack.queries) * max(1, shared)))
    return parts([text.own(shared) for text in texts], min(READ_AT_ONCE, most))


def log_probabilities(
    base: Base,
    prefixes: Prefixes,
    fewest: Fewest,
    model: Resolved,
    texts: Sequence[Text],
    shared: int,
    keep: Collection[str] = (),
) -> list[list[list[float]]]:
    """Nats of every token of every answer of every text. On the model's thread; ``keep`` are adapters that may not make room.

    Raises ModelProblem where the model's adapter cannot be had.
    """
    if model.adapter is not None:
        base.ensure_adapter(model.digest, model.adapter, keep=keep)
    adapter = model.digest if model.adapter is not None else None
    if base.stack is None or (adapter is not None and not base.stands_beside(adapter)):
        with base.scope(adapter):
            return [[_read_whole(base, text.context, answer) for answer in text.answers] for text in texts]
    made = Prepared()
    begun = Prompt(tuple(texts[0].context[: shared + 1]), adapter, model.digest)
    kept = Reader(base.stack, Rooms(base.stack), prefixes, made, fewest).read([begun])[0][:, :, :, :shared]
    adapters = made.of(base.stack, [] if adapter is None else [adapter])
    return _read_trees(base.stack, adapters, [_grown(text, shared) for text in texts], kept, base.vocabulary)


def _read_whole(base: Base, context: list[int], answer: list[int]) -> list[float]:
    logps = base.logits([[*context, *answer]])[0, len(context) - 1 : -1 or None].log_softmax(-1)
    return [float(logps[at, token]) for at, token in enumerate(answer)]


class _Tree(NamedTuple):
    """The own tokens of one text, L of them: the rest of its conversation, then all but the last of each answer's."""

    tokens: list[int]
    positions: list[int]
    sees: Tensor  # (L, L) a row's token sees the column's
    said: list[list[tuple[int, int]]]  # by answer, by token: the place after which it is said, and the token


def _grown(text: Text, shared: int) -> _Tree:
    tokens, count = text.context[shared:], len(text.context) - shared
    positions = [*range(shared, len(text.context))]
    sees = torch.zeros(text.own(shared), text.own(shared), dtype=torch.bool)
    sees[:, :count] = True
    said: list[list[tuple[int, int]]] = []
    for answer in text.answers:
        start, end = len(tokens), len(tokens) + len(answer) - 1
        sees[start:end, start:end] = True
        said.append(list(zip([count - 1, *range(start, end)], answer, strict=True)))
        tokens = tokens + answer[:-1]
        positions += range(len(text.context), len(text.context) + end - start)
    return _Tree(tokens, positions, sees.tril(), said)


def _read_trees(
    stack: Stack, adapters: Adapters, trees: Sequence[_Tree], kept: Tensor, vocabulary: int
) -> list[list[list[float]]]:
    """``kept``: keys and values of what all texts begin with, (layers, 2, H, T, D)."""
    starts = list(accumulate((len(tree.tokens) for tree in trees), initial=0))
    said = [
        [[(start + place, token) for place, token in answer] for answer in tree.said]
        for start, tree in zip(starts, trees, strict=False)
    ]
    places = sorted({place for answers in said for answer in answers for place, _ in answer})
    wanted = torch.tensor(places, device=stack.device)
    tokens = torch.tensor([token for tree in trees for token in tree.tokens], device=stack.device)
    positions = torch.tensor([position for tree in trees for position in tree.positions], device=stack.device)
    states = stack.read(tokens, positions, adapters, None, _attend(stack, trees, kept, wanted), wanted)
    row_of = {place: row for row, place in enumerate(places)}
    asked = sorted({(row_of[place], token) for answers in said for answer in answers for place, token in answer})
    logp_of = _logps(stack, states, asked, vocabulary)
    return [[[logp_of[row_of[place], token] for place, token in answer] for answer in answers] for answers in said]


def _attend(stack: Stack, trees: Sequence[_Tree], kept: Tensor, wanted: Tensor) -> Attend:
    """What a token sees: the shared beginning, which is looked at in one product, and of its own text's places some."""
    most, texts, shared = max(len(tree.tokens) for tree in trees), len(trees), kept.shape[3]
    heads, sharing = int(stack.keys), int(stack.queries // stack.keys)
    place = torch.tensor([at * most + own for at, tree in enumerate(trees) for own in range(len(tree.tokens))])
    place = place.to(stack.device)  # (R,) of each token in texts x places
    sees = torch.eye(most, dtype=torch.bool).repeat(
        texts, 1, 1
    )  # a place without a token sees itself: no row sees nothing
    for own, tree in zip(sees, trees, strict=True):
        own[: len(tree.tokens), : len(tree.tokens)] = tree.sees
    hidden = torch.zeros(sees.shape, dtype=stack.dtype).masked_fill_(~sees, torch.finfo(stack.dtype).min)
    hidden = hidden.to(stack.device)[:, None, None].expand(-1, heads, sharing, -1, -1).reshape(texts * heads, -1, most)
    nothing = torch.zeros(shared, dtype=stack.dtype, device=stack.device)  # of the beginning everything is seen

    def spread(x: Tensor, at: Tensor) -> Tensor:
        """(R, any, D) -> (texts, any, L, D)"""
        grid = x.new_zeros(texts * most, *x.shape[1:])
        grid[at] = x
        return grid.view(texts, most, *x.shape[1:]).transpose(1, 2)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        at = place if len(query) == len(key) else place[wanted]
        keys, values = (spread(x, place).flatten(0, 1) for x in (key, value))  # (texts * H, L, D)
        asking = spread(query, at).reshape(texts * heads, sharing * most, -1)
        seen = attention.to_both(asking, kept[layer], nothing, Places(keys.transpose(1, 2), values), hidden)
        return seen.reshape(texts, heads * sharing, most, -1).transpose(1, 2).flatten(0, 1)[at].flatten(1)

    return attend


def _logps(
    stack: Stack, states: Tensor, asked: Sequence[tuple[int, int]], vocabulary: int
) -> dict[tuple[int, int], float]:
    """Log-probabilities of (row of the states, token), a few rows' logits at a time."""
    found: dict[tuple[int, int], float] = {}
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(states), size):
        pairs = [(row, token) for row, token in asked if start <= row < start + size]
        rows = torch.tensor([row - start for row, _ in pairs], device=states.device)
        tokens = torch.tensor([token for _, token in pairs], device=states.device)
        logps = stack.logits(states[start : start + size]).float().log_softmax(-1)[rows, tokens]
        found.update(zip(pairs, logps.tolist(), strict=True))
    return found
