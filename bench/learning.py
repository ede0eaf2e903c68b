"""What judgements gain: the hidden rule's points for every method from equal judgements, and where a policy overdoes it.

The starter model answers the sample project's customer-service cases; a rule that training never sees judges pairs of
answers, with a tenth or a quarter of the judgements turned round. SFT learns from the winners, DPO from the pairs, a reward
model from the same pairs, and best-of-8, IFT and PPO from that reward model. All have the product's default settings. The
points, 0 to 2, are of fresh answers to held-out cases. Each noise and seed is a process of its own that leaves a file; one
that is there is not computed again.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backend.training.settings import DPOSettings, IFTSettings, PPOSettings, RewardSettings, SFTSettings
from bench import report

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench"
DRAWS = 2000
BEST_OF = "8"
NAMES = {
    "sft": "SFT on winners",
    "best_of_8": "best of 8",
    "dpo": "DPO",
    "ift": "IFT",
    "ppo": "PPO",
}
CURVES = {
    "single": "IFT at no price of the KL, a single reward model",
    "mean": "the mean of three reward models",
    "uwo": "the mean of three less their disagreement",
}
BASELINES = ("base", "sft", "best_of_8")  # what a method should be above; the interval of the difference tells


@dataclass(frozen=True)
class Curve:
    """How far over-optimisation is followed; bench/overoptimised.py says what the curves are."""

    noise: float = 0.25  # where a reward model has most to be wrong about
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    scored: int = 2
    steps: int = 40
    every: int = 4
    batch_size: int = 32
    learning_rate: float = 1e-3
    uwo_coef: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    noises: tuple[float, ...] = (0.10, 0.25)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    cases: int = 200  # of each language, as the sample project has them
    scored: int = 8  # answers to each held-out case
    drawn: int = 16  # of the base, for best-of-n
    curve: Curve = Curve()


QUICK = Plan(
    noises=(0.10,), seeds=(0,), cases=40, scored=4, drawn=16, curve=Curve(noise=0.10, seeds=(0,), steps=20, every=10)
)


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class RunFailed(RuntimeError):
    """One of the processes ended with an error; the message holds what it last said."""


def measure(plan: Plan) -> report.Found:
    folder = folder_of(plan)
    rows: list[report.Row | report.Difference] = []
    facts: dict[str, Any] = {"plan": asdict(plan), "methods": []}
    done = {(noise, seed): run(plan, noise, seed, folder) for seed in plan.seeds for noise in plan.noises}
    for noise in plan.noises:
        runs = [done[noise, seed] for seed in plan.seeds]
        found = [told(name, noise, runs) for name in ("base", *NAMES)]
        print(methods_table(found), flush=True)
        rows += [row for name in NAMES for row in compared(name, noise, runs)]
        facts["methods"] += found
    curves = [follow(plan, seed, folder) for seed in plan.curve.seeds]
    facts["curves"] = {name: [one[name] for one in curves] for name in CURVES}
    for name, title in CURVES.items():
        print(title, curve_table(facts["curves"][name]), sep="\n", flush=True)
    return report.Found(rows, facts)


# ---- processes


def folder_of(plan: Plan) -> Path:
    """Where the results of this plan with these default settings are kept."""
    kinds = (RewardSettings, SFTSettings, DPOSettings, IFTSettings, PPOSettings)
    amounts = {name: value for name, value in asdict(plan).items() if name not in ("noises", "seeds", "curve")}
    made_from = {**amounts, "settings": [asdict(kind()) for kind in kinds]}
    folder = CACHE / f"learning-{digest_of(made_from)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def run(plan: Plan, noise: float, seed: int, folder: Path) -> dict[str, Any]:
    """What bench/gain.py found for this noise and seed, now or at an earlier time."""
    target = folder / f"gain-{noise:g}-{seed}.json"
    order = {"noise": noise, "seed": seed, "cases": plan.cases, "scored": plan.scored, "drawn": plan.drawn}
    return computed("bench.gain", {**order, "reports": str(target)})


def follow(plan: Plan, seed: int, folder: Path) -> dict[str, Any]:
    """What bench/overoptimised.py found for this seed."""
    order = {name: value for name, value in asdict(plan.curve).items() if name != "seeds"}
    target = folder / f"curve-{seed}-{digest_of(order)}.json"
    return computed("bench.overoptimised", {**order, "seed": seed, "cases": plan.cases, "reports": str(target)})


def computed(module: str, order: Mapping[str, Any]) -> dict[str, Any]:
    target = Path(order["reports"])
    if not target.exists():
        print(f"{module}: {target.stem}", flush=True)
        command = [sys.executable, "-m", module, json.dumps(order)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunFailed(f"{module} {target.stem}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return result


# ---- figures


def policy_of(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = one["best_of"][BEST_OF] if name == "best_of_8" else one[name]
    return policy


def interval(differences: Sequence[Sequence[float]]) -> Interval:
    """Mean of (seeds, cases) and a 95 % bootstrap that draws seeds and cases anew, each for itself: every seed scores the
    same cases (Owen 2007, "the pigeonhole bootstrap", whose interval is rather too wide than too narrow)."""
    values = np.array(differences)
    rng = np.random.default_rng(0)
    seeds, cases = values.shape
    means = [values[rng.integers(seeds, size=seeds)][:, rng.integers(cases, size=cases)].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def above(name: str, other: str, runs: Sequence[Mapping[str, Any]]) -> Interval:
    """By how many points of the hidden rule, paired by seed and case."""
    pairs = [(policy_of(name, one)["points"], policy_of(other, one)["points"]) for one in runs]
    return interval([[a - b for a, b in zip(mine, theirs, strict=True)] for mine, theirs in pairs])


def told(name: str, noise: float, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One method at one noise, over all seeds."""
    policies = [policy_of(name, one) for one in runs]
    gains = [above(name, "base", [one]) for one in runs]
    return {
        "method": name,
        "noise": noise,
        "points": rounded(interval([policy["points"] for policy in policies])),
        "gain": rounded(above(name, "base", runs)),
        "gain_of_each_seed": [rounded(gain) for gain in gains],
        "kl": rounded(interval([policy["kl"] for policy in policies])),
        "score": rounded(interval([policy["scores"] for policy in policies])),
        "tokens": round(float(np.mean([policy["tokens"] for policy in policies])), 2),
        "stopped": [policy.get("stopped", "") for policy in policies],
        "seconds": [policy.get("seconds") for policy in policies],
    }


def compared(name: str, noise: float, runs: Sequence[Mapping[str, Any]]) -> list[report.Difference]:
    rows = []
    for other in BASELINES[: BASELINES.index(name) if name in BASELINES else None]:
        value, low, high = rounded(above(name, other, runs))
        label = f"{NAMES[name]}, {noise:.0%} noise: points of the hidden rule"
        rows.append(report.Difference(label, NAMES.get(other, "the base"), value, low, high, "> 0", low > 0))
    return rows


def rounded(found: Interval) -> list[float]:
    return [round(value, 4) for value in found]


def methods_table(found: Sequence[Mapping[str, Any]]) -> str:
    head = ("method", "noise", "points", "gain", "95 % interval", "KL, nats", "95 % interval", "score", "tokens")
    lines = [
        (
            NAMES.get(one["method"], "the base"),
            f"{one['noise']:.0%}",
            f"{one['points'][0]:.2f}",
            f"{one['gain'][0]:+.2f}",
            f"{one['gain'][1]:+.2f} to {one['gain'][2]:+.2f}",
            f"{one['kl'][0]:.2f}",
            f"{one['kl'][1]:.2f} to {one['kl'][2]:.2f}",
            f"{one['score'][0]:+.2f}",
            f"{one['tokens']:.1f}",
        )
        for one in found
    ]
    return report.aligned([head, *lines])


def curve_table(curves: Sequence[Mapping[str, Any]]) -> str:
    """Means over the seeds, look by look, as far as all of them came."""
    head = ("step", "KL, nats", "reward score", "points", "lowest", "highest", "tokens")
    lines = []
    for looks in zip(*(curve["points"] for curve in curves), strict=False):
        kl, score, points, tokens = ([look[name] for look in looks] for name in ("kl", "scores", "points", "tokens"))
        lines.append(
            (
                f"{looks[0]['step']:.0f}",
                f"{np.mean(kl):.2f}",
                f"{np.mean(score):+.2f}",
                f"{np.mean(points):.2f}",
                f"{min(points):.2f}",
                f"{max(points):.2f}",
                f"{np.mean(tokens):.1f}",
            )
        )
    return report.aligned([head, *lines])
