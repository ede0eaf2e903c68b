"""The reward model learns what was judged, says what it is worth, and is the same after a reload."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.registry.artifacts import BadArtifact
from backend.training import judge, report, reward
from backend.training.data import ComparisonRow, read_comparisons
from backend.training.run import NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import RewardSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

QUICK = {"lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, "num_train_epochs": 5, "batch_size": 16}


def rows_of(tmp_path: Path, rows: list[dict[str, Any]]) -> list[ComparisonRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_comparisons(path)


def trained(
    tmp_path: Path, rows: list[dict[str, Any]], seed: int = 0, **settings: Any
) -> tuple[SharedBase, reward.Trained]:
    base = tiny.base()
    chosen = RewardSettings(**{**QUICK, **settings})
    return base, reward.train(base, rows_of(tmp_path, rows), chosen, seed, Run(tmp_path))


def head_of(out: reward.Trained) -> judge.Head:
    return out.judge.members[0].head


def test_separable_judgements_are_learnt_and_the_report_says_so(tmp_path: Path) -> None:
    _, out = trained(tmp_path, tiny.separable_rows())
    facts = out.report
    assert facts["log_loss"] < 0.1 and facts["accuracy"]["value"] == 1.0
    assert facts["accuracy"]["low"] > 0.85 and facts["verdict"] == "usable"
    assert facts["accuracy"]["n"] == facts["n"] == 32 == facts["sizes"]["held_out_pairs"]
    assert facts["baselines"]["length"]["value"] < 0.8
    assert [point["epoch"] for point in facts["curve"]] == [1, 2, 3, 4, 5]
    assert json.dumps(facts, allow_nan=False)


def test_held_out_scores_have_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    rows = tiny.separable_rows(40)
    base, out = trained(tmp_path, rows, num_train_epochs=1)
    items, _ = reward.encode(
        base, rows_of(tmp_path, [row for row in rows if row["split"] != "train"]), RewardSettings()
    )
    scores = judge.scores(base, out.judge, [s for item in items for s in item.sequences], 512)
    assert abs(float(scores.mean())) < 1e-4 and abs(float(scores.std()) - 1) < 1e-4


def test_what_length_alone_explains_is_called_near_chance(tmp_path: Path) -> None:
    rows = [tiny.reward_row(i, tiny.said(i, length=7), tiny.said(i + 1, length=2)) for i in range(60)]
    _, out = trained(tmp_path, rows, num_train_epochs=2)
    assert (
        out.report["baselines"]["length"] | {"value": 1.0, "rule": "longer wins"} == out.report["baselines"]["length"]
    )
    assert out.report["verdict"] == "near_chance"


def test_ties_alone_teach_nothing_at_equal_scores(tmp_path: Path) -> None:
    base = tiny.base()
    base.add("reward", Shape(4, 8), seed=0)
    head = reward.new_head(base, 0)
    items, counts = reward.encode(
        base, rows_of(tmp_path, [tiny.reward_row(1, "good", "good", is_tie=True)]), RewardSettings()
    )
    with base.scope("reward"):
        losses, differences = reward.comparison_losses(items, reward.score_items(base, head, items))
        losses.sum().backward()
    assert abs(differences.item()) < 1e-6 and abs(losses.item() - math.log(2)) < 1e-6
    assert head.weight.grad.abs().max() < 1e-5 and counts["ties"] == 1


def test_a_row_of_k_answers_costs_the_mean_over_its_pairs(tmp_path: Path) -> None:
    base = tiny.base()
    answers = [{"completion": i, "text": text, "ended": True} for i, text in enumerate(("good", "bad", "w1"))]
    row = tiny.reward_row(0, "", "", answers=answers, ranks=[1, 3, 2])
    items, _ = reward.encode(base, rows_of(tmp_path, [row]), RewardSettings())
    scores = torch.tensor([2.0, -1.0, 0.5])
    losses, differences = reward.comparison_losses(items, scores)
    assert differences.tolist() == [3.0, 1.5, -1.5]
    plain = sum(math.log(1 + math.exp(-d)) for d in (3.0, 1.5, 1.5)) / 3
    assert abs(losses.item() - plain) < 1e-6


@pytest.mark.parametrize("ties", ["half", "model"])
def test_four_answers_are_one_element_of_the_batch_and_cost_the_plain_double_loop(tmp_path: Path, ties: str) -> None:
    """Its loss and gradient are those of six pairs read one by one, over six: not six elements of the batch."""
    words, ranks, e = ("good", "bad", "w1 w2", "w3"), [1, 3, 2, 2], 0.1
    answers = [{"completion": i, "text": text, "ended": True} for i, text in enumerate(words)]
    row = tiny.reward_row(0, "", "", answers=answers, ranks=ranks, strength=2)
    settings = RewardSettings(lora_r=4, lora_alpha=8, label_smoothing=e, ties=ties, max_grad_norm=1e9,
                              strength_margin=0.3 if ties == "half" else 0.0)  # fmt: skip
    base = tiny.base()
    items, _ = reward.encode(base, rows_of(tmp_path, [row]), settings)
    learner = reward.begin(base, 1, items, settings, 0, None)
    head, sequences = learner.member.head, items[0].sequences
    log_theta = head.log_theta
    total = torch.zeros(())
    with base.scope("reward"):
        score = [head.raw(base.causal.model(torch.tensor([one])).last_hidden_state[0, -1:])[0] for one in sequences]
        for i in range(4):
            for j in range(i + 1, 4):
                d = score[i] - score[j]
                if ranks[i] == ranks[j]:
                    total = total + (tie_of(d, log_theta) if log_theta is not None else (logs(-d) + logs(d)) / 2)
                else:
                    won = d if ranks[i] < ranks[j] else -d
                    margin = 0.6 if log_theta is None else log_theta[0]
                    total = total + (1 - e) * logs(-(won - margin)) + e * logs(-(-won - margin))
        plain = torch.autograd.grad(total / 6, learner.weights)
    still = torch.optim.SGD(learner.weights, lr=0.0)
    told = reward.update(base, [learner], [items], still, settings, 0, 0, Run(tmp_path))
    assert abs(told["loss"] - float(total.detach()) / 6) < 1e-5
    norm = math.sqrt(sum(float((g**2).sum()) for g in plain))
    for mine, by_hand in zip(learner.weights, plain, strict=True):
        torch.testing.assert_close(mine.grad, by_hand, rtol=1e-3, atol=1e-5 * norm)


def logs(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x)"""
    return torch.log1p(torch.exp(x))


def tie_of(d: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """-log((theta^2 - 1) e^d / ((e^d + theta)(1 + theta e^d)))"""
    theta, x = log_theta.exp()[0], d.exp()
    return -torch.log((theta**2 - 1) * x / ((x + theta) * (1 + theta * x)))


def gradient_of(tmp_path: Path, rows: list[ComparisonRow], settings: RewardSettings) -> list[torch.Tensor]:
    """Of all rows as one batch, by the update that the loop makes; the weights stay as they are."""
    base = tiny.base()
    items, _ = reward.encode(base, rows, settings)
    learner = reward.begin(base, 1, items, settings, 0, None)
    still = torch.optim.SGD(learner.weights, lr=0.0)
    reward.update(base, [learner], [items], still, settings, 0, 0, Run(tmp_path))
    return [weight.grad.clone() for weight in learner.weights if weight.grad is not None]


def test_any_cut_into_micro_batches_gives_one_gradient(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, tiny.separable_rows(12))
    for row in rows[::3]:
        object.__setattr__(row, "weight", 0.5)
    found = []
    for tokens in (16, 64, 4096):
        settings = RewardSettings(lora_r=4, lora_alpha=8, tokens_per_microbatch=tokens, max_grad_norm=1e6)
        found.append(gradient_of(tmp_path, rows, settings))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_weight_of_two_is_the_row_twice(tmp_path: Path) -> None:
    rows = tiny.separable_rows(4)
    found = []
    for listed in ([{**rows[0], "weight": 2.0}, rows[1]], [rows[0], rows[0], rows[1]]):
        settings = RewardSettings(lora_r=4, lora_alpha=8, max_grad_norm=1e6)
        found.append(gradient_of(tmp_path, rows_of(tmp_path, listed), settings))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_end_token_changes_the_score(tmp_path: Path) -> None:
    base, out = trained(tmp_path, tiny.separable_rows(), num_train_epochs=1)
    sequence = [2, 9, 3, 6]
    with_end, without = judge.scores(base, out.judge, [[*sequence, 1], sequence], 64)[0].tolist()
    assert abs(with_end - without) > 1e-4


def test_scores_are_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    base, out = trained(tmp_path, tiny.separable_rows(40), num_train_epochs=1)
    folder = tmp_path / "saved"
    folder.mkdir()
    judge.save(base, out.judge, folder)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors",
    }  # fmt: skip
    other = tiny.base()
    loaded = judge.load(other, folder)
    sequences = [[2, 9, 3, 6, 1], [2, 8, 10, 3, 7, 1]]
    assert torch.equal(judge.scores(base, out.judge, sequences, 64), judge.scores(other, loaded, sequences, 64))
    (folder / "head.safetensors").unlink()
    with pytest.raises(BadArtifact, match="not a reward model"):
        judge.load(tiny.base(), folder)


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, tiny.separable_rows(40), num_train_epochs=1)
    torch.manual_seed(2)
    two, second = trained(tmp_path, tiny.separable_rows(40), num_train_epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(one.weights("reward"), two.weights("reward"), strict=True))
    assert torch.equal(head_of(first).weight, head_of(second).weight) and first.report == second.report
    three, _ = trained(tmp_path, tiny.separable_rows(40), seed=1, num_train_epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("reward"), three.weights("reward"), strict=True))


def test_every_held_out_comparison_is_reported_with_its_scores(tmp_path: Path) -> None:
    rows = tiny.separable_rows(60)
    _, out = trained(tmp_path, rows)
    held_out = [row for row in rows if row["split"] != "train"]
    assert [row["case"] for row in out.held_out] == [row["case"] for row in held_out]
    assert [row["completions"] for row in out.held_out] == [
        [a["completion"] for a in row["answers"]] for row in held_out
    ]
    right = [
        (row["scores"][0] > row["scores"][1]) == (is_first["ranks"] == [1, 2])
        for row, is_first in zip(out.held_out, held_out, strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(out.report["accuracy"]["value"])


def test_what_is_dropped_or_cut_is_counted(tmp_path: Path) -> None:
    rows = tiny.separable_rows(40)
    rows[0]["answers"][0]["text"] = tiny.said(1, length=60)
    rows[1]["conversation"][0]["content"] = tiny.said(1, length=60)
    rows[2]["both_bad"], rows[2]["ranks"] = True, [1, 1]
    _, out = trained(tmp_path, rows, max_length=30, num_train_epochs=1)
    assert out.report["counts"] == {
        "answers_too_long": 1, "comparisons_dropped": 1, "cases_cut": 2, "comparisons": 39, "pairs": 38, "ties": 0,
        "both_bad_without_winner": 1,
    }  # fmt: skip


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in tiny.separable_rows(30)]
    _, out = trained(tmp_path, rows, num_train_epochs=1)
    assert out.report["verdict"] == "no_held_out" and out.report["accuracy"] is None and out.report["n"] == 0


def test_ties_are_learnt_from_but_never_right_or_wrong(tmp_path: Path) -> None:
    rows = tiny.separable_rows(60)
    for row in rows:
        if row["case"] % 3 == 0:
            row["ranks"] = [1, 1]
    _, out = trained(tmp_path, rows, num_train_epochs=12)
    assert out.report["accuracy"]["value"] > 0.9
    assert out.report["n"] == 16 and out.report["sizes"]["held_out_ties"] == 8 and out.report["counts"]["ties"] == 20
    only_ties = [{**row, "ranks": [1, 1]} if row["split"] != "train" else row for row in rows]
    _, out = trained(tmp_path, only_ties, num_train_epochs=1)
    assert out.report["accuracy"] is None and out.report["verdict"] == "no_held_out"
    assert json.dumps(out.report, allow_nan=False)


def test_too_few_rows_a_wild_rate_and_a_stop_end_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TooFewRows, match="there are 10"):
        trained(tmp_path, tiny.separable_rows(10))
    base = tiny.base()
    base.causal.get_input_embeddings().weight.data[6] = float("nan")
    with pytest.raises(NotFinite, match="Lower the learning rate"):
        reward.train(base, rows_of(tmp_path, tiny.separable_rows(30)), RewardSettings(**QUICK), 0, Run(tmp_path))
    (tmp_path / "stop").touch()
    with pytest.raises(Stopped):
        trained(tmp_path, tiny.separable_rows(30))


def test_wilsons_interval_and_the_design_effect() -> None:
    low, high = report.wilson(0.5, 100)
    assert abs(low - 0.4038) < 1e-4 and abs(high - 0.5962) < 1e-4
    hits = [1.0] * 60 + [0.0] * 40
    alone = report.share(hits, list(range(100)))
    grouped = report.share(hits, [i // 10 for i in range(100)])
    assert alone.value == grouped.value == 0.6 and grouped.low < alone.low < alone.high < grouped.high
    assert report.share([1.0] * 20, [i // 10 for i in range(20)]).low < report.share([1.0] * 20, list(range(20))).low


def test_the_sign_of_a_baseline_comes_from_training_pairs() -> None:
    train, held_out = ([1.0, 2.0, 3.0], [0.0, 0.0, 1.0]), ([1.0, -1.0, 0.0], [0.0, 1.0, 1.0])
    found = report.fitted_baseline(train, held_out, [1, 2, 3], ("longer wins", "shorter wins"))
    assert found["rule"] == "shorter wins" and abs(found["value"] - 2.5 / 3) < 1e-6


def test_calibration_compares_confidence_with_wins() -> None:
    bins = report.calibration([0.0, 3.0, -3.0, 3.0], [0.5, 1.0, 0.0, 0.0])
    assert [row["n"] for row in bins] == [1, 3] and abs(bins[1]["observed"] - 2 / 3) < 1e-6
    assert report.calibration_error(bins) > 0


def test_the_bootstrap_interval_holds_the_mean_gain() -> None:
    before = torch.randn(60, generator=torch.Generator().manual_seed(0)).tolist()
    found = report.paired_gain(before, [b + 0.5 for b in before], seed=0)
    assert abs(found.value - 0.5) < 1e-6 and abs(found.low - 0.5) < 1e-6
    noise = torch.randn(60, generator=torch.Generator().manual_seed(1)).tolist()
    none = report.paired_gain(before, [b + n for b, n in zip(before, noise, strict=True)], seed=0)
    assert none.low < none.value < none.high and none == report.paired_gain(
        before, [b + n for b, n in zip(before, noise, strict=True)], seed=0
    )


# ---- ties


def with_ties(count: int = 80) -> list[dict[str, Any]]:
    """Every third case shows two good answers, which are a tie."""
    rows = tiny.separable_rows(count)
    for row in rows[::3]:
        row["answers"] = [{**a, "text": a["text"].replace("bad", "good")} for a in row["answers"]]
        row["ranks"] = [1, 1]
    return rows


def test_dropped_ties_leave_the_loss_and_are_counted(tmp_path: Path) -> None:
    rows = with_ties()
    decided = [row for row in rows if row["ranks"] != [1, 1]]
    dropping, out = trained(tmp_path, rows, ties="drop", num_train_epochs=1)
    without, bare = trained(tmp_path, decided, num_train_epochs=1)
    assert out.report["counts"]["ties"] == out.report["counts"]["ties_dropped"] == 27
    assert out.report["sizes"] == bare.report["sizes"] and out.report["sizes"]["held_out_ties"] == 0
    assert all(torch.equal(a, b) for a, b in zip(dropping.weights("reward"), without.weights("reward"), strict=True))


def test_the_ties_model_learns_theta_and_tells_ties_from_wins(tmp_path: Path) -> None:
    _, out = trained(tmp_path, with_ties(), ties="model", num_train_epochs=14)
    found, theta = out.report["ties"], head_of(out).log_theta
    assert theta is not None and found["theta"] == pytest.approx(math.exp(float(theta.detach())), abs=1e-5)
    assert found["n"] == 32 and found["observed"] == pytest.approx(11 / 32, abs=1e-6)
    assert abs(found["expected"] - found["observed"]) < 0.1
    guessing = -(11 * math.log(11 / 32) + 21 * math.log(21 / 64)) / 32
    assert found["log_loss"] < 0.5 * guessing
    assert out.report["accuracy"]["value"] > 0.9


def test_the_ties_model_begins_with_as_many_ties_at_equal_scores_as_were_judged() -> None:
    for share in (0.0, 0.3, 1.0):
        log_theta = reward.new_head(tiny.base(), 0, ties=share).log_theta
        assert log_theta is not None
        theta = math.exp(float(log_theta.detach()))
        assert (theta - 1) / (theta + 1) == pytest.approx(min(max(share, 0.01), 0.99), abs=1e-5)
    assert reward.new_head(tiny.base(), 0).log_theta is None


# ---- ensembles


def test_the_first_member_is_the_model_of_a_job_without_an_ensemble_to_the_bit(tmp_path: Path) -> None:
    rows = tiny.separable_rows(40)
    alone, one = trained(tmp_path, rows, num_train_epochs=2)
    together, three = trained(tmp_path, rows, num_train_epochs=2, num_members=3)
    assert all(torch.equal(a, b) for a, b in zip(alone.weights("reward"), together.weights("reward"), strict=True))
    assert all(torch.equal(v, head_of(three).state_dict()[k]) for k, v in head_of(one).state_dict().items())
    assert "members" not in one.report and [m.adapter for m in three.judge.members] == [
        "reward",
        "reward-2",
        "reward-3",
    ]
    assert three.report["members"][0]["accuracy"] == one.report["accuracy"]
    assert three.report["members"][0]["log_loss"] == one.report["log_loss"]


def test_the_report_of_an_ensemble_is_of_its_members_mean(tmp_path: Path) -> None:
    rows = tiny.separable_rows(40)
    base, out = trained(tmp_path, rows, num_train_epochs=1, num_members=3)
    assert len(out.report["members"]) == 3 and len({m["log_loss"] for m in out.report["members"]}) == 3
    kept = rows_of(tmp_path, [row for row in rows if row["split"] != "train"])
    items, _ = reward.encode(base, kept, RewardSettings())
    each = judge.scores(base, out.judge, [s for item in items for s in item.sequences], 512)
    assert float(each.mean(1).abs().max()) < 1e-4 and float((each.std(1) - 1).abs().max()) < 1e-4
    apart = each.std(0, correction=0)
    assert out.report["spread"]["value"] == pytest.approx(float(apart.mean()), abs=1e-4)
    assert out.report["spread"]["n"] == len(apart) == 32 and float(apart.mean()) > 0
    told = torch.tensor([row["scores"] for row in out.held_out]).flatten()
    unit = sum(float(member.head.gain) for member in out.judge.members) / 3
    torch.testing.assert_close(told * unit, each.mean(0), rtol=1e-4, atol=1e-4)
    differences = told.view(-1, 2)[:, 0] - told.view(-1, 2)[:, 1]
    first_won = torch.tensor([row.ranks == [1, 2] for row in kept])
    assert out.report["accuracy"]["value"] == pytest.approx(float(((differences > 0) == first_won).float().mean()))


def test_a_later_member_learns_from_a_bootstrap_of_the_cases_in_an_order_of_its_own(tmp_path: Path) -> None:
    rows = [row for case in range(40) for row in (tiny.reward_row(case, "good", "bad"),) * 2]
    items, _ = reward.encode(tiny.base(), rows_of(tmp_path, rows), RewardSettings())
    assert reward.resampled(items, 0, 1) == items
    for number in (2, 3):
        drawn = [item.row.case for item in reward.resampled(items, 0, number)]
        assert len(drawn) == 80 and 15 < len(set(drawn)) < 36  # of 40 cases 63 % are expected
        assert drawn[::2] == drawn[1::2]  # both comparisons of a case come together
        assert drawn == [item.row.case for item in reward.resampled(items, 0, number)]
    others = [[item.row.case for item in reward.resampled(items, seed, n)] for seed, n in ((0, 2), (0, 3), (1, 2))]
    assert others[0] != others[1] and others[0] != others[2]
    base = tiny.base()
    two, three = (reward.begin(base, number, items, RewardSettings(), 0, None) for number in (2, 3))
    assert not torch.equal(two.member.head.weight, three.member.head.weight)
    orders = [reward.batch_of(one._replace(items=items), 0, 80, 0) for one in (two, three)]
    assert orders[0] != orders[1]


def test_the_gradient_norm_is_clipped_for_each_member_by_itself(tmp_path: Path) -> None:
    base, rows = tiny.base(), rows_of(tmp_path, tiny.separable_rows(8))
    settings = RewardSettings(lora_r=4, lora_alpha=8, num_members=2, max_grad_norm=0.01)
    items, _ = reward.encode(base, rows, settings)
    learners = [reward.begin(base, number, items, settings, 0, None) for number in (1, 2)]
    still = torch.optim.SGD([w for one in learners for w in one.weights], lr=0.0)
    reward.update(base, learners, [items, items], still, settings, 0, 0, Run(tmp_path))
    for learner in learners:
        norm = math.sqrt(sum(float((w.grad**2).sum()) for w in learner.weights if w.grad is not None))
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_an_ensemble_goes_on_from_the_members_of_its_start_or_from_its_first(tmp_path: Path) -> None:
    base, out = trained(tmp_path, tiny.separable_rows(40), num_train_epochs=1, num_members=2)
    folder = tmp_path / "saved"
    folder.mkdir()
    judge.save(base, out.judge, folder)
    other = tiny.base()
    items, _ = reward.encode(other, rows_of(tmp_path, tiny.separable_rows(4)), RewardSettings())
    for number in (1, 2, 3):
        reward.begin(other, number, items, RewardSettings(), 0, folder)
    for mine, theirs in (("reward", "reward"), ("reward-2", "reward-2"), ("reward-3", "reward")):
        assert all(torch.equal(a, b) for a, b in zip(other.weights(mine), base.weights(theirs), strict=True))
