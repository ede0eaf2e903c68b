"""How far each person can be relied on, and what a comparison's answer probably is: Dawid & Skene 1979, by crowd-kit.

Every comparison has a true category; a person who sees a true category t says c with the probability confusion[t, c]. The library's
EM goes back and forth between the probable truths and the tables of the people; comparisons whose truth is known (gold) hold it. Of a
few judgements its tables say too much, so people are then drawn to the average table, as if a few judgements more had been given by an
average person. A tie is a category of its own: it is not half a win, and who calls everything a tie says little.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.stats.agreement import Estimate, share

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SHRINKAGE = 4.0  # judgements per truth that an average person gives for everybody; our choice
FIRST, SECOND, TIE = 0, 1, 2  # what a pair can be


class Said(NamedTuple):
    """One row per judgement; each column holds whole numbers from 0 without gaps."""

    units: Ints
    people: Ints
    categories: Ints


class Reliability(NamedTuple):
    prior: Floats  # (C,)
    confusion: Floats  # (J, C, C): [person, truth, said]
    posterior: Floats  # (U, C)


def dawid_skene(
    said: Said, kinds: int, *, known: Mapping[int, int] | None = None, shrinkage: float = SHRINKAGE
) -> Reliability:
    """Truths as crowd-kit's EM leaves them, people's tables drawn to the average by them, and what is probable by those tables.

    ``known``: unit -> its true category.
    """
    units, people = int(said.units.max()) + 1, int(said.people.max()) + 1
    known = known or {}
    posterior = _held(_converged(said, units, kinds, known), known)
    prior = posterior.mean(0)
    confusion = _tables(said, posterior, people, kinds, shrinkage)
    return Reliability(prior, confusion, _held(_truths(said, prior, confusion, units), known))


def _converged(said: Said, units: int, kinds: int, known: Mapping[int, int]) -> Floats:
    """(U, C), 0 for units left out: the library has no column for a category that nobody named, so units known to be of one wait
    until it is through."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene  # a second to import

    warnings.filterwarnings("ignore", module=r"crowdkit\.")  # it still passes keywords that pandas 3 does without
    named = set(np.unique(said.categories).tolist())
    unnamed = [unit for unit, truth in known.items() if truth not in named]
    truths = pd.Series({unit: truth for unit, truth in known.items() if truth in named}, dtype=np.int64)
    judged = pd.DataFrame({"task": said.units, "worker": said.people, "label": said.categories})
    found = DawidSkene().fit(judged[~judged["task"].isin(unnamed)], truths if len(truths) else None)
    return np.array(
        pd.DataFrame(found.probas_).reindex(index=range(units), columns=range(kinds), fill_value=0.0), float
    )


def _held(posterior: Floats, known: Mapping[int, int]) -> Floats:
    """With certainty where the truth is known."""
    held = posterior.copy()
    for unit, truth in known.items():
        held[unit] = np.eye(held.shape[1])[truth]
    return held


def _tables(said: Said, posterior: Floats, people: int, kinds: int, shrinkage: float) -> Floats:
    """(J, C, C), each row of a table sums to 1."""
    found = np.zeros((people, kinds, kinds))
    place = said.people * kinds + said.categories
    for truth in range(kinds):
        weights = posterior[said.units, truth]
        found[:, truth] = np.bincount(place, weights, minlength=people * kinds).reshape(people, kinds)
    everybody = found.sum(0) + 1e-3 + np.eye(kinds)  # one right judgement, so that a truth nobody saw has a table too
    found += shrinkage * everybody / everybody.sum(1, keepdims=True)
    total = found.sum(2, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / kinds)


def _truths(said: Said, prior: Floats, confusion: Floats, units: int) -> Floats:
    """(U, C): what is probable of every unit, by Bayes' rule."""
    tiny = np.finfo(float).tiny
    rows = np.log(np.maximum(confusion, tiny))[said.people, :, said.categories]  # (N, C)
    joint = np.log(np.maximum(prior, tiny)) + np.stack(
        [np.bincount(said.units, rows[:, truth], minlength=units) for truth in range(len(prior))], 1
    )
    likely = np.exp(joint - joint.max(1, keepdims=True))
    return np.asarray(likely / likely.sum(1, keepdims=True))


class Pairs(NamedTuple):
    """What is known of people who judge pairs."""

    prior: list[float]  # of first, second, tie
    tables: dict[int, list[list[float]]]  # person id -> [truth][said]
    right: dict[int, Estimate]  # person id -> share of true sides that were named; n is how many probably had one
    comparisons: int  # that several people judged or that are gold: what all of this rests on


def of_pairs(
    units: Sequence[int], people: Sequence[int], categories: Sequence[int], known: Mapping[int, int] | None = None
) -> Pairs:
    """Reliability of people who judged pairs: 0 the first, 1 the second, 2 a tie. Ids may be any whole numbers.

    Which answer is the first is chance, so every comparison is counted once more with both turned round: the tables treat
    the two alike, and nobody can be "reliably wrong" in one direction only.
    """
    given = np.stack([np.asarray(part, np.int64) for part in (units, people, categories)], 1).reshape(-1, 3)
    ids, place, many = np.unique(given[:, 0], return_inverse=True, return_counts=True)
    known = known or {}
    says = (many > 1) | np.isin(ids, list(known))  # what one person said alone tells nothing about them
    given = given[says[place]]
    if not len(given):
        return Pairs([1 / 3] * 3, {}, {}, 0)
    ids, unit = np.unique(given[:, 0], return_inverse=True)
    names, person = np.unique(given[:, 1], return_inverse=True)
    turned, category = np.array([SECOND, FIRST, TIE], np.int64), given[:, 2]
    both = Said(
        *(np.concatenate(part) for part in ((unit, unit + len(ids)), (person, person), (category, turned[category])))
    )
    truths = {i: known[int(id)] for i, id in enumerate(ids) if int(id) in known}
    found = dawid_skene(both, 3, known=truths | {i + len(ids): int(turned[truth]) for i, truth in truths.items()})
    right = np.where(category == TIE, 0.0, found.posterior[unit, category])
    sided = 1 - found.posterior[unit, TIE]  # a true tie has no right side
    hits, seen = (np.bincount(person, part, minlength=len(names)) for part in (right, sided))
    return Pairs(
        [float(value) for value in found.prior],
        {int(name): found.confusion[i].tolist() for i, name in enumerate(names)},
        {int(name): share(float(hits[i]), float(seen[i])) for i, name in enumerate(names)},
        len(ids),
    )
