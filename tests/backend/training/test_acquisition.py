"""What a judgement would teach: gains of information as linear algebra has them, and an honest word on what an order gained."""

import math

import pytest
import torch

from backend.training import acquisition, scoring
from backend.training.acquisition import Pool
from backend.training.data import Answer, ComparisonRow
from backend.training.probe import Features, Pairs
from backend.training.run import Run, TooFewRows
from backend.training.score_settings import RULES, ScoreSettings
from tests.backend.training import tiny


def pool_of(differences: torch.Tensor) -> Pool:
    return Pool(differences, torch.arange(len(differences)), len(differences))


def judged(count: int, width: int = 6, seed: int = 0, noise: float = 0.0) -> tuple[Pairs, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    truth = torch.linspace(2, -2, width)
    x = torch.randn(count, width, generator=draw)
    shares = torch.bernoulli((x @ truth).sigmoid(), generator=draw)
    turned = torch.rand(count, generator=draw) < noise
    return Pairs(x, torch.where(turned, 1 - shares, shares), torch.ones(count), list(range(count))), truth


def test_each_turn_takes_what_raises_the_log_determinant_most() -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(30, 5, generator=draw, dtype=torch.float64)
    weights = torch.rand(30, generator=draw, dtype=torch.float64) / 4
    information = torch.eye(5, dtype=torch.float64) * 0.7
    found = acquisition.greedy(information, x, weights, torch.arange(30), 30, 8)
    now, left = information.clone(), set(range(30))
    for turn, best in enumerate(found.argsort(descending=True).tolist()[:8]):
        rises = {i: float(torch.logdet(now + weights[i] * torch.outer(x[i], x[i])) - torch.logdet(now)) for i in left}
        assert max(rises, key=lambda i: rises[i]) == best, f"turn {turn}"
        assert math.isclose(rises[best], float(found[best]), rel_tol=1e-9)
        now += weights[best] * torch.outer(x[best], x[best])
        left.remove(best)
    rest = [float(torch.logdet(now + weights[i] * torch.outer(x[i], x[i])) - torch.logdet(now)) for i in sorted(left)]
    assert torch.allclose(found[sorted(left)], torch.tensor(rest, dtype=torch.float64))


def test_a_comparison_of_several_pairs_counts_as_their_mean() -> None:
    draw = torch.Generator().manual_seed(2)
    x, weights = torch.randn(9, 4, generator=draw, dtype=torch.float64), torch.full((9,), 0.2, dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 2, 3, 3])
    found = acquisition.greedy(torch.eye(4, dtype=torch.float64), x, weights, groups, 4, 1)
    each = torch.log1p(0.2 * x.square().sum(1))
    means = torch.tensor([float(each[groups == group].mean()) for group in range(4)], dtype=torch.float64)
    assert int(found.argmax()) == int(means.argmax()) and math.isclose(float(found.max()), float(means.max()))


def test_the_twin_of_what_was_chosen_waits_and_what_was_judged_often_comes_last() -> None:
    known, _ = judged(300)
    draw = torch.Generator().manual_seed(3)
    new = torch.randn(8, 6, generator=draw)
    often = known.differences[:1] * 0.1
    pool = pool_of(torch.cat([new[:1], new, often]))  # places 0 and 1 are twins
    gains = acquisition.by_information(known, pool, 10, is_weighted=False).gains
    first, second = sorted((float(gains[0]), float(gains[1])), reverse=True)
    assert second < first and int(gains.argmin()) == 9


def test_what_the_probe_is_sure_of_teaches_less_than_what_it_is_not() -> None:
    known, truth = judged(400)
    sure, unsure = 4 * truth / truth.norm(), torch.tensor([1.0, 1, 1, 1, 1, 1])
    unsure = 4 * (unsure - truth * (unsure @ truth) / (truth @ truth)) / unsure.norm()
    scored = acquisition.by_information(known, pool_of(torch.stack([sure, unsure])), 2, is_weighted=True)
    assert scored.gains[1] > 2 * scored.gains[0]
    assert scored.chances[0] > 0.95 and 0.1 < scored.chances[1] < 0.9


def test_members_that_agree_disagree_about_nothing_however_unsure_they_are() -> None:
    margins = torch.tensor([[0.0, 3.0, -2.0], [0.0, 3.0, 2.0], [0.0, 3.0, 0.0]])
    scored = acquisition.by_disagreement(margins, pool_of(torch.zeros(3, 2)))
    assert scored.gains[:2].abs().max() < 1e-12
    p = torch.tensor([-2.0, 2.0, 0.0], dtype=torch.float64).sigmoid()

    def h(share: float) -> float:
        return -share * math.log(share) - (1 - share) * math.log(1 - share)

    assert math.isclose(float(scored.gains[2]), h(float(p.mean())) - sum(h(float(one)) for one in p) / 3, rel_tol=1e-9)


def test_probes_disagree_where_the_judgements_say_little() -> None:
    known, truth = judged(200)
    far = torch.zeros(6)
    far[0], known.differences[:, 5] = 4.0, 0.0  # nothing is known of the last feature, much of the first
    unknown = torch.zeros(6)
    unknown[5] = 4.0
    known = known._replace(
        differences=known.differences + 1e-3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    )
    pool = pool_of(torch.stack([far, unknown / 1e2]))
    scored = acquisition.by_disagreement(acquisition.probe_margins(known, pool, 0), pool)
    assert truth[0] == 2 and scored.gains[1] > 3 * scored.gains[0]


def test_a_bootstrap_draws_whole_cases_and_a_case_drawn_twice_is_two() -> None:
    known, _ = judged(40)
    known = known._replace(cases=[place // 2 for place in range(40)])
    drawn = acquisition.resampled(known, 0, 1)
    assert len(drawn.cases) == 40 and all(drawn.cases[i] == drawn.cases[i + 1] for i in range(0, 40, 2))
    rows = [known.differences.tolist().index(row) for row in drawn.differences.tolist()]
    assert all(b == a + 1 and a % 2 == 0 for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert len(set(drawn.cases)) == 20 and len(set(rows)) < 40
    assert not torch.equal(drawn.differences, acquisition.resampled(known, 0, 2).differences)


def test_directions_are_all_of_a_narrow_space_and_the_widest_of_a_wide_one() -> None:
    draw = torch.Generator().manual_seed(4)
    assert torch.equal(acquisition.directions(torch.randn(9, 5, generator=draw)), torch.eye(5))
    wide = torch.randn(50, 3, generator=draw) @ torch.randn(3, 40, generator=draw)
    found = acquisition.directions(wide, widest=3)
    assert found.shape == (40, 3) and torch.allclose(wide @ found @ found.T, wide, atol=1e-4)


def test_a_useless_order_shows_no_gain_and_a_good_one_does() -> None:
    held_out, _truth = judged(300, seed=9)
    clean, noisy = judged(200, seed=5)[0], judged(80, seed=6, noise=0.5)[0]
    for one, other in ((judged(200, seed=7)[0], clean), (clean, judged(200, seed=7)[0])):
        same = acquisition.gain(one, other, held_out, 0)
        assert same["verdict"] == "none" and same["low"] <= 0 <= same["high"] and same["each"] == 200
    better = acquisition.gain(noisy, clean, held_out, 0)
    assert better["verdict"] == "gain" and better["each"] == 80 and better["low"] > 0
    assert acquisition.gain(clean, noisy, held_out, 0)["verdict"] == "loss"
    assert math.isclose(better["value"], better["accuracy"]["priority"] - better["accuracy"]["random"], abs_tol=1e-5)


def test_a_gain_is_not_spoken_of_from_a_handful_or_from_ties() -> None:
    held_out, _ = judged(300, seed=9)
    few, many = judged(39)[0], judged(200)[0]
    assert acquisition.gain(few, many, held_out, 0)["verdict"] == "too_few"
    assert acquisition.gain(many, many, held_out._replace(shares=torch.full((300,), 0.5)), 0)["verdict"] == "too_few"
    assert acquisition.gain(many, many, held_out._replace(cases=[1] * 300), 0)["verdict"] == "too_few"


# ---- the whole job's work on a small base


@pytest.fixture(scope="module")
def base():
    return tiny.base()


def row(number: int, *, ranks: list[int], split: str = "train", arm: str = "random") -> ComparisonRow:
    good, bad = f"good w{number % 22}", f"bad w{(number * 7) % 22}"
    texts = [good, bad] if number % 2 else [bad, good]
    return ComparisonRow(
        case=number, split=split, conversation=[{"role": "user", "content": f"w{number % 22} please"}],
        answers=[Answer(None, text, True) for text in texts], ranks=ranks, comparison=number, arm=arm,
    )  # fmt: skip


def rows_of(judged: int, waiting: int) -> list[ComparisonRow]:
    said = [
        row(n, ranks=[1, 2] if n % 2 else [2, 1], split="val" if n % 4 == 0 else "train", arm="priority" if n % 4 == 1 else "random")
        for n in range(judged)
    ]  # fmt: skip
    return said + [row(n, ranks=[]) for n in range(1000, 1000 + waiting)]


def test_a_job_scores_all_that_waits_with_a_reason_and_says_what_it_knows(base, tmp_path) -> None:
    run = Run(tmp_path)
    for rule in RULES:
        features = Features(base, "tiny", tmp_path / "features.safetensors")
        found = scoring.order(base, rows_of(240, 30), ScoreSettings(rule=rule), 0, run, features)
        assert {one["comparison"] for one in found.rows} == set(range(1000, 1030))
        scores = [one["score"] for one in found.rows]
        assert scores == sorted(scores, reverse=True) and scores[-1] >= 0 and scores[0] > scores[-1]
        assert all(one["reason"].split()[0] == rule and 0 <= float(one["reason"].split()[1]) <= 1 for one in found.rows)
        assert found.report["gain"]["verdict"] in ("none", "gain", "loss") and found.report["gain"]["each"] == 60
        again = scoring.order(base, rows_of(240, 30), ScoreSettings(rule=rule), 0, run, features)
        assert again.rows == found.rows


def test_a_rule_that_cannot_work_yet_says_which_can(base, tmp_path) -> None:
    run, features = Run(tmp_path), Features(base, "tiny")
    with pytest.raises(TooFewRows, match="200 judged pairs"):
        scoring.order(base, rows_of(10, 5), ScoreSettings(rule="uncertainty"), 0, run, features)
    with pytest.raises(TooFewRows, match="200 judged pairs"):
        scoring.order(base, rows_of(50, 5), ScoreSettings(rule="disagreement"), 0, run, features)
    with pytest.raises(TooFewRows, match="waits"):
        scoring.order(base, rows_of(50, 0), ScoreSettings(), 0, run, features)
    first = scoring.order(base, rows_of(0, 5), ScoreSettings(rule="coverage"), 0, run, features)
    assert first.report["gain"] == {
        "verdict": "too_few",
        "each": 0,
        "cases": 0,
        "pairs": 0,
        "fewest_judged": 40,
        "fewest_cases": 20,
    }
    assert {one["reason"] for one in first.rows} == {"coverage 0.50"}
