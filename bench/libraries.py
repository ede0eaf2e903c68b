"""Statistics by libraries and the few of our own, at the sizes they must bear: what is used, and what else there would be.

What a library gives without an interval is given one by the bootstrap that it has or would need; draws it is too slow for are
measured a few at a time and counted up. Each library's import is timed in a process of its own that holds numpy and pandas already.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from backend.stats import agreement, ranking, reliability, resampling
from backend.stats.ranking import Votes
from backend.stats.reliability import Said
from bench.report import Found, Row, row

MODELS, PEOPLE, DRAWS = 50, 100, 1000
LIBRARIES = (
    "krippendorff",
    "scipy.stats",
    "sklearn.metrics",
    "statsmodels.stats.inter_rater",
    "statsmodels.api",
    "choix",
    "evalica",
    "crowdkit.aggregation",
)
IMPORT = (
    "import numpy, pandas, psutil, time; here = psutil.Process(); before = here.memory_info().rss; began = time.perf_counter();"
    "import {name}; print(time.perf_counter() - began, (here.memory_info().rss - before) / 2**20)"
)
FEW, MANY = 8, 200  # judgements of a person who has just begun, and of the others
CROWDS = 8  # drawn one after the other


def measure(quick: bool) -> Found:
    """Rows against the limits and against libraries; facts: imports, the first answer of the process that reckons, and how far the
    tables of beginners are off."""
    n, repeats = (100_000, 2) if quick else (1_000_000, 5)
    draw = np.random.default_rng(0)
    rows = [*_agreement(draw, n, repeats), *_ranking(draw, n, repeats)]
    reliable, beginners = _reliability(draw, repeats)
    facts = {"n": n, "draws": resampling.draws(n // 3), "imports": _imports(), "first_answer_seconds": _first_answer()}
    return Found([*rows, *reliable], {**facts, "beginners": beginners})


def seconds(act: Callable[[], object], repeats: int = 1) -> list[float]:
    """Of processor time, which a neighbour on the machine changes little."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        act()
        found.append(time.process_time() - began)
    return found


def _agreement(draw: np.random.Generator, n: int, repeats: int) -> list[Row]:
    """Three judgements of each comparison, in three categories."""
    import evalica
    import krippendorff
    from statsmodels.stats.inter_rater import fleiss_kappa

    size = n // 3
    right = draw.integers(0, 2, size)
    said = np.where(draw.random((3, size)) < 0.75, right, 1 - right)
    said = np.where(draw.random((3, size)) < 0.15, 2, said)
    units, categories = np.tile(np.arange(size), 3), said.ravel()
    counts, frame, draws = agreement.count(units, categories, 3), pd.DataFrame(said), resampling.draws(size)
    agreement.measure(counts[:10])  # what is imported late is imported now
    ours = seconds(lambda: agreement.measure(agreement.count(units, categories, 3)), repeats)
    alone = seconds(lambda: krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"), repeats)
    ten = seconds(lambda: evalica.alpha_bootstrap(frame, n_resamples=10, random_state=0))[0]
    kappa = seconds(lambda: fleiss_kappa(counts))[0]
    work = f"alpha, raw, Fleiss with intervals of {draws} draws, {n:,} judgements"
    return [
        row(f"alpha, its value, {n:,} judgements", "limit of 1 s", alone, 1.0, 1),
        row(work, "limit of 2 s", ours, 2.0, 1),
        row(work, f"krippendorff, {draws} times", ours, [min(alone) * draws], 1),
        row(work, f"evalica.alpha_bootstrap, {draws} draws", ours, [ten * draws / 10], 1),
        row(work, f"statsmodels fleiss_kappa, {draws} times", ours, [kappa * draws], 1),
    ]


def _ranking(draw: np.random.Generator, n: int, repeats: int) -> list[Row]:
    import evalica

    votes = _votes(draw, n)
    ours = seconds(lambda: ranking.fit(votes, MODELS), repeats)
    board = ranking.refit(ranking.board(votes, MODELS))[0]
    once = seconds(lambda: ranking.refit(ranking.with_vote(board, 3, 7, 1.0, 0)), 4 * repeats)
    winners = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    said = (votes.first.tolist(), votes.second.tolist(), [winners[one] for one in votes.outcome.tolist()])
    few = seconds(
        lambda: evalica.bootstrap(
            evalica.newman,
            *said,
            n_resamples=3,
            bootstrap_method="percentile",
            random_state=0,
            index=pd.Index(range(MODELS)),
        )
    )[0]
    work = f"strengths, ties and intervals, {n:,} judgements of {MODELS} models"
    return [
        row(work, "limit of 1 s", ours, 1.0, 1),
        row(work, f"evalica.bootstrap of newman, {DRAWS} draws", ours, [few * DRAWS / 3], 1),
        row(work, "statsmodels GLM, clustered, by person and pair", ours, seconds(lambda: _generalised(board)), 1),
        row("one judgement more", "limit of 20 ms", once, 0.020, 1),
    ]


def _votes(draw: np.random.Generator, n: int) -> Votes:
    strengths = np.linspace(-1, 1, MODELS)
    first = draw.integers(0, MODELS, n)
    second = (first + draw.integers(1, MODELS, n)) % MODELS
    won = draw.random(n) < 1 / (1 + np.exp(strengths[second] - strengths[first]))
    outcome = np.where(draw.random(n) < 0.15, 0.5, won.astype(float))
    return Votes(first, second, outcome, draw.integers(0, PEOPLE, n))


def _generalised(board: ranking.Board) -> Any:
    """A binomial regression on signs of the models, ties as halves, with errors clustered by person."""
    import statsmodels.api as sm

    judge, pair = np.divmod(board.keys, board.models**2)
    first, second = np.divmod(pair, board.models)
    signs = np.zeros((len(pair), board.models))
    signs[np.arange(len(pair)), first], signs[np.arange(len(pair)), second] = 1.0, -1.0
    model = sm.GLM(board.won / board.many, signs[:, 1:], family=sm.families.Binomial(), var_weights=board.many)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(cov_type="cluster", cov_kwds={"groups": judge})


def _reliability(draw: np.random.Generator, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """Twenty people with much to judge by and ten who have just begun; three of them on each pair."""
    off: dict[str, list[float]] = {"crowd-kit": [], "drawn to the average": []}
    for _ in range(CROWDS):
        said, skill = _crowd(draw, [MANY] * 20 + [FEW] * 10)
        for name, shrinkage in zip(off, (0.0, reliability.SHRINKAGE), strict=True):
            tables = reliability.dawid_skene(said, 2, shrinkage=shrinkage).confusion
            off[name] += [
                float(tables[person, truth, truth] - skill[person]) for person in range(20, 30) for truth in (0, 1)
            ]
    large, _ = _crowd(draw, [1000] * 30)
    columns = [part.tolist() for part in large]
    took = seconds(lambda: reliability.of_pairs(*columns), repeats)
    errors = {name: round(float(np.sqrt(np.mean(np.square(some)))), 3) for name, some in off.items()}
    return [row("reliability of 30 people, 30,000 judgements", "limit of 1 s", took, 1.0, 1)], errors


def _crowd(draw: np.random.Generator, each: list[int]) -> tuple[Said, list[float]]:
    """So many judgements of each person, dealt out in threes; people are right in .6 to .95 of all."""
    people = draw.permutation(np.repeat(np.arange(len(each)), each))
    units = np.arange(len(people)) // 3
    skill = draw.uniform(0.6, 0.95, len(each))
    right = draw.integers(0, 2, units[-1] + 1)[units]
    said = np.where(draw.random(len(people)) < skill[people], right, 1 - right)
    return Said(units, people, said), skill.tolist()


def _imports() -> dict[str, dict[str, float]]:
    found = {}
    for name in LIBRARIES:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORT.format(name=name)], capture_output=True, text=True, check=True
        )
        took, grown = map(float, done.stdout.split())
        found[name] = {"seconds": round(took, 2), "mb": round(grown)}
    return found


def _first_answer() -> float:
    """From the question to the answer of a process that has yet to start and to import crowd-kit."""
    code = (
        "import time; from backend.stats import reliability; from backend.stats.apart import apart; began = time.perf_counter();"
        "apart(reliability.of_pairs, [1, 1], [1, 2], [0, 1]); print(time.perf_counter() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)
