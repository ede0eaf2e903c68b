"""Our side of the training measurement: the same order, the same rows, the same line of JSON as bench/peers/trl_side.py."""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # as the worker of a job has it

import numpy as np
import torch
from safetensors.torch import load_file

from backend.training import dpo, ift, job, judge, on_policy, ppo, probe, reward, sft, stepping, tree
from backend.training.answers import answer_logp, written
from backend.training.data import Answer, AnswerRow, ComparisonRow, PromptRow, Tokens
from backend.training.run import Run
from backend.training.settings import CommonSettings, DPOSettings, IFTSettings, PPOSettings, RewardSettings, SFTSettings
from backend.training.shared_base import Shape, SharedBase, load_base
from bench import workload

COMPARED, RESPONSE, SEVERAL = 8, 32, 4  # as the peers' side has them
DTYPES = {"default": CommonSettings().base_dtype, "best": "bfloat16"}
SHAPE = Shape(16, 32)


class Order(NamedTuple):
    """What is measured; both sides get the same."""

    method: str
    setting: str  # default: our defaults; best: the base in bfloat16
    size: str
    folder: str
    amount: int  # pairs, answers or episodes
    batch: int  # of them per optimizer step
    threads: int
    base_dtype: str = ""  # of our base, where it is not the setting's


class Told(NamedTuple):
    """``loss`` is what the parity compares: of the first rows, before any step."""

    loss: float
    seconds: float
    cpu_seconds: float  # of all threads; what a neighbour on the machine takes is not in it
    units: int
    dtype: str = "float32"  # of the base's weights


class Watch:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def told(self, loss: float, units: int, base: SharedBase | None = None) -> Told:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        dtype = str(base.dtype if base else torch.float32).removeprefix("torch.")
        return Told(loss, time.perf_counter() - self._wall, time.process_time() - self._cpu, units, dtype)


def prepared(order: Order, adapter: str) -> tuple[SharedBase, list[dict[str, Any]], Run]:
    base = load_base(f"{order.folder}/base-{order.size}", order.base_dtype or DTYPES[order.setting])
    base.add(adapter, SHAPE, seed=0)
    return base, workload.rows(Path(order.folder), order.amount), Run(Path(tempfile.mkdtemp()))


def head_of(order: Order, base: SharedBase) -> judge.Head:
    """The scalar head that the peers' reward model has."""
    head = reward.new_head(base, 0)
    state = load_file(f"{order.folder}/reward-{order.size}/model.safetensors")
    with torch.no_grad():
        head.weight.copy_(state["score.weight"])
    return head


def batches(order: Order, items: list[Any]) -> list[list[int]]:
    return [list(range(i, min(i + order.batch, len(items)))) for i in range(0, len(items), order.batch)]


def comparisons(rows: list[dict[str, Any]]) -> list[ComparisonRow]:
    return [
        ComparisonRow(
            case=i,
            split="train",
            conversation=[{"role": "user", "content": row["texts"][0]}],
            answers=[Answer(2 * i + k, text, True) for k, text in enumerate(row["texts"][1:])],
            ranks=[1, 2],
            prompts=[[{"role": "user", "content": row["texts"][0]}]] * 2,
        )
        for i, row in enumerate(rows)
    ]


def prompts(rows: list[dict[str, Any]]) -> list[PromptRow]:
    turns = [[{"role": "user", "content": row["texts"][0]}] for row in rows]
    return [PromptRow(i, "train", turn, turn) for i, turn in enumerate(turns)]


def first_logp(base: SharedBase, adapter: str, rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Log-probabilities of the first rows' chosen answers, one tensor of tokens each."""
    tokens = Tokens(base.tokenizer, 1024)
    some = [written(tokens, row["prompt"], [row["chosen"]]) for row in rows[:COMPARED]]
    with torch.no_grad(), base.scope(adapter):
        logp, is_answer = answer_logp(base, [one[0] for one in some if one])
    return [values[where] for values, where in zip(logp, is_answer, strict=True)]


def measure_reward(order: Order) -> Told:
    base, rows, run = prepared(order, judge.ADAPTER)
    settings = RewardSettings()
    head = head_of(order, base)
    items, _ = reward.encode(base, comparisons(rows), settings)
    with torch.no_grad(), base.scope(judge.ADAPTER):
        losses, _ = reward.comparison_losses(items[:COMPARED], reward.score_items(base, head, items[:COMPARED]))
    weights = [*base.weights(judge.ADAPTER), head.weight]
    learner = reward.Learner(1, judge.Member(judge.ADAPTER, head), weights, items, 1.0)
    optimizer = stepping.adamw(weights, 1e-4)
    tree.trust(base, judge.ADAPTER, [item.sequences for item in items], run)
    watch = Watch()
    for step, part in enumerate(batches(order, items)):
        reward.update(base, [learner], [[items[i] for i in part]], optimizer, settings, 0, step, run)
    return watch.told(float(losses.mean()), len(items), base)


def measure_sft(order: Order) -> Told:
    base, rows, run = prepared(order, on_policy.ADAPTER)
    settings = SFTSettings()
    given = [
        AnswerRow(
            i, "train", [{"role": "user", "content": row["texts"][0]}], Answer(i, row["texts"][1], True), "winner"
        )
        for i, row in enumerate(rows)
    ]
    items, _ = sft.encode(base, given, settings)
    loss = -float(torch.cat(first_logp(base, on_policy.ADAPTER, rows)).mean())
    weights = base.weights(on_policy.ADAPTER)
    optimizer = stepping.adamw(weights, 1e-4)
    watch = Watch()
    for step, part in enumerate(batches(order, items)):
        sft.update(base, [items[i].text for i in part], optimizer, weights, settings, 0, step, run)
    return watch.told(loss, sum(item.text.length for item in items), base)


def measure_dpo(order: Order) -> Told:
    base, rows, run = prepared(order, on_policy.ADAPTER)
    settings = DPOSettings()
    items, _ = dpo.encode(base, comparisons(rows), settings)
    sums = [float(logp.sum()) for logp in first_logp(base, on_policy.ADAPTER, rows)]
    weights = base.weights(on_policy.ADAPTER)
    optimizer = stepping.adamw(weights, 1e-4)
    watch = Watch()
    reference = dpo.log_sums(base, items, settings, run)
    for step, part in enumerate(batches(order, items)):
        known = dpo.Sums(*(whole[part] for whole in reference))
        dpo.update(base, [items[i] for i in part], known, optimizer, weights, 1.0, settings, 0, step, run)
    return watch.told(sum(sums) / len(sums), len(items), base)


def measure_ift(order: Order) -> Told:
    return sampled(order, IFTSettings, ift.train, {})


def measure_ppo(order: Order) -> Told:
    """Four passes over each batch in one part, as TRL's defaults have it."""
    return sampled(order, PPOSettings, ppo.train, {"num_ppo_epochs": 4, "num_mini_batches": 1})


def measure_ppo_value(order: Order) -> Told:
    """The same with values on an adapter of their own, as TRL has a value model."""
    more = {"num_ppo_epochs": 4, "num_mini_batches": 1, "value_adapter": "own"}
    return sampled(order, PPOSettings, ppo.train, more)


def sampled(order: Order, kind: type[Any], train: Callable[..., Any], more: Mapping[str, Any]) -> Told:
    base, rows, run = prepared(order, on_policy.ADAPTER)
    base.add(judge.ADAPTER, SHAPE, seed=1)
    judged_by = judge.alone(head_of(order, base).requires_grad_(False))
    settings = kind(
        total_episodes=order.amount,
        batch_size=order.batch,
        num_generations=SEVERAL,
        response_length=RESPONSE,
        learning_rate=1e-6,
        kl_stop=10_000.0,
        eval_cases=0,
        **more,
    )
    told = [float(logp.mean()) for logp in first_logp(base, on_policy.ADAPTER, rows)]
    watch = Watch()
    train(base, judged_by, prompts(rows[: order.amount // SEVERAL]), settings, 0, run)
    return watch.told(sum(told) / len(told), order.amount, base)


def measure_probe(order: Order) -> Told:
    """One fit at one penalty, of as many pairs as there are; the features are given."""
    made = probe_pairs(order)
    x, won = torch.from_numpy(made["differences"]), torch.from_numpy(made["won"])
    pairs = probe.Pairs(x, won.float(), torch.ones(len(won)), list(range(len(won))))
    penalty = float(made["penalty"])
    watch = Watch()
    weight = probe.minimised(pairs, penalty).double()
    told = watch.told(0.0, 1)  # as on the other side, the loss is no part of what is timed
    margins = x.double() @ weight * torch.where(won, 1.0, -1.0)
    loss = torch.nn.functional.softplus(-margins).sum() + penalty / 2 * weight.square().sum()
    return told._replace(loss=float(loss) / len(won))


def probe_pairs(order: Order) -> dict[str, Any]:
    """Differences of features (pairs, 1025) whose directions have very unlike spreads, as a model's have, and who won."""
    file = Path(order.folder) / f"probe-{order.amount}.npz"
    if not file.exists():
        draw = np.random.default_rng(0)
        spread = np.geomspace(1.0, 0.03, 1025).astype(np.float32)
        mixed = (draw.standard_normal((order.amount, 1025), dtype=np.float32) * spread) @ (
            np.linalg.qr(draw.standard_normal((1025, 1025), dtype=np.float32))[0]
        )
        true = draw.standard_normal(1025, dtype=np.float32)
        won = draw.random(order.amount) < 1 / (1 + np.exp(-(mixed @ true) / np.std(mixed @ true)))
        np.savez(file, differences=mixed, won=won, penalty=np.float64(10.0))
    return dict(np.load(file))


METHODS: dict[str, Callable[[Order], Told]] = {
    "reward": measure_reward,
    "sft": measure_sft,
    "dpo": measure_dpo,
    "ift": measure_ift,
    "ppo": measure_ppo,
    "ppo_value": measure_ppo_value,
    "probe": measure_probe,
}

if __name__ == "__main__":
    asked = Order(**json.loads(sys.argv[1]))
    job.set_threads(asked.threads)
    if torch.cuda.is_available():  # loads its kernels on their first use
        METHODS[asked.method](asked._replace(amount=min(32, asked.amount)))
        torch.cuda.reset_peak_memory_stats()
    found = METHODS[asked.method](asked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    device = "cpu"
    if torch.cuda.is_available():
        device, peak = "cuda", torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({**found._asdict(), "peak_mb": peak, "device": device}), flush=True)
