"""PPO on a model of a few thousand weights: what must hold before, within and after training."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.jobs.runner import tail
from backend.training import judge, on_policy, ppo, reward, rollout
from backend.training.data import PromptRow, pad_left, read_prompts
from backend.training.maths import token_logp
from backend.training.run import GuardStop, NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import PPOSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

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
PROMPTS = [[2, 9, 10, 3], [2, 7, 3], [2, 12, 13, 14, 15, 3]]


def rows_of(tmp_path: Path, count: int = 40) -> list[PromptRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(tiny.prompt_row(i)) + "\n" for i in range(count)))
    return read_prompts(path)


def ready(family: str = "llama") -> tuple[SharedBase, judge.Judge]:
    """A base with an untouched policy and a reward adapter whose head reads one direction of the last state."""
    base = tiny.base(family)
    base.add("policy", Shape(QUICK["lora_r"], QUICK["lora_alpha"]), seed=0)
    base.add("reward", Shape(4, 8), seed=1)
    with torch.no_grad():
        for i, weight in enumerate(base.weights("reward")):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    head = reward.new_head(base, 0)
    return base, judge.alone(head.requires_grad_(False))


def run_of(tmp_path: Path, name: str = "run") -> Run:
    (tmp_path / name).mkdir(exist_ok=True)
    return Run(tmp_path / name)


def trained(tmp_path: Path, seed: int = 0, **settings: Any) -> tuple[SharedBase, dict[str, Any]]:
    base, judged_by = ready()
    report = ppo.train(base, judged_by, rows_of(tmp_path), PPOSettings(**{**QUICK, **settings}), seed, run_of(tmp_path))
    return base, report


def batch_of(
    tmp_path: Path, base: SharedBase, judged_by: judge.Judge, **settings: Any
) -> tuple[ppo.Training, rollout.Trajectory]:
    t = ppo.prepare(base, judged_by, PPOSettings(**{**QUICK, **settings}), 0, run_of(tmp_path))
    prompts, _ = ppo.encode(base, rows_of(tmp_path, 8), t.settings)
    answers = rollout.sample(base, "policy", [p.policy for p in prompts], 2, 8, 1.0, 0, 0, t.run)
    path, _ = ppo.inspect_answers(t, [p for p in prompts for _ in range(2)], answers)
    return t, path


def made_up(path: rollout.Trajectory, kl_coef: float = 0.0) -> ppo.Batch:
    """Some advantages and returns."""
    return ppo.Batch(path, torch.sign(path.logp_old + 2), path.score[:, None] - path.values, kl_coef)


def copies(t: ppo.Training) -> list[torch.Tensor]:
    return [weight.detach().clone() for group in t.groups for weight in group]


def same(before: Sequence[torch.Tensor], t: ppo.Training) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, copies(t), strict=True))


def moved(base: SharedBase, name: str = "policy") -> None:
    with torch.no_grad():
        for i, weight in enumerate(base.weights(name)):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


def likes_good(base: SharedBase, member: judge.Member, sequences: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """A bandit: one point for every "good" (token 6)."""
    return torch.tensor([float(sequence.count(6)) for sequence in map(list, sequences)])


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


def test_at_step_zero_the_kl_is_zero_and_the_ratio_one(tmp_path: Path) -> None:
    _, report = trained(tmp_path, total_episodes=64, num_ppo_epochs=1, num_mini_batches=1)
    first = report["curve"][0]
    assert first["objective/kl"] == 0.0
    assert (
        abs(first["val/ratio"] - 1) < 1e-5
        and first["policy/clipfrac_avg"] == 0
        and abs(first["policy/approxkl_avg"]) < 1e-6
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_first_ratio_is_one_whatever_the_padding_and_the_micro_batch(family: str, tmp_path: Path) -> None:
    base, judged_by = ready(family)
    moved(base)
    _, path = batch_of(tmp_path, base, judged_by)
    assert (path.logp_old - path.logp_ref)[path.is_response].abs().max() > 0.05
    for row in range(len(path.score)):
        few = path.take([row])
        with torch.no_grad(), base.scope("policy"):
            logits = base.logits(on_policy.response_states(base, few))
        logp = token_logp(logits, on_policy.response_tokens(few))
        ratio = (logp - few.logp_old)[few.is_response].exp()
        assert (ratio - 1).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_probabilities_are_the_plain_models_with_temperature_on_both_sides(family: str, tmp_path: Path) -> None:
    base, judged_by = ready(family)
    moved(base)
    _, path = batch_of(tmp_path, base, judged_by, temperature=0.7)
    few = path.take([3])
    width = few.is_response.shape[1]
    tokens = few.tokens[few.is_real][None]
    reals = int(few.is_response.sum())
    with torch.no_grad():
        plain = tiny.causal(family).eval()(tokens).logits[:, -reals - 1 : -1] / 0.7
    expected = token_logp(plain, tokens[:, -reals:])
    torch.testing.assert_close(few.logp_ref[few.is_response], expected[0], rtol=1e-4, atol=1e-5)
    assert width == reals


def test_the_end_token_is_part_of_the_response_and_is_paid(tmp_path: Path) -> None:
    base, judged_by = ready()
    t, path = batch_of(tmp_path, base, judged_by, missing_eos_penalty=3.0)
    assert path.has_ended.any() and not path.has_ended.all()
    free = t._replace(settings=PPOSettings(**QUICK))
    prompts, _ = ppo.encode(base, rows_of(tmp_path, 8), free.settings)
    answers = rollout.sample(base, "policy", [p.policy for p in prompts], 2, 8, 1.0, 0, 0, t.run)
    unpaid, _ = ppo.inspect_answers(free, [p for p in prompts for _ in range(2)], answers)
    torch.testing.assert_close(unpaid.score - path.score, 3.0 * (~path.has_ended).float())
    for row, answer in enumerate(answers):
        width = path.is_response.shape[1]
        response = path.tokens[row, -width:][path.is_response[row]].tolist()
        assert response == answer.tokens and (response[-1] == base.end_id) is answer.has_ended
        assert base.end_id not in response[:-1]


def test_any_cut_into_micro_batches_gives_one_gradient(tmp_path: Path) -> None:
    found = []
    for tokens in (16, 100, 4096):
        base, judged_by = ready()
        moved(base)
        t, path = batch_of(tmp_path, base, judged_by, tokens_per_microbatch=tokens, max_grad_norm=1e6)
        weights = [weight for group in t.groups for weight in group]
        t = t._replace(optimizer=torch.optim.SGD(weights, lr=0.0))
        ppo.update(t, made_up(path), list(range(len(path.score))), 0, 0)
        found.append([w.grad.clone() for w in weights])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_training_the_policy_leaves_base_and_reward_untouched_to_the_bit(tmp_path: Path) -> None:
    base, judged_by = ready()
    before = {n: p.detach().clone() for n, p in base.peft.named_parameters()}  # type: ignore[union-attr]
    head_before = {n: v.clone() for n, v in judged_by.members[0].head.state_dict().items()}
    ppo.train(base, judged_by, rows_of(tmp_path), PPOSettings(**{**QUICK, "total_episodes": 128}), 0, run_of(tmp_path))
    after = dict(base.peft.named_parameters())  # type: ignore[union-attr]
    changed = {n for n, p in before.items() if not torch.equal(p, after[n])}
    assert changed and all(".policy." in name for name in changed)
    assert all(torch.equal(v, head_before[n]) for n, v in judged_by.members[0].head.state_dict().items())


def test_same_seed_same_weights_whatever_the_global_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, total_episodes=128, num_ppo_epochs=2, num_mini_batches=2)
    torch.manual_seed(2)
    two, second = trained(tmp_path, total_episodes=128, num_ppo_epochs=2, num_mini_batches=2)
    assert all(torch.equal(a, b) for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True))
    assert first == second
    three, _ = trained(tmp_path, seed=1, total_episodes=128)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("policy"), three.weights("policy"), strict=True))


def test_metrics_and_samples_are_told(tmp_path: Path) -> None:
    trained(tmp_path, total_episodes=192)
    events = tail(tmp_path / "run", 0).events
    names = {name for event in events if event["kind"] == "metrics" for name in event["values"]}
    assert {
        "objective/kl", "objective/scores", "objective/rlhf_reward", "objective/entropy", "policy/approxkl_avg",
        "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/ratio", "completions/mean_length",
        "completions/eos_rate",
    } <= names  # fmt: skip
    samples = [event for event in events if event["kind"] == "sample"]
    assert {sample["step"] for sample in samples} == {1, 2, 3} and all("<" not in sample["text"] for sample in samples)


def test_an_adaptive_coefficient_follows_the_kl(tmp_path: Path) -> None:
    _, report = trained(tmp_path, kl_coef=0.05, kl_target=0.1, kl_horizon=100, total_episodes=640)
    coefficients = [point["kl_coef"] for point in report["curve"]]
    assert coefficients[0] == 0.05 and coefficients[1] < 0.05 < max(coefficients)


def test_drift_collapse_and_nan_stop_the_run_with_cause_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    with pytest.raises(GuardStop, match="kl is .* Raise 'KL coefficient'"):
        trained(tmp_path, kl_stop=1.0)
    with pytest.raises(GuardStop, match="entropy is"):
        trained(tmp_path, entropy_stop=0.9)
    monkeypatch.undo()
    base, judged_by = ready()
    judged_by.members[0].head.weight[0, 0] = math.nan
    with pytest.raises(NotFinite, match="reward model"):
        ppo.train(base, judged_by, rows_of(tmp_path), PPOSettings(**QUICK), 0, run_of(tmp_path))


def test_wild_updates_are_skipped_and_three_in_a_row_end_the_run(tmp_path: Path) -> None:
    base, judged_by = ready()
    t, path = batch_of(tmp_path, base, judged_by)
    far = path._replace(logp_old=path.logp_old - 5)
    before = copies(t)
    wild = ppo.update(t, made_up(far), [0, 1, 2], 0, 0)
    assert wild.was_skipped and wild.ratio > 10 and not wild.was_left_out
    assert same(before, t)
    guard = ppo.Guard(t.settings)
    told = {"objective/kl": 0.0, "objective/entropy": 1.0, "policy/approxkl_avg": 0.0, "policy/clipfrac_avg": 0.0}
    guard.look(told, 1, t.run, [wild.ratio, wild.ratio])
    with pytest.raises(GuardStop, match="ratio"):
        guard.look(told, 2, t.run, [wild.ratio])


def test_no_prompt_no_room_and_a_stop_end_with_a_sentence(tmp_path: Path) -> None:
    base, judged_by = ready()
    held_out = [PromptRow(**{**asdict(row), "split": "test"}) for row in rows_of(tmp_path)]
    with pytest.raises(TooFewRows, match="Add cases"):
        ppo.train(base, judged_by, held_out, PPOSettings(**QUICK), 0, run_of(tmp_path))
    with pytest.raises(TooFewRows, match="no room"):
        ppo.train(
            base, judged_by, rows_of(tmp_path), PPOSettings(**{**QUICK, "response_length": 200}), 0, run_of(tmp_path)
        )
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        ppo.train(base, judged_by, rows_of(tmp_path), PPOSettings(**QUICK), 0, run_of(tmp_path))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_cached_loop_samples_what_the_plain_forward_would(family: str, tmp_path: Path) -> None:
    base, _ = ready(family)
    moved(base)
    answers = rollout.sample(base, "policy", PROMPTS, 3, 6, 0.8, 5, 7, run_of(tmp_path))
    uniform = torch.rand(6, 9, generator=rollout.generator(5, 7, "sample"), dtype=torch.float64)
    for place, answer in enumerate(answers):
        written: list[int] = []
        for t in range(6):
            padded = pad_left([PROMPTS[place // 3] + written], 0)
            with torch.no_grad(), base.scope("policy"):
                logits = base.logits(base.states(padded.tokens, padded.is_real)[:, -1:])[:, 0] / 0.8
            written.append(int(rollout.pick(logits, uniform[t, place : place + 1])))
            if written[-1] == base.end_id:
                break
        assert answer.tokens == written and answer.has_ended == (written[-1] == base.end_id)


def test_picked_tokens_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = rollout.pick(logits.expand(20_000, 4), uniform).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, logits.softmax(-1)[0], rtol=0, atol=0.01)
    edge = torch.tensor([[-1e9, 0.0, -1e9]]).expand(2, 3)
    assert rollout.pick(edge, torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)).tolist() == [1, 1]
