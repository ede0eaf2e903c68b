"""Good answers against the policy's own: told apart where they differ, silent where they do not, the same after a kill."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.training import adversarial, judge, reward
from backend.training.adversarial import Against, Opposed
from backend.training.data import AnswerRow, ComparisonRow, read_comparisons, read_good_answers
from backend.training.rollout import Sampled
from backend.training.run import Run, TooFewRows
from backend.training.settings import RewardSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

QUICK = RewardSettings(
    lora_r=4, lora_alpha=8, learning_rate=1e-2, num_train_epochs=2, batch_size=16, adv_coef=1.0, response_length=6
)


def rows_of(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[list[ComparisonRow], list[AnswerRow]]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_comparisons(path, with_good=True), read_good_answers(path)


def given(tmp_path: Path) -> tuple[list[ComparisonRow], list[AnswerRow]]:
    return rows_of(tmp_path, [*tiny.separable_rows(40), *(tiny.good_row(i) for i in range(40))])


def a_head(base: SharedBase) -> judge.Head:
    base.add("reward", Shape(4, 8), seed=0)
    return reward.new_head(base, 0)


def learner_of(head: judge.Head, number: int = 1) -> reward.Learner:
    return reward.Learner(number, judge.Member("reward", head), [], [], 1.0)


def test_comparisons_and_good_answers_are_read_apart(tmp_path: Path) -> None:
    comparisons, good = given(tmp_path)
    assert (len(comparisons), len(good)) == (40, 40) and good[3].answer.text == "good please"
    assert good[3].conversation == good[3].messages[1:] and good[3].source == "winner"


def test_good_answers_are_told_from_the_policys_own_and_judgements_are_still_learnt(tmp_path: Path) -> None:
    comparisons, good = given(tmp_path)
    base, run = tiny.base(), Run(tmp_path)
    settings = replace(QUICK, num_train_epochs=5)
    against = adversarial.oppose(base, None, good, settings, 0, run)
    assert {one.split for one in against.pairs} == {"train", "val", "test"} and against.counts["sampled_answers"] == 40
    push = adversarial.pusher(base, against.pairs, settings, 0, run)
    out = reward.train(base, comparisons, settings, 0, run, push=push)
    told = adversarial.told(base, out.judge, None, against, QUICK)
    assert told["separation"]["low"] > 0.5 and told["separation"]["n"] == sum(o.split != "train" for o in against.pairs)
    assert told["separation_before"] is None and told["train_separation"]["value"] > 0.95
    assert out.report["accuracy"]["value"] > 0.9

    judge.save(base, out.judge, tmp_path)
    again = tiny.base()
    plain = reward.train(again, comparisons, replace(QUICK, adv_coef=0.0, learning_rate=0.0), 0, run)
    told = adversarial.told(again, plain.judge, tmp_path, against, QUICK)
    assert told["separation_before"]["value"] > told["separation"]["value"]  # the one before knew it, this one does not


def test_each_step_takes_its_share_so_that_an_epoch_sees_every_pair_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [Opposed(i, "train" if i < 9 else "val", [[1], [2]]) for i in range(12)]
    seen: list[Any] = []
    monkeypatch.setattr(
        adversarial, "pull_apart", lambda base, head, batch, *rest: seen.append([o.case for o in batch])
    )
    push = adversarial.pusher(tiny.base(), pairs, QUICK, 0, Run(tmp_path))
    for step in range(3):
        push(learner_of(judge.Head(4)), step, 3)
    assert sorted(case for some in seen for case in some) == list(range(9)) and [len(some) for some in seen] == [3] * 3


def stepped(tmp_path: Path, numbers: tuple[int, ...], is_pushed: bool) -> tuple[dict[str, float], list[list[Any]]]:
    """One reward step of these members on equal batches: its statistics, and each member's gradients, head last."""
    base, run = tiny.base(), Run(tmp_path)
    comparisons, good = given(tmp_path)
    push = adversarial.pusher(base, adversarial.oppose(base, None, good, QUICK, 0, run).pairs, QUICK, 0, run)
    items = reward.encode(base, comparisons, QUICK)[0]
    learners = [reward.begin(base, number, items, QUICK, 0, None) for number in numbers]
    still = torch.optim.SGD([weight for one in learners for weight in one.weights], lr=0.0)
    pushes = (lambda learner: push(learner, 0, 3)) if is_pushed else None
    told = reward.update(base, learners, [items[:4]] * len(learners), still, QUICK, 0, 0, run, pushes)
    return told, [[weight.grad for weight in one.weights if weight.grad is not None] for one in learners]


def test_every_member_of_an_ensemble_is_pushed_under_its_own_adapter_by_its_own_head(tmp_path: Path) -> None:
    """So the gradients of two members are those that each has when it learns alone."""
    told, pushed = stepped(tmp_path, (1, 2), True)
    free, plain = stepped(tmp_path, (1, 2), False)
    assert told["loss"] == free["loss"] and set(told) - set(free) == {"adversarial/loss", "adversarial/accuracy"}
    losses = []
    for number, mine, without in zip((1, 2), pushed, plain, strict=True):
        alone, (same,) = stepped(tmp_path, (number,), True)
        assert all(torch.equal(a, b) for a, b in zip(mine, same, strict=True))
        assert not torch.equal(mine[-1], without[-1]) and not torch.equal(mine[1], without[1])  # the first: lora_A, 0
        losses.append(alone["adversarial/loss"])
    assert losses[0] != losses[1] and abs(told["adversarial/loss"] - sum(losses) / 2) < 1e-6


def test_members_meet_the_pairs_in_orders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Opposed(i, "train", [[1], [2]]) for i in range(9)]
    seen: list[list[Any]] = []
    monkeypatch.setattr(
        adversarial, "pull_apart", lambda base, head, batch, *rest: seen.append([o.case for o in batch])
    )
    push = adversarial.pusher(tiny.base(), pairs, QUICK, 0, Run(tmp_path))
    for number in (1, 2):
        push(learner_of(judge.Head(4), number), 0, 1)
    assert seen[0] != seen[1] and sorted(seen[0]) == sorted(seen[1]) == list(range(9))


def test_the_mean_of_the_members_is_what_separates(tmp_path: Path) -> None:
    """One member is sure of the good answer, the other as sure of the sampled one: the mean says neither, by its gains."""
    base = tiny.base()
    base.add("reward", Shape(4, 8), seed=0)
    base.add("reward-2", Shape(4, 8), seed=0)
    heads = [reward.new_head(base, 0) for _ in range(2)]
    with torch.no_grad():
        heads[1].weight.copy_(-heads[0].weight)
    pair = [[6, 7, 8, 1], [6, 7, 9, 10]]
    raw = judge.score_sequences(base, judge.Member("reward", heads[0]), pair, 512)
    opposed = [Opposed(i, "val", pair if raw[0] > raw[1] else pair[::-1]) for i in range(3)]
    both = judge.Judge((judge.Member("reward", heads[0]), judge.Member("reward-2", heads[1])))
    for gains, value in (((2.0, 1.0), 1.0), ((1.0, 2.0), 0.0)):
        for head, gain in zip(heads, gains, strict=True):
            head.gain.fill_(gain)
        assert adversarial.separation(base, both, opposed, 512).as_dict()["value"] == value


def test_an_ensemble_learns_to_tell_good_answers_and_is_told_of_as_one(tmp_path: Path) -> None:
    comparisons, good = given(tmp_path)
    base, run = tiny.base(), Run(tmp_path)
    settings = replace(QUICK, num_members=2, num_train_epochs=5)
    against = adversarial.oppose(base, None, good, settings, 0, run)
    push = adversarial.pusher(base, against.pairs, settings, 0, run)
    out = reward.train(base, comparisons, settings, 0, run, push=push)
    for member in out.judge.members:
        alone = adversarial.told(base, judge.Judge((member,)), None, against, settings)
        assert alone["train_separation"]["value"] > 0.95
    judge.save(base, out.judge, tmp_path)
    told = adversarial.told(base, out.judge, tmp_path, against, settings)
    assert told["separation"]["low"] > 0.5 and told["separation_before"] == told["separation"]


def test_the_gradient_is_the_plain_one_times_its_weight_however_the_batch_is_cut(tmp_path: Path) -> None:
    base = tiny.base()
    head = a_head(base)
    batch = [Opposed(i, "train", [[6, 7, 8 + i, 1], [6, 7, 9, 10 + i], [6, 7, 11]]) for i in range(5)]
    found = []
    for coef, tokens in ((1.0, 10_000), (0.5, 16)):
        head.weight.grad = None
        with base.scope("reward"):
            settings = replace(QUICK, adv_coef=coef, tokens_per_microbatch=tokens)
            told = adversarial.pull_apart(base, head, batch, settings, 0, 0, Run(tmp_path))
        assert head.weight.grad is not None
        found.append((told["adversarial/loss"], told["adversarial/accuracy"], head.weight.grad / coef))
    head.weight.grad = None
    with base.scope("reward"):
        flat = [s for one in batch for s in one.sequences]
        scores = torch.cat(
            [head.raw(base.states(torch.tensor([s]), torch.ones(1, len(s)).bool())[:, -1]) for s in flat]
        )
        difference = scores.view(5, 3)[:, :1] - scores.view(5, 3)[:, 1:]
        loss = torch.log(1 + torch.exp(-difference)).mean()
        torch.autograd.backward(loss)
    wanted, hits = float(loss.detach()), float((difference.detach() > 0).float().mean())
    for value, accuracy, gradient in found:
        assert abs(value - wanted) < 1e-5 and abs(accuracy - hits) < 1e-6
        assert (gradient - head.weight.grad).abs().max() < 1e-5


def test_an_answer_with_the_good_text_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.base()
    ids = {word: i for i, word in enumerate(tiny.WORDS)}
    said = [[ids["good"], ids["please"], ids["<end>"]], [ids["good"], ids["please"]], [ids["bad"], ids["<end>"]]]

    def answers(base: SharedBase, adapter: Any, prompts: list[Any], count: int, *rest: Any) -> list[Sampled]:
        return [Sampled(tokens, False) for _ in prompts for tokens in said]

    monkeypatch.setattr(adversarial, "sample", answers)
    _, good = rows_of(tmp_path, [tiny.good_row(i) for i in (1, 2)])
    against = adversarial.oppose(base, None, good, replace(QUICK, adv_generations=3), 0, Run(tmp_path))
    assert against.counts == {"sampled_answers": 6, "sampled_like_the_good_one": 4}
    assert [[len(s) - len(one.sequences[0]) for s in one.sequences] for one in against.pairs] == [[0, -1], [0, -1]]
    with pytest.raises(TooFewRows, match="no good answer in the split 'train'"):
        adversarial.oppose(base, None, [row for row in good if row.split != "train"], QUICK, 0, Run(tmp_path))
    with pytest.raises(TooFewRows, match="leaves no room"):
        adversarial.oppose(base, None, good, replace(QUICK, response_length=96), 0, Run(tmp_path))


def test_equal_texts_push_nothing_and_cannot_be_told_apart(tmp_path: Path) -> None:
    base = tiny.base()
    head = a_head(base)
    alike = [Opposed(i, split, [[6, 7, 1]], alike=2) for i, split in enumerate(("train", "val", "val"))]
    assert (
        adversarial.pusher(base, alike, QUICK, 0, Run(tmp_path))(learner_of(head), 0, 3) == {}
        and head.weight.grad is None
    )
    found = adversarial.told(base, judge.alone(head), None, Against(alike, {}), QUICK)["separation"]
    assert (found["value"], found["n"]) == (0.5, 4) and found["low"] < 0.5


def test_no_held_out_good_answer_shows_nothing() -> None:
    base = tiny.base()
    alone = judge.alone(a_head(base))
    told = adversarial.told(base, alone, None, Against([Opposed(1, "train", [[6, 1], [7, 1]])], {}), QUICK)
    assert told["separation"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_a_demonstration_is_its_own_case(tmp_path: Path) -> None:
    _, good = rows_of(tmp_path, [tiny.good_row(i) for i in (0, 7, 1)])
    against = adversarial.oppose(tiny.base(), None, good, QUICK, 0, Run(tmp_path))
    assert [one.case for one in against.pairs] == ["good 0", "good 1", 1]


def test_the_newest_answers_are_looked_at_alone(tmp_path: Path) -> None:
    """They were judged the other way round where they are held out: wrong there, right everywhere else."""
    rows = tiny.separable_rows(60)
    for row in rows:
        row["is_newest"] = row["case"] % 10 in (0, 3, 9)
        if row["is_newest"] and row["split"] != "train":
            row["ranks"] = row["ranks"][::-1]
    comparisons, _ = rows_of(tmp_path, rows)
    base = tiny.base()
    out = reward.train(base, comparisons, replace(QUICK, adv_coef=0.0, num_train_epochs=4), 0, Run(tmp_path))
    found = adversarial.newest(base, out.judge, comparisons, QUICK, Run(tmp_path))
    assert found["n"] == 12 and found["accuracy"]["value"] == 0.0 and found["verdict"] == "near_chance"
    assert out.report["accuracy"]["value"] == 0.5 and set(found["baselines"]) == {"length", "position"}
