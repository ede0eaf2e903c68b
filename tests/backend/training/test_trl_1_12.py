"""Our formulas beside the recorded numbers of the last TRL with PPO (fixtures/record_trl_1_12.py made them).

TRL's ``padding_mask`` is our mask turned round. Its second mask, ``padding_mask_p1``, lets one position of padding count: the
score is put there, and the values are trained there. Where that or something else is wrong the test says so, and holds
what is right.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from backend.training import maths

RECORDED = Path(__file__).parent / "fixtures" / "trl_1_12_ppo.safetensors"


class Case(NamedTuple):
    settings: dict[str, Any]
    x: dict[str, Tensor]

    @property
    def is_response(self) -> Tensor:
        """(B, R)"""
        return ~self.x["padding_mask"]

    @property
    def has_ended(self) -> Tensor:
        """(B,)"""
        return (self.x["in_responses"] == 1).any(1)

    def rewards(self, score: Tensor) -> Tensor:
        s = self.settings
        return maths.shaped_rewards(
            score, self.x["in_logprobs"], self.x["in_ref_logprobs"], self.is_response, s["kl_coef"], s["kl_estimator"]
        )


def cases() -> list[Case]:
    with safe_open(RECORDED, "pt") as file:
        about = file.metadata()
        assert about["trl"] == "1.12.0"
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 the file is no mapping
    return [
        Case(settings, {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{number}.")})
        for number, settings in enumerate(json.loads(about["cases"]))
    ]


every_case = pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.settings['kl_estimator']}")


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@every_case
def test_the_mask_is_the_answer_up_to_its_end_and_the_penalty_meets_answers_without_one(case: Case) -> None:
    lengths = case.is_response.sum(1)
    assert lengths.tolist() == [3, 8, 5, 8, 1, 6] and case.has_ended.tolist() == [True, False, True, True, True, True]
    penalty = case.settings["missing_eos_penalty"] or 0.0
    close(maths.final_score(case.x["in_scores"], case.has_ended, 1000.0, penalty), case.x["scores"])


@every_case
def test_the_price_of_kl_per_token(case: Case) -> None:
    close(case.rewards(torch.zeros(6)), case.x["non_score_reward"])


@every_case
def test_the_score_belongs_to_the_end_token_and_trl_puts_it_one_position_later(case: Case) -> None:
    ours = case.rewards(case.x["scores"])
    paid = ours - case.rewards(torch.zeros(6))
    rows, last = torch.arange(6), case.is_response.sum(1) - 1
    close(paid[rows, last], case.x["scores"])
    assert (paid != 0).sum() == 6
    fills = last == 7  # no padding is left: there TRL has no later position to write to
    theirs = case.x["non_score_reward"].clone()
    theirs[rows, torch.where(fills, last, last + 1)] += case.x["scores"]
    whitened = case.settings["whiten_rewards"]
    close(theirs, case.x["whiten0_values"] if whitened else case.x["rewards"])
    close(ours[fills], theirs[fills])
    assert not torch.isclose(ours[~fills], theirs[~fills]).all(1).any()


@every_case
def test_whitening_with_and_without_the_mean(case: Case) -> None:
    names = ["whiten0", "whiten1"] if case.settings["whiten_rewards"] else ["whiten0"]
    for name in names:
        is_reward = name != names[-1]
        values, mask, made = (case.x[f"{name}_{what}"] for what in ("values", "mask", "made"))
        close(maths.whiten(values, mask, keep_mean=is_reward)[mask], made[mask])


@every_case
def test_advantages_and_returns(case: Case) -> None:
    """On TRL's own rewards and values, with the position after the end that it counts."""
    s, wide = case.settings, ~case.x["padding_mask_p1"]
    found = maths.advantages_and_returns(case.x["rewards"], case.x["in_values"], wide, s["gamma"], s["lam"])
    close(found.returns, case.x["returns"])
    close(maths.whiten(found.advantage, case.is_response), case.x["advantages"])


@every_case
def test_at_the_end_token_the_advantage_is_what_is_paid_there_less_its_value(case: Case) -> None:
    """TRL discounts the score once more, and sees the value of a position that does not exist."""
    s, rewards = case.settings, case.rewards(case.x["scores"])
    found = maths.advantages_and_returns(rewards, case.x["in_values"], case.is_response, s["gamma"], s["lam"])
    for row, length in enumerate(case.is_response.sum(1).tolist()):
        v, later = [*case.x["in_values"][row, :length].tolist(), 0.0], 0.0
        for t in reversed(range(length)):
            later = float(rewards[row, t]) + s["gamma"] * v[t + 1] - v[t] + s["gamma"] * s["lam"] * later
            close(found.advantage[row, t], torch.tensor(later))
    if not s["whiten_rewards"]:
        raw, ended = case.x["whiten0_values"], case.is_response.sum(1) < 8
        assert not torch.isclose(raw[ended, 0], found.advantage[ended, 0], atol=1e-3).any()
        close(raw[~ended], found.advantage[~ended])


@every_case
def test_the_policy_loss_its_clip_fraction_and_its_gradient(case: Case) -> None:
    s, x = case.settings, case.x
    logits = x["in_logits"].clone().requires_grad_()
    logp = maths.token_logp(logits, x["in_responses"])
    close(logp.detach()[case.is_response], x["new_logprobs"][case.is_response])
    found = maths.ppo_policy_loss(logp, x["in_logprobs"], x["advantages"], case.is_response, s["cliprange"])
    close(found.loss.detach(), x["pg_loss"])
    close(found.clipped, x["pg_clipfrac"])
    found.loss.backward()
    assert logits.grad is not None and x["grad_logits"].any()
    close(logits.grad, x["grad_logits"])


@every_case
def test_the_value_loss_its_clip_fraction_and_its_gradient(case: Case) -> None:
    """TRL trains a value one position after the end, too; with its mask the numbers are equal, and ours leaves it out."""
    s, x = case.settings, case.x
    for mask, is_theirs in ((~x["padding_mask_p1"], True), (case.is_response, False)):
        values = x["in_vpred"].clone().requires_grad_()
        found = maths.ppo_value_loss(values, x["in_values"], x["returns"], mask, s["cliprange_value"])
        (s["vf_coef"] * found.loss).backward()
        assert values.grad is not None
        if is_theirs:
            close(found.loss.detach(), x["vf_loss"])
            close(found.clipped, x["vf_clipfrac"])
            close(values.grad, x["grad_vpred"])
        else:
            assert not values.grad[~case.is_response].any() and x["grad_vpred"][~case.is_response].any()


@every_case
def test_the_approximate_kl_counts_no_padding_and_has_the_right_mean(case: Case) -> None:
    """TRL takes half the square and divides by padding as well: here a third too small."""
    x = case.x
    squares = maths.kl_terms(x["new_logprobs"], x["in_logprobs"]).k2
    close(maths.sum_over(squares, case.is_response).sum() / case.is_response.numel(), x["approxkl"])
    found = maths.ppo_policy_loss(x["new_logprobs"], x["in_logprobs"], x["advantages"], case.is_response, 0.2)
    difference = (x["new_logprobs"] - x["in_logprobs"])[case.is_response]
    close(found.approx_kl, (difference.exp() - 1 - difference).mean())
    assert x["approxkl"] < 0.7 * squares[case.is_response].mean()
