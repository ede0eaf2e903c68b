"""What a classifier gets right, label by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class OfLabel(NamedTuple):
    label: str
    precision: float  # 0 where the label was never given
    recall: float  # 0 where it was never right
    f1: float
    n: int  # cases whose right label it is


class Report(NamedTuple):
    accuracy: float
    macro_f1: float  # the mean over labels that are right somewhere or were given
    labels: tuple[OfLabel, ...]
    confused: tuple[tuple[str, str, int], ...]  # (right, given, times), the most frequent first


def report(right: Sequence[str], given: Sequence[str]) -> Report:
    """Equal lengths, at least one case."""
    pairs = Counter(zip(right, given, strict=True))
    are_right, are_given = Counter(right), Counter(given)
    rows = []
    for label in sorted({*are_right, *are_given}):
        hits = pairs[label, label]
        precision = hits / are_given[label] if are_given[label] else 0.0
        recall = hits / are_right[label] if are_right[label] else 0.0
        f1 = 2 * hits / (are_given[label] + are_right[label])
        rows.append(OfLabel(label, precision, recall, f1, are_right[label]))
    wrong = sorted(((a, b, n) for (a, b), n in pairs.items() if a != b), key=lambda one: (-one[2], one))
    hits = sum(n for (a, b), n in pairs.items() if a == b)
    return Report(hits / len(right), sum(row.f1 for row in rows) / len(rows), tuple(rows), tuple(wrong))
