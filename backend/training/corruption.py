"""What is hidden from a model that learns by guessing: masked tokens, removed spans, an order of prediction.

Token ids and a generator in, token ids out; no model. One draw gives one result.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Masked(NamedTuple):
    tokens: list[int]  # as the model reads them
    places: list[int]  # of the tokens it must guess, in rising order


class Spans(NamedTuple):
    tokens: list[int]  # a sentinel in the place of every removed span
    targets: list[int]  # every sentinel, what it stands for, and one more sentinel


def masked(
    tokens: Sequence[int],
    may_hide: Sequence[bool],
    share: float,
    mask_id: int,
    ordinary: Sequence[int],
    draw: torch.Generator,
) -> Masked:
    """Devlin et al. 2019 (arXiv:1810.04805) 3.1: ``share`` of the tokens are guessed, one at least. Of these 80 % are
    replaced by the mask, 10 % by one of the ``ordinary`` tokens, 10 % stay, so that no place can be passed over unread."""
    candidates = torch.tensor([place for place, may in enumerate(may_hide) if may])
    count = max(1, round(share * len(candidates)))
    places = candidates[torch.randperm(len(candidates), generator=draw)[:count]].sort().values.tolist()
    fates = torch.rand(count, generator=draw).tolist()
    others = torch.randint(len(ordinary), (count,), generator=draw).tolist()
    seen = list(tokens)
    for place, fate, other in zip(places, fates, others, strict=True):
        if fate < 0.8:
            seen[place] = mask_id
        elif fate < 0.9:
            seen[place] = ordinary[other]
    return Masked(seen, places)


def noise(length: int, density: float, mean_span: float, most_spans: int, draw: torch.Generator) -> list[bool]:
    """Raffel et al. 2020 (arXiv:1910.10683) 3.1.4: which of two or more tokens are removed, ``density`` of them in spans of
    ``mean_span`` on average. Kept and removed stretches take turns, a kept one first; their lengths are random cuts."""
    removed = min(max(1, round(density * length)), length - 1)
    spans = min(max(1, round(removed / mean_span)), removed, length - removed, most_spans)
    kept_lengths = _cut(length - removed, spans, draw)
    removed_lengths = _cut(removed, spans, draw)
    found: list[bool] = []
    for kept, gone in zip(kept_lengths, removed_lengths, strict=True):
        found += [False] * kept + [True] * gone
    return found


def without_spans(tokens: Sequence[int], is_removed: Sequence[bool], sentinels: Sequence[int]) -> Spans:
    """The text with a sentinel for every removed span, and what the decoder must write; fig. 2 of the paper."""
    seen: list[int] = []
    targets: list[int] = []
    count, was_removed = 0, False
    for token, removed in zip(tokens, is_removed, strict=True):
        if removed and not was_removed:
            seen.append(sentinels[count])
            targets.append(sentinels[count])
            count += 1
        (targets if removed else seen).append(token)
        was_removed = removed
    return Spans(seen, [*targets, sentinels[count]])


def prediction_order(may_ask: Sequence[bool], share: float, longest: int, draw: torch.Generator) -> list[int]:
    """Yang et al. 2019 (arXiv:1906.08237) 2.3 and 3.1: the places that come last in a random order, in this order; one at
    least. They are spans of 1 to ``longest`` tokens, each somewhere within a stretch of length span / ``share``."""
    places: list[int] = []
    start = 0
    while start < len(may_ask):
        span = int(torch.randint(1, longest + 1, (1,), generator=draw))
        stretch = max(span, round(span / share))
        first = start + int(torch.randint(stretch - span + 1, (1,), generator=draw))
        places += [place for place in range(first, min(first + span, len(may_ask))) if may_ask[place]]
        start += stretch
    if not places:
        candidates = [place for place, may in enumerate(may_ask) if may]
        places = [candidates[int(torch.randint(len(candidates), (1,), generator=draw))]]
    return [places[i] for i in torch.randperm(len(places), generator=draw).tolist()]


def hidden_in(order: Sequence[int], length: int) -> Tensor:
    """True where a token (row) does not see another (column): all see the tokens that are not predicted, and one that is
    predicted sees those before it in the order as well. (T, T)"""
    rank = torch.full((length,), -1)
    rank[torch.tensor(order)] = torch.arange(len(order))
    return (rank[None] >= 0) & (rank[None] >= rank[:, None])


def _cut(total: int, parts: int, draw: torch.Generator) -> list[int]:
    """``parts`` whole numbers from 1 that add up to ``total``, every such list equally likely."""
    inner = (torch.randperm(total - 1, generator=draw)[: parts - 1] + 1).sort().values.tolist()
    edges = [0, *inner, total]
    return [after - before for before, after in pairwise(edges)]
