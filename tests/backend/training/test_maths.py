"""Formulas tested by relation: against the plain definition, against padding, against scale.

No fixtures and no parameters: tests/mutations.py calls every test of this file on faulty copies of the formulas.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backend.training import maths

B, R, V = 3, 6, 11


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(of: Tensor) -> Tensor:
    assert of.grad is not None
    return of.grad


def batch(seed: int = 0, extra: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Values with rubbish in the ``extra`` padded positions and after each end."""
    lengths = torch.tensor([2, 6, 4])
    is_response = torch.arange(R + extra)[None] < lengths[:, None]
    names = ("logp", "logp_old", "logp_ref", "value", "value_old")
    values = {name: random(B, R, seed=seed + i) for i, name in enumerate(names)}
    padded = {k: torch.cat([v, torch.full((B, extra), 100.0)], 1) for k, v in values.items()}
    return padded, random(B, seed=seed + 9), is_response, lengths


def everything(extra: int) -> list[Tensor]:
    x, score, mask, _ = batch(extra=extra)
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.1)
    advantage, returns = maths.advantages_and_returns(rewards, x["value"], mask, 0.9, 0.8)
    white = maths.whiten(advantage, mask)
    policy = maths.ppo_policy_loss(x["logp"], x["logp_old"], white, mask, 0.2)
    value = maths.ppo_value_loss(x["value"], x["value_old"], returns, mask, 0.2)
    positions = [t[:, :R] for t in (rewards, advantage, returns, white)]
    return [*positions, *policy, *value, maths.sum_over(x["logp"], mask), maths.mean_over(x["logp"], mask)]


def close(a: Tensor | float, b: Tensor | float, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance, check_dtype=False
    )


def test_padding_changes_nothing() -> None:
    for short, padded in zip(everything(extra=0), everything(extra=5), strict=True):
        close(short, padded)


def test_nan_in_padding_changes_nothing() -> None:
    x, score, mask, _ = batch()
    dirty = {k: torch.where(mask, v, torch.full_like(v, math.nan)) for k, v in x.items()}
    for y in (x, dirty):
        rewards = maths.shaped_rewards(score, y["logp_old"], y["logp_ref"], mask, 0.1)
        advantage, returns = maths.advantages_and_returns(rewards, y["value"], mask, 0.9, 0.8)
        policy = maths.ppo_policy_loss(y["logp"], y["logp_old"], maths.whiten(advantage, mask), mask, 0.2)
        value = maths.ppo_value_loss(y["value"], y["value_old"], returns, mask, 0.2)
        assert all(torch.isfinite(t).all() for t in (rewards, advantage, returns, *policy, *value))


def test_means_and_sums_are_over_true_positions() -> None:
    values, where = (
        torch.tensor([[1.0, 2.0, 50.0], [4.0, 50.0, 50.0]]),
        torch.tensor([[True, True, False], [True, False, False]]),
    )
    close(maths.mean_over(values, where), 7 / 3)
    close(maths.mean_over(values, where, 7), 1.0)
    close(maths.mean_over(values, torch.zeros_like(where)), 0.0)
    close(maths.sum_over(values, where), torch.tensor([3.0, 4.0]))


def test_token_logp_is_minus_cross_entropy() -> None:
    logits, tokens = random(B, R, V), torch.randint(V, (B, R), generator=torch.Generator().manual_seed(0))
    close(maths.token_logp(logits, tokens), -cross_entropy(logits.transpose(1, 2), tokens, reduction="none"))


def test_entropy_is_that_of_the_distribution() -> None:
    logits, tokens = random(B, R, V), torch.randint(V, (B, R), generator=torch.Generator().manual_seed(0))
    said = maths.token_logp_and_entropy(logits, tokens)
    close(said.entropy, torch.distributions.Categorical(logits=logits).entropy())
    close(said.logp, maths.token_logp(logits, tokens))
    close(maths.token_logp_and_entropy(torch.zeros(1, 1, V), tokens[:1, :1]).entropy, torch.tensor([[math.log(V)]]))


def test_the_gradient_of_token_logp_is_that_of_cross_entropy() -> None:
    tokens = torch.randint(V, (B, R), generator=torch.Generator().manual_seed(0))
    weight, gradients = random(B, R, seed=3), []
    for is_plain in (True, False):
        logits = random(B, R, V).requires_grad_(True)
        if is_plain:
            found = -cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        else:
            found = maths.token_logp_and_entropy(logits, tokens).logp
        torch.autograd.backward((found * weight).sum())
        gradients.append(logits.grad)
    close(gradients[1], gradients[0])


def test_k1_and_k3_average_to_the_exact_divergence() -> None:
    logits, logits_ref = random(1, 1, 5), random(1, 1, 5, seed=1)
    exact = maths.exact_kl(logits, logits_ref)[0, 0]
    tokens = torch.arange(5)[None]
    chance = logits.softmax(-1)[0]
    terms = maths.kl_terms(*(maths.token_logp(x.expand(1, 5, 5), tokens) for x in (logits, logits_ref)))
    close((chance * terms.k1).sum(), exact)
    close((chance * terms.k3).sum(), exact)
    assert exact > 0.1


def test_k3_is_never_negative_and_k2_is_half_the_square() -> None:
    x, _, _, _ = batch()
    terms = maths.kl_terms(x["logp"], x["logp_ref"])
    assert (terms.k3 >= 0).all() and (terms.k1 < 0).any()
    close(terms.k1, x["logp"] - x["logp_ref"])
    close(terms.k2, 0.5 * (x["logp"] - x["logp_ref"]) ** 2)
    assert torch.isfinite(maths.kl_terms(torch.tensor(-500.0), torch.tensor(0.0)).k3)


def test_no_divergence_from_itself() -> None:
    logits = random(B, R, V)
    close(maths.exact_kl(logits, logits), torch.zeros(B, R))
    for term in maths.kl_terms(logits, logits):
        assert not term.any()


def test_exact_kl_is_that_of_the_distributions() -> None:
    p, q = random(B, R, V), random(B, R, V, seed=1)
    make = torch.distributions.Categorical
    close(maths.exact_kl(p, q), torch.distributions.kl_divergence(make(logits=p), make(logits=q)), 1e-5)


def test_the_score_is_clipped_and_the_penalty_stands_outside_the_clip() -> None:
    score, has_ended = torch.tensor([9.0, -9.0, 9.0, 1.0]), torch.tensor([True, True, False, False])
    close(maths.final_score(score, has_ended, 5.0, 2.0), torch.tensor([5.0, -5.0, 3.0, -1.0]))


def test_the_score_arrives_once_at_the_last_token() -> None:
    x, score, mask, lengths = batch(extra=2)
    same = x["logp_old"]
    rewards = maths.shaped_rewards(score, same, same, mask, 0.1)
    close(rewards.sum(1), score)
    close(rewards[torch.arange(B), lengths - 1], score)


def test_leaving_the_reference_costs_and_returning_pays() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    logp, logp_ref = torch.tensor([[-1.0, -3.0]]), torch.tensor([[-2.0, -2.0]])
    close(maths.shaped_rewards(torch.zeros(1), logp, logp_ref, mask, 0.5), torch.tensor([[-0.5, 0.5]]))


def test_the_sum_of_rewards_is_score_minus_coefficient_times_k1() -> None:
    x, score, mask, _ = batch(extra=3)
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.3)
    close(rewards.sum(1), score - 0.3 * maths.sum_over(maths.kl_terms(x["logp_old"], x["logp_ref"]).k1, mask))


def test_rewards_take_the_estimate_they_are_told_to() -> None:
    x, score, mask, _ = batch(extra=2)
    terms = maths.kl_terms(x["logp_old"], x["logp_ref"])
    for name, term in terms._asdict().items():
        rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.3, name)
        close(rewards.sum(1), score - 0.3 * maths.sum_over(term, mask))
        close(maths.answer_reward(score, x["logp_old"], x["logp_ref"], mask, 0.3, name), rewards.sum(1))


def exact_gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_in_the_loss_k2_pulls_to_the_reference_k3_pulls_the_reverse_way_and_k1_not_at_all() -> None:
    """Every token stands once, weighted by its chance: the expected gradient, exactly."""
    logits, logits_ref = random(1, 1, 5).requires_grad_(), random(1, 1, 5, seed=1)
    tokens = torch.arange(5)[:, None]
    chance = logits.detach().softmax(-1)[0, 0]
    every = torch.ones(1, 1, dtype=torch.bool)
    expected = {
        "k1": torch.zeros(1, 1, 5),
        "k2": exact_gradient(maths.exact_kl(logits, logits_ref).sum(), logits),
        "k3": exact_gradient(maths.exact_kl(logits_ref, logits).sum(), logits),
    }
    for name, gradient_of_kl in expected.items():
        logp, logp_ref = (maths.token_logp(x.expand(5, 1, 5), tokens) for x in (logits, logits_ref))
        losses = [maths.kl_loss(logp[i : i + 1], logp_ref[i : i + 1], every, name) for i in range(5)]
        close(exact_gradient((chance * torch.stack(losses)).sum(), logits), gradient_of_kl)
    assert (expected["k2"] - expected["k3"]).abs().max() > 0.01


def test_the_kl_loss_is_the_mean_over_the_answers_tokens_and_leaves_the_reference_alone() -> None:
    x, _, mask, _ = batch(extra=2)
    logp, logp_ref = x["logp"].clone().requires_grad_(), x["logp_ref"].clone().requires_grad_()
    for name in ("k2", "k3"):
        loss = maths.kl_loss(logp, logp_ref, mask, name)
        close(loss, getattr(maths.kl_terms(x["logp"], x["logp_ref"]), name)[mask].mean())
        close(maths.kl_loss(logp, logp_ref, mask, name, 2.0 * mask.sum()), loss / 2)
        loss.backward()
    assert logp_ref.grad is None and not gradient(logp)[~mask].any() and gradient(logp)[mask].all()


def test_undiscounted_and_unsmoothed_the_advantage_is_the_reward_to_go_less_the_value() -> None:
    x, score, mask, lengths = batch()
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.1)
    advantage, _ = maths.advantages_and_returns(rewards, x["value"], mask, 1.0, 1.0)
    for b in range(B):
        for t in range(int(lengths[b])):
            close(advantage[b, t], rewards[b, t:].sum() - x["value"][b, t], 1e-5)


def test_whitening_does_not_see_how_much_padding_there_is() -> None:
    for keep_mean in (False, True):
        (short, _, few, _), (long, _, many, _) = batch(extra=0), batch(extra=50)
        white = maths.whiten(long["value"], many, keep_mean)
        close(white[:, :R], maths.whiten(short["value"], few, keep_mean))
        assert not white[:, R:].any()


def test_with_lambda_one_the_return_is_the_discounted_sum_of_rewards() -> None:
    x, score, mask, lengths = batch()
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.1)
    _, returns = maths.advantages_and_returns(rewards, x["value"], mask, 0.9, 1.0)
    for b in range(B):
        n = int(lengths[b])
        for t in range(n):
            close(returns[b, t], sum(0.9 ** (k - t) * rewards[b, k].item() for k in range(t, n)), 1e-5)
    assert not returns[~mask].any()


def test_with_lambda_zero_the_advantage_is_the_one_step_error() -> None:
    x, score, mask, _ = batch()
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.1)
    advantage, returns = maths.advantages_and_returns(rewards, x["value"], mask, 0.9, 0.0)
    v = x["value"] * mask
    after = torch.cat([v[:, 1:], torch.zeros(B, 1)], 1)
    close(advantage, (rewards + 0.9 * after - v) * mask)
    close(returns, advantage + v)


def test_between_lambda_decays_the_errors_to_come() -> None:
    x, score, mask, _ = batch()
    rewards = maths.shaped_rewards(score, x["logp_old"], x["logp_ref"], mask, 0.1)
    errors, _ = maths.advantages_and_returns(rewards, x["value"], mask, 0.9, 0.0)
    advantage, _ = maths.advantages_and_returns(rewards, x["value"], mask, 0.9, 0.7)
    expected = sum(0.63**k * errors[1, k].item() for k in range(R))
    close(advantage[1, 0], expected, 1e-5)


def test_whitened_values_have_mean_zero_and_variance_one_where_they_count() -> None:
    x, _, mask, _ = batch(extra=4)
    white = maths.whiten(3 + 5 * x["value"], mask)
    close(white[mask].mean(), 0.0)
    close(white[mask].var(), 1.0, 1e-5)
    assert not white[~mask].any()
    kept = maths.whiten(3 + 5 * x["value"], mask, keep_mean=True)
    close(kept[mask].mean(), (3 + 5 * x["value"])[mask].mean(), 1e-5)
    close(kept[mask].var(), 1.0, 1e-5)
    assert torch.isfinite(maths.whiten(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))).all()


def test_before_any_step_the_policy_gradient_is_the_plain_one() -> None:
    x, _, mask, _ = batch()
    logp = x["logp_old"].clone().requires_grad_()
    advantage = x["value"] * mask
    out = maths.ppo_policy_loss(logp, x["logp_old"], advantage, mask, 0.2)
    out.loss.backward()
    close(gradient(logp), -advantage / mask.sum())
    close(out.ratio, 1.0)
    assert out.clipped == 0 and out.approx_kl.abs() < 1e-6


def test_a_ratio_beyond_the_clip_in_the_good_direction_has_no_gradient() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    for shift, advantage, moves in ((1.0, 1.0, False), (1.0, -1.0, True), (-1.0, -1.0, False), (-1.0, 1.0, True)):
        logp = torch.tensor([[shift]], requires_grad=True)
        out = maths.ppo_policy_loss(logp, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, 0.2)
        out.loss.backward()
        assert bool(gradient(logp).any()) is moves
        assert out.clipped == (0.0 if moves else 1.0)
        close(out.ratio, math.exp(shift))


def test_a_ratio_within_the_clip_keeps_its_gradient_on_both_sides() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    for shift in (-0.1, 0.1):
        for advantage in (-1.0, 1.0):
            logp = torch.tensor([[shift]], requires_grad=True)
            maths.ppo_policy_loss(logp, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, 0.2).loss.backward()
            close(gradient(logp).item(), -advantage * math.exp(shift))


def test_the_clip_is_where_it_is_said_to_be() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    for clip in (0.1, 0.3):
        for advantage, bound in ((1.0, 1 + clip), (-1.0, 1 - clip)):
            shift = torch.tensor([[2.0 * advantage]])
            loss = maths.ppo_policy_loss(shift, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, clip).loss
            close(loss, -advantage * bound)


def test_a_huge_ratio_stays_finite() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    out = maths.ppo_policy_loss(torch.tensor([[300.0]]), torch.zeros(1, 1), torch.tensor([[-1.0]]), mask, 0.2)
    assert all(torch.isfinite(x) for x in out)


def test_approx_kl_is_the_exact_divergence_on_average() -> None:
    old, new = random(5).log_softmax(0), random(5, seed=1).log_softmax(0)
    tokens = torch.multinomial(old.exp(), 100_000, replacement=True, generator=torch.Generator().manual_seed(0))[None]
    nothing, mask = torch.zeros(tokens.shape), torch.ones(tokens.shape, dtype=torch.bool)
    out = maths.ppo_policy_loss(new[tokens], old[tokens], nothing, mask, 0.2)
    torch.testing.assert_close(out.approx_kl, (old.exp() * (old - new)).sum(), rtol=0.03, atol=0)


def test_approx_kl_is_never_negative() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    for shift in (-1.0, 0.5, 2.0):
        assert (
            maths.ppo_policy_loss(torch.tensor([[shift]]), torch.zeros(1, 1), torch.zeros(1, 1), mask, 0.2).approx_kl
            > 0
        )


def test_the_value_loss_is_half_the_squared_error_within_the_clip() -> None:
    x, _, mask, _ = batch()
    returns = x["logp"]
    values = x["value_old"] + 0.1
    out = maths.ppo_value_loss(values, x["value_old"], returns, mask, 0.2)
    close(out.loss, 0.5 * ((values - returns)[mask] ** 2).mean())
    assert out.clipped == 0


def test_the_value_loss_takes_the_larger_error_beyond_the_clip() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    # from 0 towards a return of 2, clip .5: a leap to 1 is judged as .5 and has no gradient; a leap to -1 as -1
    for leap, loss, moves in ((1.0, 1.125, False), (-1.0, 4.5, True)):
        value = torch.tensor([[leap]], requires_grad=True)
        out = maths.ppo_value_loss(value, torch.zeros(1, 1), torch.full((1, 1), 2.0), mask, 0.5)
        out.loss.backward()
        close(out.loss, loss)
        assert bool(gradient(value).any()) is moves
        assert out.clipped == (0.0 if moves else 1.0)
    close(
        maths.ppo_value_loss(torch.tensor([[-1.0]]), torch.zeros(1, 1), torch.full((1, 1), -2.0), mask, 0.5).loss, 1.125
    )


def test_micro_batches_with_the_whole_total_add_up_to_the_batch() -> None:
    x, _, mask, _ = batch()
    total = mask.sum()
    arguments = (x["logp"], x["logp_old"], x["value"], mask)
    whole = maths.ppo_policy_loss(*arguments, 0.2)
    parts = [maths.ppo_policy_loss(*(a[b : b + 1] for a in arguments), 0.2, total) for b in range(B)]
    for name in whole._fields:
        close(sum(getattr(p, name) for p in parts), getattr(whole, name))
    arguments = (x["value"], x["value_old"], x["logp"], mask)
    whole_value = maths.ppo_value_loss(*arguments, 0.2)
    value_parts = [maths.ppo_value_loss(*(a[b : b + 1] for a in arguments), 0.2, total) for b in range(B)]
    for name in whole_value._fields:
        close(sum(getattr(p, name) for p in value_parts), getattr(whole_value, name))


def test_the_preference_loss_is_log_two_at_no_difference_and_falls_as_it_grows() -> None:
    loss = maths.bradley_terry_loss(torch.tensor([-2.0, 0.0, 2.0]), torch.ones(3)).tolist()
    assert loss[0] > loss[1] > loss[2]
    close(loss[1], math.log(2))
    close(loss[2], math.log(1 + math.exp(-2)))


def test_a_tie_at_equal_scores_has_no_gradient_and_pulls_unequal_ones_together() -> None:
    difference = torch.tensor([0.0, 1.5, -1.5], requires_grad=True)
    maths.bradley_terry_loss(difference, torch.full((3,), 0.5)).sum().backward()
    assert gradient(difference).tolist()[0] == 0.0
    assert gradient(difference).tolist()[1] > 0 > gradient(difference).tolist()[2]


def test_swapping_the_answers_changes_nothing() -> None:
    d, q = random(8), random(8, seed=1).sigmoid()
    close(maths.bradley_terry_loss(d, q), maths.bradley_terry_loss(-d, 1 - q))
    close(maths.bradley_terry_loss(d, q, 0.7), maths.bradley_terry_loss(-d, 1 - q, 0.7))


def test_a_soft_label_is_best_met_by_its_log_odds() -> None:
    q = torch.tensor([0.3])
    difference = torch.log(q / (1 - q)).requires_grad_()
    maths.bradley_terry_loss(difference, q).sum().backward()
    assert gradient(difference).abs() < 1e-6


def test_a_margin_asks_for_more() -> None:
    close(
        maths.bradley_terry_loss(torch.tensor([2.0]), torch.ones(1), 0.5),
        maths.bradley_terry_loss(torch.tensor([1.5]), torch.ones(1)),
    )


def test_a_good_answer_must_score_above_the_policys_own() -> None:
    good, sampled = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([-1.0, 0.5, 1.0])
    plain = [math.log(1 + math.exp(-(g - s))) for g, s in zip(good.tolist(), sampled.tolist(), strict=True)]
    close(maths.adversarial_loss(good, sampled), sum(plain) / 3)
    close(maths.adversarial_loss(good, sampled, 12.0), sum(plain) / 12)


def test_the_parts_of_an_adversarial_batch_add_up_and_both_sides_are_pulled() -> None:
    scores = torch.tensor([[0.3, -0.2], [0.1, 0.9]], requires_grad=True)
    maths.adversarial_loss(scores[:, 0], scores[:, 1]).backward()
    whole = gradient(scores).clone()
    scores.grad = None
    for row in range(2):
        maths.adversarial_loss(scores[row : row + 1, 0], scores[row : row + 1, 1], 2.0).backward()
    close(gradient(scores), whole)
    assert (whole[:, 0] < 0).all() and torch.equal(whole[:, 1], -whole[:, 0])


def test_turned_round_judgements_are_expected_at_their_share() -> None:
    d, q, e = random(8), random(8, seed=1).sigmoid(), 0.2
    plain = (1 - e) * maths.bradley_terry_loss(d, q, 0.3) + e * maths.bradley_terry_loss(d, 1 - q, 0.3)
    close(maths.bradley_terry_loss(d, q, 0.3, e), plain)
    won = torch.tensor(1.7)
    close(maths.bradley_terry_loss(won, torch.ones(()), label_smoothing=e),
          0.8 * math.log(1 + math.exp(-1.7)) + 0.2 * math.log(1 + math.exp(1.7)))  # fmt: skip
    tie = torch.full((8,), 0.5)
    assert torch.equal(maths.bradley_terry_loss(d, tie, 0.0, e), maths.bradley_terry_loss(d, tie))


def test_win_loss_and_tie_have_rao_and_kuppers_probabilities_and_sum_to_one() -> None:
    d, theta = 3 * random(50), 1.8
    said = maths.outcome_logp(d, torch.tensor(math.log(theta)))
    first, second = torch.exp(d) / (torch.exp(d) + theta), 1 / (1 + theta * torch.exp(d))
    close(said.first.exp(), first, 1e-5)
    close(said.second.exp(), second, 1e-5)
    close(said.tie.exp(), (theta**2 - 1) * first * second, 1e-5)
    close(torch.stack(said).exp().sum(0), torch.ones(50))
    equal = maths.outcome_logp(torch.zeros(()), torch.tensor(math.log(theta)))
    close(equal.tie.exp(), (theta - 1) / (theta + 1))


def test_a_small_theta_keeps_its_accuracy_and_its_gradient() -> None:
    log_theta = torch.tensor([1e-6, 1e-9], requires_grad=True)
    tie = maths.outcome_logp(torch.zeros(2), log_theta).tie
    close(tie.detach() + math.log(4), torch.log(2 * log_theta.detach()), 1e-5)
    tie.sum().backward()
    close(gradient(log_theta) * log_theta.detach(), torch.ones(2), 1e-5)


def test_the_ties_loss_is_minus_the_log_probability_of_what_was_judged() -> None:
    d, log_theta = torch.tensor([0.7, 0.7, 0.7]), torch.tensor([0.4])
    said = maths.outcome_logp(d, log_theta)
    share = torch.tensor([1.0, 0.0, 0.5])
    close(maths.ties_loss(d, share, log_theta), -torch.stack([said.first[0], said.second[1], said.tie[2]]))
    smoothed = maths.ties_loss(d, share, log_theta, 0.1)
    close(smoothed[0], -0.9 * said.first[0] - 0.1 * said.second[0])
    close(smoothed[2], -said.tie[2])


def test_a_tie_at_equal_scores_moves_theta_alone() -> None:
    difference = torch.tensor([0.0, 1.5, -1.5], requires_grad=True)
    log_theta = torch.tensor([0.4], requires_grad=True)
    maths.ties_loss(difference, torch.full((3,), 0.5), log_theta).sum().backward()
    assert gradient(difference).tolist()[0] == 0.0
    assert gradient(difference).tolist()[1] > 0 > gradient(difference).tolist()[2]
    assert gradient(log_theta).item() < 0  # more room for ties makes them likelier


def test_members_are_combined_by_mean_least_or_mean_less_deviation() -> None:
    scores = torch.tensor([[1.0, -2.0, 0.5], [3.0, -2.0, 0.0], [8.0, -2.0, -2.0]])
    close(maths.combined_score(scores, "mean"), torch.tensor([4.0, -2.0, -0.5]))
    close(maths.combined_score(scores, "min"), torch.tensor([1.0, -2.0, -2.0]))
    deviation = math.sqrt((9 + 1 + 16) / 3)
    close(maths.combined_score(scores, "uwo", 0.5)[:2], torch.tensor([4 - 0.5 * deviation, -2.0]))
    for how in ("mean", "min", "uwo"):
        assert torch.equal(maths.combined_score(scores[:1], how, 2.0), scores[0])
    try:
        maths.combined_score(scores, "median")
    except ValueError:
        return
    raise AssertionError("an unknown way of combining was taken")


def test_the_kl_coefficient_rises_above_the_target_and_falls_below_it() -> None:
    assert maths.next_kl_coef(0.1, 6.0, 6.0, 64, 10_000) == 0.1
    close(maths.next_kl_coef(0.1, 60.0, 6.0, 500, 10_000), 0.1 * (1 + 0.2 * 0.05))
    close(maths.next_kl_coef(0.1, 0.0, 6.0, 500, 10_000), 0.1 * (1 - 0.2 * 0.05))
    close(maths.next_kl_coef(0.1, 6.6, 6.0, 500, 10_000), 0.1 * (1 + 0.1 * 0.05))


def pairs(seed: int = 3) -> tuple[Tensor, Tensor]:
    return random(5, seed=seed), random(5, seed=seed + 1)


def test_an_answers_log_probability_is_the_sum_over_its_tokens() -> None:
    logits, tokens = random(B, R, V), torch.arange(B * R).view(B, R) % V
    _, _, mask, lengths = batch()
    for row in range(B):
        n = int(lengths[row])
        plain = -cross_entropy(logits[row, :n], tokens[row, :n], reduction="sum")
        close(maths.sequence_logp(logits, tokens, mask)[row], plain)


def test_the_sft_loss_is_cross_entropy_over_the_answers_tokens_alone() -> None:
    logits, tokens = random(B, R, V).requires_grad_(), torch.arange(B * R).view(B, R) % V
    _, _, mask, _ = batch()
    loss = maths.sft_loss(maths.token_logp(logits, tokens), mask)
    close(loss, cross_entropy(logits[mask], tokens[mask]))
    loss.backward()
    assert gradient(logits)[~mask].abs().max() == 0 and gradient(logits)[mask].abs().max() > 0
    close(maths.sft_loss(maths.token_logp(logits, tokens), mask, 2.0 * mask.sum()), loss / 2)


def test_dpo_is_ln_2_where_policy_and_reference_agree_and_falls_towards_the_chosen() -> None:
    zero = torch.zeros(4)
    for smoothing in (0.0, 0.3):
        close(maths.dpo_loss(zero, zero, 0.1, smoothing), torch.full((4,), math.log(2)))
    chosen, rejected = pairs()
    plain = -torch.log(1 / (1 + torch.exp(-0.3 * (chosen - rejected))))
    close(maths.dpo_loss(chosen, rejected, 0.3), plain)
    turned = -torch.log(1 / (1 + torch.exp(0.3 * (chosen - rejected))))
    close(maths.dpo_loss(chosen, rejected, 0.3, 0.2), 0.8 * plain + 0.2 * turned)
    leaf = torch.zeros(1, requires_grad=True)
    maths.dpo_loss(leaf, torch.zeros(1), 0.3).backward()
    close(gradient(leaf), torch.tensor([-0.15]))  # -beta / 2: the chosen answer becomes likelier


def test_ipo_aims_at_half_of_one_over_beta_per_token() -> None:
    chosen, rejected = pairs()
    long, short = torch.tensor([4, 2, 8, 1, 5]), torch.tensor([2, 2, 3, 7, 1])
    plain = [(c / m - r / n - 1 / (2 * 0.25)) ** 2 for c, r, m, n in zip(chosen, rejected, long, short, strict=True)]
    close(maths.ipo_loss(chosen, rejected, long, short, 0.25), torch.stack(plain))
    close(maths.ipo_loss(2.0 * long, torch.zeros(5), long, short, 0.25), torch.zeros(5))
    nothing = maths.ipo_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.25)
    close(nothing, torch.tensor([4.0]))


def test_the_kl_of_mismatched_pairs_is_their_mean_held_at_zero_and_has_no_gradient() -> None:
    ratio = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    found = maths.mismatched_kl(ratio)
    close(found, torch.tensor(0.5))
    assert not found.requires_grad
    close(maths.mismatched_kl(-ratio), torch.tensor(0.0))


def test_kto_pulls_desirable_answers_up_and_undesirable_ones_down_from_the_kl() -> None:
    ratio, good = random(5, seed=4).requires_grad_(), torch.tensor([True, False, True, False, True])
    kl = torch.tensor(0.7, requires_grad=True)
    losses = maths.kto_loss(ratio, good, kl, 0.4, 1.5, 0.5)
    for i in range(5):
        away = 0.4 * (float(ratio[i].detach()) - 0.7)
        value = 1 / (1 + math.exp(-away if good[i] else away))
        close(losses[i].detach(), (1.5 if good[i] else 0.5) * (1 - value))
    losses.sum().backward()
    assert (gradient(ratio)[good] < 0).all() and (gradient(ratio)[~good] > 0).all() and kl.grad is None
    close(maths.kto_loss(ratio, good, -3.0, 0.4), maths.kto_loss(ratio, good, 0.0, 0.4))
    close(maths.kto_loss(torch.zeros(2), good[:2], 0.0, 0.4), torch.tensor([0.5, 0.5]))


def test_leave_one_out_subtracts_the_mean_of_the_others_and_sums_to_zero() -> None:
    rewards = random(3, 4, seed=5)
    found = maths.leave_one_out(rewards)
    for row in range(3):
        for k in range(4):
            others = torch.cat([rewards[row, :k], rewards[row, k + 1 :]])
            close(found[row, k], rewards[row, k] - others.mean())
    close(found.sum(1), torch.zeros(3))
    close(maths.leave_one_out(rewards + 7), found, 1e-5)
    close(maths.leave_one_out(torch.tensor([[1.0, 0.0]])), torch.tensor([[1.0, -1.0]]))
    for wrong in (rewards[:, :1], rewards[:, :0]):
        try:
            maths.leave_one_out(wrong)
        except ValueError:
            continue
        raise AssertionError("one answer has no others")


def test_an_answers_reward_is_what_its_tokens_are_paid_together() -> None:
    x, score, mask, _ = batch(extra=2)
    mask = torch.cat([mask[:, :R], torch.zeros(B, mask.shape[1] - R, dtype=torch.bool)], 1)
    logp = x["logp"].clone().requires_grad_()
    found = maths.answer_reward(score, logp, x["logp_ref"], mask, 0.3)
    close(found, maths.shaped_rewards(score, x["logp"], x["logp_ref"], mask, 0.3).sum(1))
    assert not found.requires_grad
    likelier = maths.answer_reward(score, x["logp"] + 1.0, x["logp_ref"], mask, 0.3)
    assert (likelier < found).all()


def test_the_reinforce_gradient_is_minus_the_mean_of_f_grad_log_p() -> None:
    logits, tokens = random(B, R, V, seed=6).requires_grad_(), torch.arange(B * R).view(B, R) % V
    _, f, mask, _ = batch()
    leaf = f.clone().requires_grad_()
    maths.reinforce_loss(maths.sequence_logp(logits, tokens, mask), leaf).backward()
    assert leaf.grad is None
    plain = torch.zeros_like(logits)
    for row in range(B):
        for t in range(R):
            if mask[row, t]:  # grad log p of a token is its one-hot minus the distribution
                grad = -logits.detach()[row, t].softmax(-1)
                grad[tokens[row, t]] += 1
                plain[row, t] = -f[row] * grad / B
    close(gradient(logits), plain)
    logp = random(4, seed=7)
    whole = maths.reinforce_loss(logp, logp**2)
    close(sum(maths.reinforce_loss(logp[i : i + 2], logp[i : i + 2] ** 2, 4) for i in (0, 2)), whole)
