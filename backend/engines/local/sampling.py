"""How the next token of each row is chosen: every row has its own settings and its own random numbers.

A row's random numbers depend on (request seed, index of the sample) alone, one number per token, so a seed gives the
same text whatever else is in the batch. Reported log-probabilities are those of the model (log-softmax of the raw
logits), as OpenAI reports them: no setting of the sampling changes them.

The settings act in the order of transformers: repetition penalty, temperature, top_k, top_p, min_p.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from backend.decoder import quick

UNIFORMS_PER_DRAW = 64
COLDEST = 1e-5  # below it an answer is greedy: logits divided by less are soon more than float32 holds; our choice


@dataclass(frozen=True)
class Sampling:
    """temperature 0, and whatever is less than ``COLDEST``, is greedy; top_p 1, top_k 0 and min_p 0 leave the whole distribution.

    ``min_p`` keeps tokens at least so likely as this share of the likeliest one (Nguyen et al. 2024, arXiv:2407.01082).
    ``repetition_penalty`` divides the positive logits of tokens that the prompt or the answer holds and multiplies the
    negative ones (Keskar et al. 2019, arXiv:1909.05858), also where the answer is greedy; 1 changes nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def is_greedy(self) -> bool:
        return self.temperature < COLDEST


class Settings(NamedTuple):
    """The settings of all rows of a batch, side by side; the flags save work that no row asked for."""

    temperature: torch.Tensor  # (B, 1)
    top_p: torch.Tensor  # (B, 1)
    top_k: torch.Tensor  # (B, 1), V where a row has none
    min_p: torch.Tensor  # (B, 1)
    is_greedy: torch.Tensor  # (B,)
    any_greedy: bool
    all_greedy: bool
    any_top_p: bool
    any_min_p: bool
    largest_top_k: int
    warmth: torch.Tensor  # (B,) the temperature, 0 where a row is greedy
    is_plain: torch.Tensor  # (B,) rows that draw from all of their softmax, and greedy ones
    all_plain: bool


def settings_of(rows: Sequence[Sampling], vocabulary: int, device: torch.device) -> Settings:
    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=device).unsqueeze(1)

    greedy = [row.is_greedy for row in rows]
    drawn = [Sampling() if row.is_greedy else row for row in rows]
    top_k = [min(row.top_k, vocabulary) for row in drawn]
    plain = [row.top_p >= 1 and row.min_p == 0 and k in (0, vocabulary) for row, k in zip(drawn, top_k, strict=True)]
    return Settings(
        temperature=column([row.temperature for row in drawn]),
        top_p=column([row.top_p for row in drawn]),
        top_k=column([k or vocabulary for k in top_k]),
        min_p=column([row.min_p for row in drawn]),
        is_greedy=torch.tensor(greedy, device=device),
        any_greedy=any(greedy),
        all_greedy=all(greedy),
        any_top_p=any(row.top_p < 1 for row in drawn),
        any_min_p=any(row.min_p > 0 for row in drawn),
        largest_top_k=max(top_k, default=0),
        warmth=torch.tensor([0.0 if row.is_greedy else row.temperature for row in rows], device=device),
        is_plain=torch.tensor(plain, device=device),
        all_plain=all(plain),
    )


def uniforms(seed: int, sample: int) -> Iterator[float]:
    """The random numbers in [0, 1) of one sample of one request, without end. Drawn on the CPU for every device."""
    digest = hashlib.blake2b(f"{seed}:{sample}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    while True:
        yield from torch.rand(UNIFORMS_PER_DRAW, dtype=torch.float64, generator=generator).tolist()


class Seen:
    """Which tokens a row's prompt and answer hold so far; only rows with a repetition penalty keep count."""

    def __init__(self, prompt: Sequence[int], penalty: float, vocabulary: int, device: torch.device) -> None:
        self.penalty = penalty
        self.is_seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)  # (V,)
        self.is_seen[torch.tensor(prompt, dtype=torch.long, device=device)] = True

    def add(self, token: int) -> None:
        self.is_seen[token] = True


def seen_of(sampling: Sampling, prompt: Sequence[int], vocabulary: int, device: torch.device) -> Seen | None:
    """None where no token is to be made less likely."""
    return None if sampling.repetition_penalty == 1 else Seen(prompt, sampling.repetition_penalty, vocabulary, device)


def penalised(logits: torch.Tensor, seen: Sequence[Seen | None]) -> torch.Tensor:
    """The logits (B, V) after each row's repetition penalty; the given ones are left as they are."""
    marked = [(at, one) for at, one in enumerate(seen) if one is not None]
    if not marked:
        return logits
    rows = torch.tensor([at for at, _ in marked], device=logits.device)
    penalty = torch.tensor([one.penalty for _, one in marked], device=logits.device).unsqueeze(1)
    own = logits[rows]
    changed = torch.where(own < 0, own * penalty, own / penalty)
    return logits.index_copy(0, rows, torch.where(torch.stack([one.is_seen for _, one in marked]), changed, own))


def choose(logits: torch.Tensor, settings: Settings, uniform: Sequence[float]) -> torch.Tensor:
    """One token id per row of logits (B, V) in float32; `uniform` has one random number per row.

    The number is looked up in the cumulated probabilities in the order of token ids, never in sorted order: where two
    tokens are nearly equal, rounding that differs with the company in the batch cannot swap them. On a processor rows that leave
    nothing out have a loop of their own, whatever the others ask for.
    """
    number = torch.tensor(uniform, dtype=torch.float64, device=logits.device)
    if logits.device.type != "cpu" or quick.compiled() is None:
        return _chosen(logits, settings, number)
    found = quick.drawn(logits, settings.warmth, number)
    return found if settings.all_plain else torch.where(settings.is_plain, found, _chosen(logits, settings, number))


def _chosen(logits: torch.Tensor, settings: Settings, number: torch.Tensor) -> torch.Tensor:
    best = logits.argmax(-1) if settings.any_greedy else None
    if settings.all_greedy and best is not None:
        return best
    probabilities = distribution(logits, settings)
    cumulated = probabilities.double().cumsum(-1)
    target = number.unsqueeze(1) * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
    return drawn if best is None else torch.where(settings.is_greedy, best, drawn)


def distribution(logits: torch.Tensor, settings: Settings) -> torch.Tensor:
    """What each row draws from, (B, V): 0 for tokens that its settings leave out, the others not scaled up again."""
    probabilities = torch.softmax(_keep_top_k(logits / settings.temperature, settings), -1)
    if settings.any_top_p:
        probabilities = _keep_top_p(probabilities, settings.top_p)
    if settings.any_min_p:
        least = settings.min_p * probabilities.max(-1, keepdim=True).values
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    return probabilities


def _keep_top_k(logits: torch.Tensor, settings: Settings) -> torch.Tensor:
    if settings.largest_top_k == 0:
        return logits
    largest = logits.topk(settings.largest_top_k, -1).values  # (B, K)
    kth = largest.gather(1, (settings.top_k.clamp(max=settings.largest_top_k) - 1).long())
    is_outside = (logits < kth) & (settings.top_k < logits.shape[1])
    return logits.masked_fill(is_outside, float("-inf"))


def _keep_top_p(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The smallest set of most likely tokens that reaches top_p; tokens as likely as its last member stay too."""
    ordered = probabilities.sort(-1, descending=True).values
    is_kept = (ordered.cumsum(-1) - ordered < top_p) | (top_p >= 1)
    is_kept[:, 0] = True
    least = ordered.masked_fill(~is_kept, 2.0).min(-1, keepdim=True).values
    return probabilities.masked_fill(probabilities < least, 0.0)
