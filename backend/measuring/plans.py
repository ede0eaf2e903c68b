"""What a measurement asks: which cases are searched on and which are claimed on, which demonstrations, in which parts.

Whatever searches sees val cases, and train cases where those are few; what is claimed is of test cases, which no search sees. A
demonstration that is (nearly) one of these cases is never shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from backend.problem import Problem
from backend.prompts import calibrate
from backend.prompts.chat import text_of
from backend.prompts.fewshot import CASE_WISE, MOST_DEMONSTRATIONS, Embed, FewShot, choose, leaks, shuffled
from backend.prompts.labelwords import truth_of
from feedback_db.types import Case, Demonstration, MeasurementKind, Template

On = Literal["search", "test", "content_free", "domain", "stub"]
COUNTS = (0, 1, 2, 4, 8, 16, 32)
SEEDS = 5
SEARCHED = 30  # cases a search looks at, unless said otherwise; our choice
MOST_SEARCHED, MOST_TEST = 200, 200
MOST_SURE = 500  # cases a model is asked how sure it is of; our choice
AT_ONCE = 16  # of them in one part; our choice


class CannotMeasure(Problem):
    """A template cannot be measured so; the message says what is missing."""


class Ask(NamedTuple):
    """One part: these demonstrations, in this order, before these texts. ``ids`` None: as the template chooses for each case,
    shuffled by ``order_seed`` where there is one."""

    name: str
    ids: tuple[int, ...] | None
    on: On
    order_seed: int | None = None


class Chosen(NamedTuple):
    """Ids of the demonstrations that a template chose for one case."""

    ranked: tuple[int, ...]  # first choice first
    own: tuple[int, ...]  # in the template's own order


class Cases(NamedTuple):
    search: list[Case]
    test: list[Case]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a measurement's row."""

    labels: tuple[str, ...]
    search: tuple[int, ...]  # ids of cases
    test: tuple[int, ...]
    asks: tuple[Ask, ...]  # what is asked before anything of test cases is
    seed: int
    left_out: int = 0  # demonstrations that are (nearly) one of the cases
    unfit: tuple[int, ...] = ()  # numbers of demonstrations that the model's context has no room for
    texts: Mapping[str, Sequence[str]] | None = None  # in the place of a case's own, by what they are for
    wanted: int = 0  # cases to label, of those the model is asked how sure it is of
    chosen: Mapping[int, Chosen] | None = None  # by case, for orders of a template that chooses so

    def as_row(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "chosen": self.chosen and [[case, *self.chosen[case]] for case in self.chosen]}

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Plan:
        asks = tuple(Ask(name, None if ids is None else tuple(ids), *more) for name, ids, *more in row["asks"])
        lists = {name: tuple(row[name]) for name in ("labels", "search", "test", "unfit")}
        given = row.get("chosen")
        chosen = given and {case: Chosen(tuple(ranked), tuple(own)) for case, ranked, own in given}
        return cls(**{**row, **lists, "asks": asks, "chosen": chosen})


def labels_of(template: Template) -> tuple[str, ...]:
    """Raises CannotMeasure where the template's answers are not a closed set."""
    if not template.labels or len(template.labels) < 2:
        raise CannotMeasure(
            f"{template.name} has no labels. Name the closed set of its answers on the Build page and save it.",
            "no_labels",
            name=template.name,
        )
    return template.labels


def cases_for(found: Sequence[Case], labels: Sequence[str], most: int, seed: int, *, need_truth: bool) -> Cases:
    """Val cases, then train cases drawn by the seed, up to ``most``; and the test cases that expect one of the labels."""
    if not 1 <= most <= MOST_SEARCHED:
        raise CannotMeasure(
            f"Search on 1 to {MOST_SEARCHED} cases, not {most}.", "searched_cases", most=MOST_SEARCHED, n=most
        )
    told = [case for case in found if truth_of(case, labels) is not None]
    open_ones = [] if need_truth else [case for case in found if truth_of(case, labels) is None]

    def drawn(pool: Sequence[Case], split: str) -> list[Case]:
        own = sorted((case for case in pool if case.split == split), key=lambda case: case.id or 0)
        Random(f"{split} {seed}").shuffle(own)
        return own

    search = [case for pool in (told, open_ones) for split in ("val", "train") for case in drawn(pool, split)]
    if not search:
        raise CannotMeasure(
            "There is no val or train case to search on that expects one of the labels. Add cases with their answers.",
            "no_search_cases",
        )
    return Cases(search[:most], drawn(told, "test")[:MOST_TEST])


def without_leaks(pool: Sequence[Demonstration], cases: Cases) -> list[Demonstration]:
    texts = [text_of(case) for case in (*cases.search, *cases.test)]
    return [one for one in pool if not any(leaks(one.input, text) for text in texts)]


def order_asks(
    template: Template, pool: Sequence[Demonstration], safe: Sequence[Demonstration], seed: int
) -> list[Ask]:
    """The template's own demonstrations in up to 24 orders, its own order first. Raises CannotMeasure, FewShotProblem."""
    few_shot = FewShot.parse(template.few_shot)
    fit = {one.id for one in safe}
    is_named = few_shot.choose == "fixed" and bool(few_shot.ids)
    shown = [one.id or 0 for one in choose(pool if is_named else safe, "", few_shot) if one.id in fit]
    _enough(len(shown))
    return [
        Ask(f"search:{at}", tuple(shown[place] for place in order), "search")
        for at, order in enumerate(calibrate.orders(len(shown), seed))
    ]


def chosen_for(
    template: Template, safe: Sequence[Demonstration], cases: Cases, embed: Embed | None
) -> dict[int, Chosen]:
    """What a template that chooses case by case shows each of them. Raises FewShotProblem, and what ``embed`` raises."""
    few_shot = FewShot.parse(template.few_shot)
    ranked = replace(few_shot, order="listed")  # shown first choice last

    def ids(case: Case, how: FewShot) -> tuple[int, ...]:
        return tuple(one.id or 0 for one in choose(safe, text_of(case), how, embed))

    return {case.id or 0: Chosen(ids(case, ranked)[::-1], ids(case, few_shot)) for case in (*cases.search, *cases.test)}


def case_wise_order_asks(chosen: Mapping[int, Chosen], seed: int) -> list[Ask]:
    """What was chosen for each case in up to 24 orders: the template's own, then those that a seed of its own makes, from
    ``seed`` on, so that any of them can be kept as a setting. Raises CannotMeasure."""
    shown = min(len(one.ranked) for one in chosen.values())
    _enough(shown)
    seen, asks = {own_places(chosen)}, [Ask("search:0", None, "search")]
    while len(asks) < min(calibrate.MOST_ORDERS, math.factorial(shown)):
        places = places_of(shown, seed)
        if places not in seen:
            seen.add(places)
            asks.append(Ask(f"search:{len(asks)}", None, "search", seed))
        seed += 1
    return asks


def places_of(count: int, order_seed: int) -> tuple[int, ...]:
    """Which choice stands where, 1 is the first choice."""
    return tuple(shuffled(range(1, count + 1), order_seed))


def own_places(chosen: Mapping[int, Chosen]) -> tuple[int, ...]:
    """The same of a template's own order; empty where that differs from case to case."""
    found = {tuple(one.ranked.index(id) + 1 for id in one.own) for one in chosen.values()}
    return found.pop() if len(found) == 1 else ()


def _enough(shown: int) -> None:
    if shown < 2:
        raise CannotMeasure(
            f"An order needs two demonstrations or more; this template shows {shown}. Raise k or add demonstrations.",
            "order_of_few",
            n=shown,
        )


def count_asks(
    template: Template, safe: Sequence[Demonstration], counts: Sequence[int], seeds: int, seed: int
) -> list[Ask]:
    """So many demonstrations, drawn anew by every seed: balanced over labels where the template asks for that. Nested: of one
    seed those of a smaller number are among those of a larger one."""
    few_shot = FewShot.parse(template.few_shot)
    how: Literal["balanced", "seeded"] = "balanced" if few_shot.choose == "balanced" else "seeded"
    asks = []
    for count in sorted({count for count in counts if 0 <= count <= min(len(safe), MOST_DEMONSTRATIONS)}):
        for draw in range(seeds if count else 1):
            own = replace(few_shot, k=count, choose=how, ids=(), seed=seed + draw, order="listed")
            ids = tuple(one.id or 0 for one in choose(safe, "", own))
            if len(ids) == count:  # of a bank whose rest has no labels there may be fewer
                asks.append(Ask(f"search:{count}:{draw}", ids, "search"))
    return asks


def calibration_asks(template: Template, safe: Sequence[Demonstration]) -> list[Ask]:
    few_shot = FewShot.parse(template.few_shot)
    ids: tuple[int, ...] | None = None
    if few_shot.choose not in CASE_WISE:
        kept = tuple(id for id in few_shot.ids if id in {one.id for one in safe})
        k = min(few_shot.k, len(kept)) if few_shot.choose == "fixed" and few_shot.ids else few_shot.k
        ids = tuple(one.id or 0 for one in choose(safe, "", replace(few_shot, ids=kept, k=k)))
    return [
        Ask("search:plain", ids, "search"),
        Ask("content_free", ids, "content_free"),
        Ask("domain", ids, "domain"),
        Ask("stub", (), "stub"),
        Ask("test:plain", ids, "test"),
    ]


def draws_of(asks: Sequence[Ask], count: int) -> list[Ask]:
    """The search parts of one number of demonstrations."""
    return [ask for ask in asks if ask.name.startswith(f"search:{count}:")]


def counts_of(asks: Sequence[Ask]) -> list[int]:
    return sorted({int(ask.name.split(":")[1]) for ask in asks if ask.on == "search"})


def total_of(kind: MeasurementKind, plan: Plan) -> int:
    """How many parts there will be."""
    if not plan.test:
        return len(plan.asks)
    if kind == "count":
        return len(plan.asks) + 1 + max(len(draws_of(plan.asks, count)) for count in counts_of(plan.asks))
    return len(plan.asks) + (3 if kind == "order" else 0)
