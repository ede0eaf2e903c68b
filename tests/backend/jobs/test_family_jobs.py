"""Jobs on bases of other families, from their folder to a model that is whole, verified and starts the next one."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.registry import artifacts
from backend.training import judge as judges
from backend.training.shared_base import load_base
from tests.backend.jobs.test_jobs import PPO, REWARD, as_it_was, in_this_process, job_folder
from tests.backend.training import tiny

__all__ = ["as_it_was"]  # a fixture

COMMON = {"lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, "threads": 1}
PRETRAIN = {**COMMON, "num_train_epochs": 2, "mlm_probability": 0.3}
SFT = {**COMMON, "num_train_epochs": 3}


def texts() -> list[dict[str, Any]]:
    return [tiny.text_row(i) for i in range(50)]


def answers() -> list[dict[str, Any]]:
    return [tiny.answer_row(i) for i in range(50)]


def test_t5_is_pretrained_then_tuned_and_then_follows_a_reward_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.folder(tmp_path / "base", "t5-tied")
    first = in_this_process(job_folder(tmp_path, base, "pretrain", texts(), PRETRAIN), monkeypatch)
    assert first["kind"] == "done" and first["report"]["objective"] == "span_corruption", first
    second = in_this_process(
        job_folder(tmp_path, base, "sft", answers(), SFT, number=2, start=first["artifact"]), monkeypatch
    )
    assert second["kind"] == "done" and second["report"]["verdict"] == "loss_fell", second
    judge = in_this_process(
        job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD, number=3), monkeypatch
    )
    settings = {**PPO, "total_episodes": 32, "learning_rate": 1e-3}
    prompts = [tiny.prompt_row(i) for i in range(15)]
    more = {"start": second["artifact"], "reward": judge["artifact"]}
    third = in_this_process(job_folder(tmp_path, base, "ift", prompts, settings, number=4, **more), monkeypatch)
    assert third["kind"] == "done", third
    for done, made_from in (
        (second, {"start": first["digest"]}),
        (third, {"start": second["digest"], "reward": judge["digest"]}),
    ):
        manifest = artifacts.verify(tmp_path / "models" / done["artifact"])
        assert manifest.facts["made_from"] == made_from and manifest.facts["kind"] == "policy"
        config = json.loads((tmp_path / "models" / done["artifact"] / "adapter_config.json").read_text())
        assert config["task_type"] == "SEQ_2_SEQ_LM"


@pytest.mark.parametrize(("family", "objective"), [("bert", "masked"), ("xlnet", "permutation")])
def test_what_only_reads_is_pretrained_and_becomes_a_reward_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, objective: str
) -> None:
    base = tiny.folder(tmp_path / "base", family)
    found = [
        in_this_process(job_folder(tmp_path, base, "pretrain", texts(), PRETRAIN, number=number), monkeypatch)
        for number in (1, 2)
    ]
    assert found[0]["kind"] == "done" and found[0]["report"]["objective"] == objective, found[0]
    assert found[0]["digest"] == found[1]["digest"]
    start = found[0]["artifact"]
    judge = in_this_process(
        job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD, number=3, start=start), monkeypatch
    )
    assert judge["kind"] == "done" and judge["report"]["accuracy"]["value"] > 0.9, judge
    manifest = artifacts.verify(tmp_path / "models" / judge["artifact"])
    assert manifest.facts["made_from"] == {"start": found[0]["digest"]}
    loaded = judges.load(load_base(str(base)), tmp_path / "models" / judge["artifact"])
    assert all(float(member.head.gain) > 0 for member in loaded.members)


@pytest.mark.parametrize("kind", ["sft", "ift"])
def test_a_policy_of_a_base_that_cannot_write_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    base = tiny.folder(tmp_path / "base", "bert")
    more: dict[str, Any] = {}
    if kind == "ift":
        judged = job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD, number=2)
        more = {"reward": in_this_process(judged, monkeypatch)["artifact"]}
    rows = answers() if kind == "sft" else [tiny.prompt_row(i) for i in range(15)]
    settings = SFT if kind == "sft" else PPO
    failed = in_this_process(job_folder(tmp_path, base, kind, rows, settings, **more), monkeypatch)
    assert failed["kind"] == "failed"
    assert (
        f"cannot write answers (family encoder), which {kind.upper()} needs. Use it for a reward model"
        in failed["error"]
    )
