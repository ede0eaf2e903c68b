"""What a training job says about its model: every figure with n, an interval, and the baseline it must beat."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch

from backend.training.draws import generator
from backend.training.maths import bradley_terry_loss

Z = 1.959964  # 95 %


class Interval(NamedTuple):
    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        value, low, high = (round(x, 6) if math.isfinite(x) else None for x in self[:3])
        return {"value": value, "low": low, "high": high, "n": self.n}


def share(hits: Sequence[float], groups: Sequence[Hashable]) -> Interval:
    """Mean of numbers between 0 and 1 with Wilson's 95 % interval.

    Hits of one group (a case) are not independent, so n is lowered by the design effect: the variance of the mean
    between groups over the one that independent hits would have (Kish 1965), where that is above 1.
    """
    n = len(hits)
    if not n:
        return Interval(math.nan, 0.0, 1.0, 0)
    mean = sum(hits) / n
    surprise: dict[Hashable, float] = defaultdict(float)
    for hit, group in zip(hits, groups, strict=True):
        surprise[group] += hit - mean
    binomial = n * mean * (1 - mean)
    effect = max(1.0, sum(x * x for x in surprise.values()) / binomial) if binomial > 0 else n / len(surprise)
    low, high = wilson(mean, n / effect)
    return Interval(mean, low, high, n)


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson 1927, the score interval of a proportion."""
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Judged(NamedTuple):
    """Pairs of several comparisons side by side: first score less second, share of judgement for the first, case."""

    differences: list[float]
    shares: list[float]
    cases: list[Hashable]

    def decided(self) -> "Judged":
        """Without the ties."""
        won = [i for i, share in enumerate(self.shares) if share != 0.5]
        return Judged([self.differences[i] for i in won], [self.shares[i] for i in won], [self.cases[i] for i in won])

    def accuracy(self) -> Interval:
        """Share of the pairs with a winner whose winner scores higher; equal scores count half."""
        decided = self.decided()
        return share(agreement(decided.differences, decided.shares), decided.cases)


def log_loss(judged: Judged) -> float:
    """Mean Bradley-Terry loss of the pairs in nats, ties included; not a number where there is none."""
    losses = bradley_terry_loss(torch.tensor(judged.differences), torch.tensor(judged.shares))
    return float(losses.mean()) if len(judged.shares) else math.nan


def paired_gain(before: Sequence[float], after: Sequence[float], seed: int, draws: int = 2000) -> Interval:
    """Mean of after - before with the 95 % percentile bootstrap over the pairs."""
    n = len(before)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    gain = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    places = torch.randint(n, (draws, n), generator=generator(seed, 0, "bootstrap"))
    low, high = torch.quantile(gain[places].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(gain.mean()), low, high, n)


def by_group(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """The mean of each group (a case) in the order of their first values: what a bootstrap may draw independently."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    return [math.fsum(some) / len(some) for some in members.values()]


def agreement(differences: Sequence[float], shares: Sequence[float]) -> list[float]:
    """1 where the sign of the difference is the judged one, 0 where not, half where the difference is none.

    For pairs with a winner: on a judged tie nothing can be right or wrong, so ties would only pull to a half.
    """
    return [0.5 if d == 0 else float((d > 0) == (judged > 0.5)) for d, judged in zip(differences, shares, strict=True)]


def fitted_baseline(
    train: tuple[Sequence[float], Sequence[float]],
    held_out: tuple[Sequence[float], Sequence[float]],
    groups: Sequence[Hashable],
    names: tuple[str, str],
) -> dict[str, Any]:
    """A rule of one sign, for instance "the longer answer wins": the sign is taken from training pairs, the figure
    from held-out ones. Both are (differences, shares)."""
    forward = agreement(*train)
    is_forward = sum(forward) * 2 >= len(forward)
    sign = 1.0 if is_forward else -1.0
    found = share(agreement([sign * d for d in held_out[0]], held_out[1]), groups)
    return {**found.as_dict(), "rule": names[0] if is_forward else names[1]}


def calibration(differences: Sequence[float], shares: Sequence[float], bins: int = 5) -> list[dict[str, Any]]:
    """How often the preferred answer won among pairs of like confidence; confidence is sigma(|d|), from .5 to 1."""
    rows = []
    for place in range(bins):
        low, high = 0.5 + 0.5 * place / bins, 0.5 + 0.5 * (place + 1) / bins
        inside = []
        for d, q in zip(differences, shares, strict=True):
            confidence = 1 / (1 + math.exp(-min(abs(d), 50.0)))
            if low <= confidence < high or (place == bins - 1 and confidence >= high):
                inside.append((confidence, q if d > 0 else 1 - q if d < 0 else 0.5))
        if inside:
            predicted, observed = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            rows.append(
                {
                    "low": low,
                    "high": high,
                    "n": len(inside),
                    "predicted": round(predicted, 6),
                    "observed": round(observed, 6),
                }
            )
    return rows


def calibration_error(rows: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error: the mean gap between predicted and observed, weighted by n."""
    total = sum(int(row["n"]) for row in rows)
    gaps = [float(row["n"] * abs(row["predicted"] - row["observed"])) for row in rows]
    return sum(gaps) / max(total, 1)
