"""SFT on a model of a few thousand weights: which tokens it learns, and that it learns them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from backend.training import sft
from backend.training.answers import Written, answer_logp
from backend.training.data import AnswerRow, BadRows, read_answers
from backend.training.run import NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import SFTSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

QUICK: dict[str, Any] = {"lora_r": 8, "lora_alpha": 16, "learning_rate": 1e-2, "num_train_epochs": 4, "batch_size": 8}


def rows_of(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None) -> list[AnswerRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or [tiny.answer_row(i) for i in range(50)]))
    return read_answers(path)


def ready(family: str = "llama") -> SharedBase:
    base = tiny.base(family)
    base.add("policy", Shape(QUICK["lora_r"], QUICK["lora_alpha"]), seed=0)
    return base


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


def trained(tmp_path: Path, seed: int = 0, **settings: Any) -> tuple[SharedBase, dict[str, Any]]:
    base = ready()
    report = sft.train(base, rows_of(tmp_path), SFTSettings(**{**QUICK, **settings}), seed, run_of(tmp_path))
    return base, report


def test_the_held_out_loss_falls_and_the_interval_says_so(tmp_path: Path) -> None:
    _, report = trained(tmp_path)
    assert report["verdict"] == "loss_fell" and report["loss"]["fall"]["low"] > 1
    assert report["loss"]["before"] > 2 and report["loss"]["after"] < 0.5
    sizes = report["sizes"]
    assert sum(sizes.values()) == report["counts"]["winner"] == 50 - report["counts"]["repeats"]
    assert report["n"] == sizes["held_out_answers"] == report["loss"]["n"]
    steps = math.ceil(sizes["train_answers"] / 8)
    assert report["steps"] == 4 * steps
    looks = [i + 1 for i, point in enumerate(report["curve"]) if "held_out/loss" in point]
    assert looks == [steps, 2 * steps, 3 * steps, 4 * steps]
    assert json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_the_plain_models_on_answer_tokens_whatever_stands_beside_them(family: str) -> None:
    base = ready(family)
    some = [Written([2, 9, 10, 3], [6, 8, 1]), Written([2, 7, 3], [7, 1]), Written([2, 12, 13, 14, 3], [11])]
    with torch.no_grad(), base.scope("policy"):
        found = answer_logp(base, some)
    for row, one in enumerate(some):
        tokens = torch.tensor([one.prefix + one.answer])
        with torch.no_grad():
            logits = tiny.causal(family).eval()(tokens).logits[0, len(one.prefix) - 1 : -1]
        plain = -cross_entropy(logits, torch.tensor(one.answer), reduction="none")
        torch.testing.assert_close(found.logp[row][found.is_answer[row]], plain, rtol=1e-4, atol=1e-5)
        assert int(found.is_answer[row].sum()) == len(one.answer)


def test_prompt_tokens_are_read_and_never_predicted(tmp_path: Path) -> None:
    """The gradient of the loss by the logits stands at the answers' positions alone."""
    base = ready()
    seen: list[torch.Tensor] = []
    plain = base.logits

    def spied(states: torch.Tensor) -> torch.Tensor:
        seen.append(plain(states))
        if seen[-1].requires_grad:
            seen[-1].retain_grad()
        return seen[-1]

    base.logits = spied  # type: ignore[method-assign]
    some = [Written([2, 9, 10, 9, 3], [6, 8, 1]), Written([2, 7, 3], [1])]
    weights = base.weights("policy")
    sft.update(base, some, torch.optim.SGD(weights, lr=0.0), weights, SFTSettings(), 0, 0, run_of(tmp_path))
    moved = seen[0].grad.abs().sum(-1) > 0  # type: ignore[union-attr]
    assert moved.shape == (4,) and bool(moved.all())
    other = [Written([2, 11, 3], one.answer) for one in some]
    with torch.no_grad(), base.scope("policy"):
        assert not torch.allclose(answer_logp(base, other).logp, answer_logp(base, some).logp)


def test_any_cut_into_micro_batches_gives_one_gradient(tmp_path: Path) -> None:
    found = []
    for tokens in (16, 40, 4096):
        base = ready()
        items, _ = sft.encode(base, rows_of(tmp_path), SFTSettings(**QUICK))
        weights = base.weights("policy")
        settings = SFTSettings(**{**QUICK, "tokens_per_microbatch": tokens, "max_grad_norm": 1e6})
        batch = [item.text for item in items[:9]] + [Written([2, 7, 3], [9, 9, 9, 9, 1])]
        told = sft.update(base, batch, torch.optim.SGD(weights, lr=0.0), weights, settings, 0, 0, run_of(tmp_path))
        found.append([torch.tensor([told["loss"]]), *(w.grad.clone() for w in weights)])  # type: ignore[union-attr]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_base_stays_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, num_train_epochs=1)
    torch.manual_seed(2)
    two, second = trained(tmp_path, num_train_epochs=1)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True))
    three, _ = trained(tmp_path, seed=1, num_train_epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("policy"), three.weights("policy"), strict=True))
    fresh = dict(ready().peft.named_parameters())  # type: ignore[union-attr]
    changed = {n for n, p in one.peft.named_parameters() if not torch.equal(p, fresh[n])}  # type: ignore[union-attr]
    assert changed and all(".policy." in name for name in changed)


def test_nothing_is_cut_dropped_or_repeated_without_a_count(tmp_path: Path) -> None:
    def answer(text: str, ended: bool = True) -> dict[str, Any]:
        return {"answer": {"completion": 1, "text": text, "ended": ended}}

    long = [{"role": "user", "content": " ".join(["w1"] * 60)}]
    rows = [
        tiny.answer_row(0), tiny.answer_row(0), tiny.answer_row(1, source="edited"),
        {**tiny.answer_row(2, source="demonstration"), "case": None}, tiny.answer_row(3, **answer("", False)),
        tiny.answer_row(4, **answer("w2 " * 200)), tiny.answer_row(5, messages=long), tiny.answer_row(6, **answer("w3", False)),
    ]  # fmt: skip
    items, counts = sft.encode(ready(), rows_of(tmp_path, rows), SFTSettings(max_length=32))
    assert dict(counts) == {
        "winner": 3, "repeats": 1, "edited": 1, "demonstration": 1, "answers_empty": 1, "answers_dropped": 2,
        "answers_too_long": 1, "cases_cut": 1,
    }  # fmt: skip
    assert [item.text.answer[-1] == 1 for item in items] == [True, True, True, True, False]
    assert len(items[3].text.prefix) == 32 - 3


def test_too_little_nothing_held_out_a_stop_and_nan_end_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TooFewRows, match="needs 99 answers .* there are 27"):
        trained(tmp_path, min_answers=99)
    rows = rows_of(tmp_path, [tiny.answer_row(i, split="train") for i in range(20)])
    report = sft.train(ready(), rows, SFTSettings(**{**QUICK, "num_train_epochs": 1}), 0, run_of(tmp_path))
    assert report["verdict"] == "no_held_out_answers" and report["n"] == 0
    base = ready()
    with torch.no_grad():
        base.weights("policy")[0][0, 0] = math.nan
    with pytest.raises(NotFinite, match="Lower the learning rate"):
        sft.train(base, rows, SFTSettings(**QUICK), 0, run_of(tmp_path))
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        trained(tmp_path)


def test_a_row_without_its_answer_is_refused_by_its_line(tmp_path: Path) -> None:
    row = tiny.answer_row(0)
    del row["answer"]
    with pytest.raises(BadRows, match="Line 2 .*'answer'"):
        rows_of(tmp_path, [tiny.answer_row(1), row])
