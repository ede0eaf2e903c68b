"""PPO with a KL penalty: policy, reference, reward and value share one frozen base.

Schulman et al. 2017 (clip), Schulman et al. 2015 (advantages), Ziegler et al. 2019 (KL to the reference), with the
details of Huang et al. 2024 (arXiv:2403.17031). The policy is base + adapter, the reference the same base with adapters
off, the value a linear head on the policy's last state, zero at the start.

Left out: whitening of rewards (our scores are normalised already), a value adapter of its own, pretraining gradients
(InstructGPT's ptx), checkpoints within a run.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import report
from backend.training.data import PromptRow, Tokens, microbatches
from backend.training.draws import cycled, generator
from backend.training.maths import (
    advantages_and_returns,
    entropy,
    exact_kl,
    final_score,
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
from backend.training.reward import Head, score_sequences
from backend.training.rollout import Sampled, Trajectory, lay_out, sample
from backend.training.run import GuardStop, NotFinite, Run, TooFewRows
from backend.training.settings import PPOSettings
from backend.training.shared_base import SharedBase, fast_matmul

ADAPTER = "policy"
LARGEST_RATIO = 10.0  # a minibatch with a larger mean ratio is skipped (N+); three in a row end the run
KL_ALARM = 6.0  # nats per answer, Ziegler et al. 2019
APPROX_KL_ALARM, CLIP_ALARM = 0.02, 0.2  # per token, and share of tokens; our choice
SAMPLES_TOLD = 2


class Prompt(NamedTuple):
    """One prompt as token ids: what the policy reads, and the case as the reward model reads it."""

    case: Any
    split: str
    policy: list[int]
    reward: list[int]


class Look(NamedTuple):
    """What one forward says about the response tokens. All (B, R)."""

    logp: Tensor
    values: Tensor
    entropy: Tensor


class Training(NamedTuple):
    """What the loop carries: the base with the adapter "policy", the judge, and what is trained."""

    base: SharedBase
    judge: Head
    value_head: nn.Linear
    weights: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    settings: PPOSettings
    seed: int
    run: Run


def train(
    base: SharedBase, judge: Head, rows: Sequence[PromptRow], settings: PPOSettings, seed: int, run: Run
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base, against the adapter "reward" and its head; the report."""
    s = settings
    # 1. data and model
    prompts, counts = encode(base, rows, s)
    training = [prompt for prompt in prompts if prompt.split == "train"]
    held_out = [prompt for prompt in prompts if prompt.split != "train"][: s.eval_cases]
    if not training:
        raise TooFewRows("A PPO job needs at least one prompt in the split 'train'; there is none. Add cases.")
    t = prepare(base, judge, s, seed, run)
    before = evaluate(t, held_out)
    total_steps = max(1, s.total_episodes // s.batch_size)
    guard = Guard(s)
    kl_coef, curve = s.kl_coef, []

    for step in range(total_steps):
        # 2. answer a batch of prompts, K answers each
        several = max(1, s.batch_size // s.num_generations)
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
        told = statistics(path, entropies, rewards, updates, kl_coef)
        run.metrics(step + 1, total_steps, told)
        curve.append({"step": step + 1, **{k: round(v, 6) for k, v in told.items()}})
        tell_samples(t, step, total_steps, asked, answers, path)
        guard.look(told, updates, step + 1, run)
        if s.kl_target > 0:
            kl_coef = next_kl_coef(kl_coef, told["objective/kl"], s.kl_target, len(asked), s.kl_horizon)

    # 7. held-out prompts, before against after
    after = evaluate(t, held_out)
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


def prepare(base: SharedBase, judge: Head, settings: PPOSettings, seed: int, run: Run) -> Training:
    value_head = nn.Linear(base.width, 1)
    nn.init.zeros_(value_head.weight)
    nn.init.zeros_(value_head.bias)
    value_head = value_head.to(base.device)
    weights = [*base.weights(ADAPTER), *value_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0, eps=1e-5)
    return Training(base, judge, value_head, weights, optimizer, settings, seed, run)


def encode(base: SharedBase, rows: Sequence[PromptRow], settings: PPOSettings) -> tuple[list[Prompt], dict[str, int]]:
    """Prompts as token ids, with room for the answer; the counts say how many lost their front."""
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    room = tokens.longest - settings.response_length
    if room < 1:
        raise TooFewRows(
            f"An answer of {settings.response_length} tokens leaves no room for a prompt within {tokens.longest}. "
            "Lower 'Longest answer in tokens'."
        )
    prompts = [
        Prompt(
            row.case,
            row.split,
            tokens.cut(tokens.prefix(row.messages), room),
            tokens.cut(tokens.prefix(row.conversation), room),
        )
        for row in rows
    ]
    return prompts, {"prompts": len(prompts), **tokens.counts}


def look(
    base: SharedBase, value_head: nn.Linear, tokens: Tensor, is_real: Tensor, responses: int, temperature: float
) -> Look:
    """Log-probabilities, values and entropies of the last ``responses`` tokens, under the open scope."""
    states = base.states(tokens, is_real)[:, -responses - 1 : -1]  # the state before a token predicts it
    logits = base.logits(states) / temperature
    with torch.no_grad():
        spread = entropy(logits)
    return Look(token_logp(logits, tokens[:, -responses:]), value_head(states.float()).squeeze(-1), spread)


def parts_of(path: Trajectory, tokens: int, seed: int, step: int) -> list[list[int]]:
    return microbatches(path.is_real.sum(1).tolist(), tokens, seed, step)


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
            for part in parts_of(path, s.tokens_per_microbatch, t.seed, 0):
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
    sequences = [prompt.reward + answer.tokens for prompt, answer in zip(asked, answers, strict=True)]
    raw = score_sequences(t.base, t.judge, sequences, s.tokens_per_microbatch).to(t.base.device)
    scores = t.judge.gain * (raw - t.judge.bias)
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite("The reward model gave a score that is not finite. Train the reward model again.")
    return path._replace(score=final_score(scores, path.has_ended, s.reward_clip, s.missing_eos_penalty)), entropies


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
        for part in parts_of(chosen, s.tokens_per_microbatch, t.seed, step):
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


class Guard:
    """Looks at every step; says once what is odd, ends the run when it is beyond repair. Thresholds are our choice
    where no source is named."""

    def __init__(self, settings: PPOSettings) -> None:
        self.settings = settings
        self.alarms: list[dict[str, Any]] = []
        self._first_entropy: float | None = None
        self._wild_in_a_row = 0

    def look(self, told: dict[str, float], updates: Sequence[Update], step: int, run: Run) -> None:
        for u in updates:
            self._wild_in_a_row = self._wild_in_a_row + 1 if u.was_skipped else 0
            if self._wild_in_a_row >= 3:
                self._stop("ratio", u.ratio, step, "Three updates in a row were too far. Lower the learning rate.")
        kl, spread = told["objective/kl"], told["objective/entropy"]
        if self._first_entropy is None:
            self._first_entropy = spread
        if kl > self.settings.kl_stop:
            self._stop(
                "kl", kl, step, "The answers drifted from the base. Raise 'KL coefficient' or lower the learning rate."
            )
        if spread < self.settings.entropy_stop * self._first_entropy:
            self._stop("entropy", spread, step, "The policy gives the same answer everywhere. Raise 'KL coefficient'.")
        if kl > KL_ALARM:
            self._alarm("kl", kl, step, run, "the answers drift from the base: raise 'KL coefficient'")
        if told["policy/approxkl_avg"] > APPROX_KL_ALARM or told["policy/clipfrac_avg"] > CLIP_ALARM:
            self._alarm("step", told["policy/approxkl_avg"], step, run, "steps are large: fewer passes or a lower rate")

    def _alarm(self, signal: str, value: float, step: int, run: Run, remedy: str) -> None:
        if all(alarm["signal"] != signal for alarm in self.alarms):
            self.alarms.append({"signal": signal, "value": round(value, 6), "step": step})
            run.message(f"Step {step}: {signal} is {value:.3g}; {remedy}.")

    def _stop(self, signal: str, value: float, step: int, remedy: str) -> None:
        raise GuardStop(f"Stopped at step {step}: {signal} is {value:.3g}. {remedy}")


def tell_samples(
    t: Training, step: int, total_steps: int, asked: Sequence[Prompt], answers: Sequence[Sampled], path: Trajectory
) -> None:
    """A few answers at the start, at the end and at eight places between."""
    if step % max(1, total_steps // 8) and step != total_steps - 1:
        return
    for i in range(0, len(answers), math.ceil(len(answers) / SAMPLES_TOLD)):
        text = t.base.tokenizer.decode(answers[i].tokens, skip_special_tokens=True)
        t.run.sample(step + 1, asked[i].case, text, float(path.score[i]))


class Evaluated(NamedTuple):
    """One answer to each held-out prompt."""

    scores: list[float]
    kl: list[float]  # nats per answer
    lengths: list[int]
    ended: list[bool]


@torch.no_grad()
def evaluate(t: Training, prompts: Sequence[Prompt]) -> Evaluated:
    """The policy as it is now; the same draws every time, so that before and after differ by the policy alone.

    The KL sums the exact divergence of each next-token distribution along the sampled answer.
    """
    s = t.settings
    if not prompts:
        return Evaluated([], [], [], [])
    policy_ids = [prompt.policy for prompt in prompts]
    answers = sample(t.base, ADAPTER, policy_ids, 1, s.response_length, s.temperature, t.seed, 0, t.run, "evaluate")
    path, _ = inspect_answers(t, prompts, answers)
    kl = torch.zeros(len(prompts))
    for part in parts_of(path, s.tokens_per_microbatch, t.seed, 0):
        t.run.check()
        few = path.take(part)
        width = few.is_response.shape[1]
        logits = []
        for adapter in (ADAPTER, None):
            with t.base.scope(adapter):
                logits.append(t.base.logits(t.base.states(few.tokens, few.is_real)[:, -width - 1 : -1]) / s.temperature)
        kl[part] = sum_over(exact_kl(*logits), few.is_response).cpu()
    lengths = [len(answer.tokens) for answer in answers]
    return Evaluated(path.score.tolist(), kl.tolist(), lengths, [answer.has_ended for answer in answers])


def compare(before: Evaluated, after: Evaluated, seed: int) -> dict[str, Any] | None:
    n = len(after.scores)
    if not n:
        return None

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / n, 6)

    deviation = float(torch.tensor(after.kl, dtype=torch.float64).std()) if n > 1 else math.nan
    return {
        "n": n,
        "score_before": mean(before.scores),
        "score_after": mean(after.scores),
        "gain": report.paired_gain(before.scores, after.scores, seed).as_dict(),
        "kl": {"value": mean(after.kl), "se": round(deviation / math.sqrt(n), 6) if n > 1 else None, "n": n},
        "mean_length_before": mean(before.lengths),
        "mean_length_after": mean(after.lengths),
        "eos_rate_before": mean(before.ended),
        "eos_rate_after": mean(after.ended),
    }


def verdict(before: Evaluated, after: Evaluated, seed: int) -> str:
    if not after.scores:
        return "no_held_out"
    return "gained" if report.paired_gain(before.scores, after.scores, seed).low > 0 else "no_gain"
