"""PPO with a KL penalty: policy, reference, reward and value share one frozen base.

Schulman et al. 2017 (clip), Schulman et al. 2015 (advantages), Ziegler et al. 2019 (KL to the reference), with the
details of Huang et al. 2024 (arXiv:2403.17031). The policy is base + adapter, the reference the same base with adapters
off, the value a linear head on the policy's last state or on an adapter of its own (values.py). The KL is charged in the
reward, or in the loss per token, beside an advantage that is whitened.

Left out: pretraining gradients (InstructGPT's ptx).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import stepping, values
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import PromptRow
from backend.training.draws import cycled, generator
from backend.training.judge import Judge
from backend.training.maths import (
    ValueLoss,
    advantages_and_returns,
    kl_loss,
    kl_terms,
    mean_over,
    next_kl_coef,
    ppo_policy_loss,
    ppo_value_loss,
    shaped_rewards,
    sum_over,
    token_logp,
    token_logp_and_entropy,
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
    response_states,
    response_tokens,
    score_answers,
    spread_told,
    tell_samples,
    trust,
    verdict,
)
from backend.training.precision import fast_matmul
from backend.training.rollout import Sampled, Trajectory, lay_out, sample
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import PPOSettings
from backend.training.shared_base import SharedBase
from backend.training.values import Critic, values_of


class Training(NamedTuple):
    """What the loop carries: the base with the adapter "policy", the judge, and what is trained."""

    base: SharedBase
    judge: Judge
    critic: Critic
    groups: list[list[nn.Parameter]]  # what is clipped by one norm
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
    trained = {"policy": base.weights(ADAPTER), "value_head": list(t.critic.head.parameters())}
    live = Live({**trained, "value": t.critic.own} if t.critic.own else trained, t.optimizer)
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
        where, charged = path.is_response, kl_coef if s.kl_penalty == "reward" else 0.0
        rewards = shaped_rewards(path.score, path.logp_old, path.logp_ref, where, charged, s.kl_estimator)
        scaled = whiten(rewards, where, keep_mean=True) if s.whiten_rewards else rewards
        advantage, returns = advantages_and_returns(scaled, path.values, where, s.gamma, s.lam)
        batch = Batch(path, whiten(advantage, where), returns, kl_coef if s.kl_penalty == "loss" else 0.0)

        # 5. update on the batch, a few times over
        for group in t.optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / total_steps)
        updates, left_out = work_through(t, batch, step)

        # 6. tell, and stop when something is wrong
        told = {**statistics(path, entropies, rewards, updates, left_out, kl_coef), **spread_told(judge, path)}
        run.metrics(step + 1, total_steps, told)
        curve.append({"step": step + 1, **{k: round(v, 6) for k, v in told.items()}})
        tell_samples(base, run, step, total_steps, asked, answers, path.score)
        guard.look(told, step + 1, run, [u.ratio for u in updates])
        if s.kl_target > 0 and step >= s.value_warmup_steps:
            kl_coef = next_kl_coef(kl_coef, told["objective/kl"], s.kl_target, len(asked), s.kl_horizon)
        carried = {"kl_coef": kl_coef, "curve": curve, "before": before._asdict(), "guard": guard.state()}
        saves.keep(step + 1, live, carried, now=step + 1 == total_steps)

    # 7. held-out prompts, before against after
    if t.critic.own:
        base.remove(t.critic.adapter)
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
    critic = values.new_critic(base, judge, settings, seed)
    policy, value = base.weights(ADAPTER), [*critic.own, *critic.head.parameters()]
    groups = [policy, value] if critic.own else [[*policy, *value]]
    optimizer = stepping.adamw([*policy, *value], settings.learning_rate, eps=1e-5)
    return Training(base, judge, critic, groups, optimizer, settings, seed, run)


@torch.no_grad()
def inspect_answers(t: Training, asked: Sequence[Prompt], answers: Sequence[Sampled]) -> tuple[Trajectory, Tensor]:
    """The batch with log-probabilities, values and scores, and the entropy per token (B, R).

    logp_old comes from the forward that training uses, never from the sampling cache: the first ratio is one.
    """
    s = t.settings
    path = lay_out(t.base, [prompt.policy for prompt in asked], answers)
    entropies = torch.zeros_like(path.values)
    for adapter in dict.fromkeys((ADAPTER, None, t.critic.adapter)):
        with t.base.scope(adapter), fast_matmul():
            for part in parts_of(t.base, path, s.tokens_per_microbatch, t.seed, 0):
                t.run.check()
                few = path.take(part)
                width = few.is_response.shape[1]
                states = response_states(t.base, few)
                if adapter == t.critic.adapter:
                    path.values[part, :width] = values_of(t.critic, states)
                if adapter in (ADAPTER, None):
                    said = token_logp_and_entropy(t.base.logits(states, s.temperature), response_tokens(few))
                    logp = path.logp_ref if adapter is None else path.logp_old
                    logp[part, :width] = said.logp
                    if adapter == ADAPTER:
                        entropies[part, :width] = said.entropy
    return path._replace(**score_answers(t.base, t.judge, asked, answers, s)._asdict()), entropies


class Batch(NamedTuple):
    """Answers, and what the updates make of them."""

    path: Trajectory
    advantage: Tensor  # (B, R)
    returns: Tensor  # (B, R)
    kl_coef: float  # of the loss; 0 where the KL is charged in the reward

    def take(self, rows: Sequence[int]) -> "Batch":
        """These rows, without what is padding in all of them."""
        path = self.path.take(rows)
        width = path.is_response.shape[1]
        return Batch(path, self.advantage[rows][:, :width], self.returns[rows][:, :width], self.kl_coef)


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
    kl_loss: float | None  # None where the KL is charged in the reward
    clipped: float
    value_clipped: float
    approx_kl: float
    ratio: float
    grad_norm: float
    was_skipped: bool  # for its ratio
    was_left_out: bool  # for its KL to the policy that sampled


def work_through(t: Training, batch: Batch, step: int) -> tuple[list[Update], int]:
    """The updates on a batch until one is too far from the policy that sampled it, and how many were left out.

    As in Spinning Up and Stable-Baselines3 (target_kl) the minibatch that shows it is not stepped on either. The default
    of ``approx_kl_stop`` is our choice: far above Spinning Up's .015, it ends a batch that has gone wrong and no other.
    A wild one is skipped and the batch goes on, so that three in a row are seen and end the run.
    """
    planned = minibatches(len(batch.path.score), t.settings, t.seed, step)
    updates: list[Update] = []
    for number, rows in enumerate(planned):
        updates.append(update(t, batch, rows, step, number))
        if updates[-1].was_left_out:
            return updates, len(planned) - number
    return updates, 0


def update(t: Training, batch: Batch, rows: Sequence[int], step: int, number: int) -> Update:
    """One optimizer step on these rows. In the value warm-up the policy has no gradient, so AdamW passes it by."""
    s, chosen = t.settings, batch.take(rows)
    t.optimizer.zero_grad()
    sums: dict[str, float] = {}
    for adapter in dict.fromkeys((t.critic.adapter, ADAPTER)):
        sums |= learn(t, chosen, adapter, step)
    norm = math.hypot(*(float(nn.utils.clip_grad_norm_(group, s.max_grad_norm)) for group in t.groups))
    if not all(math.isfinite(x) for x in (*sums.values(), norm)):
        raise NotFinite(f"The PPO loss is no number at step {step + 1}, update {number + 1}. Lower the learning rate.")
    is_wild = sums["ratio"] > LARGEST_RATIO
    is_far = not is_wild and 0 < s.approx_kl_stop < sums["approx_kl"]
    if not (is_wild or is_far):
        t.optimizer.step()
    charged = sums.pop("kl_loss", None)
    return Update(**sums, kl_loss=charged, grad_norm=norm, was_skipped=is_wild, was_left_out=is_far)


def learn(t: Training, chosen: Batch, adapter: str, step: int) -> dict[str, float]:
    """Gradients of all losses that read this adapter's states, in micro-batches that add up to the minibatch's, and
    their statistics. Backward happens within the adapter's own scope."""
    s, total = t.settings, chosen.path.is_response.sum()
    sums: dict[str, float] = {}
    may_move = adapter != ADAPTER or step >= s.value_warmup_steps
    with t.base.scope(adapter), fast_matmul():
        for part in parts_of(t.base, chosen.path, s.tokens_per_microbatch, t.seed, step):
            t.run.check()
            few = chosen.take(part)
            with torch.set_grad_enabled(may_move):
                states = response_states(t.base, few.path)
            loss = torch.zeros((), device=states.device)
            told: dict[str, Tensor] = {}
            if adapter == ADAPTER:
                loss, told = policy_loss(t, few, states, total)
            if adapter == t.critic.adapter:
                value = value_loss(t, few, states, total)
                loss = loss + s.vf_coef * value.loss
                told = {**told, "value_loss": value.loss, "value_clipped": value.clipped}
            if loss.requires_grad:
                torch.autograd.backward(loss)
            for name, number in told.items():
                sums[name] = sums.get(name, 0.0) + float(number.detach())
    return sums


def policy_loss(t: Training, few: Batch, states: Tensor, total: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate, plus the KL where that is charged in the loss; and the statistics of both."""
    s, path = t.settings, few.path
    logp = token_logp(t.base.logits(states, s.temperature), response_tokens(path))
    found = ppo_policy_loss(logp, path.logp_old, few.advantage, path.is_response, s.cliprange, total)
    told = {"policy_loss": found.loss, "clipped": found.clipped, "approx_kl": found.approx_kl, "ratio": found.ratio}
    if s.kl_penalty == "reward":
        return found.loss, told
    kl = few.kl_coef * kl_loss(logp, path.logp_ref, path.is_response, s.kl_estimator, total)
    return found.loss + kl, {**told, "kl_loss": kl}


def value_loss(t: Training, few: Batch, states: Tensor, total: Tensor) -> ValueLoss:
    path, seen = few.path, values_of(t.critic, states)
    return ppo_value_loss(seen, path.values, few.returns, path.is_response, t.settings.cliprange_value, total)


def statistics(
    path: Trajectory, entropies: Tensor, rewards: Tensor, updates: Sequence[Update], left_out: int, kl_coef: float
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
        "policy/updates_left_out": float(left_out),
        "loss/policy_avg": mean("policy_loss"),
        "loss/value_avg": mean("value_loss"),
        "val/clipfrac_avg": mean("value_clipped"),
        "val/ratio": mean("ratio"),
        "grad_norm": mean("grad_norm"),
        "kl_coef": kl_coef,
        "completions/mean_length": float(where.sum(1).float().mean()),
        "completions/eos_rate": float(path.has_ended.float().mean()),
        **({} if done[0].kl_loss is None else {"loss/kl_avg": mean("kl_loss")}),
    }
