"""Strengths from pairwise judgements: Bradley-Terry with Davidson's ties, by Newton's method on counts, intervals clustered by person.

With d the difference of two strengths the first wins as e^(d/2), loses as e^(-d/2) and ties as v, over the sum of the three: v says
how readily people call a tie, most so between equals (Davidson 1970, "On extending the Bradley-Terry model to accommodate ties").
Of the judgements that take a side the first wins 1 / (1 + e^-d), which is Bradley and Terry's model. Rows are not independent, people are: what one person likes shows in all they judge, and
intervals that take rows as independent are too narrow. So the scores of the fit are added up by person before they are squared
(a sandwich estimate), with the usual correction for few people. Lengths and formats can be held equal by slopes of their own.
"""

from __future__ import annotations

from math import lgamma, log, pi
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
STEPS_MOST, HALVINGS_MOST, CLOSE = 100, 30, 1e-10
PRIOR = 1e-4  # of a normal prior on all that is fitted, so that who only wins, or never ties, stays finite; our choice
TIE = 0.5  # as an outcome
Z = 1.959964


class Votes(NamedTuple):
    """One row per judgement: who stood where (indices of models), what came of it, and who said so."""

    first: Ints
    second: Ints
    outcome: Floats  # 1 the first won, 0 the second, 0.5 a tie
    person: Ints  # any whole numbers
    styles: Floats | None = None  # (N, D): what differs beside the models, first less second, to be held equal


class Fit(NamedTuple):
    """Strengths on the logit scale, with mean 0 over the models; ``covariance`` is clustered by person."""

    strengths: Floats  # (M,)
    covariance: Floats  # (M, M)
    slopes: Floats  # (D,): what one unit of a style gains
    tie: float  # probability that two of equal strength, alike in style, tie: v / (2 + v)
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


class Board(NamedTuple):
    """Votes added up by person and pair: all that a fit without styles needs, in sorted order, and where the last one ended."""

    models: int
    people: Ints  # (J,) sorted
    keys: Ints  # (U,) sorted: (place of the person * M + first) * M + second
    many: Floats  # (U,)
    won: Floats  # (U,): by the first, a tie half
    tied: Floats  # (U,)
    beta: Floats  # (M + 1,): from where the next fit begins, log v last


def fit(votes: Votes, models: int) -> Fit:
    """The strengths that make these judgements likeliest."""
    if votes.styles is None:
        return refit(board(votes, models))[1]
    tied = (votes.outcome == TIE).astype(float)
    rows = _Rows(votes.first, votes.second, votes.outcome, tied, np.ones(len(votes.first)), votes.styles)
    people, place = np.unique(votes.person, return_inverse=True)
    beta = _newton(rows, models, np.zeros(models + votes.styles.shape[1] + 1))
    return _with_errors(rows, place, len(people), models, beta)


def board(votes: Votes, models: int) -> Board:
    """The votes added up."""
    people, place = np.unique(votes.person, return_inverse=True)
    keys, row = np.unique((place * models + votes.first) * models + votes.second, return_inverse=True)
    tied = (votes.outcome == TIE).astype(float)
    many, won, tied = (added(row, part, len(keys)) for part in (np.ones(len(row)), votes.outcome, tied))
    return Board(models, people.astype(np.int64), keys.astype(np.int64), many, won, tied, np.zeros(models + 1))


def with_vote(found: Board, first: int, second: int, outcome: float, person: int) -> Board:
    """The board with one judgement more, of models it knows. Costs a copy of the columns, not a new count."""
    place = int(np.searchsorted(found.people, person))
    if place == len(found.people) or found.people[place] != person:
        later = (found.keys // found.models**2 >= place) * found.models**2
        found = found._replace(people=np.insert(found.people, place, person), keys=found.keys + later)
    key = (place * found.models + first) * found.models + second
    row = int(np.searchsorted(found.keys, key))
    if row == len(found.keys) or found.keys[row] != key:
        keys = np.insert(found.keys, row, key)
        many, won, tied = (np.insert(part, row, 0.0) for part in (found.many, found.won, found.tied))
    else:
        keys, many, won, tied = found.keys, found.many.copy(), found.won.copy(), found.tied.copy()
    many[row] += 1
    won[row] += outcome
    tied[row] += outcome == TIE
    return found._replace(keys=keys, many=many, won=won, tied=tied)


def refit(found: Board) -> tuple[Board, Fit]:
    """The fit of a board, begun where its last one ended; after one judgement that is a step or two of Newton's."""
    models, people = found.models, len(found.people)
    judge, pair = np.divmod(found.keys, models**2)
    many, won, tied = (added(pair, part, models**2) for part in (found.many, found.won, found.tied))
    seen = np.flatnonzero(many)
    shares = [part[seen] / many[seen] for part in (won, tied)]
    cells = _Rows(seen // models, seen % models, shares[0], shares[1], many[seen], np.zeros((len(seen), 0)))
    beta = _newton(cells, models, found.beta)
    first, second = np.divmod(np.arange(models**2), models)
    score, tie = _chances(beta[first] - beta[second], beta[-1])  # of every pair, so that rows only look it up
    pull = found.won - found.many * score[pair]
    place = judge * models
    pulls = added(place + first[pair], pull, people * models) - added(place + second[pair], pull, people * models)
    ties = added(judge, found.tied - found.many * tie[pair], people)
    scores = np.concatenate([pulls.reshape(people, models), ties[:, None]], 1)
    return found._replace(beta=beta), _sandwich(cells, scores, models, beta)


def added(places: Ints, values: Floats, length: int) -> Floats:
    """(length,) sums of the values by place."""
    return np.asarray(np.bincount(places, values, minlength=length), float)


class _Rows(NamedTuple):
    """Judgements of one pair, person and style in one row, or of one pair alone."""

    first: Ints
    second: Ints
    won: Floats  # share, a tie half
    tied: Floats  # share
    many: Floats
    styles: Floats  # (N, D)


def _newton(rows: _Rows, models: int, start: Floats) -> Floats:
    """(M + D + 1,) strengths, slopes and log v; the loss is convex in them together. Steps are halved until they help."""
    beta, value = start, _loss(start, rows, models)
    for _ in range(STEPS_MOST):
        score, tie = _chances(_margin(beta, rows, models), beta[-1])
        pull = _pull(rows, rows.many * (score - rows.won), rows.many * (tie - rows.tied), models)
        gradient = pull + PRIOR * beta
        hessian = _information(rows, score, tie, models) + PRIOR * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        for _ in range(HALVINGS_MOST):
            lower = _loss(beta - size * step, rows, models)
            if lower <= value:
                break
            size /= 2
        beta, before, value = beta - size * step, value, lower
        if np.abs(size * step).max() < CLOSE or before - value < CLOSE * (1 + abs(value)) * 1e-3:
            break
    return beta


def _margin(beta: Floats, rows: _Rows, models: int) -> Floats:
    return np.asarray(beta[rows.first] - beta[rows.second] + rows.styles @ beta[models:-1], float)


def _chances(margin: Floats, log_v: float) -> tuple[Floats, Floats]:
    """The share that the first may expect, a tie half, and the probability of a tie."""
    half = np.clip(margin, -80, 80) / 2
    wins, loses, ties = np.exp(half), np.exp(-half), np.exp(min(log_v, 40.0))
    total = wins + loses + ties
    return (wins + ties / 2) / total, ties / total


def _loss(beta: Floats, rows: _Rows, models: int) -> float:
    """Less the log likelihood, and the prior's part."""
    margin = _margin(beta, rows, models)
    total = np.logaddexp(np.logaddexp(margin / 2, -margin / 2), beta[-1])
    said = (rows.won - 0.5) * margin + rows.tied * beta[-1]
    return float(rows.many @ (total - said) + 0.5 * PRIOR * beta @ beta)


def _pull(rows: _Rows, values: Floats, ties: Floats, models: int) -> Floats:
    """(M + D + 1,): each row's value for its first, against its second, and along its styles; and of its ties."""
    first, second = (np.bincount(index, values, minlength=models) for index in (rows.first, rows.second))
    return np.concatenate([first - second, values @ rows.styles, [ties.sum()]])


def _with_errors(rows: _Rows, place: Ints, people: int, models: int, beta: Floats) -> Fit:
    """``place``: whose row each is."""
    score, tie = _chances(_margin(beta, rows, models), beta[-1])
    pull = rows.many * (rows.won - score)
    scores = np.zeros((people, len(beta)))  # one row per person: that is the cluster
    for index, sign in ((rows.first, 1.0), (rows.second, -1.0)):
        flat = np.bincount(place * models + index, pull, minlength=people * models)
        scores[:, :models] += sign * flat.reshape(people, models)
    for style in range(rows.styles.shape[1]):
        scores[:, models + style] = np.bincount(place, pull * rows.styles[:, style], minlength=people)
    scores[:, -1] = np.bincount(place, rows.many * (rows.tied - tie), minlength=people)
    return _sandwich(rows, scores, models, beta)


def _sandwich(rows: _Rows, scores: Floats, models: int, beta: Floats) -> Fit:
    """``scores`` (J, M + D + 1): each person's pull at the strengths, which add up to nothing at the fit."""
    people = len(scores)
    score, tie = _chances(_margin(beta, rows, models), beta[-1])
    inverse = np.asarray(np.linalg.inv(_information(rows, score, tie, models) + PRIOR * np.eye(len(beta))), float)
    few = people / max(people - 1, 1)
    covariance = few * inverse @ (scores.T @ scores) @ inverse
    if people <= len(
        beta
    ):  # too few to show how far people differ in every direction: one person's pulls add up to nothing
        covariance = _at_least(covariance, inverse)
    centre = np.eye(models) - 1 / models
    strengths = centre @ beta[:models]
    n = int(rows.many.sum())
    v = float(np.exp(min(beta[-1], 40.0)))
    return Fit(strengths, centre @ covariance[:models, :models] @ centre.T, beta[models:-1], v / (2 + v), n, people)


def _at_least(covariance: Floats, least: Floats) -> Floats:
    """In every direction the wider of two covariances; ``least`` has an inverse. With ``least`` that of independent judgements, no
    interval is narrower than if nobody were like themselves."""
    root = np.linalg.cholesky(least)
    back = np.linalg.inv(root)
    wide, along = np.linalg.eigh(back @ covariance @ back.T)
    return np.asarray(root @ (along * np.maximum(wide, 1.0)) @ along.T @ root.T, float)


def _information(rows: _Rows, score: Floats, tie: Floats, models: int) -> Floats:
    """(M + D + 1, M + D + 1): second derivatives of the loss, at what each row may expect."""
    lean = 2 * score - 1  # P(first wins) - P(second wins)
    weight = rows.many * (1 - tie - lean**2) / 4
    pairs = np.bincount(rows.first * models + rows.second, weight, minlength=models**2).reshape(models, models)
    among = -(pairs + pairs.T)
    np.fill_diagonal(among, 0)
    np.fill_diagonal(among, -among.sum(1))
    cross = [
        np.bincount(rows.first, weight * style, minlength=models)
        - np.bincount(rows.second, weight * style, minlength=models)
        for style in rows.styles.T
    ]
    beside = np.stack(cross, 1) if cross else np.zeros((models, 0))
    strengths = np.block([[among, beside], [beside.T, (rows.styles * weight[:, None]).T @ rows.styles]])
    with_ties = _pull(
        rows, -rows.many * lean * tie / 2, rows.many * tie * (1 - tie), models
    )  # what log v has with each
    return np.asarray(np.block([[strengths, with_ties[:-1, None]], [with_ties[None, :]]]), float)


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
