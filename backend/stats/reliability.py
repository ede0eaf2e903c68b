"""How far each person can be relied on, and what a comparison's answer probably is: Dawid & Skene 1979, by EM.

Every comparison has a true category; a person who sees a true category t says c with the probability confusion[t, c]. EM
goes back and forth between the probable truths and the tables of the people. A person with few judgements is drawn to the
average table, as if a few judgements more had been given by an average person. Comparisons whose truth is known (gold) hold
the tables to it. A tie is a category of its own: it is not half a win, and who calls everything a tie says little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.stats.agreement import Estimate, share

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROUNDS_MOST, CLOSE = 50, 1e-5  # of EM, and by how much the mean log likelihood must rise to go on
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
    log_likelihood: float  # mean over the units, where the truth is not known


def dawid_skene(
    said: Said, kinds: int, *, known: Mapping[int, int] | None = None, shrinkage: float = SHRINKAGE
) -> Reliability:
    """EM from the shares of each unit's judgements. ``known``: unit -> its true category."""
    units, people = int(said.units.max()) + 1, int(said.people.max()) + 1
    fixed = np.array(sorted(known), np.int64) if known else np.zeros(0, np.int64)
    truths = np.array([known[unit] for unit in fixed.tolist()], np.int64) if known else fixed
    counts = np.bincount(said.units * kinds + said.categories, minlength=units * kinds).reshape(units, kinds)
    posterior = _held(counts / counts.sum(1, keepdims=True), fixed, truths)
    before = -np.inf
    for _ in range(ROUNDS_MOST):
        prior = posterior.mean(0)
        confusion = _tables(said, posterior, people, kinds, shrinkage)
        posterior, told = _truths(said, prior, confusion, units)
        posterior = _held(posterior, fixed, truths)
        if told - before < CLOSE:
            break
        before = told
    return Reliability(prior, confusion, posterior, told)


def _held(posterior: Floats, fixed: Ints, truths: Ints) -> Floats:
    """With certainty where the truth is known."""
    posterior[fixed] = 0.0
    posterior[fixed, truths] = 1.0
    return posterior


def _tables(said: Said, posterior: Floats, people: int, kinds: int, shrinkage: float) -> Floats:
    """(J, C, C), each row of a table sums to 1."""
    found = np.zeros((people, kinds, kinds))
    place = said.people * kinds + said.categories
    for truth in range(kinds):
        weights = posterior[said.units, truth]
        found[:, truth] = np.bincount(place, weights, minlength=people * kinds).reshape(people, kinds)
    if shrinkage:
        everybody = (
            found.sum(0) + 1e-3 + np.eye(kinds)
        )  # one right judgement, so that a truth nobody saw has a table too
        found += shrinkage * everybody / everybody.sum(1, keepdims=True)
    total = found.sum(2, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / kinds)


def _truths(said: Said, prior: Floats, confusion: Floats, units: int) -> tuple[Floats, float]:
    """Posterior of every unit's truth (U, C), and the mean log likelihood."""
    tiny = np.finfo(float).tiny
    tables = np.log(np.maximum(confusion, tiny))
    rows = tables[said.people, :, said.categories]  # (N, C)
    joint = np.log(np.maximum(prior, tiny))[None, :] + np.stack(
        [np.bincount(said.units, rows[:, truth], minlength=units) for truth in range(len(prior))], 1
    )
    highest = joint.max(1, keepdims=True)
    total = np.exp(joint - highest).sum(1, keepdims=True)
    return np.exp(joint - highest) / total, float((highest + np.log(total)).mean())


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
