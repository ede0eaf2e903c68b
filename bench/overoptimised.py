"""One curve of over-optimisation, in a process of its own: a policy follows a reward model with no price on the KL.

Gao et al. 2023 (arXiv:2210.10760): beside the distance from the base, what the reward model says and what the hidden rule
says. IFT trains far beyond its defaults and every few steps answers the held-out cases.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.training import ift, on_policy
from backend.training.run import NotFinite, Run
from backend.training.settings import IFTSettings
from bench import gain, judged

NO_PRICE: dict[str, Any] = {"kl_coef": 0.0, "kl_stop": 10000.0, "entropy_stop": 0.0, "eval_cases": 0}


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
    """Per look the mean over the held-out cases of everything in gain.Policy, and where the run ended, if early."""
    house, report = gain.opened(gain.Order(order.noise, order.seed, order.cases, order.scored, 0, order.reports))
    curve: list[dict[str, float]] = [{"step": 0, **seen(gain.scored(house, None, "curve"))}]

    def look(step: int) -> None:
        curve.append({"step": step, **seen(gain.scored(house, on_policy.ADAPTER, "curve"))})

    settings = IFTSettings(
        **NO_PRICE,
        total_episodes=order.steps * order.batch_size,
        batch_size=order.batch_size,
        learning_rate=order.learning_rate,
    )
    run = Watched(Path(tempfile.mkdtemp()), order.every, look)

    def train(house: gain.House) -> None:
        ift.train(house.base, house.judge, judged.prompts(house.cases), settings, order.seed, run)

    try:
        gain.with_policy(house, train)
        ended = ""
    except NotFinite as cause:
        ended = str(cause)
    return {"accuracy": report["accuracy"], "curve": curve, "ended": ended}


def seen(policy: gain.Policy) -> dict[str, float]:
    return {name: round(sum(values) / len(values), 4) for name, values in policy._asdict().items()}


if __name__ == "__main__":
    asked = Order(**json.loads(sys.argv[1]))
    gain.write(asked.reports, measure(asked))
