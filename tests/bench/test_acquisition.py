"""Judgements needed: read off the curve as written, and the same annotator for every strategy."""

from dataclasses import replace

import torch

from backend.training import probe
from backend.training.data import Answer, ComparisonRow
from backend.training.probe import Pairs
from bench import acquisition, acquisition_lora
from bench.acquisition import House, Plan


def pairs(count: int, seed: int) -> Pairs:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=draw)
    return Pairs(x, (x[:, 0] > 0).float(), torch.ones(count), list(range(count)))


def test_needed_is_the_first_number_at_which_a_smoothed_curve_is_there() -> None:
    plan = Plan(batch=20)
    assert acquisition.smoothed([0.5, 0.9, 0.4, 0.6]) == [0.7, 0.7, 0.7, 0.7]
    assert acquisition.needed(plan, 40, [0.5, 0.6, 0.7, 0.8, 0.8], 0.7) == 80
    assert acquisition.needed(plan, 40, [0.5, 0.6], 0.9) is None


def test_an_annotator_turns_round_the_share_that_was_asked_and_says_the_same_again() -> None:
    shares = torch.cat([torch.ones(4000), torch.full((4000,), 0.5)])
    said = acquisition.judgements(shares, 0.25, 1)
    assert torch.equal(said, acquisition.judgements(shares, 0.25, 1))
    assert abs(float((said[:4000] == 0).float().mean()) - 0.25) < 0.03
    assert abs(float((said[4000:] != 0.5).float().mean()) - 0.25) < 0.03
    assert not torch.equal(said, acquisition.judgements(shares, 0.25, 2))


def test_every_strategy_starts_alike_and_asks_each_pair_once(monkeypatch) -> None:
    asked, real = [], acquisition.choose
    monkeypatch.setattr(acquisition, "choose", lambda *given: asked.append(real(*given)) or asked[-1])
    house, plan = House(pairs(200, 0), pairs(100, 1)), Plan(batch=20, end=100)
    starts = set()
    for strategy in acquisition.STRATEGIES:
        found = acquisition.curve(house, plan, strategy, 40, 0.1, 3)
        assert len(found) == 4 and all(0.5 < value <= 1 for value in found)
        starts.add(found[0])
        assert len({place for few in asked for place in few}) == 20 * len(asked), strategy
        asked.clear()
    assert len(starts) == 1
    monkeypatch.setattr(acquisition, "choose", real)
    fitted = probe.fit(house.pool.take(range(40)))
    left = list(range(40, 200))
    for strategy in acquisition.STRATEGIES:
        chosen = acquisition.choose(strategy, house.pool, house.pool.take(range(40)), left, fitted, 20, 0)
        assert len(set(chosen)) == 20 and set(chosen) <= set(left)


def test_a_reward_model_is_trained_on_what_each_rule_had_asked_by_then(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(acquisition_lora, "trained", lambda base, features, rows, seed: said.append(list(rows)) or 0.5)
    row = ComparisonRow(1, "train", [], [Answer(None, "a", True), Answer(None, "b", True)], [1, 1])
    pool, held_out = pairs(200, 0), pairs(20, 1)
    house = House(
        pool, held_out, {True: [replace(row, case=i) for i in range(200)], False: [replace(row, split="val")]}
    )
    plan = acquisition_lora.Plan(noise=0.0, start=40, looks=(60, 100), asked=Plan(batch=20))
    found = acquisition_lora.accuracies(None, None, house, plan, "uncertainty", 3)  # type: ignore[arg-type]
    assert found == [0.5, 0.5] and [len(rows) for rows in said] == [61, 101]
    assert [one.case for one in said[0][:40]] == [one.case for one in said[1][:40]]
    assert all(one.ranks == ([1, 2] if pool.shares[one.case] == 1 else [2, 1]) for one in said[1][:-1])
    told = acquisition_lora.compared("uncertainty", 60, [0.6, 0.7], [0.5, 0.5], plan)
    assert told.difference == 15.0 and told.ok and acquisition.ranks_of(0.5) == [1, 1]


def test_what_one_seed_came_to_is_computed_once_and_belongs_to_its_plan(tmp_path) -> None:
    asked: list[int] = []
    for _ in range(2):
        assert acquisition_lora.once(tmp_path / "kept" / "0-random.json", lambda: asked.append(1) or [0.5, 0.75]) == [
            0.5,
            0.75,
        ]
    assert len(asked) == 1
    plan = acquisition_lora.Plan()
    assert len(plan.seeds) >= 10
    assert acquisition_lora.kept_in(plan) == acquisition_lora.kept_in(replace(plan, seeds=(7,)))
    assert acquisition_lora.kept_in(plan) != acquisition_lora.kept_in(replace(plan, noise=0.3))
