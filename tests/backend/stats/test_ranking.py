"""Bradley-Terry equals published values, its intervals hold when people differ, and looking often costs nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest

from backend.stats import ranking
from backend.stats.ranking import Votes

CITATIONS = np.array([[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]])


def of_table(table: np.ndarray) -> Votes:
    """A win of row over column for each count off the diagonal, each by a person of its own."""
    pairs = [(i, j) for i in range(len(table)) for j in range(len(table)) if i != j for _ in range(table[i, j])]
    first, second = np.array(pairs).T
    return Votes(first, second, np.ones(len(first)), np.arange(len(first)))


def simulated(
    draw: np.random.Generator, n: int, strengths: np.ndarray, people: int, taste: float, ties: float = 0.0
) -> Votes:
    liking = strengths + taste * draw.standard_normal((people, len(strengths)))
    person = draw.integers(0, people, n)
    first = draw.integers(0, len(strengths), n)
    second = (first + draw.integers(1, len(strengths), n)) % len(strengths)
    chance = 1 / (1 + np.exp(liking[person, second] - liking[person, first]))
    outcome = np.where(draw.random(n) < ties, 0.5, (draw.random(n) < chance).astype(float))
    return Votes(first, second, outcome, person)


def test_the_journals_have_their_published_strengths_and_errors():
    """Stigler's citations as BradleyTerry2 prints them: strengths against the first journal."""
    found = ranking.fit(of_table(CITATIONS), 4)
    against = found.strengths - found.strengths[0]
    assert against == pytest.approx([0, -2.94907, -0.47957, 0.26895], abs=2e-4)
    errors = [found.difference(model, 0)[1] for model in (1, 2, 3)]
    assert errors == pytest.approx([0.10255, 0.06059, 0.07083], rel=0.06)  # a sandwich, where theirs trusts the model


def test_who_stands_first_and_which_name_comes_first_changes_nothing():
    votes = simulated(np.random.default_rng(0), 2000, np.array([0.0, 0.5, 1.0]), 20, 0.0, ties=0.1)
    turned = Votes(votes.second, votes.first, 1 - votes.outcome, votes.person)
    renamed = Votes(2 - votes.first, 2 - votes.second, votes.outcome, votes.person)
    found = ranking.fit(votes, 3)
    assert ranking.fit(turned, 3).strengths == pytest.approx(found.strengths, abs=1e-6)
    assert ranking.fit(renamed, 3).strengths[::-1] == pytest.approx(found.strengths, abs=1e-6)
    assert found.strengths.sum() == pytest.approx(0, abs=1e-9)


def test_intervals_hold_when_people_differ_in_taste():
    draw, strengths = np.random.default_rng(3), np.linspace(-1, 1, 6)
    covered = alone = 0
    for _ in range(60):
        votes = simulated(draw, 2000, strengths, 30, 0.7)
        truth = strengths[5] - strengths[0]
        for of, person in (("people", votes.person), ("rows", np.arange(len(votes.first)))):
            value, error = ranking.fit(votes._replace(person=person), 6).difference(5, 0)
            hit = (
                abs(value / 0.86 - truth) < 1.96 * error / 0.86
            )  # averaging over tastes flattens the logit by about 0.86
            covered += hit and of == "people"
            alone += hit and of == "rows"
    assert covered >= 52 and alone < covered, (covered, alone)


@pytest.mark.parametrize("people", [1, 2, 4])
def test_the_judgements_of_few_people_leave_doubt(people):
    """Those of one alone are no more certain than judgements of as many strangers; two or four show too little of how people differ."""
    draw = np.random.default_rng(5)
    votes = tying(draw, 60, np.array([0.6, 0.0, -0.6, 0.2]), 0.5, people)
    found = ranking.fit(votes, 4)
    strangers = ranking.fit(votes._replace(person=np.arange(60)), 4)
    assert (found.errors > 0.6 * strangers.errors).all() and (found.errors > 0.15).all()
    assert found.difference(0, 2)[1] > 0.2
    added = ranking.refit(ranking.board(votes, 4))[1]
    assert np.allclose(added.errors, found.errors, atol=1e-6)


def test_a_model_that_only_wins_stays_finite():
    found = ranking.fit(Votes(np.zeros(50, int), np.ones(50, int), np.ones(50), np.arange(50)), 2)
    assert np.isfinite(found.strengths).all() and found.strengths[0] > 2


def test_the_strength_of_a_longer_winner_falls_when_lengths_are_held_equal():
    draw = np.random.default_rng(4)
    n = 6000
    first, second = np.zeros(n, int), np.ones(n, int)
    longer = draw.normal(0.8, 0.5, n)  # the first is longer, and people like length alone
    outcome = (draw.random(n) < 1 / (1 + np.exp(-longer))).astype(float)
    votes = Votes(first, second, outcome, draw.integers(0, 40, n))
    plain, held = ranking.fit(votes, 2), ranking.fit(votes._replace(styles=longer[:, None]), 2)
    assert plain.difference(0, 1)[0] > 0.6
    assert abs(held.difference(0, 1)[0]) < 0.2 and held.slopes[0] == pytest.approx(1.0, abs=0.15)


def tying(draw: np.random.Generator, n: int, strengths: np.ndarray, v: float, people: int = 40) -> Votes:
    """Judgements as Davidson's model makes them."""
    first = draw.integers(0, len(strengths), n)
    second = (first + draw.integers(1, len(strengths), n)) % len(strengths)
    half = (strengths[first] - strengths[second]) / 2
    parts = np.stack([np.exp(half), np.full(n, v), np.exp(-half)], 1)
    upto = np.cumsum(parts / parts.sum(1, keepdims=True), 1)
    outcome = np.array([1.0, 0.5, 0.0])[(draw.random(n)[:, None] > upto[:, :2]).sum(1)]
    return Votes(first, second, outcome, draw.integers(0, people, n))


def less_likely(beta: np.ndarray, votes: Votes, models: int) -> float:
    """Less the log likelihood, row by row and straight from the definition, with the prior on strengths and log v."""
    power, v, total = np.exp(beta[:models]), np.exp(beta[-1]), 0.0
    for i, j, outcome in zip(votes.first, votes.second, votes.outcome, strict=True):
        tie = v * np.sqrt(power[i] * power[j])
        chance = {1.0: power[i], 0.5: tie, 0.0: power[j]}[outcome] / (power[i] + power[j] + tie)
        total -= np.log(chance)
    return float(total + ranking.PRIOR / 2 * beta @ beta)


def test_no_strength_and_no_share_of_ties_is_likelier_than_the_fitted_ones():
    """The slope of the plain likelihood is nothing at the fit, whichever way one goes from it."""
    votes = tying(np.random.default_rng(8), 500, np.array([0.8, 0.1, -0.9]), 0.7)
    found = ranking.refit(ranking.board(votes, 3))[0].beta
    best = less_likely(found, votes, 3)
    for way in np.eye(4):
        ahead, back = (less_likely(found + step * way, votes, 3) for step in (1e-3, -1e-3))
        assert ahead > best < back and abs(ahead - back) / 2e-3 < 1e-3


def test_planted_strengths_and_ties_are_found_with_styles_and_without():
    draw, strengths = np.random.default_rng(9), np.array([1.0, 0.0, -1.0])
    votes = tying(draw, 40_000, strengths, 1.0)
    plain = ranking.fit(votes, 3)
    held = ranking.fit(votes._replace(styles=draw.normal(size=(40_000, 2))), 3)
    for found in (plain, held):
        assert found.strengths == pytest.approx(strengths, abs=0.05) and found.tie == pytest.approx(1 / 3, abs=0.01)
    assert held.slopes == pytest.approx([0, 0], abs=0.05)
    assert plain.errors == pytest.approx(held.errors, rel=0.05)


def test_without_ties_the_strengths_are_bradley_and_terrys():
    votes = tying(np.random.default_rng(10), 2000, np.array([0.5, 0.0, -0.5]), 1.0)
    sided = Votes(*(part[votes.outcome != 0.5] for part in votes[:4]))
    without, having = ranking.fit(sided, 3), ranking.fit(votes, 3)
    assert without.tie < 1e-5 and np.abs(having.strengths - without.strengths).max() < 0.2


def test_a_clear_difference_that_often_ties_is_wider_than_half_a_win_for_each_would_make_it():
    """Half of all pairs tie, of the rest the first wins nine in ten: e^d is 9, whatever the ties are."""
    outcome = np.repeat([1.0, 0.5, 0.0], [450, 500, 50])
    found = ranking.fit(Votes(np.zeros(1000, int), np.ones(1000, int), outcome, np.arange(1000)), 2)
    assert found.difference(0, 1)[0] == pytest.approx(np.log(9), abs=1e-3)


def test_a_million_judgements_of_fifty_models_take_less_than_a_second():
    votes = simulated(np.random.default_rng(5), 1_000_000, np.linspace(-1, 1, 50), 200, 0.3, ties=0.12)
    began = time.process_time()
    found = ranking.fit(votes, 50)
    took = time.process_time() - began
    assert took < 1.0, took
    assert np.corrcoef(found.strengths, np.linspace(-1, 1, 50))[0, 1] > 0.98


def test_looking_after_every_judgement_is_wrong_no_more_often_than_it_says():
    draw = np.random.default_rng(6)
    wrong = 0
    for _ in range(200):
        won = np.cumsum(draw.random(400) < 0.5)
        wrong += any(ranking.anytime(float(won[n - 1]), n).is_decided for n in range(5, 400, 5))
    assert wrong <= 16  # 5 % of 200, and what chance adds


def test_a_clear_winner_is_found_and_an_unclear_one_told_how_many_more():
    clear = ranking.anytime(90, 100)
    assert clear.is_decided and clear.low > 0.5 and clear.more == 0
    unclear = ranking.anytime(12, 20)
    assert not unclear.is_decided and unclear.low < 0.5 < unclear.high and 100 < unclear.more < 1000
    assert ranking.anytime(12 + 0.6 * unclear.more, 20 + unclear.more).is_decided
    assert ranking.anytime(10, 20).more is None and ranking.anytime(0, 0) == (0.0, 1.0, False, None)
    assert ranking.anytime(20, 20).high == pytest.approx(1.0) and ranking.anytime(0, 20).low == pytest.approx(
        0.0, abs=1e-6
    )


# ---- a leaderboard that is only added to


def drawn(n: int, models: int, people: int, seed: int = 0) -> Votes:
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, models, n), draw.integers(0, models - 1, n)
    second += second >= first
    strength = np.linspace(1, -1, models)
    p = 1 / (1 + np.exp(strength[second] - strength[first]))
    outcome = np.where(draw.random(n) < 0.1, 0.5, (draw.random(n) < p).astype(float))
    return Votes(first, second, outcome, draw.integers(0, people, n) * 7)


def test_a_board_that_votes_were_added_to_one_by_one_is_the_board_of_all():
    every = drawn(400, 5, 60)
    few = Votes(*(column[:40] for column in every[:4]))
    found = ranking.board(few, 5)
    for place in range(40, 400):
        found = ranking.with_vote(found, *(column[place] for column in every[:4]))
    whole = ranking.board(every, 5)
    assert all(
        np.array_equal(getattr(found, name), getattr(whole, name)) for name in ("people", "keys", "many", "won", "tied")
    )
    told, plain = ranking.refit(found)[1], ranking.fit(every, 5)
    assert np.allclose(told.strengths, plain.strengths, atol=1e-9) and np.allclose(
        told.covariance, plain.covariance, atol=1e-12
    )
    assert (told.n, told.people) == (400, 60)


def test_adding_a_vote_leaves_the_board_before_it_as_it_was():
    before = ranking.board(drawn(50, 4, 3), 4)
    copies = [part.copy() for part in (before.people, before.keys, before.many, before.won, before.tied)]
    ranking.with_vote(before, 0, 1, 1.0, 0)
    ranking.with_vote(before, 2, 1, 0.5, 1)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(copies, (before.people, before.keys, before.many, before.won, before.tied), strict=True)
    )


def test_a_vote_more_on_a_million_moves_the_leaderboard_within_20_ms():
    found, before = ranking.refit(ranking.board(drawn(1_000_000, 50, 100), 50))
    times = []
    for turn in range(15):
        began = time.thread_time()  # what others do on this core does not count
        found = ranking.with_vote(found, 3, 7, 1.0, 7 * turn)
        found, after = ranking.refit(found)
        times.append(time.thread_time() - began)
    assert after.n == before.n + 15 and after.strengths[3] > before.strengths[3]
    assert min(times) < 0.020, f"{1000 * min(times):.1f} ms"


def test_formats_that_people_like_are_told_from_the_models():
    draw = np.random.default_rng(4)
    n = 6000
    first = draw.integers(0, 2, n)
    styles = draw.normal(0, 1, (n, 3)) + np.where(first[:, None] == 0, 1, -1) * [0.8, 0, 0]
    p = 1 / (1 + np.exp(-(styles @ [1.0, 0.5, 0.0])))
    votes = Votes(first, 1 - first, (draw.random(n) < p).astype(float), draw.integers(0, 30, n))
    plain, held = ranking.fit(votes, 2), ranking.fit(votes._replace(styles=styles), 2)
    assert plain.difference(0, 1)[0] > 0.5 and abs(held.difference(0, 1)[0]) < 0.2
    assert held.slopes == pytest.approx([1.0, 0.5, 0.0], abs=0.12)
