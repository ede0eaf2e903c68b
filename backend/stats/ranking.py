"""Strengths from pairwise judgements: Bradley-Terry by Newton's method on counts, intervals clustered by person.

Ties are half a win for each side. Rows are not independent, people are: what one person likes shows in all they judge, and
intervals that take rows as independent are too narrow. So the scores of the fit are added up by person before they are squared
(a sandwich estimate), with the usual correction for few people. Lengths can be held equal by a slope of their own.
"""

from __future__ import annotations

from math import lgamma, log, pi
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
STEPS_MOST, HALVINGS_MOST, CLOSE = 100, 30, 1e-10
PRIOR = 1e-4  # of a normal prior on strengths, so that who only wins stays finite; our choice
Z = 1.959964


class Votes(NamedTuple):
    """One row per judgement: who stood where (indices of models), what came of it, and who said so."""

    first: Ints
    second: Ints
    outcome: Floats  # 1 the first won, 0 the second, 0.5 a tie
    person: Ints  # any whole numbers
    longer: Floats | None = None  # log of first's length over second's, to hold lengths equal


class Fit(NamedTuple):
    """Strengths on the logit scale, with mean 0 over the models; ``covariance`` is clustered by person."""

    strengths: Floats  # (M,)
    covariance: Floats  # (M, M)
    slope: float  # what an answer e times as long gains; 0 without lengths
    n: int
    people: int

    @property
    def errors(self) -> Floats:
        return np.sqrt(np.maximum(np.diag(self.covariance), 0))

    def interval(self, model: int) -> tuple[float, float]:
        half = Z * self.errors[model]
        return float(self.strengths[model] - half), float(self.strengths[model] + half)

    def difference(self, one: int, other: int) -> tuple[float, float]:
        """How much stronger ``one`` is, and the standard error of that."""
        variance = self.covariance[one, one] + self.covariance[other, other] - 2 * self.covariance[one, other]
        return float(self.strengths[one] - self.strengths[other]), float(np.sqrt(max(variance, 0.0)))


def fit(votes: Votes, models: int) -> Fit:
    """The strengths that make these judgements likeliest."""
    beta = _newton(*_cells(votes, models), models, with_slope=votes.longer is not None)
    return _with_errors(votes, models, beta)


def _cells(votes: Votes, models: int) -> tuple[Ints, Ints, Floats, Floats, Floats]:
    """Judgements of one pair (and one length ratio) in one row: first, second, share won, how many, length ratio."""
    if votes.longer is not None:
        return votes.first, votes.second, votes.outcome, np.ones(len(votes.first)), votes.longer
    place = votes.first * models + votes.second
    many = np.bincount(place, minlength=models * models).astype(float)
    won = np.bincount(place, votes.outcome, minlength=models * models)
    seen = np.flatnonzero(many)
    return seen // models, seen % models, won[seen] / many[seen], many[seen], np.zeros(len(seen))


def _newton(
    first: Ints, second: Ints, won: Floats, many: Floats, longer: Floats, models: int, *, with_slope: bool
) -> Floats:
    """(M + 1,) strengths and slope. Steps are halved until they help."""
    beta = np.zeros(models + 1)
    value = _loss(beta, first, second, won, many, longer)
    for _ in range(STEPS_MOST):
        p = _chance(beta, first, second, longer)
        pull, weight = many * (p - won), many * p * (1 - p)
        gradient, hessian = PRIOR * beta, PRIOR * np.eye(models + 1)
        for index, sign in ((first, 1.0), (second, -1.0)):
            gradient = gradient + sign * np.bincount(index, pull, minlength=models + 1)
        gradient[models] += pull @ longer
        np.add.at(hessian, (first, first), weight)
        np.add.at(hessian, (second, second), weight)
        np.add.at(hessian, (first, second), -weight)
        np.add.at(hessian, (second, first), -weight)
        if with_slope:
            cross = np.bincount(first, weight * longer, minlength=models) - np.bincount(
                second, weight * longer, minlength=models
            )
            hessian[models, :models] += cross
            hessian[:models, models] += cross
            hessian[models, models] += weight @ longer**2
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        for _ in range(HALVINGS_MOST):
            lower = _loss(beta - size * step, first, second, won, many, longer)
            if lower <= value:
                break
            size /= 2
        beta, before, value = beta - size * step, value, lower
        if np.abs(size * step).max() < CLOSE or before - value < CLOSE * (1 + abs(value)) * 1e-3:
            break
    return beta


def _chance(beta: Floats, first: Ints, second: Ints, longer: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(beta[first] - beta[second] + beta[-1] * longer, -40, 40)))


def _loss(beta: Floats, first: Ints, second: Ints, won: Floats, many: Floats, longer: Floats) -> float:
    margin = beta[first] - beta[second] + beta[-1] * longer
    return float(many @ (np.logaddexp(0, margin) - won * margin) + 0.5 * PRIOR * beta @ beta)


def _with_errors(votes: Votes, models: int, beta: Floats) -> Fit:
    longer = votes.longer if votes.longer is not None else np.zeros(len(votes.first))
    p = _chance(beta, votes.first, votes.second, longer)
    people, place = np.unique(votes.person, return_inverse=True)
    pull, weight = votes.outcome - p, p * (1 - p)
    width = models + 1
    scores = np.zeros((len(people), width))  # one row per person: that is the cluster
    for index, sign in ((votes.first, 1.0), (votes.second, -1.0)):
        scores += sign * np.bincount(place * width + index, pull, minlength=len(people) * width).reshape(-1, width)
    scores[:, models] = np.bincount(place, pull * longer, minlength=len(people))
    bread = _information(votes.first, votes.second, weight, longer, models)
    inverse = np.linalg.pinv(bread + PRIOR * np.eye(width))
    few = len(people) / max(len(people) - 1, 1)
    covariance = few * inverse @ (scores.T @ scores) @ inverse
    centre = np.eye(models) - 1 / models
    strengths = centre @ beta[:models]
    return Fit(
        strengths, centre @ covariance[:models, :models] @ centre.T, float(beta[models]), len(votes.first), len(people)
    )


def _information(first: Ints, second: Ints, weight: Floats, longer: Floats, models: int) -> Floats:
    width = models + 1
    pairs = np.bincount(first * width + second, weight, minlength=width * width).reshape(width, width)
    found: Floats = np.asarray(-(pairs + pairs.T), float)
    np.fill_diagonal(found, 0)
    np.fill_diagonal(found, -found.sum(1))
    cross = np.bincount(first, weight * longer, minlength=width) - np.bincount(second, weight * longer, minlength=width)
    found[models, :] += cross
    found[:, models] += cross
    found[models, models] += weight @ longer**2
    return found


# ---- may we stop?


class Sequential(NamedTuple):
    """Whether A beats B so far, however often somebody looked."""

    low: float  # of A's share of the judgements that took a side
    high: float
    is_decided: bool
    more: int | None  # judgements that would decide it, should the share stay as it is; None when it never would


def anytime(won: float, n: float, *, confidence: float = 0.95) -> Sequential:
    """A confidence sequence for a share: valid at every n at once, so that looking early and often costs nothing.

    A mixture of likelihood ratios over a Beta(1/2, 1/2) prior (Robbins 1970; Ville's inequality): a share is excluded when
    the mixture is 1 / (1 - confidence) times likelier. ``won`` may hold halves.
    """
    if n <= 0:
        return Sequential(0.0, 1.0, False, None)
    low, high = (_edge(won, n, confidence, side) for side in (0, 1))
    decided = low > 0.5 or high < 0.5
    return Sequential(low, high, decided, 0 if decided else _needed(won, n, confidence))


def _evidence(share: float, won: float, n: float) -> float:
    """Log of the mixture's likelihood over that of one share."""
    lost = n - won
    mixture = lgamma(won + 0.5) + lgamma(lost + 0.5) - lgamma(n + 1) - log(pi)
    return mixture - (won * log(share) if won else 0.0) - (lost * log(1 - share) if lost else 0.0)


def _edge(won: float, n: float, confidence: float, side: int) -> float:
    """The outermost share on one side that is not excluded, by halving."""
    limit, inside = -np.log(1 - confidence), min(max(won / n, 1e-9), 1 - 1e-9)
    outside = 1e-12 if side == 0 else 1 - 1e-12
    if _evidence(outside, won, n) < limit:
        return float(side)
    for _ in range(60):
        middle = (inside + outside) / 2
        if _evidence(middle, won, n) < limit:
            inside = middle
        else:
            outside = middle
    return float(inside)


def _needed(won: float, n: float, confidence: float) -> int | None:
    share = won / n
    if abs(share - 0.5) < 1e-3:
        return None
    total = n
    while total < 1e7:
        total *= 1.1
        if _evidence(0.5, share * total, total) >= -np.log(1 - confidence):
            return int(np.ceil(total - n))
    return None
