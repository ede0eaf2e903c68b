"""What a measurement comes to: orders with their spread, a curve over numbers of demonstrations, label words before and after
calibration; each beside what test cases say of the choice that was made."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backend.prompts import calibrate
from backend.stats.agreement import Estimate, share
from backend.stats.paired import difference

from .plans import Ask, Plan, counts_of, draws_of, own_places, places_of

Logps = Sequence[Sequence[float]]  # (N, L) nats per token
Truths = Sequence[int | None]  # of each case the label that is right, or None
METHODS = ("plain", "contextual", "domain", "batch", "pmi")
KEPT = 4  # orders that are named by their entropy (Lu et al. 2022)


class Claim(NamedTuple):
    """A choice on test cases, against the one it would replace."""

    name: str
    accuracy: Estimate
    gain: Estimate | None  # None: it is what the others are compared with


class Order(NamedTuple):
    ids: tuple[int, ...]  # of demonstrations; empty where each case has its own
    places: tuple[int, ...]  # of these, which choice stands where; 1 is the first choice
    seed: int | None  # the template's ``seed`` that makes this order; None: its own order, or one of ``ids``
    accuracy: Estimate
    entropy: float  # nats of the labels it says, whatever is right
    is_own: bool  # the template's own order
    is_kept: bool  # among those of the highest entropy


class Orders(NamedTuple):
    """By accuracy, then entropy, best first."""

    orders: list[Order]
    accuracy: list[float]  # of the orders that were measured, lowest first
    claims: list[Claim]


class Point(NamedTuple):
    """One number of demonstrations. The interval is over cases, the range over draws of demonstrations."""

    shown: int
    accuracy: Estimate
    lowest: float
    highest: float
    draws: int


class Curve(NamedTuple):
    points: list[Point]
    best: int | None  # the number above 0 that did best where it was searched
    claims: list[Claim]


class Method(NamedTuple):
    name: str
    prior: list[float]  # what is divided out, by label
    accuracy: Estimate
    error: float  # expected calibration error
    gain: Estimate | None


class Calibrated(NamedTuple):
    search: list[Method]
    test: list[Method]


def accuracy(logps: Logps, truths: Truths) -> Estimate:
    """Of the cases whose right label is known."""
    hits = _hits(calibrate.shares(logps), truths)
    return share(sum(hits), len(hits))


def _hits(given: calibrate.Floats, truths: Truths) -> list[float]:
    said = calibrate.chosen(given)
    return [float(one == truth) for one, truth in zip(said, truths, strict=True) if truth is not None]


def later(kind: str, plan: Plan, found: Mapping[str, Logps], truths: Truths) -> list[Ask]:
    """What is asked of test cases once the search is over."""
    if not plan.test or any(ask.name not in found for ask in plan.asks):
        return []
    if kind == "order":
        picked = zip(("own", "entropy", "best"), _picked(plan, found, truths), strict=True)
        return [plan.asks[at]._replace(name=f"test:{name}", on="test") for name, at in picked]
    if kind == "count":
        best_count = _best_count(plan, found, truths)
        asks = [Ask("test:none", (), "test")]
        if best_count is not None:
            draws = draws_of(plan.asks, best_count)
            asks += [Ask(f"test:{best_count}:{at}", ask.ids, "test") for at, ask in enumerate(draws)]
        return asks
    return []


def _picked(plan: Plan, found: Mapping[str, Logps], truths: Truths) -> tuple[int, int, int]:
    """Places of the template's own order, the one whose labels are most mixed, and the one that was right most often."""
    shares = [calibrate.shares(found[ask.name]) for ask in plan.asks]
    entropies = [calibrate.label_entropy(one) for one in shares]
    right = [sum(_hits(one, truths)) for one in shares]
    return 0, max(range(len(shares)), key=lambda at: entropies[at]), max(range(len(shares)), key=lambda at: right[at])


def orders_found(plan: Plan, found: Mapping[str, Logps], searched: Truths, tested: Truths) -> Orders:
    """Of the parts that are done."""
    done = [(at, ask, found[ask.name]) for at, ask in enumerate(plan.asks) if ask.name in found]
    entropies = {at: calibrate.label_entropy(calibrate.shares(logps)) for at, _, logps in done}
    kept = [at for at in sorted(entropies, key=lambda at: -entropies[at])[:KEPT] if entropies[at] > 0]
    orders = [
        Order(
            ask.ids or (), _places(plan, ask), ask.order_seed, accuracy(logps, searched), entropies[at], at == 0, at in kept
        )
        for at, ask, logps in done
    ]  # fmt: skip
    values = sorted(one.accuracy.value for one in orders if one.accuracy.n)
    orders.sort(key=lambda one: (-(one.accuracy.value if one.accuracy.n else 0.0), -one.entropy))
    names = {name: found[f"test:{name}"] for name in ("own", "entropy", "best") if f"test:{name}" in found}
    return Orders(orders, values, _claims(names, tested, "own"))


def _places(plan: Plan, ask: Ask) -> tuple[int, ...]:
    if plan.chosen is None:
        return ()
    if ask.order_seed is None:
        return own_places(plan.chosen)
    return places_of(min(len(one.ranked) for one in plan.chosen.values()), ask.order_seed)


def _claims(found: Mapping[str, Logps], truths: Truths, first: str) -> list[Claim]:
    hits = {name: _hits(calibrate.shares(logps), truths) for name, logps in found.items()}
    return [
        Claim(
            name,
            share(sum(own), len(own)),
            difference(hits[first], own) if name != first and first in hits else None,
        )
        for name, own in hits.items()
    ]


def curve_found(plan: Plan, found: Mapping[str, Logps], searched: Truths, tested: Truths) -> Curve:
    points = []
    for count in counts_of(plan.asks):
        hits = [_hits(calibrate.shares(found[a.name]), searched) for a in draws_of(plan.asks, count) if a.name in found]
        if hits and hits[0]:
            points.append(_point(count, hits))
    drawn = sorted(name for name in found if name.startswith("test:") and name != "test:none")
    claims: list[Claim] = []
    if "test:none" in found and drawn:
        none = _hits(calibrate.shares(found["test:none"]), tested)
        each = [_hits(calibrate.shares(found[name]), tested) for name in drawn]
        mean = [statistics.fmean(of_case) for of_case in zip(*each, strict=True)]
        claims = [
            Claim("0", share(sum(none), len(none)), None),
            Claim(drawn[0].split(":")[1], share(sum(mean), len(mean)), difference(none, mean)),
        ]
    is_whole = all(ask.name in found for ask in plan.asks)
    return Curve(points, _best_count(plan, found, searched) if is_whole else None, claims)


def _point(count: int, hits: Sequence[Sequence[float]]) -> Point:
    means = [statistics.fmean(one) for one in hits]
    cases = len(hits[0])
    return Point(count, share(statistics.fmean(means) * cases, cases), min(means), max(means), len(hits))


def _best_count(plan: Plan, found: Mapping[str, Logps], truths: Truths) -> int | None:
    """The number above 0 whose draws were right most often; between equals the smaller. None where there is none above 0."""
    means = {
        count: statistics.fmean(
            accuracy(found[ask.name], truths).value for ask in draws_of(plan.asks, count) if ask.name in found
        )
        for count in counts_of(plan.asks)
        if count
    }
    return max(means, key=lambda count: (round(means[count], 9), -count)) if means else None


def priors_of(found: Mapping[str, Logps]) -> dict[str, list[float]]:
    """By method that divides a prior out, of the parts that are done."""
    rests_on = {"contextual": "content_free", "domain": "domain", "batch": "search:plain"}
    return {
        method: calibrate.prior(calibrate.shares(found[name])).tolist()
        for method, name in rests_on.items()
        if found.get(name)
    }


def corrected(logps: Logps, found: Mapping[str, Logps]) -> dict[str, calibrate.Floats]:
    """Shares of the labels (N, L) by every method whose parts are done; ``plain`` first."""
    plain = calibrate.shares(logps)
    given = {"plain": plain}
    for method, prior in priors_of(found).items():
        given[method] = calibrate.divided(plain, np.asarray(prior))
    if "stub" in found:
        given["pmi"] = calibrate.beyond(logps, found["stub"][0])
    return given


def calibration_found(found: Mapping[str, Logps], searched: Truths, tested: Truths) -> Calibrated:
    return Calibrated(
        _methods(found.get("search:plain"), found, searched), _methods(found.get("test:plain"), found, tested)
    )


def _methods(logps: Logps | None, found: Mapping[str, Logps], truths: Truths) -> list[Method]:
    if not logps:
        return []
    labels = len(logps[0])
    priors = {"plain": [1 / labels] * labels, **priors_of(found)}
    if "stub" in found:
        priors["pmi"] = calibrate.shares(found["stub"])[0].tolist()
    given = corrected(logps, found)
    known = [at for at, truth in enumerate(truths) if truth is not None]
    right = [truth for truth in truths if truth is not None]
    plain = _hits(given["plain"], truths)
    methods = []
    for name in METHODS:
        if name in given:
            hits = _hits(given[name], truths)
            error = calibrate.calibration_error(given[name][known], right) if known else math.nan
            gain = difference(plain, hits) if name != "plain" else None
            methods.append(Method(name, priors[name], share(sum(hits), len(hits)), error, gain))
    return methods
