"""DPO on a model of a few thousand weights: what holds before the first step, and that the judged answers win."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.training import dpo
from backend.training.data import BadRows, ComparisonRow, read_comparisons
from backend.training.run import NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import DPOSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

QUICK: dict[str, Any] = {"lora_r": 8, "lora_alpha": 16, "learning_rate": 1e-2, "num_train_epochs": 2, "batch_size": 8}


def rows_of(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None) -> list[ComparisonRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or [tiny.preference_row(i) for i in range(60)]))
    return read_comparisons(path, with_prompts=True)


def ready(family: str = "llama") -> SharedBase:
    base = tiny.base(family)
    base.add("policy", Shape(QUICK["lora_r"], QUICK["lora_alpha"]), seed=0)
    return base


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


def trained(tmp_path: Path, seed: int = 0, **settings: Any) -> tuple[SharedBase, dict[str, Any]]:
    base = ready()
    report = dpo.train(base, rows_of(tmp_path), DPOSettings(**{**QUICK, **settings}), seed, run_of(tmp_path))
    return base, report


def moved(base: SharedBase) -> None:
    with torch.no_grad():
        for i, weight in enumerate(base.weights("policy")):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_held_out_pairs_are_told_apart_and_the_margin_has_an_interval(tmp_path: Path, loss_type: str) -> None:
    _, report = trained(tmp_path, loss_type=loss_type)
    assert report["accuracy"]["low"] > 0.8 and report["verdict"] == "usable"
    assert report["margin"]["low"] > 0 and report["baselines"]["length"]["n"] == report["n"] == 24
    assert report["train_accuracy"]["n"] == 36 and report["sizes"] == {"train_pairs": 36, "held_out_pairs": 24}
    assert [i for i, point in enumerate(report["curve"]) if "held_out/accuracy" in point] == [4, 9]
    assert json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(("loss_type", "expected"), [("sigmoid", math.log(2)), ("ipo", 25.0)])
def test_before_the_first_step_policy_and_reference_are_one(tmp_path: Path, loss_type: str, expected: float) -> None:
    """Also when training starts from an adapter that has moved: the reference is where training starts."""
    base = ready()
    moved(base)
    settings = DPOSettings(**{**QUICK, "loss_type": loss_type, "tokens_per_microbatch": 64})
    report = dpo.train(base, rows_of(tmp_path), settings, 0, run_of(tmp_path))
    first = report["curve"][0]
    assert abs(first["loss"] - expected) < 1e-4 and abs(first["rewards/margins"]) < 1e-5
    assert report["curve"][-1]["rewards/margins"] > 0.01


def test_turned_judgements_teach_the_opposite(tmp_path: Path) -> None:
    rows = [replace(row, ranks=row.ranks[::-1]) for row in rows_of(tmp_path)]
    base, straight = ready(), rows_of(tmp_path)
    settings = DPOSettings(**QUICK)
    items, _ = dpo.encode(base, straight, settings)
    reference = dpo.log_sums(base, items, settings, run_of(tmp_path))
    dpo.train(base, rows, settings, 0, run_of(tmp_path))
    assert max(dpo.implicit_margins(base, items, reference, settings, run_of(tmp_path))) < 0


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_any_cut_into_micro_batches_gives_one_gradient(tmp_path: Path, loss_type: str) -> None:
    found = []
    for tokens in (16, 80, 4096):
        base = ready()
        settings = DPOSettings(
            **{**QUICK, "tokens_per_microbatch": tokens, "max_grad_norm": 1e6, "loss_type": loss_type}
        )
        batch = [
            i._replace(weight=1 / (2 + n)) for n, i in enumerate(dpo.encode(base, rows_of(tmp_path), settings)[0][:9])
        ]
        reference = dpo.log_sums(base, batch, settings, run_of(tmp_path))
        moved(base)
        weights = base.weights("policy")
        nothing = torch.optim.SGD(weights, lr=0.0)
        told = dpo.update(base, batch, reference, nothing, weights, 0.3, settings, 0, 0, run_of(tmp_path))
        found.append([torch.tensor(list(told.values())), *(w.grad.clone() for w in weights)])  # type: ignore[union-attr]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_a_pair_that_is_only_probable_has_the_expected_loss_of_the_plain_formula(
    tmp_path: Path, loss_type: str
) -> None:
    base, settings = ready(), DPOSettings(**{**QUICK, "loss_type": loss_type})
    rows = [row for row in rows_of(tmp_path) if row.ranks in ([1, 2], [2, 1])][:4]
    shares = [0.9, 0.3, 0.5, 1.0]  # of the answer that stood first
    soft = [replace(row, share=share) for row, share in zip(rows, shares, strict=True)]
    items, counts = dpo.encode(base, soft, settings)
    assert [item.share for item in items] == pytest.approx([0.9, 0.7, 1.0]) and counts["ties"] == 1
    first = [dpo.encode(base, [replace(row, share=1.0)], settings)[0][0].chosen for row in rows]
    assert [item.chosen.answer == one.answer for item, one in zip(items, (first[0], first[1], first[3]), strict=True)] == [
        True, False, True,
    ]  # fmt: skip
    ratios = dpo.Sums(torch.tensor([0.4, -1.5, 2.0]), torch.tensor([-0.3, 0.2, 1.0]))
    found = dpo.pair_losses(ratios, items, settings).tolist()
    for at, item in enumerate(items):
        won, lost = float(ratios.chosen[at]), float(ratios.rejected[at])
        if loss_type == "ipo":
            h = won / len(item.chosen.answer) - lost / len(item.rejected.answer)
            straight, turned = (h - 1 / (2 * settings.beta)) ** 2, (-h - 1 / (2 * settings.beta)) ** 2
        else:
            h = settings.beta * (won - lost)
            straight, turned = math.log1p(math.exp(-h)), math.log1p(math.exp(h))
        assert found[at] == pytest.approx(item.share * straight + (1 - item.share) * turned, rel=1e-5)


def test_a_larger_beta_and_smoothing_keep_the_policy_nearer(tmp_path: Path) -> None:
    def moves(**settings: Any) -> float:
        _, report = trained(tmp_path, **settings)
        return float(report["margin"]["value"]) / settings.get("beta", 0.1)

    free = moves()
    assert moves(beta=5.0) < 0.8 * free
    assert moves(label_smoothing=0.4) < 0.8 * free


def test_ties_both_bad_other_prompts_and_long_answers_are_counted_and_not_trained_on(tmp_path: Path) -> None:
    asked = tiny.preference_row(0)["prompts"][0]
    three = [{"completion": i, "text": f"w{i}", "ended": True} for i in range(3)]
    rows = [
        tiny.preference_row(0), tiny.preference_row(1, ranks=[1, 1]), tiny.preference_row(2, ranks=[1, 1], both_bad=True),
        tiny.preference_row(3, prompts=[asked, asked[1:]]),
        tiny.preference_row(4, answers=three, ranks=[2, 1, 2], prompts=[asked] * 3, weight=0.5),
        tiny.preference_row(5, answers=[three[0], {**three[1], "text": "w1 " * 100}]),
        tiny.preference_row(6, answers=[three[0], {"completion": 9, "text": "", "ended": False}]),
    ]  # fmt: skip
    items, counts = dpo.encode(ready(), rows_of(tmp_path, rows), DPOSettings(max_length=40))
    assert {name: count for name, count in counts.items() if count} == {
        "pairs": 3, "ties": 2, "both_bad_without_winner": 1, "pairs_across_prompts": 1, "pairs_dropped": 2,
        "answers_too_long": 1, "answers_empty": 1,
    }  # fmt: skip
    assert [item.case for item in items] == [0, 4, 4] and [item.weight for item in items] == [1.0, 0.25, 0.25]
    assert items[1].chosen.answer == items[2].chosen.answer and items[1].rejected.answer != items[2].rejected.answer


def test_the_chosen_answer_is_the_one_with_the_better_rank_wherever_it_stood(tmp_path: Path) -> None:
    items, _ = dpo.encode(ready(), rows_of(tmp_path), DPOSettings())
    assert len(items) == 60 and all(6 in i.chosen.answer and 7 in i.rejected.answer for i in items)
    assert all(i.chosen.prefix == i.rejected.prefix and i.chosen.answer[-1] == 1 for i in items)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, num_train_epochs=1)
    torch.manual_seed(2)
    two, second = trained(tmp_path, num_train_epochs=1)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True))
    three, _ = trained(tmp_path, seed=1, num_train_epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("policy"), three.weights("policy"), strict=True))


def test_too_little_nothing_held_out_a_stop_and_nan_end_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TooFewRows, match="needs 99 pairs .* there are 36"):
        trained(tmp_path, min_pairs=99)
    rows = rows_of(tmp_path, [tiny.preference_row(i, split="train") for i in range(24)])
    report = dpo.train(ready(), rows, DPOSettings(**{**QUICK, "num_train_epochs": 1}), 0, run_of(tmp_path))
    assert report["verdict"] == "no_held_out" and report["n"] == 0 and report["accuracy"] is None
    base = ready()
    with torch.no_grad():
        base.weights("policy")[0][0, 0] = math.nan
    with pytest.raises(NotFinite, match="Lower the learning rate"):
        dpo.train(base, rows, DPOSettings(**QUICK), 0, run_of(tmp_path))
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        trained(tmp_path)


def test_a_row_without_a_prompt_for_each_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="a prompt for each answer"):
        rows_of(tmp_path, [tiny.preference_row(0, prompts=[])])
