"""One noise and one seed of the learning measurement, in a process of its own: every method from the same judgements.

Each policy answers the held-out cases anew and the hidden rule scores the answers. The KL to the base is the exact
divergence of each next-token distribution summed along the sampled answers, in nats per answer; of best-of-n it is the
bound log n - (n - 1) / n (Beirami et al. 2024, arXiv:2401.01879).
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backend.starter import train as starter
from backend.training import dpo, ift, job, on_policy, ppo, reward, sft
from backend.training.judge import Judge, scores
from backend.training.maths import combined_score, exact_kl, sum_over
from backend.training.rollout import Sampled, lay_out
from backend.training.run import GuardStop, Run
from backend.training.settings import (
    CommonSettings,
    DPOSettings,
    IFTSettings,
    OnPolicySettings,
    PPOSettings,
    RewardSettings,
    SFTSettings,
)
from backend.training.shared_base import Shape, SharedBase, load_base
from bench import judged
from bench.judged import Case, Written

BEST_OF = 8


@dataclass(frozen=True)
class Order:
    """What one process does. ``reports`` is the file it writes."""

    noise: float
    seed: int
    cases: int  # of each language
    scored: int  # answers to each held-out case
    drawn: int  # answers of the base to each held-out case, of which n are thought drawn for best-of-n
    reports: str


class Policy(NamedTuple):
    """What a policy's answers to the held-out cases came to; one number per case."""

    points: list[float]  # of the hidden rule, mean over the answers
    kl: list[float]  # nats per answer
    scores: list[float]  # of the reward model, neither clipped nor fined
    tokens: list[float]


class House(NamedTuple):
    """What all methods of one process share."""

    base: SharedBase
    judge: Judge
    rows: list[Any]  # the judgements
    cases: list[Case]
    held_out: list[Case]
    order: Order
    run: Run


def opened(order: Order, members: int = 1) -> tuple[House, dict[str, Any]]:
    """The judgements, a reward model of them, and its report."""
    job.set_threads(1)
    run = Run(Path(tempfile.mkdtemp()))
    base = load_base(str(starter.WEIGHTS))
    found = judged.cases(order.cases)
    rows = judged.comparisons(base, found, order.noise, order.seed, run)
    trained = reward.train(base, rows, RewardSettings(num_members=members), order.seed, run)
    held_out = [case for case in found if case.split != "train"]
    return House(base, trained.judge, rows, found, held_out, order, run), trained.report


def measure(order: Order) -> dict[str, Any]:
    began = time.monotonic()
    house, report = opened(order)
    told: dict[str, Any] = {"reward": {"accuracy": report["accuracy"], "seconds": round(time.monotonic() - began, 1)}}
    told["judgements"] = {split: sum(row.split == split for row in house.rows) for split in judged.COMPARISONS}
    told["ties"] = sum(row.ranks.count(1) == 2 for row in house.rows)
    told["base"], told["best_of"] = base_and_best(house)
    for name, train in METHODS.items():
        began = time.monotonic()
        stopped = with_policy(house, train)
        spent = round(time.monotonic() - began, 1)
        told[name] = {**scored(house, on_policy.ADAPTER)._asdict(), "stopped": stopped, "seconds": spent}
    return told


# ---- methods


def with_policy(house: House, train: Callable[[House], Any]) -> str:
    """Train a new adapter "policy"; what a guard said, if one ended the run. The policy is scored as it then stands."""
    if house.base.peft is not None and on_policy.ADAPTER in house.base.peft.peft_config:
        house.base.remove(on_policy.ADAPTER)
    shape = CommonSettings()
    house.base.add(on_policy.ADAPTER, Shape(shape.lora_r, shape.lora_alpha), house.order.seed)
    try:
        train(house)
    except GuardStop as stop:
        return str(stop)
    return ""


def by_sft(house: House) -> None:
    sft.train(house.base, judged.winners(house.rows), SFTSettings(), house.order.seed, house.run)


def by_dpo(house: House) -> None:
    dpo.train(house.base, house.rows, DPOSettings(), house.order.seed, house.run)


def by_ift(house: House) -> None:
    settings = IFTSettings(eval_cases=0)
    ift.train(house.base, house.judge, judged.prompts(house.cases), settings, house.order.seed, house.run)


def by_ppo(house: House) -> None:
    settings = PPOSettings(eval_cases=0)
    ppo.train(house.base, house.judge, judged.prompts(house.cases), settings, house.order.seed, house.run)


METHODS: dict[str, Callable[[House], None]] = {"sft": by_sft, "dpo": by_dpo, "ift": by_ift, "ppo": by_ppo}


# ---- scores


def scored(house: House, adapter: str | None, settings: OnPolicySettings = OnPolicySettings()) -> Policy:
    """Fresh answers of a policy to the held-out cases, the same draws for every policy. ``settings`` say how the scores of
    several members become one."""
    count = house.order.scored
    written = judged.answers(house.base, adapter, house.held_out, count, house.order.seed, "scored", house.run)
    kl = kl_of(house, adapter, written) if adapter else [[0.0] * count for _ in written]
    values = points_of(house, written), kl, scores_of(house, written, settings), lengths_of(written)
    return Policy(*(per_case(one) for one in values))


def per_case(values: Sequence[Sequence[float]]) -> list[float]:
    return [round(math.fsum(mine) / len(mine), 6) for mine in values]


def points_of(house: House, written: Sequence[Sequence[Written]]) -> list[list[float]]:
    both = zip(house.held_out, written, strict=True)
    return [[float(judged.points(case, one.text)) for one in mine] for case, mine in both]


def lengths_of(written: Sequence[Sequence[Written]]) -> list[list[float]]:
    return [[float(len(one.tokens)) for one in mine] for mine in written]


def scores_of(
    house: House, written: Sequence[Sequence[Written]], settings: OnPolicySettings = OnPolicySettings()
) -> list[list[float]]:
    asked = judged.encoded(house.base, house.held_out, settings)
    sequences = [prompt.reward + one.tokens for prompt, mine in zip(asked, written, strict=True) for one in mine]
    found = scores(house.base, house.judge, sequences, settings.tokens_per_microbatch)
    return folded(combined_score(found, settings.ensemble, settings.uwo_coef).tolist(), written)


@torch.no_grad()
def kl_of(house: House, adapter: str, written: Sequence[Sequence[Written]]) -> list[list[float]]:
    """Nats per answer, exact in every next-token distribution."""
    base, tokens = house.base, OnPolicySettings().tokens_per_microbatch
    prompts = [judged.prefix(base, case) for case, mine in zip(house.held_out, written, strict=True) for _ in mine]
    path = lay_out(base, prompts, [Sampled(one.tokens, one.has_ended) for mine in written for one in mine])
    kl = torch.zeros(len(prompts))
    for part in on_policy.parts_of(base, path, tokens, house.order.seed, 0):
        few = path.take(part)
        logits = []
        for name in (adapter, None):
            with base.scope(name):
                logits.append(base.logits(on_policy.response_states(base, few)))
        kl[part] = sum_over(exact_kl(*logits), few.is_response).cpu()
    return folded(kl.tolist(), written)


def folded(values: Sequence[float], written: Sequence[Sequence[Written]]) -> list[list[float]]:
    """One flat list as one list per case."""
    flat = iter(values)
    return [[next(flat) for _ in mine] for mine in written]


def base_and_best(house: House) -> tuple[dict[str, Any], dict[str, Any]]:
    """The base's own answers, and for each n the best of n of them by the reward model."""
    written = judged.answers(house.base, None, house.held_out, house.order.drawn, house.order.seed, "drawn", house.run)
    points, paid, tokens = points_of(house, written), scores_of(house, written), lengths_of(written)
    nothing = [0.0] * len(written)
    base = Policy(per_case(points), nothing, per_case(paid), per_case(tokens))._asdict()
    counts = [2**k for k in range(1, int(math.log2(house.order.drawn)) + 1)]
    return base, {str(n): best_of(n, points, paid, tokens)._asdict() for n in counts}


def best_of(
    n: int, points: Sequence[Sequence[float]], paid: Sequence[Sequence[float]], tokens: Sequence[Sequence[float]]
) -> Policy:
    def chosen(values: Sequence[Sequence[float]]) -> list[float]:
        return [round(expected_best(n, mine, by), 6) for mine, by in zip(values, paid, strict=True)]

    return Policy(chosen(points), [round(best_of_kl(n), 6)] * len(points), chosen(paid), chosen(tokens))


def best_of_kl(n: int) -> float:
    """Upper bound of the KL of best-of-n to what is sampled, in nats."""
    return math.log(n) - (n - 1) / n


def expected_best(n: int, values: Sequence[float], paid: Sequence[float]) -> float:
    """Mean value of the best-scored of n draws, over all choices of n from what was drawn (Nakano et al. 2021,
    arXiv:2112.09332, section 3.4); answers of equal score share their places."""
    drawn = len(paid)
    if not 1 <= n <= drawn:
        raise ValueError(f"The best of {n} cannot be chosen from {drawn}.")
    order = sorted(range(drawn), key=lambda i: paid[i])
    alike = {score: [values[i] for i in order if paid[i] == score] for score in set(paid)}
    means = [math.fsum(alike[paid[i]]) / len(alike[paid[i]]) for i in order]
    return math.fsum(math.comb(place, n - 1) * mean for place, mean in enumerate(means)) / math.comb(drawn, n)


def write(reports: str, told: dict[str, Any]) -> None:
    """Whole or not at all, so that a measurement that was interrupted does not take half a file for a finished one."""
    target = Path(reports)
    half = target.with_suffix(".part")
    half.write_text(json.dumps(told) + "\n", encoding="utf-8")
    half.replace(target)


if __name__ == "__main__":
    asked = Order(**json.loads(sys.argv[1]))
    write(asked.reports, measure(asked))
