"""Judgements needed: read off the curve as written, and the same annotator for every strategy."""

import torch

from backend.training import probe
from backend.training.probe import Pairs
from bench import acquisition
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
