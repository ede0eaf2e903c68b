"""What a measurement asks: which cases are searched on and which are claimed on, which demonstrations, in which parts.

Whatever searches sees val cases, and train cases where those are few; what is claimed is of test cases, which no search sees. A
demonstration that is (nearly) one of these cases is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from backend.problem import Problem
from backend.prompts import calibrate
from backend.prompts.chat import text_of
from backend.prompts.fewshot import CASE_WISE, MOST_DEMONSTRATIONS, FewShot, choose, leaks
from backend.prompts.labelwords import truth_of
from feedback_db.types import Case, Demonstration, MeasurementKind, Template

On = Literal["search", "test", "content_free", "domain", "stub"]
COUNTS = (0, 1, 2, 4, 8, 16, 32)
SEEDS = 5
SEARCHED = 30  # cases a search looks at, unless said otherwise; our choice
MOST_SEARCHED, MOST_TEST = 200, 200


class CannotMeasure(Problem):
    """A template cannot be measured so; the message says what is missing."""


class Ask(NamedTuple):
    """One part: these demonstrations, in this order, before these texts. ``ids`` None: as the template chooses for each case."""

    name: str
    ids: tuple[int, ...] | None
    on: On


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

    def as_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Plan:
        asks = tuple(Ask(name, None if ids is None else tuple(ids), on) for name, ids, on in row["asks"])
        lists = {name: tuple(row[name]) for name in ("labels", "search", "test", "unfit")}
        return cls(**{**row, **lists, "asks": asks})


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
    if few_shot.choose in CASE_WISE:
        raise CannotMeasure(
            "This template chooses other demonstrations for every case, so there is no order of its own to measure. "
            "Choose fixed, seeded or balanced.",
            "order_of_case_wise",
        )
    fit = {one.id for one in safe}
    is_named = few_shot.choose == "fixed" and bool(few_shot.ids)
    shown = [one.id or 0 for one in choose(pool if is_named else safe, "", few_shot) if one.id in fit]
    if len(shown) < 2:
        raise CannotMeasure(
            f"An order needs two demonstrations or more; this template shows {len(shown)}. Raise k or add demonstrations.",
            "order_of_few",
            n=len(shown),
        )
    return [
        Ask(f"search:{at}", tuple(shown[place] for place in order), "search")
        for at, order in enumerate(calibrate.orders(len(shown), seed))
    ]


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
