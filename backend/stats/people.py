"""How far the people of a project can be relied on, by all that they said of its pairs."""

from __future__ import annotations

from backend.stats import reliability
from backend.stats.apart import apart
from backend.stats.reliability import Pairs
from feedback_db import Store, quality


def relied_on(store: Store, project_id: int) -> Pairs:
    """Takes seconds where thousands judged anew, so it is not to be asked within a transaction."""
    rows = quality.sides(store, project_id)
    comparison, person, side = ([row[column] for row in rows] for column in range(3))
    return apart(reliability.of_pairs, comparison, person, side, quality.gold_sides(store, project_id))
