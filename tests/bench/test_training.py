"""What both sides of the training measurement are given, and when it refuses to time them."""

import gzip
import json

import pytest

from bench import flops, our_side, training, workload
from tests.backend.training import tiny


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
    monkeypatch.setattr(training, "run", lambda command, order: {"loss": losses[command[1]], "dtype": "float32"})
    monkeypatch.setattr(training, "peer_python", lambda version: tmp_path)
    if is_refused:
        with pytest.raises(training.PeerFailed):
            training.repeats(training.WORK[0], "6M", tmp_path, 1)
    else:
        assert [len(side) for side in training.repeats(training.WORK[0], "6M", tmp_path, 2)] == [2, 2]


def test_ppo_with_a_value_adapter_is_measured_against_the_same_ppo(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        training, "run", lambda command, order: asked.append((command[1], order)) or {"loss": 0.7, "dtype": "float32"}
    )
    monkeypatch.setattr(training, "peer_python", lambda version: tmp_path / version)
    (work,) = [work for work in training.WORK if work.method == "ppo_value"]
    training.repeats(work, "6M", tmp_path, 1)
    assert [order["method"] for _, order in asked] == ["ppo_value", "ppo"]
    (ours, theirs) = ({**order, "method": ""} for _, order in asked)
    assert ours == theirs and training.PEERS["ppo_value"] == training.PEERS["ppo"]


def test_the_precision_of_our_base_can_be_asked_for_and_parity_is_held_to_it(monkeypatch, tmp_path):
    def told(command, order):
        ours = "bench.our_side" in command
        return {"loss": 1.0 if ours else 1.0005, "dtype": order["base_dtype"] or "bfloat16"}

    monkeypatch.setattr(training, "run", told)
    monkeypatch.setattr(training, "peer_python", lambda version: tmp_path / version)
    training.repeats(training.WORK[0], "6M", tmp_path, 1)
    with pytest.raises(training.PeerFailed, match="the loss of the same rows"):
        training.repeats(training.WORK[0], "6M", tmp_path, 1, "float32")
    order = our_side.Order("reward", "default", "6M", str(tmp_path), 8, 8, 1, "float32")
    asked = []
    monkeypatch.setattr(our_side, "load_base", lambda folder, dtype: asked.append(dtype) or tiny.base())
    monkeypatch.setattr(our_side.workload, "rows", lambda folder, amount: [])
    our_side.prepared(order, "reward")
    our_side.prepared(order._replace(base_dtype=""), "reward")
    assert asked == ["float32", "auto"]


def test_useful_operations_are_those_of_the_method_and_a_prompt_counts_once():
    row = {"prompt": [0] * 100, "chosen": [0] * 40, "rejected": [0] * 50}
    longer = {**row, "prompt": [0] * 200}
    weights = 6 * (4 * 256**2 + 3 * 256 * 688)
    pair = flops.per_unit("reward", "6M", [row], 32, 4)
    assert 4 * weights * 190 < pair < 6 * weights * 190  # forward, and backward towards the inputs; LoRA and attention
    assert flops.per_unit("reward", "6M", [longer], 32, 4) < 2 * pair
    assert flops.per_unit("sft", "6M", [row], 32, 4) < pair / 100
    assert flops.per_unit("dpo", "6M", [row], 32, 4) > 1.4 * pair
    assert flops.per_unit("ppo", "6M", [row], 32, 4) > 2 * flops.per_unit("ift", "6M", [row], 32, 4)
    assert flops.per_unit("ift", "6M", [row], 32, 1) > flops.per_unit("ift", "6M", [row], 32, 4)


def test_a_run_is_told_with_every_repeat_and_the_difference_of_the_losses(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"prompt": [1] * 9, "chosen": [1], "rejected": [1]}) + "\n", "utf-8"
    )
    side = {"units": 10, "cpu_seconds": 2.0, "seconds": 4.0, "peak_mb": 7.4, "loss": 1.0, "dtype": "float32"}
    told = training.about(
        training.WORK[0], "6M", tmp_path, {"float32": 1e9}, [side, side], [{**side, "loss": 1.25}, {**side, "units": 5}]
    )
    assert told["ours_per_cpu_second"] == [5.0, 5.0] and told["theirs_per_cpu_second"] == [5.0, 2.5]
    assert told["loss_difference"] == pytest.approx(0.2) and told["ours_peak_mb"] == [7, 7]
    assert told["ours_mfu"] / told["theirs_mfu"] == pytest.approx(5 / 3.75, rel=1e-2)
