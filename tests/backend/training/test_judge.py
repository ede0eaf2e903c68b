"""An ensemble of reward models is whole after a reload or refused, and PPO and IFT are told where its members disagree."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.registry.artifacts import BadArtifact
from backend.training import ift, judge, on_policy, ppo, reward
from backend.training.on_policy import Guard
from backend.training.rollout import Sampled
from backend.training.run import GuardStop, Run
from backend.training.settings import IFTSettings, PPOSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny
from tests.backend.training.test_ppo import QUICK, rows_of, run_of

SEQUENCES = [[2, 9, 3, 6, 1], [2, 8, 10, 3, 7, 1], [2, 9, 3, 12, 13]]
SHORT = {**QUICK, "total_episodes": 64, "batch_size": 32, "eval_cases": 2}


def jury(count: int = 3, **settings: Any) -> tuple[SharedBase, judge.Judge]:
    """Members whose adapters and heads differ, as after a training; scores near mean 0 and deviation 1."""
    base = tiny.base()
    members = []
    for number in range(1, count + 1):
        name = judge.name_of("reward", number)
        base.add(name, Shape(4, 8), seed=0)
        head = reward.new_head(base, 0, number, **settings)
        with torch.no_grad():
            for i, weight in enumerate(base.weights(name)):
                draw = torch.Generator().manual_seed(100 * number + i)
                weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
        head.bias.fill_(0.1 * number)
        head.gain.fill_(float(number))
        members.append(judge.Member(name, head.requires_grad_(False)))
    return base, judge.Judge(tuple(members))


def saved(tmp_path: Path, count: int = 3, **settings: Any) -> tuple[Path, torch.Tensor]:
    base, made = jury(count, **settings)
    folder = tmp_path / "saved"
    folder.mkdir()
    judge.save(base, made, folder)
    return folder, judge.scores(base, made, SEQUENCES, 512)


def test_an_ensemble_scores_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    folder, was = saved(tmp_path, ties=0.2)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "adapter-2.safetensors", "adapter-3.safetensors",
        "head.safetensors", "head-2.safetensors", "head-3.safetensors",
    }  # fmt: skip
    other = tiny.base()
    loaded = judge.load(other, folder, adapter="reloaded")
    assert [member.adapter for member in loaded.members] == ["reloaded", "reloaded-2", "reloaded-3"]
    now = judge.scores(other, loaded, SEQUENCES, 512)
    assert now.shape == (3, 3) and torch.equal(was, now)
    assert len({tuple(row) for row in now.tolist()}) == 3
    theta = [member.head.log_theta for member in loaded.members]
    assert all(value is not None and abs(float(value) - math.log(1.2 / 0.8)) < 1e-6 for value in theta)
    assert not any(weight.requires_grad for member in loaded.members for weight in member.head.parameters())


def test_the_first_member_alone_is_a_plain_adapter_with_a_head(tmp_path: Path) -> None:
    folder, was = saved(tmp_path)
    base = tiny.base()
    base.load("plain", folder)
    head = judge.load_head(base, folder, "head.safetensors")
    assert torch.equal(judge.scores(base, judge.alone(head, "plain"), SEQUENCES, 512)[0], was[0])


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("adapter-2.safetensors", None, "should hold 3 members; missing or not expected: adapter-2.safetensors"),
        ("head-3.safetensors", None, "missing or not expected: head-3.safetensors"),
        ("head-4.safetensors", lambda state: {"weight": torch.ones(1, 32)}, "not expected: head-4.safetensors"),
        ("head-2.safetensors", lambda state: {**state, "weight": state["weight"] * math.nan}, "head-2.* not finite"),
        ("head-2.safetensors", lambda state: {**state, "weight": state["weight"] * 0}, "head-2.* is empty"),
        ("head-2.safetensors", lambda state: {**state, "weight": torch.ones(1, 31)}, "head-2.* does not fit"),
        ("head-2.safetensors", lambda state: {**state, "more": torch.ones(1)}, "head-2.* does not fit"),
        ("adapter-3.safetensors", lambda state: {k: v * math.nan for k, v in state.items()}, "not finite"),
        ("adapter-3.safetensors", lambda state: {k: v * 0 for k, v in state.items()}, "is empty"),
        ("adapter-3.safetensors", lambda state: {k: v[:1] for k, v in state.items()}, "does not fit the base"),
    ],
)
def test_an_ensemble_that_is_not_whole_is_refused(tmp_path: Path, file: str, change: Any, sentence: str) -> None:
    folder, _ = saved(tmp_path)
    if change is None:
        (folder / file).unlink()
    else:
        state = load_file(folder / file) if (folder / file).exists() else {}
        save_file({name: value.contiguous() for name, value in change(state).items()}, folder / file)
    with pytest.raises(BadArtifact, match=sentence):
        judge.load(tiny.base(), folder)


def test_the_number_of_members_must_be_a_number(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    for told in ("0", "many", "-1"):
        save_file(load_file(folder / "head.safetensors"), folder / "head.safetensors", metadata={"members": told})
        with pytest.raises(BadArtifact, match=f"names '{told}' members"):
            judge.load(tiny.base(), folder)


def test_an_adapters_weights_are_not_those_of_one_whose_name_begins_alike() -> None:
    base, _ = jury(2)
    alone = tiny.base()
    alone.add("reward", Shape(4, 8), seed=0)
    assert len(base.weights("reward")) == len(base.weights("reward-2")) == len(alone.weights("reward"))


def answers() -> tuple[list[on_policy.Prompt], list[Sampled]]:
    prompts = [on_policy.Prompt(i, "train", [2, 9, 3], [2, 9, 3]) for i in range(3)]
    return prompts, [Sampled([6, 1], True), Sampled([7, 8], False), Sampled([12, 13, 1], True)]


def test_answers_are_paid_by_mean_least_or_mean_less_deviation() -> None:
    base, made = jury()
    asked, given = answers()
    sequences = [prompt.reward + answer.tokens for prompt, answer in zip(asked, given, strict=True)]
    each = judge.scores(base, made, sequences, 512)
    assert float(each.std(0).min()) > 0.01
    wide = {"reward_clip": 1000.0, "missing_eos_penalty": 0.0}
    expected = {"mean": each.mean(0), "min": each.amin(0), "uwo": each.mean(0) - 0.5 * each.std(0, correction=0)}
    for how, score in expected.items():
        paid = on_policy.score_answers(base, made, asked, given, PPOSettings(ensemble=how, uwo_coef=0.5, **wide))
        torch.testing.assert_close(paid.score, score)
        torch.testing.assert_close(paid.spread, each.std(0, correction=0))
    held = PPOSettings(ensemble="uwo", uwo_coef=100.0, reward_clip=2.0, missing_eos_penalty=1.0)
    assert on_policy.score_answers(base, made, asked, given, held).score.tolist() == [-2.0, -3.0, -2.0]


@pytest.mark.parametrize("method", ["ppo", "ift"])
def test_disagreement_is_a_curve_where_there_are_several_members(tmp_path: Path, method: str) -> None:
    train: Any = {"ppo": ppo.train, "ift": ift.train}[method]
    kind: Any = {"ppo": PPOSettings, "ift": IFTSettings}[method]
    for count in (1, 3):
        base, made = jury(count)
        base.add("policy", Shape(4, 8), seed=0)
        out = train(base, made, rows_of(tmp_path, 10), kind(**{**SHORT, "ensemble": "uwo"}), 0, run_of(tmp_path))
        spreads = [point.get("objective/score_spread") for point in out["curve"]]
        assert spreads == [None, None] if count == 1 else all(spread > 0 for spread in spreads)


def seen(spread: float) -> dict[str, float]:
    return {"objective/kl": 0.1, "objective/entropy": 2.0, "objective/score_spread": spread}


def test_disagreement_above_twice_its_first_is_told_once_and_stops_only_if_asked(tmp_path: Path) -> None:
    guard = Guard(PPOSettings())
    for step, spread in enumerate((0.2, 0.05, 0.39), 1):
        guard.look(seen(spread), step, Run(tmp_path))
    assert not guard.alarms
    for step, spread in enumerate((0.41, 90.0), 4):
        guard.look(seen(spread), step, Run(tmp_path))
    assert guard.alarms == [{"signal": "spread", "value": 0.41, "step": 4}]
    strict = Guard(PPOSettings(spread_stop=3.0), json.loads(json.dumps(guard.state())))
    strict.look(seen(0.59), 6, Run(tmp_path))
    with pytest.raises(GuardStop, match=r"spread is 0\.61\. The reward model was not taught .* label some"):
        strict.look(seen(0.61), 7, Run(tmp_path))
