"""Curves of over-optimisation for one seed, in a process of its own: a policy follows its reward model at no price.

Gao et al. 2023 (arXiv:2210.10760): beside the distance from the base, what the reward model says and what the hidden rule
says. IFT trains far beyond its defaults, with nothing paid for the KL and no guard, and answers the held-out cases every
few steps: once behind a single reward model, once behind the mean of three, and once behind their mean less their
disagreement (Coste et al. 2023). The single one is the first of the three, so all have the same judgements.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.training import ift, on_policy
from backend.training.judge import Judge
from backend.training.run import NotFinite, Run
from backend.training.settings import IFTSettings
from bench import gain, judged

NO_PRICE: dict[str, Any] = {"kl_coef": 0.0, "kl_stop": 10000.0, "entropy_stop": 0.0, "eval_cases": 0}
MEMBERS = {"single": 1, "mean": 3, "uwo": 3}


@dataclass(frozen=True)
class Order:
    noise: float
    seed: int
    cases: int  # of each language
    scored: int  # answers to each held-out case at every look
    steps: int
    every: int  # steps between two looks
    batch_size: int
    learning_rate: float
    uwo_coef: float
    reports: str


class Watched(Run):
    """A run that looks at the policy every few steps."""

    def __init__(self, folder: Path, every: int, look: Callable[[int], None]) -> None:
        super().__init__(folder)
        self._every, self._look = every, look

    def metrics(self, step: int, total_steps: int, values: Any) -> None:
        super().metrics(step, total_steps, values)
        if step % self._every == 0:
            self._look(step)


def measure(order: Order) -> dict[str, Any]:
    of_gain = gain.Order(order.noise, order.seed, order.cases, order.scored, 0, order.reports)
    house, report = gain.opened(of_gain, max(MEMBERS.values()))
    told: dict[str, Any] = {"accuracy": report["accuracy"]}
    for name, members in MEMBERS.items():
        told[name] = curve_of(order, house._replace(judge=Judge(house.judge.members[:members])), name)
    return told


def curve_of(order: Order, house: gain.House, name: str) -> dict[str, Any]:
    """Per look the mean over the held-out cases of all that gain.Policy has, and why the run ended, if early."""
    settings = settings_of(order, name)
    points = [{"step": 0.0, **seen(gain.scored(house, None, settings))}]

    def look(step: int) -> None:
        points.append({"step": float(step), **seen(gain.scored(house, on_policy.ADAPTER, settings))})

    run = Watched(Path(tempfile.mkdtemp()), order.every, look)

    def train(house: gain.House) -> None:
        ift.train(house.base, house.judge, judged.prompts(house.cases), settings, order.seed, run)

    try:
        gain.with_policy(house, train)
    except NotFinite as cause:
        return {"points": points, "ended": str(cause)}
    return {"points": points, "ended": ""}


def settings_of(order: Order, name: str) -> IFTSettings:
    return IFTSettings(
        **NO_PRICE,
        total_episodes=order.steps * order.batch_size,
        batch_size=order.batch_size,
        learning_rate=order.learning_rate,
        ensemble="uwo" if name == "uwo" else "mean",
        uwo_coef=order.uwo_coef,
    )


def seen(policy: gain.Policy) -> dict[str, float]:
    return {name: round(sum(values) / len(values), 4) for name, values in policy._asdict().items()}


if __name__ == "__main__":
    asked = Order(**json.loads(sys.argv[1]))
    gain.write(asked.reports, measure(asked))
