"""KTO on a model of a few thousand weights: what holds before the first step, and that good and bad answers part."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.training import kto
from backend.training.answers import Written
from backend.training.data import BadRows, UnpairedRow, read_unpaired
from backend.training.run import NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import KTOSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

QUICK: dict[str, Any] = {
    "lora_r": 8,
    "lora_alpha": 16,
    "learning_rate": 1e-2,
    "num_train_epochs": 2,
    "batch_size": 8,
    "beta": 0.3,
    "min_of_each": 2,
}


def rows_of(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None) -> list[UnpairedRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or [tiny.unpaired_row(i) for i in range(80)]))
    return read_unpaired(path)


def ready() -> SharedBase:
    base = tiny.base()
    base.add("policy", Shape(QUICK["lora_r"], QUICK["lora_alpha"]), seed=0)
    return base


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


def said(tmp_path: Path) -> list[str]:
    path = tmp_path / "run" / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event["text"] for event in events if event["kind"] == "message"]


def trained(
    tmp_path: Path, rows: Sequence[UnpairedRow] | None = None, seed: int = 0, **settings: Any
) -> tuple[SharedBase, dict[str, Any]]:
    base = ready()
    some = rows or rows_of(tmp_path)
    return base, kto.train(base, some, KTOSettings(**{**QUICK, **settings}), seed, run_of(tmp_path))


def moved(base: SharedBase) -> None:
    with torch.no_grad():
        for i, weight in enumerate(base.weights("policy")):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


def test_held_out_answers_are_told_apart_and_the_margin_has_an_interval(tmp_path: Path) -> None:
    _, report = trained(tmp_path)
    assert report["accuracy"]["low"] > 0.7 and report["verdict"] == "usable"
    assert report["margin"]["low"] > 0 and report["baselines"]["length"]["n"] == report["n"] == 16
    assert report["sizes"] == {
        "train_desirable": 24, "train_undesirable": 24, "held_out_desirable": 16, "held_out_undesirable": 16,
    }  # fmt: skip
    liked = report["desirable_reward"]
    assert liked["n"] == 16 and liked["low"] < liked["value"] < liked["high"] and liked["value"] > 0
    assert report["train_accuracy"]["n"] == 24 and report["balance"] == 1.0
    assert report["counts"]["winner"] == report["counts"]["loser"] == 40
    assert [i for i, point in enumerate(report["curve"]) if "held_out/accuracy" in point] == [5, 11]
    assert json.dumps(report, allow_nan=False) and said(tmp_path) == []


def test_before_the_first_step_policy_and_reference_are_one(tmp_path: Path) -> None:
    """Also when training starts from an adapter that has moved: the reference is where training starts."""
    base = ready()
    moved(base)
    settings = KTOSettings(**{**QUICK, "tokens_per_microbatch": 64})
    report = kto.train(base, rows_of(tmp_path), settings, 0, run_of(tmp_path))
    first, last = report["curve"][0], report["curve"][-1]
    assert abs(first["loss"] - 0.5) < 1e-5 and abs(first["kl"]) < 1e-4 and abs(first["rewards/margins"]) < 1e-5
    assert last["rewards/margins"] > 0.01 and last["logps/chosen"] < 0 and last["loss"] < 0.5


def test_turned_verdicts_teach_the_opposite(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    base, settings = ready(), KTOSettings(**QUICK)
    items, _ = kto.encode(base, rows, settings)
    before = kto.log_sums(base, kto.texts_of(items), settings, run_of(tmp_path))
    turned = [replace(row, is_desirable=not row.is_desirable) for row in rows]
    kto.train(base, turned, settings, 0, run_of(tmp_path))
    rewards = kto.implicit_rewards(base, items, before, settings, run_of(tmp_path))
    assert kto.separation(items, rewards).value < 0.2


def test_any_cut_into_micro_batches_gives_one_kl_one_loss_and_one_gradient(tmp_path: Path) -> None:
    found = []
    for tokens in (16, 80, 4096):
        base, run = ready(), run_of(tmp_path)
        settings = KTOSettings(**{**QUICK, "tokens_per_microbatch": tokens, "max_grad_norm": 1e6, "batch_size": 100})
        items = [
            item._replace(weight=1 / (2 + n)) for n, item in enumerate(kto.encode(base, rows_of(tmp_path), settings)[0])
        ]
        (batch,) = kto.batches_of(base, items[:11], settings, 0)
        reference = kto.Sums(
            kto.log_sums(base, kto.texts_of(batch.items), settings, run),
            kto.log_sums(base, batch.mismatched, settings, run) - 50,
        )
        moved(base)
        weights = base.weights("policy")
        nothing = torch.optim.SGD(weights, lr=0.0)
        told = kto.update(base, batch, reference, nothing, weights, 0.3, settings, 0, 0, run)
        assert told["kl"] > 0.1
        found.append([torch.tensor(list(told.values())), *(w.grad.clone() for w in weights)])  # type: ignore[union-attr]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_batch_gives_each_prompt_the_answer_before_it_and_leaves_none_alone(tmp_path: Path) -> None:
    base, settings = ready(), KTOSettings(**QUICK)
    items, _ = kto.encode(base, rows_of(tmp_path), settings)
    for count, expected in ((17, [8, 9]), (18, [8, 8, 2]), (8, [8]), (3, [3])):
        batches = kto.batches_of(base, items[:count], settings, 0)
        assert [len(batch.items) for batch in batches] == expected
        assert sorted(item.text for batch in batches for item in batch.items) == sorted(kto.texts_of(items[:count]))
        for batch in batches:
            texts = kto.texts_of(batch.items)
            assert [one.answer for one in batch.mismatched] == [one.answer for one in [texts[-1], *texts[:-1]]]
            assert [one.prefix for one in batch.mismatched] == [one.prefix for one in texts]
    long = [Written([1, 2, 3, 4], [5]), Written([6], [7, 8, 9])]
    assert kto.mismatched(long, 5) == [Written([3, 4], [7, 8, 9]), Written([6], [5])]


def test_weights_say_how_much_an_answer_counts(tmp_path: Path) -> None:
    """An answer's own weight, and TRL's weights by kind, which do the same for all answers of a kind."""
    rows = rows_of(tmp_path)[:32]
    light = [replace(row, weight=1.0 if row.is_desirable else 0.25) for row in rows]

    def gap(some: Sequence[UnpairedRow] = rows, **settings: Any) -> float:
        _, report = trained(tmp_path, some, num_train_epochs=1, **settings)
        last = report["curve"][-1]
        return float(last["rewards/chosen"] + last["rewards/rejected"])

    plain = gap()
    assert gap(desirable_weight=4.0) > plain > gap(undesirable_weight=4.0)
    assert gap(light) > plain + 0.01
    _, report = trained(tmp_path, light, num_train_epochs=1)
    assert report["balance"] == 4.0
    again, _ = trained(tmp_path, [replace(row, weight=0.5) for row in rows], num_train_epochs=1)
    once, _ = trained(tmp_path, rows, num_train_epochs=1)  # a weight that all have changes nothing
    for a, b in zip(again.weights("policy"), once.weights("policy"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_kinds_out_of_balance_are_said_with_the_weights_that_would_do(tmp_path: Path) -> None:
    rows = [row for n, row in enumerate(rows_of(tmp_path)) if row.is_desirable or n % 4 == 1]
    _, report = trained(tmp_path, rows, num_train_epochs=1)
    (text,) = said(tmp_path)
    assert report["balance"] == 2.0
    assert "weigh 2.00 times" in text and "'Weight of desirable answers' between 0.5 and 0.67" in text
    trained(tmp_path, rows, num_train_epochs=1, desirable_weight=0.6)
    assert len(said(tmp_path)) == 1


def test_what_is_left_open_contradicted_empty_or_too_long_is_counted_and_not_trained_on(tmp_path: Path) -> None:
    answer = tiny.unpaired_row(0)["answer"]
    rows = [
        tiny.unpaired_row(0), tiny.unpaired_row(1, is_contradicted=True, weight=1 / 3),
        tiny.unpaired_row(2, desirable=None, weight=0.0, source="undecided"),
        tiny.unpaired_row(3, desirable=None, weight=0.0, source="undecided", is_contradicted=True),
        tiny.unpaired_row(4, answer={**answer, "text": "w1 " * 100}),
        tiny.unpaired_row(5, answer={**answer, "text": "", "ended": False}),
        tiny.unpaired_row(6, case=None, source="demonstration"),
    ]  # fmt: skip
    items, counts = kto.encode(ready(), rows_of(tmp_path, rows), KTOSettings(max_length=40))
    assert {name: count for name, count in counts.items() if count} == {
        "winner": 1, "loser": 1, "demonstration": 1, "contradicted": 2, "undecided": 2, "answers_dropped": 2,
        "answers_too_long": 1, "answers_empty": 1,
    }  # fmt: skip
    assert [(item.is_desirable, item.case) for item in items] == [(True, 0), (False, 0), (True, None)]
    assert [item.weight for item in items] == [1.0, pytest.approx(1 / 3), 1.0]


def test_answers_are_compared_within_their_case_alone() -> None:
    text = Written([1], [2])
    signs = [
        (0, True),
        (0, False),
        (1, True),
        (0, False),
        (2, False),
        (2, True),
        (2, True),
        (None, True),
        (None, False),
    ]
    items = [kto.Item(case, "val", good, 1.0, text) for case, good in signs]
    found = kto.pairs_of(items)
    assert list(zip(*found, strict=True)) == [(0, 1, 0), (0, 3, 0), (5, 4, 2), (6, 4, 2)]
    assert kto.separation(items, [3.0, 1, 0, 4, 1, 1, 2, 0, 9]).value == (1 + 0 + 0.5 + 1) / 4


def test_a_rule_that_length_alone_follows_is_not_called_usable(tmp_path: Path) -> None:
    rows = []
    for case in range(40):
        for n, length in ((2 * case, 6), (2 * case + 1, 2)):
            made = tiny.unpaired_row(n)
            rows.append({**made, "answer": {**made["answer"], "text": tiny.said(n, length=length)}})
    _, report = trained(tmp_path, rows_of(tmp_path, rows))
    assert report["baselines"]["length"]["value"] == 1.0 and report["baselines"]["length"]["rule"] == "longer wins"
    assert report["verdict"] == "near_chance"


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, "usable"), (-0.9, "usable"), (-1.5, "less_likely"), (-9.0, "less_likely")]
)
def test_that_good_answers_became_less_likely_is_said_however_well_they_are_told_apart(
    shift: float, verdict: str
) -> None:
    """Good answers gain 1 less the shift give or take a half, bad ones two less; the interval must lie below 0."""
    training, held_out, rewards = [], [], []
    for case in range(40):
        for is_good in (True, False):
            item = kto.Item(case, "val", is_good, 1.0, Written([1], [2]))
            training.append(item._replace(split="train"))
            held_out.append(item)
            rewards.append((1.0 if is_good else -1.0) + shift + (0.5 if case % 2 else -0.5))
    told = kto.worth(training, held_out, rewards, 0)
    assert told["accuracy"]["value"] == 1.0 and told["verdict"] == verdict
    assert told["desirable_reward"]["value"] == pytest.approx(1.0 + shift)
    turned = kto.worth(training, held_out, [-reward for reward in rewards], 0)
    assert turned["verdict"] == "near_chance"


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
    with pytest.raises(TooFewRows, match="needs 25 desirable .* there are 24 and 24"):
        trained(tmp_path, min_of_each=25)
    few = [row for n, row in enumerate(rows_of(tmp_path)) if row.is_desirable or n < 2]
    with pytest.raises(TooFewRows, match="there are 24 and 1"):
        trained(tmp_path, few)
    rows = rows_of(tmp_path, [tiny.unpaired_row(i, split="train") for i in range(24)])
    _, report = trained(tmp_path, rows, num_train_epochs=1)
    assert report["verdict"] == "no_held_out" and report["n"] == 0 and report["accuracy"] is None
    demonstrated = rows_of(tmp_path, [tiny.unpaired_row(i, split="train", case=None) for i in range(24)])
    _, report = trained(tmp_path, demonstrated, num_train_epochs=1)
    assert report["train_accuracy"]["n"] == 0 and json.dumps(report, allow_nan=False)
    base = ready()
    with torch.no_grad():
        base.weights("policy")[0][0, 0] = math.nan
    with pytest.raises(NotFinite, match="Lower the learning rate"):
        kto.train(base, rows, KTOSettings(**QUICK), 0, run_of(tmp_path))
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        trained(tmp_path)


@pytest.mark.parametrize("change", [{"desirable": "yes"}, {"desirable": 1}, {"weight": 0.0}, {"weight": 2.0}])
def test_a_row_without_a_verdict_or_a_weight_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BadRows, match="Line 1"):
        rows_of(tmp_path, [tiny.unpaired_row(0, **change)])
