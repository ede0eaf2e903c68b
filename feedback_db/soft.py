"""Soft labels: what a comparison's answer probably is, given who said what and how far each can be relied on.

The tables are estimated elsewhere (backend/stats/reliability.py) and frozen with a snapshot, so that its rows stay a
function of rows that never change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FIRST, SECOND, TIE = 0, 1, 2
LEAST = 1e-9  # a probability of 0 would let one judgement decide for ever


def category(ranks_by_position: Mapping[int, int]) -> int:
    """Of a pair, by canonical position."""
    first, second = ranks_by_position[0], ranks_by_position[1]
    return TIE if first == second else FIRST if first < second else SECOND


def share(reliability: Mapping[str, Any], said: Iterable[tuple[int, int]]) -> float:
    """Probable share of position 0, a tie half: Bayes' rule over (person id, category). ``reliability``: {"prior",
    "people": {id as text: table}}; who has no table is taken for the average of those who have one."""
    tables = reliability["people"]
    logs = [math.log(max(one, LEAST)) for one in reliability["prior"]]
    for person, named in said:
        table = tables.get(str(person)) or average(tables)
        logs = [log + math.log(max(table[truth][named], LEAST)) for truth, log in enumerate(logs)]
    highest = max(logs)
    parts = [math.exp(log - highest) for log in logs]
    return round((parts[FIRST] + 0.5 * parts[TIE]) / math.fsum(parts), 6)


def average(tables: Mapping[str, list[list[float]]]) -> list[list[float]]:
    """The mean table; even chances where there is none."""
    if not tables:
        return [[1 / 3] * 3] * 3
    return [[math.fsum(table[t][c] for table in tables.values()) / len(tables) for c in range(3)] for t in range(3)]


def weight(reliability: Mapping[str, Any], person: int) -> float:
    """What a person's word counts beside that of others: the log odds of naming the better of two answers rather than the
    worse, which makes the best of weighted majorities of independent people (Nitzan & Paroush 1982). 1 for the average of those
    who have a table, and for who has none; nobody counts less than nothing."""
    tables = reliability["people"]
    usual = _log_odds(average(tables))
    if str(person) not in tables or usual <= 0:
        return 1.0
    return round(_log_odds(tables[str(person)]) / usual, 6)


def _log_odds(table: Sequence[Sequence[float]]) -> float:
    """0 or more, of both truths alike."""
    right = table[FIRST][FIRST] + table[SECOND][SECOND]
    wrong = table[FIRST][SECOND] + table[SECOND][FIRST]
    return max(0.0, math.log(max(right, LEAST) / max(wrong, LEAST)))
