"""The linear probe: the least loss there is, features that are those of the bare base, and read once."""

import json
from pathlib import Path

import pytest
import torch

from backend.training import probe, tree
from backend.training.data import Pair
from backend.training.maths import bradley_terry_loss
from backend.training.probe import Compared, Features, Pairs
from backend.training.run import Run
from tests.backend.training import tiny


def drawn(count: int, width: int, noise: float = 0.0, ties: float = 0.0, seed: int = 0) -> tuple[Pairs, torch.Tensor]:
    """Pairs whose winner follows a direction, some turned round, some tied."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randn(width, generator=draw)
    differences = torch.randn(count, width, generator=draw) * torch.linspace(0.1, 3, width)
    shares = ((differences @ truth) > 0).float()
    turned = torch.rand(count, generator=draw) < noise
    shares = torch.where(turned, 1 - shares, shares)
    shares = torch.where(torch.rand(count, generator=draw) < ties, torch.full_like(shares, 0.5), shares)
    weights = torch.rand(count, generator=draw) + 0.5
    return Pairs(differences, shares, weights, list(range(count))), truth


@pytest.mark.parametrize("penalty", [0.1, 10.0, 1000.0])
def test_a_fit_finds_what_a_slow_minimiser_finds(penalty: float) -> None:
    pairs, _ = drawn(400, 12, noise=0.2, ties=0.2)
    x, weight = pairs.differences.double(), torch.zeros(12, dtype=torch.float64, requires_grad=True)
    slow = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        slow.zero_grad()
        losses = bradley_terry_loss(x @ weight, pairs.shares.double())
        total = (losses * pairs.weights).sum() + penalty / 2 * weight.square().sum()
        torch.autograd.backward(total)
        return total

    slow.step(loss)
    assert torch.allclose(probe.minimised(pairs, penalty, 1e-7), weight.detach().float(), atol=1e-4)


def test_a_fit_ends_where_the_mean_loss_is_level_to_what_was_asked() -> None:
    pairs, _ = drawn(700, 12, noise=0.2, ties=0.2)
    x, q, w = pairs.differences.double(), pairs.shares.double(), pairs.weights.double()
    for slope in (1e-2, probe.SMALLEST_SLOPE, 1e-6):
        weight = probe.minimised(pairs, 0.1, slope).double().requires_grad_()
        loss = ((bradley_terry_loss(x @ weight, q) * w).sum() + 0.1 / 2 * weight.square().sum()) / w.sum()
        steepest = torch.autograd.grad(loss, weight)[0].abs().max()
        assert slope / 1000 < steepest < slope * 1.02


def test_a_fit_from_where_another_ended_finds_the_same() -> None:
    pairs, _ = drawn(400, 12, noise=0.2, ties=0.2)
    there = probe.minimised(pairs, 1.0, 1e-7)
    assert torch.allclose(probe.minimised(pairs, 1.0, 1e-7, probe.minimised(pairs, 100.0)), there, atol=1e-5)
    assert torch.equal(probe.minimised(pairs, 1.0, 1e-4, there), there)


def test_pairs_that_can_be_told_apart_are() -> None:
    pairs, _ = drawn(600, 10)
    held_out = pairs.take(range(500, 600))
    found = probe.fit(pairs.take(range(500)))
    assert ((found.differences(held_out) > 0) == (held_out.shares > 0.5)).float().mean() > 0.95
    assert found.penalty == min(probe.PENALTIES)


def test_noise_is_given_a_large_penalty() -> None:
    pairs, _ = drawn(300, 60, noise=0.5)
    assert probe.fit(pairs).penalty >= 100


def test_ties_alone_teach_nothing() -> None:
    pairs, _ = drawn(100, 5, ties=1.1)
    assert probe.fit(pairs).weight.abs().max() == 0


def test_the_unit_of_a_feature_does_not_matter() -> None:
    pairs, _ = drawn(300, 6, noise=0.1)
    scaled = pairs._replace(differences=pairs.differences * torch.tensor([1e-3, 1, 1e3, 1, 10, 1]))
    assert torch.allclose(probe.fit(pairs).differences(pairs), probe.fit(scaled).differences(scaled), atol=1e-3)


GROUPS = [
    [[2, 6, 7, 3, 8, 9, 1], [2, 6, 7, 3, 10, 1]],
    [[2, 6, 3, 11, 12, 13, 1], [2, 6, 3, 12, 1], [2, 6, 3, 9, 9, 1]],
]


@pytest.mark.parametrize("reads_trees", [True, False])
def test_features_are_the_states_of_the_bare_base(tmp_path: Path, reads_trees: bool) -> None:
    base = tiny.base()
    base.reads_trees = reads_trees
    found = Features(base, "digest").of(GROUPS, 4096, Run(tmp_path))
    for group, rows in zip(GROUPS, found, strict=True):
        start = tree.common(group)
        for sequence, row in zip(group, rows, strict=True):
            with torch.no_grad():
                states = base.causal.model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
            own = states[start:]
            expected = torch.cat([states[-1], own.mean(0), torch.tensor([len(own)]).float().log()])
            assert torch.allclose(row, expected, atol=1e-5)


def test_what_was_read_is_not_read_again_and_a_spoiled_file_counts_as_none(tmp_path: Path) -> None:
    base, file = tiny.base(), tmp_path / "kept" / "features.safetensors"
    first = Features(base, "digest", file)
    found = first.of(GROUPS, 4096, Run(tmp_path))
    first.save()
    again = Features(base, "digest", file)
    assert all(map(torch.equal, again.of(GROUPS, 4096, Run(tmp_path)), found)) and again.read == 0
    other = Features(base, "another base", file)
    other.of(GROUPS, 4096, Run(tmp_path))
    assert other.read == 5
    file.write_bytes(file.read_bytes()[:40])
    spoiled = Features(base, "digest", file)
    assert all(map(torch.equal, spoiled.of(GROUPS, 4096, Run(tmp_path)), found)) and spoiled.read == 5


def test_features_of_one_precision_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    file = tmp_path / "features.safetensors"
    exact, coarse = tiny.base(), tiny.base()
    coarse.causal.to(torch.bfloat16)
    kept = Features(exact, "digest", file)
    kept.of(GROUPS, 4096, Run(tmp_path))
    kept.save()
    other = Features(coarse, "digest", file)
    other.of(GROUPS, 4096, Run(tmp_path))
    assert other.read == 5


def test_a_probe_says_how_often_it_agrees_on_held_out_pairs(tmp_path: Path) -> None:
    def compared(first: int, second: int, case: int) -> Compared:
        return Compared([[2, 6, 3, first, 1], [2, 6, 3, second, 1]], [Pair(0, 1, 1.0)], 1.0, case)

    training = [compared(10 + i % 5, 20 + i % 7, i) for i in range(40)]
    held_out = [compared(11 + i % 4, 21 + i % 5, 100 + i) for i in range(10)]
    tied = [one._replace(pairs=[Pair(0, 1, 0.5)]) for one in held_out]
    told = probe.compare(Features(tiny.base(), "digest"), training, held_out + tied, 4096, Run(tmp_path))
    assert told is not None and (told.told["value"], told.told["n"]) == (1.0, 10) and told.told["low"] > 0.6
    assert len(told.judged.shares) == 20 and told.judged.cases[10] == 100
    line = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert line["text"].startswith("A linear probe on the bare base agrees with 100.0% of 10 held-out pairs")
    assert probe.compare(Features(tiny.base(), "digest"), training, tied, 4096, Run(tmp_path)) is None
    assert probe.compare(Features(tiny.base(), "digest"), training, [], 4096, Run(tmp_path)) is None
