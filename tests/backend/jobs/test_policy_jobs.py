"""Every kind of job from its folder to a policy that is whole, verified and leads back to what it was made from."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.registry import artifacts
from backend.training import settings as settings_of
from backend.training.job import TRAINERS
from tests.backend.jobs.test_jobs import PPO, REWARD, as_it_was, base, in_this_process, job_folder
from tests.backend.training import tiny

__all__ = ["as_it_was", "base"]  # fixtures

COMMON = {"lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, "threads": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {**COMMON, "num_train_epochs": 2},
    "dpo": COMMON,
    "kto": COMMON,
    "ift": PPO,
}


def rows_for(kind: str) -> list[dict[str, Any]]:
    row = {"sft": tiny.answer_row, "dpo": tiny.preference_row, "kto": tiny.unpaired_row, "ift": tiny.prompt_row}[kind]
    return [row(i) for i in range(50)]


@pytest.fixture
def judge(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return in_this_process(
        job_folder(tmp_path, base, "reward", tiny.separable_rows(40), REWARD, number=90), monkeypatch
    )


def test_every_kind_in_the_form_has_a_trainer() -> None:
    assert set(TRAINERS) == {*settings_of.KINDS, "score"}  # the order of the queue is asked for on the Quality page


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "ift"])
def test_a_policy_comes_out_and_the_next_one_starts_from_it(
    tmp_path: Path, base: Path, judge: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    more = {"reward": judge["artifact"]} if kind == "ift" else {}
    found = []
    for number in (1, 2):
        folder = job_folder(tmp_path, base, kind, rows_for(kind), SETTINGS[kind], number=number, **more)
        found.append(in_this_process(folder, monkeypatch))
        assert found[-1]["kind"] == "done", found[-1]
    assert found[0]["digest"] == found[1]["digest"]
    folder = tmp_path / "models" / found[0]["artifact"]
    manifest = artifacts.verify(folder)
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors", "report.json"}
    assert manifest.facts["kind"] == "policy" and manifest.facts["rows_digest"]
    assert manifest.facts["made_from"] == ({"reward": judge["digest"]} if kind == "ift" else {})
    assert json.loads((folder / "report.json").read_text()) == {"kind": kind, **found[0]["report"]}
    assert manifest.facts["settings"] == settings_of.as_dict(settings_of.make(settings_of.KINDS[kind], SETTINGS[kind]))

    start = found[0]["artifact"]
    folder = job_folder(tmp_path, base, kind, rows_for(kind), SETTINGS[kind], number=3, start=start, **more)
    later = in_this_process(folder, monkeypatch)
    assert later["kind"] == "done" and later["digest"] != found[0]["digest"]
    manifest = artifacts.verify(tmp_path / "models" / later["artifact"])
    assert manifest.facts["made_from"]["start"] == found[0]["digest"]
    if kind == "sft":  # it goes on where the first one ended
        assert later["report"]["loss"]["before"] == pytest.approx(found[0]["report"]["loss"]["after"], abs=1e-5)
    if kind == "dpo":  # the reference is the policy it starts from
        assert later["report"]["curve"][0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    if kind == "kto":
        assert later["report"]["curve"][0]["loss"] == pytest.approx(0.5, abs=1e-5)
    if kind == "ift":  # the reference stays the bare base
        assert later["report"]["curve"][0]["objective/kl"] > 1e-3


@pytest.mark.parametrize(
    ("kind", "rows", "sentence"),
    [
        ("ift", "ift", "needs a reward model and names none"),
        ("dpo", "sft", "Line 1 of the job's rows is not usable"),
        ("kto", "sft", "Line 1 of the job's rows is not usable"),
        ("sft", "dpo", "Line 1 of the job's rows is not usable"),
    ],
)
def test_a_job_without_what_it_learns_from_says_so(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows: str, sentence: str
) -> None:
    failed = in_this_process(job_folder(tmp_path, base, kind, rows_for(rows), SETTINGS[kind]), monkeypatch)
    assert failed["kind"] == "failed" and sentence in failed["error"]


def test_a_reward_job_sets_good_answers_against_a_policy_and_names_it_in_its_lineage(
    tmp_path: Path, base: Path, judge: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy writes what the good answers say, so less can be told apart than from the bare base."""
    learnt = {**SETTINGS["sft"], "num_train_epochs": 6}
    folder = job_folder(tmp_path, base, "sft", [tiny.answer_row(i) for i in range(50)], learnt)
    policy = in_this_process(folder, monkeypatch)
    rows = [*tiny.separable_rows(40), *(tiny.good_row(i) for i in range(40))]
    found = []
    for number, name in ((2, None), (3, policy["artifact"])):
        settings = {**REWARD, "adv_coef": 0.5, "response_length": 6}
        more = {"policy": name, "reward": judge["artifact"]}
        found.append(
            in_this_process(job_folder(tmp_path, base, "reward", rows, settings, number=number, **more), monkeypatch)
        )
        assert found[-1]["kind"] == "done", found[-1]
    bare, trained = (one["report"]["adversarial"] for one in found)
    assert bare["separation"]["low"] > 0.5 and bare["separation_before"]["n"] == bare["separation"]["n"]
    alike = [one["counts"]["sampled_like_the_good_one"] for one in (bare, trained)]
    assert alike[0] < 4 and alike[1] > 10
    manifest = artifacts.verify(tmp_path / "models" / found[1]["artifact"])
    assert manifest.facts["made_from"] == {"reward": judge["digest"], "policy": policy["digest"]}
    assert (
        json.loads((tmp_path / "models" / found[1]["artifact"] / "report.json").read_text())["adversarial"] == trained
    )
