"""Several checks make one score as promptfoo makes it."""

import pytest

from backend.suites.checks import parse
from backend.suites.kinds import Given
from backend.suites.scoring import scored

HELD = {"type": "contains", "value": "a"}
MISSED = {"type": "contains", "value": "z"}


def test_the_score_is_the_weighted_mean_and_all_must_pass() -> None:
    found = scored(parse([{**HELD, "weight": 3}, MISSED]), Given(answer="a"))
    assert found.score == pytest.approx(0.75) and not found.passed
    assert found.reason.startswith("contains: lacks")


def test_with_a_threshold_the_score_alone_counts() -> None:
    checks = parse([{**HELD, "weight": 3}, MISSED])
    assert scored(checks, Given(answer="a"), 0.75).passed
    assert not scored(checks, Given(answer="a"), 0.76).passed


def test_a_check_without_weight_is_told_and_changes_nothing() -> None:
    found = scored(parse([HELD, {**MISSED, "weight": 0}]), Given(answer="a"))
    assert found.passed and found.score == 1.0 and found.results[1].score == 0.0


def test_no_checks_pass() -> None:
    assert scored((), Given(answer="")).passed


def test_metrics_are_means_of_the_checks_that_name_them() -> None:
    checks = parse([{**HELD, "metric": "form"}, {**MISSED, "metric": "form", "weight": 3}, HELD])
    assert scored(checks, Given(answer="a")).metrics == {"form": pytest.approx(0.25)}
