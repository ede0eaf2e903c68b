"""What a run comes to so far, kept in memory and added to: a look reads the cells that came since the one before, and no others."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backend.stats.growing import Growing
from backend.suites.grading import REWARD
from backend.suites.own import asked_by
from feedback_db import Store, suites
from feedback_db.types import Suite, SuiteRun

Show = Literal["all", "failed", "differ", "worse", "close"]
Floats = npt.NDArray[np.float64]
MOST_RUNS = 8  # kept in memory at once; the one that was looked at longest ago is forgotten first
CLOSE = 0.5  # rewards, on the logit scale, nearer than this: by the model's reckoning at most 62 % would prefer either; our choice


class Look:
    """One run as of its last cell. Arrays are (cases, columns), cases in the order of the suite."""

    def __init__(self, run: SuiteRun, suite: Suite) -> None:
        self.order = suite.case_ids
        self.arms = len(run.arms)
        self.tries = run.tries  # cells that were taken away: then all is read again
        self.last = 0  # the number of the last cell that was read
        shape = (len(self.order), self.arms)
        self.scores = np.zeros(shape)
        self.cells = np.zeros(shape, np.int64)
        self.passed = np.zeros(shape, np.int64)
        self.failed = np.zeros(self.arms, np.int64)  # cells without an answer
        self.facts: dict[str, list[list[float]]] = {
            name: [[] for _ in range(self.arms)] for name in ("seconds", "tokens", "prompt_tokens")
        }
        self.rewards: dict[int, set[float]] = defaultdict(set)  # place -> what the reward model gave different answers
        self.spread = Growing(2 * self.arms - 1)  # the columns' scores, then what each other column gains on the first
        self._place = {case_id: place for place, case_id in enumerate(self.order)}
        self._asked = asked_by(suite)
        self._has_rewards = any(name.startswith(REWARD) for name in run.graders)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in cells as feedback_db.suites.told gives them."""
        touched = sorted({self._place[row["case_id"]] for row in rows})
        before = self._values(touched)
        for row in rows:
            place, arm = self._place[row["case_id"]], row["arm"]
            self.scores[place, arm] += row["score"]
            self.cells[place, arm] += 1
            self.passed[place, arm] += bool(row["passed"])
            self.failed[arm] += bool(row["failed"])
            for name, kept in self.facts.items():
                if row[name] is not None:
                    kept[arm].append(row[name])
            if self._has_rewards:
                self.rewards[place].update(self._rewards(row["case_id"], json.loads(row["results"])))
            self.last = max(self.last, row["seq"])
        if touched:
            self.spread.add(touched, before, self._values(touched))

    @property
    def means(self) -> Floats:
        """Each case's score over its repeats; NaN where there is no cell yet."""
        return np.divide(self.scores, self.cells, out=np.full(self.scores.shape, np.nan), where=self.cells > 0)

    def shown(self, show: Show) -> list[int]:
        """Case ids in the suite's order. ``differ``: columns do not agree; ``worse``: a column fails what the first passes;
        ``close``: the reward model hardly tells the best two answers apart."""
        if show == "all":
            return list(self.order)
        if show == "close":
            return [self.order[place] for place in sorted(self.rewards) if _margin(self.rewards[place]) <= CLOSE]
        there, held = self.cells > 0, self.passed == self.cells
        misses = there & ~held
        if show == "failed":
            found = misses.any(1)
        elif show == "differ":
            found = misses.any(1) & (there & held).any(1)
        else:
            found = (there & held)[:, 0] & misses.any(1)
        return [self.order[place] for place in np.flatnonzero(found)]

    def _values(self, places: Sequence[int]) -> Floats:
        """(K, 2 columns - 1): the cases' scores, and what the other columns gain on the first."""
        at = list(places)
        means = np.divide(
            self.scores[at], self.cells[at], out=np.full((len(at), self.arms), np.nan), where=self.cells[at] > 0
        )
        return np.hstack([means, means[:, 1:] - means[:, :1]])

    def _rewards(self, case_id: int, results: Sequence[Sequence[Any]]) -> Iterable[float]:
        """Of the first check that asks a reward model, on the model's own scale but for the threshold, which all cells share."""
        for check, result in zip(self._asked(case_id).checks, results, strict=False):
            if check.type == REWARD:
                score = 1 - result[0] if check.is_negated else result[0]
                return [math.log(score / (1 - score))] if len(result) == 3 and 0 < score < 1 else []
        return []


class Looks:
    """The runs that were looked at lately. Safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Look] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, store: Store, run: SuiteRun) -> Look:
        """The run as of now."""
        with self._lock:
            look = self._kept.get(run.id or 0)
            if look is None or look.tries != run.tries:
                look = Look(run, store.get(Suite, run.suite_id))
            look.add(suites.told(store, run.id or 0, look.last))
            self._kept[run.id or 0] = look
            self._kept.move_to_end(run.id or 0)
            while len(self._kept) > MOST_RUNS:
                self._kept.popitem(last=False)
            return look


def _margin(rewards: Iterable[float]) -> float:
    """Between the best two; infinite where there are no two."""
    best = sorted(rewards, reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else math.inf
