"""Which comparisons to ask first: what a judgement of each would teach, and what such an order has gained so far.

uncertainty: greedy D-optimal design for a Bradley-Terry probe (probe.py). A judged pair with the difference of features x
and the predicted share p adds p (1 - p) x x' to the information H about the probe's weight, and log det H rises by
log(1 + p (1 - p) x' H^-1 x). The next one is that which raises it most, given the judged ones and those chosen before it
(Chaloner & Verdinelli 1995, section 2.2; for preferences Das et al. 2024, arXiv:2402.10500).
coverage: the same with p (1 - p) = 1/4 everywhere, so that answers do not matter, only where something was judged.
disagreement: BALD (Houlsby et al. 2011, arXiv:1112.5745): the entropy of an ensemble's mean prediction less the mean
entropy of its members' predictions. The ensemble is the reward model's, or else probes fitted to bootstraps of the cases.

Left out: "closest to one half". Most such pairs are alike and would stay a toss-up however often they were judged; it was
never above chance where it was measured (docs/benchmarks.md).
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.training import report
from backend.training.draws import generator
from backend.training.probe import Pairs, Probe, fit

WIDEST = 256  # dimensions in which information is counted; our choice, after which a choice takes no longer
SAMPLED = 2048  # rows that say which dimensions those are
RIDGE = 10.0  # information before anything was judged, where no probe chose one
MEMBERS = 5  # probes that may disagree
DRAWS = 20  # subsets of the larger arm
FEWEST_JUDGED, FEWEST_CASES = 40, 20  # below which nothing is said about a gain; our choice


class Pool(NamedTuple):
    """What may be asked: the pairs of each comparison."""

    differences: Tensor  # (P, F): features of the first answer less those of the second
    groups: Tensor  # (P,) long: the comparison a pair is of, 0 to G - 1
    size: int  # G


class Scored(NamedTuple):
    """Of each comparison of the pool: what a judgement would teach, in nats, and the predicted share of its first pair."""

    gains: Tensor  # (G,)
    chances: Tensor  # (G,)


def by_information(judged: Pairs | None, pool: Pool, most: int, *, is_weighted: bool) -> Scored:
    """Scores by ``uncertainty``, or by ``coverage`` if not ``is_weighted``. ``judged`` None: nothing was judged yet."""
    probe = fit(judged) if judged is not None else None
    scale = probe.scale if probe else pool.differences.square().mean(0).sqrt().clamp(min=1e-6)
    shares = share_of(probe, pool.differences)
    turned = directions(
        torch.cat([part / scale for part in (judged.differences if judged else pool.differences[:0], pool.differences)])
    )
    candidates = (pool.differences / scale @ turned).double()
    information = torch.eye(candidates.shape[1], dtype=torch.float64) * (probe.penalty if probe else RIDGE)
    if judged is not None:
        known = (judged.differences / scale @ turned).double()
        said = share_of(probe, judged.differences)
        weights = judged.weights.double() * (spread(said) if is_weighted else 0.25)
        information += known.T @ (known * weights.unsqueeze(1))
    weights = spread(shares) if is_weighted else torch.full((len(candidates),), 0.25, dtype=torch.float64)
    gains = greedy(information, candidates, weights, pool.groups, pool.size, most)
    return Scored(gains, first_of(shares, pool))


def by_disagreement(margins: Tensor, pool: Pool) -> Scored:
    """Scores by BALD. ``margins`` (M, P): each member's score of a first answer less that of the second."""
    shares = margins.double().sigmoid()
    gains = entropy(shares.mean(0)) - entropy(shares).mean(0)
    return Scored(mean_of(gains.clamp(min=0), pool.groups, pool.size), first_of(shares.mean(0), pool))


def probe_margins(known: Pairs, pool: Pool, seed: int) -> Tensor:
    """(MEMBERS, P) for ``by_disagreement``: each probe is fitted to a bootstrap of the judged cases."""
    fitted = [fit(resampled(known, seed, number)) for number in range(MEMBERS)]
    return torch.stack([pool.differences / one.scale @ one.weight for one in fitted])


def resampled(known: Pairs, seed: int, number: int) -> Pairs:
    """A bootstrap of the cases; a case that was drawn twice counts as two."""
    places, cases = numbered(known.cases)
    rows: list[list[int]] = [[] for _ in cases]
    for row, case in enumerate(places.tolist()):
        rows[case].append(row)
    drawn = torch.randint(len(cases), (len(cases),), generator=generator(seed, number, "bootstrap")).tolist()
    found = known.take([row for case in drawn for row in rows[case]])
    return found._replace(cases=[turn for turn, case in enumerate(drawn) for _ in rows[case]])


def greedy(information: Tensor, candidates: Tensor, weights: Tensor, groups: Tensor, count: int, most: int) -> Tensor:
    """What each group would add to log det ``information`` when its turn comes; ``most`` turns, then all the rest. (G,)

    ``candidates`` (P, F) float64; a group of several pairs counts as the mean of them, in gain and in information.
    Gains fall from turn to turn, so that who sorts by them has the order of the turns.
    """
    inverse = torch.linalg.inv(information)
    sizes = torch.bincount(groups, minlength=count).double()
    reach = (candidates @ inverse * candidates).sum(1)  # x' H^-1 x
    rows = [torch.nonzero(groups == group).flatten() for group in range(count)] if len(groups) != count else None
    found, is_open = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.bool)
    for _ in range(min(most, count)):
        gains = mean_of(torch.log1p(weights * reach), groups, count).masked_fill(~is_open, -1.0)
        best = int(gains.argmax())
        found[best], is_open[best] = gains[best], False
        for place in [best] if rows is None else rows[best].tolist():
            weight = float(weights[place] / sizes[best])
            side = inverse @ candidates[place]
            factor = weight / (1 + weight * float(candidates[place] @ side))
            inverse -= factor * torch.outer(side, side)  # Sherman & Morrison 1950
            reach -= factor * (candidates @ side).square()
    rest = mean_of(torch.log1p(weights * reach.clamp(min=0)), groups, count)
    return torch.where(is_open, rest, found)


def directions(differences: Tensor, widest: int = WIDEST) -> Tensor:
    """(F, K): the principal directions of some of the rows, K at most ``widest``; all directions where F is no more."""
    width = differences.shape[1]
    if width <= widest:
        return torch.eye(width)
    places = torch.linspace(0, len(differences) - 1, min(len(differences), SAMPLED)).long()
    return torch.linalg.svd(differences[places], full_matrices=False).Vh[:widest].T.contiguous()


def share_of(probe: Probe | None, differences: Tensor) -> Tensor:
    """Predicted share of judgements for the first answers; a half where nothing is known. (P,) float64"""
    if probe is None:
        return torch.full((len(differences),), 0.5, dtype=torch.float64)
    return ((differences / probe.scale) @ probe.weight).double().sigmoid()


def spread(shares: Tensor) -> Tensor:
    """Variance of one judgement."""
    return shares * (1 - shares)


def entropy(shares: Tensor) -> Tensor:
    """In nats."""
    inside = shares.clamp(1e-12, 1 - 1e-12)
    return -(inside * inside.log() + (1 - inside) * (1 - inside).log())


def mean_of(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """(G,) means of the groups' values."""
    if len(values) == count and bool((groups[1:] > groups[:-1]).all()):  # one pair each, in order
        return values
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, groups, values.double())
    return total / torch.bincount(groups, minlength=count).clamp(min=1)


def first_of(shares: Tensor, pool: Pool) -> Tensor:
    """(G,) the share of each group's first pair."""
    found = torch.zeros(pool.size, dtype=torch.float64)
    for place in reversed(range(len(shares))):
        found[pool.groups[place]] = shares[place]
    return found


# ---- what the order has gained


def gain(random: Pairs, priority: Pairs, held_out: Pairs, seed: int) -> dict[str, Any]:
    """Held-out accuracy of probes from as many priority-arm judgements as random-arm ones, less that of the latter.

    Both arms give ``each`` judgements: all of the smaller arm, ``DRAWS`` subsets of the larger one. The interval is a
    bootstrap over the held-out cases. ``verdict`` is "gain" or "loss" when it leaves 0 out, else "none" or "too_few".
    """
    each = min(len(random.shares), len(priority.shares))
    decided = [i for i, share in enumerate(held_out.shares.tolist()) if share != 0.5]
    asked = held_out.take(decided)
    cases = len(set(asked.cases))
    told = {"each": each, "cases": cases, "pairs": len(decided)}
    if each < FEWEST_JUDGED or cases < FEWEST_CASES:
        return {**told, "verdict": "too_few", "fewest_judged": FEWEST_JUDGED, "fewest_cases": FEWEST_CASES}
    right = {
        name: rightness(arm, asked, each, seed, name) for name, arm in (("random", random), ("priority", priority))
    }
    before, after = (report.by_group(right[name], asked.cases) for name in ("random", "priority"))
    found = report.paired_gain(before, after, seed)
    verdict = "gain" if found.low > 0 else "loss" if found.high < 0 else "none"
    accuracy = {name: round(sum(of) / len(of), 6) for name, of in right.items()}
    return {**told, "verdict": verdict, **found.as_dict(), "accuracy": accuracy}


def rightness(arm: Pairs, asked: Pairs, each: int, seed: int, name: str) -> list[float]:
    """Per held-out pair, how often probes from ``each`` judgements of this arm name the judged winner."""
    n = len(arm.shares)
    draws = 1 if n == each else DRAWS
    total = torch.zeros(len(asked.shares), dtype=torch.float64)
    for draw in range(draws):
        places = torch.randperm(n, generator=generator(seed, draw, f"arm {name}"))[:each].sort().values.tolist()
        margins = fit(arm.take(places)).differences(asked).tolist()
        total += torch.tensor(report.agreement(margins, asked.shares.tolist()), dtype=torch.float64)
    return [float(value) for value in total / draws]


def numbered(names: Sequence[Hashable]) -> tuple[Tensor, list[Hashable]]:
    """Names as numbers by their first appearance, and the names in that order."""
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([order[name] for name in names], dtype=torch.long), list(order)
