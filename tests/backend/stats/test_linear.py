"""The linear classifier: what ridge regression on one-hot labels says, with the penalty that leaves the least one out."""

from __future__ import annotations

import numpy as np
import pytest

from backend.stats import linear
from backend.stats.linear import classify


def blobs(seed: int, n: int, noise: float) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    labels = [i % 3 for i in range(n)]
    centres = np.eye(3, 20) * 3
    return centres[labels] + noise * rng.standard_normal((n, 20)), labels


def test_classes_that_a_line_separates_are_told_apart() -> None:
    (train, labels), (test, truths) = blobs(0, 90, 0.5), blobs(1, 60, 0.5)
    assert classify(train, labels, test, 3) == truths


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_it_is_ridge_regression_as_the_textbook_solves_it(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), (test, _) = blobs(2, 60, 3.0), blobs(3, 200, 3.0)
    monkeypatch.setattr(linear, "PENALTIES", (penalty,))
    x, z = (train - train.mean(0)) / train.std(0), (test - train.mean(0)) / train.std(0)
    y = np.eye(3)[labels]
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(20), x.T @ (y - y.mean(0)))
    assert classify(train, labels, test, 3) == (z @ weights + y.mean(0)).argmax(1).tolist()


def test_the_penalty_is_the_one_that_predicts_a_row_left_out_best(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), (test, _) = blobs(4, 40, 6.0), blobs(5, 300, 6.0)
    x = (train - train.mean(0)) / train.std(0)
    y = np.eye(3)[labels]

    def left_out(penalty: float) -> float:
        wrong = []
        for one in range(len(x)):
            rest = np.arange(len(x)) != one
            a = np.column_stack([np.ones(len(x)), x])
            shrink = penalty * np.eye(21)
            shrink[0, 0] = 0
            weights = np.linalg.solve(a[rest].T @ a[rest] + shrink, a[rest].T @ y[rest])
            wrong.append(((y[one] - a[one] @ weights) ** 2).mean())
        return float(np.mean(wrong))

    best = min(linear.PENALTIES, key=left_out)
    chosen = classify(train, labels, test, 3)
    monkeypatch.setattr(linear, "PENALTIES", (best,))
    assert classify(train, labels, test, 3) == chosen


def test_a_feature_that_never_changes_is_no_trouble() -> None:
    train, labels = blobs(0, 30, 0.1)
    train[:, 5] = 7.0
    assert classify(train, labels, train, 3) == labels
