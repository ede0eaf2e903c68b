"""The formulas of the trainers: tensors in, tensors out; no model, no file, no randomness.

Shapes: B sequences, R response positions, V vocabulary. ``is_response`` (B, R) is True where the policy chose a token,
up to and including the end token; False after it. Means take an optional ``total``: the number of True positions of
the whole minibatch, so that the gradients of its micro-batches add up to the gradient of one large batch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LARGEST_LOG_RATIO = 20.0  # e^20 is still finite in float32; our choice


def mean_over(values: Tensor, where: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Mean of the values at positions where ``where`` is True; what stands elsewhere, NaN too, has no part. Scalar."""
    count = where.sum() if total is None else torch.as_tensor(total)
    return torch.where(where, values, torch.zeros_like(values)).sum() / count.clamp(min=1)


def sum_over(values: Tensor, where: Tensor) -> Tensor:
    """Sum per sequence at positions where ``where`` is True. (B, R) -> (B,)"""
    return torch.where(where, values, torch.zeros_like(values)).sum(1)


class Said(NamedTuple):
    """Both (B, R)."""

    logp: Tensor  # of each token
    entropy: Tensor  # of each next-token distribution, in nats; carries no gradient


def token_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token. logits (B, R, V), tokens (B, R) -> (B, R)."""
    found: Tensor = _TokenLogp.apply(logits, tokens, False)[0]
    return found


def token_logp_and_entropy(logits: Tensor, tokens: Tensor) -> Said:
    """The same, and the entropy of the distributions; they are normalised once."""
    return Said(*_TokenLogp.apply(logits, tokens, True))


class _TokenLogp(torch.autograd.Function):
    """log p(token) = (log softmax(logits))[token], whose gradient is (1[token] - p) for each token: one pass over V instead
    of the three of a softmax and a choice."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
        logp = logits.log_softmax(-1)
        found = logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        entropy = -logp.exp().mul_(logp).sum(-1) if with_entropy else found.new_empty(0)
        ctx.save_for_backward(logp, tokens)
        ctx.mark_non_differentiable(entropy)
        return found, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logp, tokens = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        return logp.exp().mul_(-grad).scatter_add_(-1, tokens.unsqueeze(-1), grad), None, None


class KLTerms(NamedTuple):
    k1: Tensor
    k2: Tensor
    k3: Tensor


def kl_terms(logp: Tensor, logp_ref: Tensor) -> KLTerms:
    """Three estimates per token of KL(policy || reference), for tokens the policy sampled. Each has logp's shape.

    Schulman 2020 (http://joschu.net/blog/kl-approx.html): k1 has the right mean and may be negative, k2 is half the
    square, k3 has the right mean and is never negative. In the reward k1 is the right one; in the loss see ``kl_loss``.
    """
    difference = logp - logp_ref
    bounded = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return KLTerms(difference, 0.5 * difference**2, torch.exp(-bounded) - 1 + bounded)


def kl_loss(
    logp: Tensor, logp_ref: Tensor, is_response: Tensor, estimator: str, total: Tensor | float | None = None
) -> Tensor:
    """Mean of an estimate over response tokens, with its own gradient; the reference is a constant. (B, R) -> scalar

    For tokens that the policy itself sampled, the expected gradient is that of KL(policy || reference) under k2, of
    KL(reference || policy) under k3 and zero under k1: Tang & Munos 2025 (arXiv:2506.09477), Liu et al. 2025
    (arXiv:2510.01555). What a token does to the KL of those after it has no part, and once the policy has moved from the
    one that sampled, neither has the ratio between the two.
    """
    return mean_over(getattr(kl_terms(logp, logp_ref.detach()), estimator), is_response, total)


def exact_kl(logits: Tensor, logits_ref: Tensor) -> Tensor:
    """KL(policy || reference) of each next-token distribution in nats. (B, R, V) twice -> (B, R)

    Summed over a sampled answer this has the mean of k1 and less variance, and is never negative.
    """
    logp, logp_ref = logits.log_softmax(-1), logits_ref.log_softmax(-1)
    return (logp.exp() * (logp - logp_ref)).sum(-1)


def final_score(score: Tensor, has_ended: Tensor, clip: float, missing_eos_penalty: float) -> Tensor:
    """The number an answer is paid: clipped to +-clip, then lowered if it has no end token. (B,) and (B,) -> (B,)

    The penalty stands outside the clip, or a very good unended answer would not feel it. Stiennon et al. 2020 (C.5).
    """
    return score.clamp(-clip, clip) - missing_eos_penalty * (~has_ended).to(score.dtype)


def shaped_rewards(
    score: Tensor, logp: Tensor, logp_ref: Tensor, is_response: Tensor, kl_coef: float, estimator: str = "k1"
) -> Tensor:
    """Per-token reward: -kl_coef * (logp - logp_ref), or k2 or k3 for k1, plus the score at the last response token. (B, R)

    Ziegler et al. 2019 (arXiv:1909.08593) eq. 2, with the KL spread over tokens as in Stiennon et al. 2020. The last
    response token is the end token where there is one; TRL adds the score one position later.
    """
    kl = getattr(kl_terms(logp, logp_ref), estimator)
    rewards = torch.where(is_response, -kl_coef * kl, torch.zeros_like(logp))
    last = (is_response.sum(1) - 1).clamp(min=0)  # (B,)
    return rewards.scatter_add(1, last.unsqueeze(1), score.unsqueeze(1))


class Advantages(NamedTuple):
    advantage: Tensor  # (B, R)
    returns: Tensor  # (B, R)


def advantages_and_returns(
    rewards: Tensor, values: Tensor, is_response: Tensor, gamma: float, lam: float
) -> Advantages:
    """Generalised advantage estimation, Schulman et al. 2015 (arXiv:1506.02438) eq. 16; V after the end is 0."""
    values = torch.where(is_response, values, torch.zeros_like(values))
    backwards = []
    later = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(later)
    for t in reversed(range(rewards.shape[1])):
        error = rewards[:, t] + gamma * next_value - values[:, t]
        later = error + gamma * lam * later
        next_value = values[:, t]
        backwards.append(later)
    advantage = torch.stack(backwards[::-1], dim=1)
    return Advantages(advantage, advantage + values)


def whiten(values: Tensor, where: Tensor, keep_mean: bool = False) -> Tensor:
    """Values with variance 1, and mean 0 unless kept, over positions where ``where`` is True; 0 elsewhere. (B, R)

    The variance divides by n - 1, as TRL's masked_whiten does.
    """
    mean = mean_over(values, where)
    count = where.sum()
    variance = mean_over((values - mean) ** 2, where) * count / (count - 1).clamp(min=1)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(where, white + mean if keep_mean else white, torch.zeros_like(values))


class PolicyLoss(NamedTuple):
    loss: Tensor
    clipped: Tensor  # share of response tokens whose ratio the clip held back
    approx_kl: Tensor  # nats per token from the policy that sampled to the policy now
    ratio: Tensor  # mean over response tokens


def ppo_policy_loss(
    logp: Tensor, logp_old: Tensor, advantage: Tensor, is_response: Tensor, clip: float, total: Tensor | None = None
) -> PolicyLoss:
    """Clipped surrogate, Schulman et al. 2017 (arXiv:1707.06347) eq. 7. Inputs (B, R)."""
    difference = torch.where(is_response, logp - logp_old, torch.zeros_like(logp))
    difference = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = difference.exp()
    plain, bounded = advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)
    return PolicyLoss(
        loss=-mean_over(torch.minimum(plain, bounded), is_response, total),
        clipped=mean_over((bounded < plain).to(logp.dtype), is_response, total),
        approx_kl=mean_over(ratio - 1 - difference, is_response, total),
        ratio=mean_over(ratio, is_response, total),
    )


class ValueLoss(NamedTuple):
    loss: Tensor
    clipped: Tensor  # share of response tokens where the held value has the larger error


def ppo_value_loss(
    values: Tensor, values_old: Tensor, returns: Tensor, is_response: Tensor, clip: float, total: Tensor | None = None
) -> ValueLoss:
    """Half the mean of the larger squared error of V and of V held within +-clip of the old V. Inputs (B, R).

    As in OpenAI's baselines and TRL: a lone value step cannot go far, in the bad direction it is not held back.
    """
    held = torch.maximum(torch.minimum(values, values_old + clip), values_old - clip)
    plain, bounded = (values - returns) ** 2, (held - returns) ** 2
    return ValueLoss(
        loss=0.5 * mean_over(torch.maximum(plain, bounded), is_response, total),
        clipped=mean_over((bounded > plain).to(values.dtype), is_response, total),
    )


def bradley_terry_loss(
    difference: Tensor, share: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """-[q log sigma(d - m) + (1 - q) log sigma(-d - m)] per pair. All (B,).

    Bradley & Terry 1952; Ouyang et al. 2022 (arXiv:2203.02155) eq. 1 is q = 1, m = 0. d is score(first) minus
    score(second), q the share of judgement for the first: 1 a clear win, .5 a tie. The margin m is Touvron et al.
    2023 (arXiv:2307.09288) eq. 2. With label smoothing q is the expected share, see ``smoothed``.
    """
    q = smoothed(share, label_smoothing)
    return -(q * logsigmoid(difference - margin) + (1 - q) * logsigmoid(-difference - margin))


def smoothed(share: Tensor, label_smoothing: float) -> Tensor:
    """The share of judgement for the first when e of all judgements are turned round: q (1 - e) + (1 - q) e. (B,)

    A tie stays a tie. Mitchell 2023, "A note on DPO with noisy preferences" (https://ericmitchell.ai/cdpo.pdf).
    """
    return share + label_smoothing * (1 - 2 * share)


class Outcomes(NamedTuple):
    """Log-probabilities of what a judge may say of two answers. All (B,)."""

    first: Tensor
    second: Tensor
    tie: Tensor


def outcome_logp(difference: Tensor, log_theta: Tensor) -> Outcomes:
    """Bradley-Terry with ties: p(first) = sigma(d - t), p(second) = sigma(-d - t), t = log theta > 0, and
    p(tie) = (theta^2 - 1) p(first) p(second). difference (B,), log_theta () or (1,).

    Rao & Kupper 1967, "Ties in paired-comparison experiments"; for reward models: arXiv:2410.05328. At equal scores
    p(tie) = (theta - 1) / (theta + 1). log(theta^2 - 1) is written so that it is exact for a small t.
    """
    first, second = logsigmoid(difference - log_theta), logsigmoid(-difference - log_theta)
    width = 2 * log_theta + torch.log(-torch.expm1(-2 * log_theta))
    return Outcomes(first, second, width + first + second)


def ties_loss(difference: Tensor, share: Tensor, log_theta: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log p of what was judged under Rao & Kupper's model: a share of .5 is a tie. All (B,) but log_theta.

    Label smoothing is over the two winners: a tie that is turned round is the same tie.
    """
    logp, q = outcome_logp(difference, log_theta), smoothed(share, label_smoothing)
    return -torch.where(share == 0.5, logp.tie, q * logp.first + (1 - q) * logp.second)


def combined_score(scores: Tensor, how: str, uwo_coef: float = 1.0) -> Tensor:
    """One score for each answer from those of several reward models. (members, N) -> (N,)

    Coste et al. 2023 (arXiv:2310.02743): ``mean``; ``min``, their worst-case optimisation; ``uwo``, the mean less
    uwo_coef times the disagreement. They subtract the variance; here it is the (population) standard deviation, which
    has the unit of the score, so that a coefficient means the same however the scores are scaled.
    """
    if how == "mean":
        return scores.mean(0)
    if how == "min":
        return scores.amin(0)
    if how == "uwo":
        return scores.mean(0) - uwo_coef * scores.std(0, correction=0)
    raise ValueError(f"Scores are combined by mean, min or uwo, not by {how}.")


def adversarial_loss(good: Tensor, sampled: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Mean of -log sigma(f(good) - f(sampled)): scores of good answers against the policy's own. Both (B,) -> scalar.

    The reward's side of the adversarial game: Chen et al. 2024 (arXiv:2401.01335) and Cheng et al. 2023 (arXiv:2311.08045)
    play it with other functions of the difference. ``total`` counts the pairs of the whole batch when this is a part.
    """
    losses = bradley_terry_loss(good - sampled, torch.ones_like(good))
    return mean_over(losses, torch.ones_like(good, dtype=torch.bool), total)


def next_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """The adaptive KL coefficient of Ziegler et al. 2019 (arXiv:1909.08593) section 2.2; kl in nats per response."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


def sequence_logp(logits: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
    """Log-probability of each answer: the sum over its tokens. logits (B, R, V), tokens and where (B, R) -> (B,)"""
    return sum_over(token_logp(logits, tokens), where)


def sft_loss(logp: Tensor, is_answer: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens, in nats per token; prompts have no part. (B, R) -> scalar"""
    return -mean_over(logp, is_answer, total)


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-[(1 - e) log sigma(beta h) + e log sigma(-beta h)] per pair. All (B,).

    Rafailov et al. 2023 (arXiv:2305.18290) eq. 7: chosen and rejected are log(policy / reference) of the whole answer,
    h their difference. e is the share of judgements believed to be turned round: Mitchell 2023, "A note on DPO with
    noisy preferences" (https://ericmitchell.ai/cdpo.pdf).
    """
    difference = beta * (chosen - rejected)
    return bradley_terry_loss(difference, torch.ones_like(difference), label_smoothing=label_smoothing)


def ipo_loss(chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, beta: float) -> Tensor:
    """(h - 1 / (2 beta))^2 per pair, h the difference of log(policy / reference) per token. All (B,).

    Azar et al. 2023 (arXiv:2310.12036) eq. 17, beta being their tau. The division by the answers' tokens is TRL's, who
    have it from the authors: without it the target would be easier for long answers.
    """
    h = chosen / chosen_tokens.clamp(min=1) - rejected / rejected_tokens.clamp(min=1)
    return (h - 1 / (2 * beta)) ** 2


def mismatched_kl(log_ratio: Tensor) -> Tensor:
    """z of ``kto_loss``: the mean of log(policy / reference) of mismatched pairs, 0 if that is negative. (B,) -> scalar

    Ethayarajh et al. 2024 (arXiv:2402.01306) section 4.1: each prompt with the answer to another one. It has no gradient.
    """
    return log_ratio.detach().mean().clamp(min=0)


def kto_loss(
    log_ratio: Tensor,
    is_desirable: Tensor,
    kl: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """weight * [1 - sigma(+-beta (r - z))] per answer, plus for a desirable one, minus for an undesirable. All (B,).

    Ethayarajh et al. 2024 (arXiv:2402.01306) section 4: r is log(policy / reference) of the answer, z >= 0 the KL to the
    reference, which has no gradient; TRL estimates it from mismatched pairs of prompt and answer.
    """
    away = beta * (log_ratio - torch.as_tensor(kl).detach().clamp(min=0))
    value = torch.sigmoid(torch.where(is_desirable, away, -away))
    return torch.where(is_desirable, desirable_weight, undesirable_weight) * (1 - value)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each answer's reward minus the mean of the other answers' to the same prompt. (prompts, K) twice, K >= 2.

    Kool et al. 2019; Ahmadian et al. 2024 (arXiv:2402.14740, RLOO). The baseline does not depend on its own answer, so
    the gradient has the right mean. Each prompt's row sums to zero.
    """
    count = rewards.shape[1]
    if count < 2:
        raise ValueError("Leave-one-out needs two answers to each prompt.")
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (count - 1)


def answer_reward(
    score: Tensor, logp: Tensor, logp_ref: Tensor, is_response: Tensor, kl_coef: float, estimator: str = "k1"
) -> Tensor:
    """score - kl_coef * sum of k1 (or k2, k3) over the answer: the sum of ``shaped_rewards``, for one action per answer. (B,)

    A constant for the gradient: the estimate belongs to the reward, and the gradient of k1 itself has mean zero.
    """
    return (score - kl_coef * sum_over(getattr(kl_terms(logp, logp_ref), estimator), is_response)).detach()


def reinforce_loss(logp: Tensor, advantage: Tensor, total: Tensor | float | None = None) -> Tensor:
    """-mean of advantage * log p(answer): its gradient is minus E[f grad log p]. Both (B,) -> scalar.

    Williams 1992. ``total`` counts the answers of the whole batch when this is one of its parts.
    """
    return -mean_over(advantage.detach() * logp, torch.ones_like(logp, dtype=torch.bool), total)
