"""The report of a classifier, by hand."""

import pytest

from backend.stats.labels import report


def test_precision_recall_and_f1_by_label() -> None:
    found = report(["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "a"])
    by_label = {row.label: row for row in found.labels}
    assert found.accuracy == pytest.approx(3 / 5)
    assert by_label["a"][1:] == (pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(1 / 2), 2)
    assert by_label["b"][1:] == (pytest.approx(2 / 3), pytest.approx(1.0), pytest.approx(0.8), 2)
    assert by_label["c"][1:] == (0.0, 0.0, 0.0, 1)
    assert found.macro_f1 == pytest.approx((0.5 + 0.8 + 0) / 3)
    assert found.confused == (("a", "b", 1), ("c", "a", 1))


def test_a_label_that_is_only_given_counts_against_the_mean() -> None:
    found = report(["a"], ["other"])
    assert found.macro_f1 == 0.0 and [row.label for row in found.labels] == ["a", "other"]
