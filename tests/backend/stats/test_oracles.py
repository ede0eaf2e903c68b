"""Our statistics give the numbers of well-kept libraries. They are test tools alone: the app does without them."""

from __future__ import annotations

import numpy as np
import pytest

from backend.stats import agreement, ranking, reliability
from backend.stats.reliability import Said
from tests.backend.stats.test_reliability import planted

krippendorff = pytest.importorskip("krippendorff", reason="make test installs it")
choix = pytest.importorskip("choix", reason="make test installs it")
inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="make test installs it")
proportion = pytest.importorskip("statsmodels.stats.proportion", reason="make test installs it")
metrics = pytest.importorskip("sklearn.metrics", reason="make test installs it")
pd = pytest.importorskip("pandas", reason="make test installs it")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ordered", [False, True])
def test_alpha_is_that_of_krippendorff(seed: int, ordered: bool) -> None:
    (units, people, said), _ = planted(80, [0.9, 0.7, 0.6, 0.5], 3, seed=seed, ties=0.2)
    table = np.full((4, 80), np.nan)
    table[people, units] = said
    level, distance = ("interval", agreement.interval([0, 1, 2])) if ordered else ("nominal", agreement.nominal(3))
    theirs = krippendorff.alpha(reliability_data=table, level_of_measurement=level, value_domain=[0, 1, 2])
    ours = agreement.measure(agreement.count(units, said, 3), distance).alpha.value
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_fleiss_is_that_of_statsmodels(seed: int) -> None:
    (units, _, said), _ = planted(60, [0.9, 0.7, 0.6, 0.5], 3, seed=seed, ties=0.2)
    counts = agreement.count(units, said, 3)
    assert agreement.fleiss(counts) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_cohen_is_that_of_scikit_learn(seed: int) -> None:
    (_, people, said), _ = planted(60, [0.9, 0.6], 2, seed=seed, ties=0.2)
    first, second = (np.array(said)[np.array(people) == person] for person in (0, 1))
    assert agreement.cohen(first, second, 3) == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


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


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword")  # the library's own, on pandas 3
@pytest.mark.slow
def test_people_and_truths_are_those_of_crowd_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shrinkage, which it has not, and to the end of EM."""
    monkeypatch.setattr(reliability, "ROUNDS_MOST", 100)
    monkeypatch.setattr(reliability, "CLOSE", -np.inf)
    aggregation = pytest.importorskip("crowdkit.aggregation", reason="make test installs it")
    (units, people, said), _ = planted(80, [0.95, 0.9, 0.8, 0.6, 0.9], 3, seed=1, ties=0.15)
    theirs = aggregation.DawidSkene(n_iter=100, tol=0).fit(
        pd.DataFrame({"task": units, "worker": people, "label": said})
    )
    ours = reliability.dawid_skene(Said(*map(np.array, (units, people, said))), 3, shrinkage=0)
    posterior = theirs.probas_.sort_index()[[0, 1, 2]].to_numpy()
    assert np.abs(ours.posterior - posterior).max() < 1e-4
    for person in range(5):
        table = theirs.errors_.loc[person].reindex([0, 1, 2]).fillna(0)[[0, 1, 2]].to_numpy().T
        assert np.abs(ours.confusion[person] - table).max() < 1e-4
