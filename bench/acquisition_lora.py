"""Judgements needed, with the reward model that the product trains: an adapter and a head in the place of the linear probe.

The rules choose as in acquisition.py, by probes; what was judged after so many judgements then trains a reward model with the
product's settings, whose accuracy is taken on the same held-out pairs. A training takes half a minute, so there are few
points on the curve: enough to see whether the probe's finding is one of probes alone, not enough to find a small gain. Each
seed and rule leaves a file; one that is there is not computed again.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from backend.starter import train as starter
from backend.training import reward
from backend.training.data import ComparisonRow
from backend.training.job import set_threads
from backend.training.probe import Features
from backend.training.run import Run
from backend.training.settings import RewardSettings
from backend.training.shared_base import SharedBase, load_base
from bench import acquisition, report
from bench.acquisition import House

STRATEGIES = ("random", "uncertainty", "disagreement", "coverage")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    noise: float = 0.10
    seeds: tuple[int, ...] = tuple(range(10))
    start: int = 200
    looks: tuple[int, ...] = (400, 600)  # judgements after which a reward model is trained
    asked: acquisition.Plan = acquisition.Plan()


QUICK = Plan(seeds=(0,), start=40, looks=(100,), asked=acquisition.QUICK)


def measure(quick: bool) -> report.Found:
    plan = QUICK if quick else Plan()
    set_threads(1)
    base = load_base(str(starter.WEIGHTS))
    house = acquisition.opened(plan.asked, base)
    features = acquisition.features_of(plan.asked, base)
    found: dict[str, list[list[float]]] = {name: [] for name in STRATEGIES}
    folder = kept_in(plan)
    for seed in plan.seeds:
        for name in STRATEGIES:
            compute = partial(accuracies, base, features, house, plan, name, seed)
            found[name].append(once(folder / f"{seed}-{name}.json", compute))
            print(seed, name, json.dumps(found[name][-1]), flush=True)
    rows = [
        compared(name, look, [of[place] for of in found[name]], [of[place] for of in found["random"]], plan)
        for name in STRATEGIES[1:]
        for place, look in enumerate(plan.looks)
    ]
    facts = {
        "plan": asdict(plan),
        "pool": len(house.rows[True]),
        "held_out": len(house.rows[False]),
        "accuracies": found,
    }
    return report.Found(rows, facts)


def kept_in(plan: Plan) -> Path:
    """The folder of what was computed under this plan, whatever its seeds."""
    known = json.dumps({**asdict(plan), "seeds": None, "settings": asdict(RewardSettings())}, sort_keys=True)
    return acquisition.CACHE / f"acquisition-lora-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


def once(path: Path, compute: Callable[[], list[float]]) -> list[float]:
    """What the file holds, or what is computed now and kept there, whole or not at all."""
    if not path.exists():
        found = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".tmp")
        half.write_text(json.dumps(found), "utf-8")
        half.replace(path)
    kept: list[float] = json.loads(path.read_text("utf-8"))
    return kept


def compared(name: str, look: int, ours: Sequence[float], theirs: Sequence[float], plan: Plan) -> report.Difference:
    """Accuracy at so many judgements, in points, paired by seed."""
    gains = [100 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    value, low, high = (round(part, 3) for part in acquisition.interval(gains))
    work = f"{name}, {plan.start} to {look} judgements, {plan.noise:.0%} turned round: accuracy in points"
    return report.Difference(work, "random", value, low, high, "> 0", low > 0)


def accuracies(base: SharedBase, features: Features, house: House, plan: Plan, strategy: str, seed: int) -> list[float]:
    """Held-out accuracy of a reward model trained on what was judged at each look."""
    said = acquisition.judgements(house.pool.shares, plan.noise, seed)
    asked = replace(plan.asked, end=max(plan.looks))
    found = []
    for known, _ in acquisition.asked_by(house, asked, strategy, plan.start, plan.noise, seed):
        if len(known) in plan.looks:
            rows = [replace(house.rows[True][at], ranks=acquisition.ranks_of(float(said[at]))) for at in known]
            found.append(trained(base, features, [*rows, *house.rows[False]], seed))
    return found


def trained(base: SharedBase, features: Features, rows: Sequence[ComparisonRow], seed: int) -> float:
    """Share of the held-out pairs whose better answer scores higher; the base is left as it was."""
    done = reward.train(base, rows, RewardSettings(), seed, Run(Path(tempfile.mkdtemp())), features=features)
    base.remove(reward.ADAPTER)
    return round(float(done.report["accuracy"]["value"]), 4)
