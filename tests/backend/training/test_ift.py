"""IFT on a model of a few thousand weights: its gradient is the plain formula's, and the score rises with the KL held."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.jobs.runner import tail
from backend.training import ift, judge, on_policy, rollout
from backend.training.data import PromptRow
from backend.training.run import GuardStop, NotFinite, Stopped, TooFewRows
from backend.training.settings import IFTSettings
from backend.training.shared_base import SharedBase
from tests.backend.training import tiny
from tests.backend.training.test_ppo import likes_good, moved, ready, rows_of, run_of

QUICK: dict[str, Any] = {
    "lora_r": 8,
    "lora_alpha": 16,
    "learning_rate": 1e-2,
    "total_episodes": 1280,
    "batch_size": 64,
    "response_length": 8,
    "num_generations": 4,
    "missing_eos_penalty": 0.0,
    "eval_cases": 16,
    "kl_coef": 0.0,
    "kl_stop": 1000.0,
    "entropy_stop": 0.0,
}


def trained(tmp_path: Path, seed: int = 0, **settings: Any) -> tuple[SharedBase, dict[str, Any]]:
    base, judged_by = ready()
    report = ift.train(base, judged_by, rows_of(tmp_path), IFTSettings(**{**QUICK, **settings}), seed, run_of(tmp_path))
    return base, report


def batch_of(
    tmp_path: Path, base: SharedBase, judged_by: judge.Judge, **settings: Any
) -> tuple[ift.Training, rollout.Trajectory]:
    """A batch as the loop makes it, with an optimizer that moves nothing."""
    t = ift.prepare(base, IFTSettings(**{**QUICK, "max_grad_norm": 1e9, **settings}), 0, run_of(tmp_path))
    t = t._replace(optimizer=torch.optim.SGD(t.weights, lr=0.0))
    count = t.settings.num_generations
    prompts, _ = on_policy.encode(base, rows_of(tmp_path, 6), t.settings)
    asked = [prompt for prompt in prompts for _ in range(count)]
    answers = rollout.sample(base, "policy", [p.policy for p in prompts], count, 8, t.settings.temperature, 0, 0, t.run)
    path = rollout.lay_out(base, [p.policy for p in asked], answers)
    path = path._replace(**on_policy.score_answers(base, judged_by, asked, answers, t.settings)._asdict())
    return t, path._replace(logp_ref=ift.reference_logp(t, path, 0))


def test_the_score_rises_and_a_high_price_of_kl_holds_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    _, free = trained(tmp_path)
    assert free["held_out"]["gain"]["low"] > 0 and free["verdict"] == "gained"
    assert free["held_out"]["kl"]["value"] > 3
    _, held = trained(tmp_path, kl_coef=2.0)
    assert held["held_out"]["kl"]["value"] < 0.5
    assert free["n"] == 16 and json.dumps(free, allow_nan=False)


def test_one_answer_per_prompt_learns_from_a_moving_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    _, report = trained(tmp_path, num_generations=1)
    assert report["held_out"]["gain"]["low"] > 0 and report["episodes"] == 1280


@pytest.mark.parametrize(("family", "count"), [("llama", 4), ("llama", 1), ("gpt2", 2)])
def test_the_gradient_is_the_plain_formula_answer_by_answer(family: str, count: int, tmp_path: Path) -> None:
    """-1/B sum of (f - b) grad log p, each answer alone, without padding, by the model's own forward."""
    base, judged_by = ready(family)
    moved(base)
    t, path = batch_of(tmp_path, base, judged_by, num_generations=count, kl_coef=0.2, temperature=0.9)
    rows = len(path.score)
    sums, rewards = [], []
    with base.scope("policy"):
        for row in range(rows):
            tokens = path.tokens[row][path.is_real[row]][None]
            n = int(path.is_response[row].sum())
            logits = base.causal(tokens).logits[0, -n - 1 : -1] / 0.9
            logp = logits.log_softmax(-1).gather(-1, tokens[0, -n:, None])[:, 0]
            sums.append(logp.sum())
            rewards.append(float(path.score[row]) - 0.2 * float((logp.detach() - path.logp_ref[row, :n]).sum()))
        total = torch.zeros(())
        for row in range(rows):
            others = [rewards[i] for i in range(row // count * count, (row // count + 1) * count) if i != row]
            average = sum(others) / len(others) if others else 0.3
            total = total - (rewards[row] - average) * sums[row] / rows
        plain = torch.autograd.grad(total, t.weights)
    told = ift.update(t, path, baseline=0.3, step=0)
    norm = math.sqrt(sum(float((g**2).sum()) for g in plain))
    for a, b in zip(plain, t.weights, strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-5 * norm)
    assert norm > 0.1 and abs(told["grad_norm"] / norm - 1) < 1e-3
    assert abs(told["objective/rlhf_reward"] - sum(rewards) / rows) < 1e-4


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_kl_in_the_loss_is_that_of_whole_answers_and_is_not_charged_again(estimator: str, tmp_path: Path) -> None:
    base, head = ready()
    moved(base)
    t, path = batch_of(tmp_path, base, head, kl_coef=0.2, kl_penalty="loss", kl_estimator=estimator)
    path = path._replace(score=torch.ones_like(path.score))  # equal scores: only the KL has a gradient
    told = ift.update(t, path, baseline=0.0, step=0)
    with base.scope("policy"):
        logp = ift.token_logp(ift.response_logits(t, path), ift.response_tokens(path))
        difference = torch.where(path.is_response, logp - path.logp_ref, torch.zeros_like(logp))
        plain = 0.5 * difference**2 if estimator == "k2" else torch.exp(-difference) - 1 + difference
        expected = torch.autograd.grad(0.2 * plain.sum(1).mean(), t.weights)
    norm = math.sqrt(sum(float((g**2).sum()) for g in expected))
    for a, b in zip(expected, t.weights, strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-5 * norm)
    assert norm > 1e-3 and told["objective/rlhf_reward"] == 1.0


def test_the_reward_may_charge_another_estimate(tmp_path: Path) -> None:
    base, head = ready()
    moved(base)
    t, path = batch_of(tmp_path, base, head, kl_coef=0.2, kl_estimator="k2")
    with torch.no_grad(), base.scope("policy"):
        logp = ift.token_logp(ift.response_logits(t, path), ift.response_tokens(path))
    halves = torch.where(path.is_response, 0.5 * (logp - path.logp_ref) ** 2, torch.zeros_like(logp))
    told = ift.update(t, path, baseline=0.0, step=0)
    expected = float((path.score - 0.2 * halves.sum(1)).mean())
    assert told["objective/rlhf_reward"] == pytest.approx(expected, abs=1e-5)


def test_the_reference_is_the_bare_base_whatever_the_policy_has_become(tmp_path: Path) -> None:
    base, judged_by = ready()
    moved(base)
    _, path = batch_of(tmp_path, base, judged_by, temperature=0.9)
    bare = tiny.causal().eval()
    for row in range(len(path.score)):
        tokens, n = path.tokens[row][path.is_real[row]][None], int(path.is_response[row].sum())
        with torch.no_grad():
            logp = (bare(tokens).logits[0, -n - 1 : -1] / 0.9).log_softmax(-1)
        plain = logp.gather(-1, tokens[0, -n:, None])[:, 0]
        torch.testing.assert_close(path.logp_ref[row, :n], plain, rtol=1e-4, atol=1e-5)


def test_any_cut_into_micro_batches_gives_one_gradient_and_keeps_a_prompts_answers_together(tmp_path: Path) -> None:
    found = []
    for tokens in (16, 200, 4096):
        base, judged_by = ready()
        moved(base)
        t, path = batch_of(tmp_path, base, judged_by, tokens_per_microbatch=tokens, kl_coef=0.1)
        parts = ift.groups_of(t, path, 0)
        assert sorted(row for part in parts for row in part) == list(range(24))
        assert all(len({row // 4 for row in part}) * 4 == len(part) for part in parts)
        told = ift.update(t, path, baseline=0.0, step=0)
        found.append([torch.tensor(list(told.values())), *(w.grad.clone() for w in t.weights)])  # type: ignore[union-attr]
    assert len(ift.groups_of(t, path, 0)) == 1
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_prompt_whose_answers_are_paid_alike_moves_nothing(tmp_path: Path) -> None:
    base, judged_by = ready()
    t, path = batch_of(tmp_path, base, judged_by)
    told = ift.update(t, path._replace(score=torch.full_like(path.score, 3.0)), baseline=0.0, step=0)
    assert told["grad_norm"] < 1e-5 and told["objective/scores"] == 3.0


def test_at_step_zero_the_kl_is_zero(tmp_path: Path) -> None:
    _, report = trained(tmp_path, total_episodes=64, kl_coef=0.3)
    first = report["curve"][0]
    assert abs(first["objective/kl"]) < 1e-5
    assert abs(first["objective/rlhf_reward"] - first["objective/scores"]) < 1e-5
    assert 0 < first["objective/entropy"] < math.log(32)


def test_training_the_policy_leaves_base_and_reward_untouched_to_the_bit(tmp_path: Path) -> None:
    base, judged_by = ready()
    before = {n: p.detach().clone() for n, p in base.peft.named_parameters()}  # type: ignore[union-attr]
    ift.train(base, judged_by, rows_of(tmp_path), IFTSettings(**{**QUICK, "total_episodes": 128}), 0, run_of(tmp_path))
    after = dict(base.peft.named_parameters())  # type: ignore[union-attr]
    changed = {n for n, p in before.items() if not torch.equal(p, after[n])}
    assert changed and all(".policy." in name for name in changed)


def test_same_seed_same_weights_whatever_the_global_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, total_episodes=128)
    torch.manual_seed(2)
    two, second = trained(tmp_path, total_episodes=128)
    assert all(torch.equal(a, b) for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True))
    assert first == second
    three, _ = trained(tmp_path, seed=1, total_episodes=128)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("policy"), three.weights("policy"), strict=True))


def test_metrics_and_samples_are_told(tmp_path: Path) -> None:
    trained(tmp_path, total_episodes=192)
    events = tail(tmp_path / "run", 0).events
    names = {name for event in events if event["kind"] == "metrics" for name in event["values"]}
    assert {
        "objective/kl", "objective/scores", "objective/rlhf_reward", "objective/entropy", "loss/policy_avg", "grad_norm",
        "completions/mean_length", "completions/eos_rate",
    } <= names  # fmt: skip
    assert {event["step"] for event in events if event["kind"] == "sample"} == {1, 2, 3}


def no_number(base: SharedBase, member: judge.Member, sequences: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    return torch.full((len(sequences),), math.nan)


def test_drift_collapse_and_nan_stop_the_run_with_cause_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    with pytest.raises(GuardStop, match="kl is .* Raise 'KL coefficient'"):
        trained(tmp_path, kl_stop=1.0)
    with pytest.raises(GuardStop, match="entropy is"):
        trained(tmp_path, entropy_stop=0.9)
    monkeypatch.setattr(judge, "score_sequences", no_number)
    with pytest.raises(NotFinite, match="reward model"):
        trained(tmp_path)


def test_no_prompt_and_a_stop_end_with_a_sentence(tmp_path: Path) -> None:
    base, judged_by = ready()
    held_out = [PromptRow(**{**asdict(row), "split": "test"}) for row in rows_of(tmp_path)]
    with pytest.raises(TooFewRows, match="An IFT job needs .* Add cases"):
        ift.train(base, judged_by, held_out, IFTSettings(**QUICK), 0, run_of(tmp_path))
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        ift.train(base, judged_by, rows_of(tmp_path), IFTSettings(**QUICK), 0, run_of(tmp_path))
