"""What is asked of the answers to one case: the suite's checks, then the case's own; its own threshold before the suite's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backend.prompts.digest import digest_of
from backend.suites.checks import Check, parse
from backend.suites.grading import GRADED, grader_of
from feedback_db.types import Suite


class Asked(NamedTuple):
    checks: tuple[Check, ...]
    threshold: float | None


def asked_by(suite: Suite) -> Callable[[int], Asked]:
    """By case id; the suite's own checks are read once."""
    shared = parse(suite.checks)

    def of_case(case_id: int) -> Asked:
        own = suite.own.get(str(case_id))
        if own is None:
            return Asked(shared, suite.threshold)
        threshold = own.get("threshold")
        return Asked((*shared, *parse(own.get("checks", ()))), suite.threshold if threshold is None else threshold)

    return of_case


def row_of(checks: Sequence[Mapping[str, Any]], threshold: float | None) -> dict[str, Any]:
    """What a suite keeps of a case; empty where nothing is its own."""
    row: dict[str, Any] = {"checks": [dict(check) for check in checks]} if checks else {}
    return row if threshold is None else {**row, "threshold": threshold}


def suite_digest(
    case_ids: Sequence[int], checks: Sequence[Mapping[str, Any]], threshold: float | None, own: Mapping[str, Any]
) -> bytes:
    """The 32 bytes that name what a suite asks; ``own`` by case id as a suite keeps it, and no part of it where it is empty."""
    content = {"cases": list(case_ids), "checks": [dict(check) for check in checks], "threshold": threshold}
    return digest_of({**content, "own": dict(own)} if own else content)


def graders_of(suite: Suite) -> set[str]:
    """Which models its checks ask, as ``grading.grader_of`` names them."""
    rows: Iterable[Mapping[str, Any]] = [
        *suite.checks,
        *(row for own in suite.own.values() for row in own.get("checks", ())),
    ]
    return {grader_of(check.type, check.value) for row in rows for check in parse([row]) if check.type in GRADED}
