"""How far a reward model or a judge agrees with people, on the very answers of a run that people judged too."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from backend.stats import agreement
from backend.stats.agreement import Estimate, share_of_groups
from backend.stats.apart import apart
from backend.suites.grading import GRADED, grader_of
from backend.suites.own import asked_by
from feedback_db import Store, suites, verdicts
from feedback_db.types import Suite, SuiteRun
from feedback_db.verdicts import Said

MOST_RUNS = 8  # kept in memory
KINDS = 3  # of two answers: the first is better, the second is, neither


class Agreement(NamedTuple):
    """Of every pair of answers that somebody ranked, once per person. NaN, with n = 0, where nobody has judged any."""

    grader: str  # as grading.grader_of names it
    model_id: int
    accuracy: Estimate  # of the pairs of which people said which is better; a tie of the grader is half. Comparisons are the groups
    kappa: Estimate  # Cohen's, of better, worse, neither; a bootstrap over comparisons
    people: int


def agreements(store: Store, run: SuiteRun) -> list[Agreement]:
    """Of each model that this run asks about answers."""
    if not run.graders:
        return []
    said = verdicts.said(store, run.id or 0)
    wanted = sorted({answer for one in said for answer in one.ranks})
    grades = _grades(store, run, wanted)
    return [_agreement(name, model_id, said, grades.get(name, {})) for name, model_id in sorted(run.graders.items())]


def _grades(store: Store, run: SuiteRun, completion_ids: Sequence[int]) -> dict[str, dict[int, float]]:
    """Grader -> completion id -> the mean of what its checks gave this answer; answers it said nothing of are left out."""
    asked = asked_by(store.get(Suite, run.suite_id))
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in suites.results_of(store, run.id or 0, completion_ids):
        for check, result in zip(asked(row["case_id"]).checks, json.loads(row["results"]), strict=False):
            if check.type in GRADED and len(result) == 3:
                score = 1 - result[0] if check.is_negated else result[0]
                found[grader_of(check.type, check.value)][row["completion_id"]].append(score)
    return {
        name: {answer: sum(scores) / len(scores) for answer, scores in of_answers.items()}
        for name, of_answers in found.items()
    }


def _agreement(name: str, model_id: int, said: Sequence[Said], grades: Mapping[int, float]) -> Agreement:
    tables: dict[int, Any] = defaultdict(lambda: np.zeros((KINDS, KINDS)))  # comparison -> people by grader
    people = set()
    for one in said:
        for first, second in combinations(sorted(one.ranks), 2):
            if first in grades and second in grades:
                theirs = _which(one.ranks[second] - one.ranks[first])  # rank 1 is best
                ours = _which(grades[first] - grades[second])
                tables[one.comparison][theirs, ours] += 1
                people.add(one.person)
    if not tables:
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        return Agreement(name, model_id, nothing, nothing, 0)
    stacked = np.stack(list(tables.values()))  # (comparisons, KINDS, KINDS)
    total = stacked.sum(0)
    hits = stacked[:, 0, 0] + stacked[:, 1, 1] + stacked[:, :2, 2].sum(1) / 2  # (comparisons,)
    turned = stacked[:, [1, 0, 2]][
        :, :, [1, 0, 2]
    ]  # which answer is the first is chance: each pair counts both ways round
    kappa = apart(agreement.cohen_of_tables, stacked + turned)._replace(n=round(float(total.sum())))
    return Agreement(name, model_id, share_of_groups(hits, stacked[:, :2].sum((1, 2))), kappa, len(people))


def _which(difference: float) -> int:
    return 2 if abs(difference) < 1e-9 else 0 if difference > 0 else 1


class Agreements:
    """What was counted lately: again only once somebody has said something more, or the run has come further."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[tuple[int, int], list[Agreement]]] = {}

    def of(self, store: Store, run: SuiteRun) -> list[Agreement]:
        stamp = (verdicts.newest_judgement(store), run.done)
        kept = self._kept.get(run.id or 0)
        if kept is None or kept[0] != stamp:
            kept = (stamp, agreements(store, run))
            self._kept = {**dict(list(self._kept.items())[-MOST_RUNS:]), run.id or 0: kept}
        return kept[1]
