"""What is reckoned of many draws at once, and what libraries do not give, is held to well-kept libraries."""

from __future__ import annotations

from functools import partial

import krippendorff
import numpy as np
import pandas as pd
import pytest
from crowdkit import aggregation
from sklearn import metrics
from statsmodels.stats import inter_rater, proportion

from backend.stats import agreement, ranking, reliability
from backend.stats.reliability import Said
from tests.backend.stats.test_ranking import tying
from tests.backend.stats.test_reliability import planted

evalica = pytest.importorskip("evalica", reason="make test installs it")
choix = pytest.importorskip("choix", reason="make test installs it")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("values", [None, [0, 1, 2]])
def test_a_draw_of_alpha_is_that_of_krippendorff(seed: int, values: list[float] | None) -> None:
    (units, people, said), _ = planted(80, [0.9, 0.7, 0.6, 0.5], 3, seed=seed, ties=0.2)
    table = np.full((4, 80), np.nan)
    table[people, units] = said
    level = "nominal" if values is None else "interval"
    theirs = krippendorff.alpha(reliability_data=table, level_of_measurement=level, value_domain=[0, 1, 2])
    counts = agreement.count(units, said, 3)
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    drawn = agreement._alphas(times[None, :].astype(float), patterns, agreement._distances(3, values))
    assert drawn[0] == pytest.approx(theirs, abs=1e-12)
    assert agreement.measure(counts, values).alpha.value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_of_fleiss_kappa_is_that_of_statsmodels(seed: int) -> None:
    (units, _, said), _ = planted(60, [0.9, 0.7, 0.6, 0.5], 3, seed=seed, ties=0.2)
    counts = agreement.count(units, said, 3)
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    theirs = inter_rater.fleiss_kappa(counts)
    assert agreement._fleiss(times[None, :].astype(float), patterns)[0] == pytest.approx(theirs, abs=1e-12)
    assert agreement.measure(counts).fleiss.value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_of_cohens_kappa_is_that_of_scikit_learn(seed: int) -> None:
    (_, people, said), _ = planted(60, [0.9, 0.6], 2, seed=seed, ties=0.2)
    first, second = (np.array(said)[np.array(people) == person] for person in (0, 1))
    theirs = metrics.cohen_kappa_score(first, second)
    table = np.bincount(first * 3 + second, minlength=9)[None, :].astype(float)
    assert agreement._cohens(table, 3)[0] == pytest.approx(theirs, abs=1e-12)
    assert agreement.cohen(first, second, 3).value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 7), (50, 120), (9, 9)])
def test_a_share_has_the_interval_of_statsmodels(hits: int, n: int) -> None:
    found = agreement.share(hits, n)
    assert (found.low, found.high) == pytest.approx(proportion.proportion_confint(hits, n, method="wilson"), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_strengths_are_those_of_choix(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=6)
    first, second = np.array([draw.choice(6, 2, replace=False) for _ in range(800)]).T
    won = (draw.random(800) < 1 / (1 + np.exp(truth[second] - truth[first]))).astype(float)
    ours = ranking.fit(ranking.Votes(first, second, won, np.zeros(800, int)), 6)
    pairs = [(a, b) if w else (b, a) for a, b, w in zip(first.tolist(), second.tolist(), won, strict=True)]
    assert ours.strengths == pytest.approx(choix.opt_pairwise(6, pairs, alpha=ranking.PRIOR), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_strengths_and_ties_are_those_of_evalica(seed: int) -> None:
    votes = tying(np.random.default_rng(seed), 3000, np.array([0.9, 0.2, -0.1, -1.0]), 0.8)
    said = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    theirs = evalica.newman(
        votes.first.tolist(), votes.second.tolist(), [said[one] for one in votes.outcome], tolerance=1e-12, limit=5000
    )
    ours = ranking.fit(votes, 4)
    strengths = np.log(theirs.scores.sort_index().to_numpy())
    assert ours.strengths == pytest.approx(strengths - strengths.mean(), abs=1e-3)


def test_people_and_truths_without_shrinkage_are_those_of_crowd_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once EM stands still, one step more by our own lines changes nothing."""
    long = partial(aggregation.DawidSkene, n_iter=300, tol=0)
    monkeypatch.setattr(aggregation, "DawidSkene", long)
    (units, people, said), _ = planted(80, [0.95, 0.9, 0.8, 0.6, 0.9], 3, seed=1, ties=0.15)
    ours = reliability.dawid_skene(Said(*map(np.array, (units, people, said))), 3, shrinkage=0)
    theirs = long().fit(pd.DataFrame({"task": units, "worker": people, "label": said}))
    assert np.abs(ours.posterior - theirs.probas_.sort_index()[[0, 1, 2]].to_numpy()).max() < 1e-4
    for person in range(5):
        table = theirs.errors_.loc[person].reindex([0, 1, 2]).fillna(0)[[0, 1, 2]].to_numpy().T
        assert np.abs(ours.confusion[person] - table).max() < 1e-4
