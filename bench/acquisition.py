"""Judgements needed: simulated annotators answer what a rule asks first, beside what chance asks first.

The starter model answers the sample project's customer-service cases several times; each pair of different answers to a
case of the split "train" is in the pool. A hidden rule (judged.py) judges, with a share of the judgements turned round. Every
strategy starts from the same judgements drawn by chance and asks on in batches; after each batch a linear probe, the reward
model of this measurement, is fitted to all that was judged. Its accuracy is taken on pairs of held-out cases, against the
rule itself. Needed is the first number of judgements at which the accuracy is what chance ends with, for 80 and 95 % of the
gain that chance makes from start to end; the curve is smoothed by its running best mean of three batches.

``closest`` is "closest to one half", which the product leaves out; ``disagreement`` is that of probes. The product leaves the
order to chance until there are 200 judgements, so the rules are measured from there as well as from few.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from backend.starter import train as starter
from backend.training import acquisition, probe
from backend.training.acquisition import Pool
from backend.training.data import Answer, ComparisonRow, Pair, Tokens
from backend.training.draws import generator
from backend.training.job import set_threads
from backend.training.probe import Compared, Features, Pairs
from backend.training.run import Run
from backend.training.shared_base import SharedBase, load_base
from bench import judged, report

CACHE = Path(__file__).resolve().parent.parent / ".bench"
STRATEGIES = ("random", "uncertainty", "disagreement", "coverage", "closest")
SHARES = (0.80, 0.95)


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    noises: tuple[float, ...] = (0.10, 0.25)
    seeds: tuple[int, ...] = tuple(range(12))
    cases: int = 200  # of each language
    answers: int = 6  # to each case; neighbours make pairs
    starts: tuple[int, ...] = (40, 200)
    batch: int = 20
    end: int = 600


QUICK = Plan(noises=(0.10,), seeds=(0, 1, 2), cases=60, answers=6, starts=(40,), batch=20, end=200)


class House(NamedTuple):
    """Pairs of answers with the hidden rule's points."""

    pool: Pairs  # shares are the rule's, without noise
    held_out: Pairs
    rows: dict[
        bool, list[ComparisonRow]
    ] = {}  # the same pairs as a reward model learns them: of the pool, and held out


def measure(quick: bool) -> report.Found:
    plan = QUICK if quick else Plan()
    set_threads(1)
    house = opened(plan)
    rows: list[report.Row | report.Difference] = []
    facts: dict[str, Any] = {
        "plan": asdict(plan),
        "pool": len(house.pool.shares),
        "held_out": len(house.held_out.shares),
    }
    facts["curves"] = []
    for start in plan.starts:
        for noise in plan.noises:
            curves = {
                name: [curve(house, plan, name, start, noise, seed) for seed in plan.seeds] for name in STRATEGIES
            }
            for name in STRATEGIES[1:]:
                rows.append(compared(name, start, noise, curves[name], curves["random"]))
            table = needed_table(plan, start, curves)
            facts["curves"].append({"start": start, "noise": noise, "needed": table, **curves})
            print(start, noise, json.dumps(table, indent=1), flush=True)
    return report.Found(rows, facts)


def compared(
    name: str, start: int, noise: float, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> report.Difference:
    """Mean accuracy over the whole curve, in points, paired by seed."""
    gains = [100 * (mean(one[1:]) - mean(other[1:])) for one, other in zip(ours, theirs, strict=True)]
    value, low, high = interval(gains)
    work = f"{name}, from {start} on, {noise:.0%} turned round: mean accuracy in points"
    return report.Difference(work, "random", round(value, 3), round(low, 3), round(high, 3), "> 0", low > 0)


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Mean with the 95 % percentile bootstrap."""
    rng = Random(0)
    drawn = sorted(mean(rng.choices(values, k=len(values))) for _ in range(draws))
    return mean(values), drawn[int(0.025 * draws)], drawn[int(0.975 * draws) - 1]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def needed_table(plan: Plan, start: int, curves: dict[str, list[list[float]]]) -> dict[str, dict[str, Any]]:
    """Per strategy the judgements needed, on the seeds' mean curve, and the accuracy at the end."""
    average = {name: [mean(column) for column in zip(*of, strict=True)] for name, of in curves.items()}
    begin, end = average["random"][0], smoothed(average["random"])[-1]
    return {
        name: {
            **{f"{share:.0%}": needed(plan, start, of, begin + share * (end - begin)) for share in SHARES},
            "start": round(of[0], 4), "end": round(of[-1], 4),
        }
        for name, of in average.items()
    }  # fmt: skip


def needed(plan: Plan, start: int, accuracies: Sequence[float], wanted: float) -> int | None:
    """The first number of judgements with this accuracy; None when it was not reached."""
    for place, value in enumerate(smoothed(accuracies)):
        if value >= wanted:
            return start + place * plan.batch
    return None


def smoothed(values: Sequence[float]) -> list[float]:
    """The best so far of the means of three neighbours."""
    best, found = -math.inf, []
    for place in range(len(values)):
        best = max(best, mean(values[max(0, place - 1) : place + 2]))
        found.append(best)
    return found


# ---- one simulated project


def curve(house: House, plan: Plan, strategy: str, start: int, noise: float, seed: int) -> list[float]:
    """Held-out accuracy after the start and after each batch."""
    return [
        round(accuracy(fitted, house.held_out), 4) for _, fitted in asked_by(house, plan, strategy, start, noise, seed)
    ]


def asked_by(
    house: House, plan: Plan, strategy: str, start: int, noise: float, seed: int
) -> Iterator[tuple[list[int], probe.Probe]]:
    """What was judged until now (places of the pool) and the probe fitted to it: after the start and after each batch."""
    order = torch.randperm(len(house.pool.shares), generator=generator(seed, 0, "start")).tolist()
    said = house.pool._replace(shares=judgements(house.pool.shares, noise, seed))
    known, left = order[:start], order[start:]
    for step in range((plan.end - start) // plan.batch + 1):
        fitted = probe.fit(said.take(known))
        yield known, fitted
        chosen = choose(strategy, house.pool, said.take(known), left, fitted, plan.batch, seed + 1000 * step)
        known = known + chosen
        gone = set(chosen)
        left = [place for place in left if place not in gone]


def judgements(shares: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """What the annotator says of each pair: the rule's word, turned round with the probability ``noise``; a tie that is
    turned round becomes a side."""
    draw = generator(seed, 0, "noise")
    turned = torch.rand(len(shares), generator=draw) < noise
    side = (torch.rand(len(shares), generator=draw) < 0.5).float()
    return torch.where(turned, torch.where(shares == 0.5, side, 1 - shares), shares)


def choose(
    strategy: str, pool: Pairs, known: Pairs, left: Sequence[int], fitted: probe.Probe, batch: int, seed: int
) -> list[int]:
    """The places of the pool that are judged next."""
    differences = pool.differences[list(left)]
    waiting = Pool(differences, torch.arange(len(left)), len(left))
    if strategy == "random":
        return list(left[:batch])  # ``left`` is in a random order
    if strategy == "closest":
        scores = -(acquisition.share_of(fitted, differences) - 0.5).abs()
    elif strategy == "disagreement":
        scores = acquisition.by_disagreement(acquisition.probe_margins(known, waiting, seed), waiting).gains
    else:
        scores = acquisition.by_information(known, waiting, batch, is_weighted=strategy == "uncertainty").gains
    return [left[i] for i in scores.argsort(descending=True, stable=True)[:batch].tolist()]


def accuracy(fitted: probe.Probe, asked: Pairs) -> float:
    """Share of the decided pairs whose winner scores higher."""
    margins = fitted.differences(asked)
    return float(((margins > 0) == (asked.shares > 0.5)).float().mean())


# ---- what is asked


def opened(plan: Plan, base: SharedBase | None = None) -> House:
    """Answers of the starter model and their features; both are the same for every seed and kept for the next run."""
    run = Run(Path(tempfile.mkdtemp()))
    base = base or load_base(str(starter.WEIGHTS))
    found = judged.cases(plan.cases)
    tokens = Tokens(base.tokenizer, base.longest)
    features = features_of(plan, base)
    items: dict[bool, list[Compared]] = {True: [], False: []}
    rows: dict[bool, list[ComparisonRow]] = {True: [], False: []}
    written = judged.answers(base, None, found, plan.answers, 0, "acquisition", run)
    for case, mine in zip(found, written, strict=True):
        prefix = tokens.prefix(case.conversation)
        for first, second in judged.pairs([*mine, *mine[1:], mine[0]]):
            points = [judged.points(case, one.text) for one in (first, second)]
            share = 0.5 if points[0] == points[1] else float(points[0] > points[1])
            sequences = tokens.joined(prefix, [first.tokens, second.tokens])
            is_pool = case.split == "train"
            if sequences is not None and (is_pool or share != 0.5):
                items[is_pool].append(Compared(sequences, [Pair(0, 1, share)], 1.0, case.number))
                texts = [Answer(None, one.text, one.has_ended) for one in (first, second)]
                rows[is_pool].append(ComparisonRow(case.number, case.split, case.conversation, texts, ranks_of(share)))
    pool, held_out = (probe.pairs_of(features, items[which], 2048, run) for which in (True, False))
    features.save()
    assert pool is not None and held_out is not None
    assert [len(rows[True]), len(rows[False])] == [len(pool.shares), len(held_out.shares)]
    return House(pool, held_out, rows)


def features_of(plan: Plan, base: SharedBase) -> Features:
    """The bare base's features of the answers, those of earlier runs from their file."""
    return Features(base, "starter", CACHE / f"acquisition-{plan.cases}-{plan.answers}.safetensors")


def ranks_of(share: float) -> list[int]:
    """Of two answers, by the first one's share."""
    return [1, 1] if share == 0.5 else [1, 2] if share > 0.5 else [2, 1]
