"""Each reward model is held against the linear probe that was fitted before it, pair by pair."""

import json
from pathlib import Path

import pytest

from backend.training import probe, report, reward, reward_report
from backend.training.data import read_comparisons
from backend.training.run import Run
from backend.training.settings import RewardSettings
from tests.backend.training import tiny


def said(folder: Path) -> list[str]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event["text"] for event in events if event["kind"] == "message" and "than the probe" in event["text"]]


def test_the_gain_over_the_probe_is_of_the_same_pairs_and_a_mean_over_cases(tmp_path: Path) -> None:
    """Case 1 has three pairs, of which the probe has one right and the model all; in the others they agree."""
    cases, shares = [1, 1, 1, 2, 3, 3], [1.0, 1.0, 0.0, 1.0, 1.0, 0.5]  # the last is a tie, which nobody can get right
    probed = probe.Reached({"value": 0.4}, report.Judged([1.0, -1.0, 1.0, 1.0, -1.0, 5.0], shares, cases))
    ours = report.Judged([1.0, 1.0, -1.0, 1.0, -1.0, -5.0], shares, cases)
    told = reward_report.beside_probe(probed, ours, 0, Run(tmp_path))
    assert told is not None and told["value"] == 0.4
    assert told["gain"]["n"] == 3 and told["gain"]["value"] == pytest.approx(2 / 9, abs=1e-6)
    assert told["gain"]["low"] == 0.0
    assert said(tmp_path)[0].startswith("The reward model is not shown to be more often right than the probe: +22.2% (")
    assert reward_report.beside_probe(None, ours, 0, Run(tmp_path)) is None


def test_a_reward_model_that_beats_the_probe_is_told_to(tmp_path: Path) -> None:
    cases, shares = list(range(20)), [1.0] * 20
    probed = probe.Reached({}, report.Judged([-1.0] * 15 + [1.0] * 5, shares, cases))
    told = reward_report.beside_probe(probed, report.Judged([1.0] * 20, shares, cases), 0, Run(tmp_path))
    assert told is not None and told["gain"]["value"] == 0.75 and told["gain"]["low"] > 0.5
    assert said(tmp_path)[0].startswith("The reward model is more often right than the probe: +75.0% (")


def test_a_training_tells_its_gain_over_the_probe(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny.separable_rows(40)))
    settings = RewardSettings(lora_r=4, lora_alpha=8, num_train_epochs=1)
    trained = reward.train(tiny.base(), read_comparisons(rows), settings, 0, Run(tmp_path))
    gain = trained.report["probe"]["gain"]
    assert gain["n"] == trained.report["sizes"]["held_out_cases"] and len(said(tmp_path)) == 1
    ours, theirs = trained.report["accuracy"]["value"], trained.report["probe"]["value"]
    assert gain["value"] == pytest.approx(ours - theirs, abs=1e-6)  # one pair to a case
