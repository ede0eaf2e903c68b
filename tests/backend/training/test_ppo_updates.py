"""What may be chosen about PPO's updates: where the KL is charged, whitened rewards, and when a batch is left."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.training import judge, on_policy, ppo
from backend.training.maths import token_logp
from backend.training.settings import PPOSettings
from tests.backend.training.test_ppo import batch_of, copies, likes_good, made_up, moved, ready, same, trained


def test_a_batch_is_left_once_the_policy_is_too_far_from_the_one_that_sampled_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    settings = {"total_episodes": 64, "num_ppo_epochs": 2, "num_mini_batches": 4, "learning_rate": 5e-2}
    base, report = trained(tmp_path, approx_kl_stop=0.05, **settings)
    left_out = report["curve"][0]["policy/updates_left_out"]
    assert 0 < left_out < 8 and report["curve"][0]["policy/approxkl_avg"] > 0
    # the weights are those of the updates before it, and of none after it
    calls, update = [], ppo.update

    def counted(*args: Any) -> ppo.Update:
        found = update(*args)
        calls.append(found)
        return found._replace(was_left_out=len(calls) == 8 - left_out)

    monkeypatch.setattr(ppo, "update", counted)
    other, same_report = trained(tmp_path, approx_kl_stop=0.0, **settings)
    assert len(calls) == 8 - left_out and same_report["curve"][0]["policy/updates_left_out"] == left_out + 1
    assert all(torch.equal(a, b) for a, b in zip(base.weights("policy"), other.weights("policy"), strict=True))
    assert calls[-1].approx_kl <= 0.05


def test_an_update_that_is_left_out_moves_nothing(tmp_path: Path) -> None:
    base, judged_by = ready()
    t, path = batch_of(tmp_path, base, judged_by, approx_kl_stop=0.1, num_ppo_epochs=3, num_mini_batches=2)
    before, far = copies(t), path._replace(logp_old=path.logp_old - 1)
    updates, left_out = ppo.work_through(t, made_up(far), 0)
    assert len(updates) == 1 and updates[0].was_left_out and left_out == 6 and same(before, t)
    told = ppo.statistics(path, path.values, path.values, updates, left_out, 0.0)
    assert told["policy/updates_left_out"] == 6 and told["policy/approxkl_avg"] == updates[0].approx_kl > 0.1
    patient = t._replace(settings=PPOSettings(**{**asdict(t.settings), "approx_kl_stop": 0.0}))
    updates, left_out = ppo.work_through(patient, made_up(far), 0)
    assert len(updates) == 6 and left_out == 0 and not same(before, t)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_kl_in_the_loss_has_the_gradient_of_its_formula(estimator: str, tmp_path: Path) -> None:
    found = []
    for tokens in (16, 4096):
        base, judged_by = ready()
        moved(base)
        t, path = batch_of(
            tmp_path, base, judged_by, kl_penalty="loss", kl_estimator=estimator, kl_coef=0.7, max_grad_norm=1e9, vf_coef=0.0,
            tokens_per_microbatch=tokens,
        )  # fmt: skip
        weights = base.weights("policy")
        t = t._replace(optimizer=torch.optim.SGD(weights, lr=0.0))
        told = ppo.update(t, made_up(path, 0.7)._replace(advantage=torch.zeros_like(path.values)), range(16), 0, 0)
        found.append([w.grad.clone() for w in weights])
    with base.scope("policy"):
        logits = base.logits(on_policy.response_states(base, path))
        difference = (token_logp(logits, on_policy.response_tokens(path)) - path.logp_ref)[path.is_response]
        plain = 0.5 * difference**2 if estimator == "k2" else torch.exp(-difference) - 1 + difference
        loss = 0.7 * plain.mean()
        expected = torch.autograd.grad(loss, weights)
    assert told.kl_loss == pytest.approx(loss.item(), rel=1e-4) and loss > 0.01
    for mine in found:
        for a, b in zip(mine, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_the_kl_is_charged_once_in_the_reward_or_in_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    shaped = ppo.shaped_rewards

    def spied(*args: Any) -> torch.Tensor:
        seen.append(args[4:])
        return shaped(*args)

    monkeypatch.setattr(ppo, "shaped_rewards", spied)
    settings = {"total_episodes": 128, "kl_coef": 0.3}
    _, in_reward = trained(tmp_path, kl_estimator="k3", **settings)
    _, in_loss = trained(tmp_path, kl_estimator="k2", kl_penalty="loss", **settings)
    assert seen == [(0.3, "k3")] * 2 + [(0.0, "k2")] * 2
    assert "loss/kl_avg" not in in_reward["curve"][1]
    assert in_loss["curve"][0]["loss/kl_avg"] >= 0 and in_loss["curve"][1]["loss/kl_avg"] > 0


def test_the_kl_in_the_loss_holds_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    kl = [
        trained(tmp_path, total_episodes=256, kl_penalty="loss", kl_estimator="k2", kl_coef=c)[1]["held_out"]["kl"][
            "value"
        ]
        for c in (0.0, 5.0)
    ]
    assert kl[0] > 1 and kl[1] < 0.2 * kl[0]


def test_whitened_rewards_have_variance_one_and_keep_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    estimate, shaped = ppo.advantages_and_returns, ppo.shaped_rewards

    def spied(rewards: torch.Tensor, values: torch.Tensor, where: torch.Tensor, *more: float) -> Any:
        seen.append(rewards[where])
        return estimate(rewards, values, where, *more)

    def kept(score: torch.Tensor, logp: torch.Tensor, logp_ref: torch.Tensor, where: torch.Tensor, *more: Any) -> Any:
        made = shaped(score, logp, logp_ref, where, *more)
        plain.append(made[where])
        return made

    monkeypatch.setattr(ppo, "advantages_and_returns", spied)
    monkeypatch.setattr(ppo, "shaped_rewards", kept)
    _, report = trained(tmp_path, total_episodes=64, whiten_rewards=True)
    trained(tmp_path, total_episodes=64)
    torch.testing.assert_close(seen[0].var(), torch.tensor(1.0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen[0].mean(), plain[0].mean(), rtol=1e-4, atol=1e-5)
    assert abs(float(plain[0].var()) - 1) > 0.05 and torch.equal(seen[1], plain[1])
    assert report["curve"][0]["objective/rlhf_reward"] == pytest.approx(
        report["curve"][0]["objective/scores"], abs=1e-4
    )
