"""What both sides of the training measurement are given, and when it refuses to time them."""

import gzip
import json

import pytest

from bench import training, workload


def test_only_pairs_that_differ_in_the_last_answer_are_taken(tmp_path):
    asked = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    rows = [
        {"chosen": f"{asked} yes", "rejected": f"{asked} no \n"},
        {"chosen": f"{asked} yes", "rejected": "\n\nHuman: other\n\nAssistant: no"},
        {"chosen": f"{asked} yes", "rejected": f"{asked} yes"},
    ]
    with gzip.open(tmp_path / "pairs.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    assert list(workload.read_pairs(tmp_path / "pairs.gz")) == [workload.Pair(asked, " yes", " no")]


def test_both_sides_read_the_same_ids(tmp_path):
    pairs = list(workload.made_pairs(40))
    tokenizer = workload.trained_tokenizer(pairs)
    rows = list(workload.encoded(pairs, tokenizer))
    assert 20 <= len(rows) <= 40
    for row in rows:
        prompt, chosen, _ = row["texts"]
        assert tokenizer(prompt + chosen)["input_ids"] + [tokenizer.eos_token_id] == row["prompt"] + row["chosen"]


@pytest.mark.parametrize(("theirs", "is_refused"), [(0.7, False), (0.70001, False), (0.71, True), (float("nan"), True)])
def test_sides_that_do_not_compute_the_same_are_not_timed(monkeypatch, tmp_path, theirs, is_refused):
    losses = {"-m": 0.7, "bench/peers/trl_side.py": theirs}
    monkeypatch.setattr(training, "run", lambda command, order: {"loss": losses[command[1]]})
    monkeypatch.setattr(training, "peer_python", lambda version: tmp_path)
    if is_refused:
        with pytest.raises(training.PeerFailed):
            training.repeats(training.WORK[0], "6M", tmp_path, 1)
    else:
        assert [len(side) for side in training.repeats(training.WORK[0], "6M", tmp_path, 2)] == [2, 2]


def test_ppo_with_a_value_adapter_is_measured_against_the_same_ppo(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(training, "run", lambda command, order: asked.append((command[1], order)) or {"loss": 0.7})
    monkeypatch.setattr(training, "peer_python", lambda version: tmp_path / version)
    (work,) = [work for work in training.WORK if work.method == "ppo_value"]
    training.repeats(work, "6M", tmp_path, 1)
    assert [order["method"] for _, order in asked] == ["ppo_value", "ppo"]
    (ours, theirs) = ({**order, "method": ""} for _, order in asked)
    assert ours == theirs and training.PEERS["ppo_value"] == training.PEERS["ppo"]
