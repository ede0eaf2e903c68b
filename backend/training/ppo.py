"""PPO with a KL penalty: policy, reference, reward and value share one frozen base.

Schulman et al. 2017 (clip), Schulman et al. 2015 (advantages), Ziegler et al. 2019 (KL to the reference), with the
details of Huang et al. 2024 (arXiv:2403.17031). The policy is base + adapter, the reference the same base with adapters
off, the value a linear head on the policy's last state, zero at the start.

Left out: whitening of rewards (our scores are normalised already), a value adapter of its own, pretraining gradients
(InstructGPT's ptx).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import tree
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import PromptRow
from backend.training.draws import cycled, generator
from backend.training.judge import Judge
from backend.training.maths import (
    advantages_and_returns,
    entropy,
    kl_terms,
    mean_over,
    next_kl_coef,
    ppo_policy_loss,
    ppo_value_loss,
    shaped_rewards,
    sum_over,
    token_logp,
    whiten,
)
from backend.training.on_policy import (
    ADAPTER,
    LARGEST_RATIO,
    Evaluated,
    Guard,
    Prompt,
    compare,
    encode,
    evaluate,
    parts_of,
    score_answers,
    spread_told,
    tell_samples,
    trust,
    verdict,
)
from backend.training.rollout import Sampled, Trajectory, lay_out, sample
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import PPOSettings
from backend.training.shared_base import SharedBase, fast_matmul


class Look(NamedTuple):
    """What one forward says about the response tokens. All (B, R)."""

    logp: Tensor
    values: Tensor
    entropy: Tensor


class Training(NamedTuple):
    """What the loop carries: the base with the adapter "policy", the judge, and what is trained."""

    base: SharedBase
    judge: Judge
    value_head: nn.Linear
    weights: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    settings: PPOSettings
    seed: int
    run: Run


def train(
    base: SharedBase,
    judge: Judge,
    rows: Sequence[PromptRow],
    settings: PPOSettings,
    seed: int,
    run: Run,
    saves: Checkpoints = NONE,
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base, against the reward model's scores; the report."""
    s = settings
    # 1. data and model
    prompts, counts = encode(base, rows, s)
    training = [prompt for prompt in prompts if prompt.split == "train"]
    held_out = [prompt for prompt in prompts if prompt.split != "train"][: s.eval_cases]
    if not training:
        raise TooFewRows("A PPO job needs at least one prompt in the split 'train'; there is none. Add cases.")
    trust(base, training, s, run)
    t = prepare(base, judge, s, seed, run)
    live = Live({"policy": base.weights(ADAPTER), "value_head": list(t.value_head.parameters())}, t.optimizer)
    first, facts = saves.resume(live)
    before = Evaluated(**facts["before"]) if facts else evaluate(base, judge, held_out, s, seed, run)
    guard = Guard(s, facts.get("guard"))
    kl_coef, curve = facts.get("kl_coef", s.kl_coef), facts.get("curve", [])
    total_steps, several = max(1, s.total_episodes // s.batch_size), max(1, s.batch_size // s.num_generations)

    for step in range(first, total_steps):
        # 2. answer a batch of prompts, K answers each
        few = [training[i] for i in cycled(len(training), step * several, several, seed, "prompts")]
        answers = sample(
            base, ADAPTER, [p.policy for p in few], s.num_generations, s.response_length, s.temperature, seed, step, run
        )
        asked = [prompt for prompt in few for _ in range(s.num_generations)]

        # 3. what policy, reference and reward model say about them
        path, entropies = inspect_answers(t, asked, answers)

        # 4. rewards, advantages, returns
        rewards = shaped_rewards(path.score, path.logp_old, path.logp_ref, path.is_response, kl_coef)
        advantage, returns = advantages_and_returns(rewards, path.values, path.is_response, s.gamma, s.lam)
        advantage = whiten(advantage, path.is_response)

        # 5. update on the batch, a few times over
        for group in t.optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / total_steps)
        updates = [
            update(t, path, advantage, returns, part, step, number)
            for number, part in enumerate(minibatches(len(asked), s, seed, step))
        ]

        # 6. tell, and stop when something is wrong
        told = {**statistics(path, entropies, rewards, updates, kl_coef), **spread_told(judge, path)}
        run.metrics(step + 1, total_steps, told)
        curve.append({"step": step + 1, **{k: round(v, 6) for k, v in told.items()}})
        tell_samples(base, run, step, total_steps, asked, answers, path.score)
        guard.look(told, step + 1, run, [u.ratio for u in updates])
        if s.kl_target > 0:
            kl_coef = next_kl_coef(kl_coef, told["objective/kl"], s.kl_target, len(asked), s.kl_horizon)
        carried = {"kl_coef": kl_coef, "curve": curve, "before": before._asdict(), "guard": guard.state()}
        saves.keep(step + 1, live, carried, now=step + 1 == total_steps)

    # 7. held-out prompts, before against after
    after = evaluate(base, judge, held_out, s, seed, run)
    return {
        "n": len(held_out),
        "sizes": {"train_prompts": len(training), "held_out_prompts": len(held_out)},
        "episodes": total_steps * several * s.num_generations,
        "steps": total_steps,
        "counts": dict(counts),
        "held_out": compare(before, after, seed),
        "curve": curve,
        "alarms": guard.alarms,
        "verdict": verdict(before, after, seed),
    }


def prepare(base: SharedBase, judge: Judge, settings: PPOSettings, seed: int, run: Run) -> Training:
    value_head = nn.Linear(base.width, 1)
    nn.init.zeros_(value_head.weight)
    nn.init.zeros_(value_head.bias)
    value_head = value_head.to(base.device)
    weights = [*base.weights(ADAPTER), *value_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0, eps=1e-5)
    return Training(base, judge, value_head, weights, optimizer, settings, seed, run)


def look(
    base: SharedBase, value_head: nn.Linear, tokens: Tensor, is_real: Tensor, responses: int, temperature: float
) -> Look:
    """Log-probabilities, values and entropies of the last ``responses`` tokens, under the open scope."""
    states = tree.trajectory_states(base, tokens, is_real, responses)
    logits = base.logits(states) / temperature
    with torch.no_grad():
        spread = entropy(logits)
    return Look(token_logp(logits, tokens[:, -responses:]), value_head(states.float()).squeeze(-1), spread)


@torch.no_grad()
def inspect_answers(t: Training, asked: Sequence[Prompt], answers: Sequence[Sampled]) -> tuple[Trajectory, Tensor]:
    """The batch with log-probabilities, values and scores, and the entropy per token (B, R).

    logp_old comes from the forward that training uses, never from the sampling cache: the first ratio is one.
    """
    s = t.settings
    path = lay_out(t.base, [prompt.policy for prompt in asked], answers)
    entropies = torch.zeros_like(path.values)
    for adapter in (ADAPTER, None):
        with t.base.scope(adapter), fast_matmul():
            for part in parts_of(t.base, path, s.tokens_per_microbatch, t.seed, 0):
                t.run.check()
                few = path.take(part)
                width = few.is_response.shape[1]
                seen = look(t.base, t.value_head, few.tokens, few.is_real, width, s.temperature)
                if adapter is None:
                    path.logp_ref[part, :width] = seen.logp
                else:
                    path.logp_old[part, :width] = seen.logp
                    path.values[part, :width] = seen.values
                    entropies[part, :width] = seen.entropy
    return path._replace(**score_answers(t.base, t.judge, asked, answers, s)._asdict()), entropies


def minibatches(count: int, settings: PPOSettings, seed: int, step: int) -> list[list[int]]:
    """Every pass's parts of the batch, freshly shuffled per pass."""
    size = math.ceil(count / settings.num_mini_batches)
    parts = []
    for number in range(settings.num_ppo_epochs):
        order = torch.randperm(count, generator=generator(seed, step, f"minibatches {number}"))
        parts += [part.tolist() for part in torch.split(order, size)]
    return parts


class Update(NamedTuple):
    """Statistics of one minibatch, over its response tokens."""

    policy_loss: float
    value_loss: float
    clipped: float
    value_clipped: float
    approx_kl: float
    ratio: float
    grad_norm: float
    was_skipped: bool


def update(
    t: Training, path: Trajectory, advantage: Tensor, returns: Tensor, rows: Sequence[int], step: int, number: int
) -> Update:
    """One optimizer step on these rows, in micro-batches whose gradients add up to the minibatch's."""
    s, chosen = t.settings, path.take(rows)
    total = chosen.is_response.sum()
    sums = torch.zeros(6)
    t.optimizer.zero_grad()
    with t.base.scope(ADAPTER), fast_matmul():
        for part in parts_of(t.base, chosen, s.tokens_per_microbatch, t.seed, step):
            t.run.check()
            few = chosen.take(part)
            width = few.is_response.shape[1]
            places = [rows[i] for i in part]
            seen = look(t.base, t.value_head, few.tokens, few.is_real, width, s.temperature)
            policy = ppo_policy_loss(
                seen.logp, few.logp_old, advantage[places, :width], few.is_response, s.cliprange, total
            )
            value = ppo_value_loss(
                seen.values, few.values, returns[places, :width], few.is_response, s.cliprange_value, total
            )
            torch.autograd.backward(policy.loss + s.vf_coef * value.loss)
            parts = (policy.loss, value.loss, policy.clipped, value.clipped, policy.approx_kl, policy.ratio)
            sums += torch.stack([x.detach() for x in parts]).cpu()
        norm = float(nn.utils.clip_grad_norm_(t.weights, s.max_grad_norm))
        numbers = sums.tolist()
        if not all(math.isfinite(x) for x in (*numbers, norm)):
            raise NotFinite(
                f"The PPO loss is no number at step {step + 1}, update {number + 1}. Lower the learning rate."
            )
        is_wild = float(sums[5]) > LARGEST_RATIO
        if not is_wild:
            t.optimizer.step()
    policy_loss, value_loss, clipped, value_clipped, approx_kl, ratio = numbers
    return Update(policy_loss, value_loss, clipped, value_clipped, approx_kl, ratio, norm, is_wild)


def statistics(
    path: Trajectory, entropies: Tensor, rewards: Tensor, updates: Sequence[Update], kl_coef: float
) -> dict[str, float]:
    """One point of every curve, under TRL's names. KL in nats per answer, entropy in nats per token."""
    where = path.is_response
    kl = sum_over(kl_terms(path.logp_old, path.logp_ref).k1, where)
    done = [u for u in updates if not u.was_skipped] or list(updates)

    def mean(name: str) -> float:
        return float(sum(getattr(u, name) for u in done)) / len(done)

    return {
        "objective/kl": float(kl.mean()),
        "objective/scores": float(path.score.mean()),
        "objective/rlhf_reward": float(sum_over(rewards, where).mean()),
        "objective/entropy": float(mean_over(entropies, where)),
        "policy/approxkl_avg": mean("approx_kl"),
        "policy/clipfrac_avg": mean("clipped"),
        "loss/policy_avg": mean("policy_loss"),
        "loss/value_avg": mean("value_loss"),
        "val/clipfrac_avg": mean("value_clipped"),
        "val/ratio": mean("ratio"),
        "grad_norm": mean("grad_norm"),
        "kl_coef": kl_coef,
        "completions/mean_length": float(where.sum(1).float().mean()),
        "completions/eos_rate": float(path.has_ended.float().mean()),
    }
