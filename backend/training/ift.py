"""IFT: REINFORCE on the learned reward, one pass over each batch of answers.

    grad L = E_x E_{y ~ p(.|x)} [ f(x, y) grad log p(y|x) ]        (Williams 1992)

f is the answer's score minus kl_coef times the sum of k1 to the reference (Ziegler et al. 2019; k2, k3, or a term of the
loss instead, by the settings), less a baseline that
does not depend on the answer: the mean of the prompt's other answers for K >= 2 (Ahmadian et al. 2024, arXiv:2402.14740,
RLOO), a moving average of past rewards for K = 1. The policy is base + adapter, the reference the same base with
adapters off.

Left out: a critic, a clip and further passes over a batch (each answer is used once, while the policy is still the one
that sampled it, so there is no ratio to clip: the old log-probability is the new one without its gradient), whitening.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import stepping, tree
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import PromptRow
from backend.training.draws import cycled
from backend.training.judge import Judge
from backend.training.maths import (
    answer_reward,
    kl_loss,
    kl_terms,
    leave_one_out,
    mean_over,
    reinforce_loss,
    sum_over,
    token_logp,
    token_logp_and_entropy,
)
from backend.training.on_policy import (
    ADAPTER,
    Evaluated,
    Guard,
    compare,
    encode,
    evaluate,
    response_states,
    response_tokens,
    score_answers,
    spread_told,
    tell_samples,
    trust,
    verdict,
)
from backend.training.precision import fast_matmul
from backend.training.rollout import Trajectory, lay_out, sample
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import IFTSettings
from backend.training.shared_base import SharedBase

BASELINE_KEPT = 0.9  # of the moving average at each step, for K = 1; our choice


class Training(NamedTuple):
    """What the loop carries: the base with the adapter "policy", and what is trained."""

    base: SharedBase
    weights: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    settings: IFTSettings
    seed: int
    run: Run


def train(
    base: SharedBase,
    judge: Judge,
    rows: Sequence[PromptRow],
    settings: IFTSettings,
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
        raise TooFewRows("An IFT job needs at least one prompt in the split 'train'; there is none. Add cases.")
    trust(base, training, s, run)
    t = prepare(base, s, seed, run)
    live = Live({"policy": t.weights}, t.optimizer)
    first, facts = saves.resume(live)
    before = Evaluated(**facts["before"]) if facts else evaluate(base, judge, held_out, s, seed, run)
    guard = Guard(s, facts.get("guard"))
    baseline, curve = facts.get("baseline", 0.0), facts.get("curve", [])  # scores have mean 0 at the start
    total_steps, several = max(1, s.total_episodes // s.batch_size), max(1, s.batch_size // s.num_generations)

    for step in range(first, total_steps):
        # 2. answer a batch of prompts, K answers each
        few = [training[i] for i in cycled(len(training), step * several, several, seed, "prompts")]
        answers = sample(
            base, ADAPTER, [p.policy for p in few], s.num_generations, s.response_length, s.temperature, seed, step, run
        )
        asked = [prompt for prompt in few for _ in range(s.num_generations)]

        # 3. what reward model and reference say about them
        path = lay_out(base, [prompt.policy for prompt in asked], answers)
        path = path._replace(**score_answers(base, judge, asked, answers, s)._asdict())
        path = path._replace(logp_ref=reference_logp(t, path, step))

        # 4. one update
        for group in t.optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / total_steps)
        told = {**update(t, path, baseline, step), **spread_told(judge, path)}
        baseline = BASELINE_KEPT * baseline + (1 - BASELINE_KEPT) * told["objective/rlhf_reward"]

        # 5. tell, and stop when something is wrong
        run.metrics(step + 1, total_steps, told)
        curve.append({"step": step + 1, **{k: round(v, 6) for k, v in told.items()}})
        tell_samples(base, run, step, total_steps, asked, answers, path.score)
        guard.look(told, step + 1, run)
        carried = {"baseline": baseline, "curve": curve, "before": before._asdict(), "guard": guard.state()}
        saves.keep(step + 1, live, carried, now=step + 1 == total_steps)

    # 6. held-out prompts, before against after
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


def prepare(base: SharedBase, settings: IFTSettings, seed: int, run: Run) -> Training:
    weights = base.weights(ADAPTER)
    optimizer = stepping.adamw(weights, settings.learning_rate, eps=1e-5)
    return Training(base, weights, optimizer, settings, seed, run)


def groups_of(t: Training, path: Trajectory, step: int) -> list[list[int]]:
    """Rows of each micro-batch; the K answers to a prompt stay together, since each is the others' baseline."""
    count = t.settings.num_generations
    groups = [tree.rows_of(path.tokens, path.is_real, range(i, i + count)) for i in range(0, len(path.score), count)]
    parts = tree.parts(t.base, groups, t.settings.tokens_per_microbatch, t.seed, step)
    return [[place * count + k for place in part for k in range(count)] for part in parts]


def response_logits(t: Training, few: Trajectory) -> Tensor:
    """Logits at the response positions, under the open scope, temperature applied. (B, R, V)"""
    return t.base.logits(response_states(t.base, few), t.settings.temperature)


@torch.no_grad()
def reference_logp(t: Training, path: Trajectory, step: int) -> Tensor:
    """(B, R)"""
    found = torch.zeros_like(path.logp_ref)
    with t.base.scope(None), fast_matmul():
        for part in groups_of(t, path, step):
            t.run.check()
            few = path.take(part)
            found[part, : few.is_response.shape[1]] = token_logp(response_logits(t, few), response_tokens(few))
    return found


def advantages(rewards: Tensor, count: int, baseline: float) -> Tensor:
    """Reward less baseline; answer k of a prompt has place i * count + k. (B,) -> (B,)"""
    if count < 2:
        return rewards - baseline
    return leave_one_out(rewards.view(-1, count)).flatten()


def update(t: Training, path: Trajectory, baseline: float, step: int) -> dict[str, float]:
    """One optimizer step on the batch, in micro-batches whose gradients add up to the batch's; the step's statistics
    under TRL's names. KL in nats per answer, entropy in nats per token."""
    s, rows = t.settings, len(path.score)
    loss_sum, spread = 0.0, 0.0
    rewards, kl = torch.zeros(rows), torch.zeros(rows)
    tokens = path.is_response.sum()
    t.optimizer.zero_grad()
    with t.base.scope(ADAPTER), fast_matmul():
        for part in groups_of(t, path, step):
            t.run.check()
            few = path.take(part)
            logits = response_logits(t, few)
            (logp, entropy), where = token_logp_and_entropy(logits, response_tokens(few)), few.is_response
            charged = s.kl_coef if s.kl_penalty == "reward" else 0.0
            reward = answer_reward(few.score, logp.detach(), few.logp_ref, where, charged, s.kl_estimator)
            loss = reinforce_loss(sum_over(logp, where), advantages(reward, s.num_generations, baseline), rows)
            if s.kl_penalty == "loss":  # nats per answer, as in the reward
                loss = loss + s.kl_coef * kl_loss(logp, few.logp_ref, where, s.kl_estimator, rows)
            torch.autograd.backward(loss)
            with torch.no_grad():
                loss_sum += float(loss)
                spread += float(mean_over(entropy, where, tokens))
                rewards[part] = reward.cpu()
                kl[part] = sum_over(kl_terms(logp, few.logp_ref).k1, where).cpu()
        norm = float(nn.utils.clip_grad_norm_(t.weights, s.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NotFinite(f"The IFT loss is no number at step {step + 1}. Lower the learning rate.")
        t.optimizer.step()
    return {
        "objective/kl": float(kl.mean()),
        "objective/scores": float(path.score.mean()),
        "objective/rlhf_reward": float(rewards.mean()),
        "objective/entropy": spread,
        "loss/policy_avg": loss_sum,
        "grad_norm": norm,
        "completions/mean_length": float(path.is_response.sum(1).float().mean()),
        "completions/eos_rate": float(path.has_ended.float().mean()),
    }
