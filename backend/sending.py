"""What prompt engineers do with the answers of a run: send them to be judged, cell by cell, row by row, or all that a filter shows."""

from __future__ import annotations

from collections.abc import Sequence

from backend import access
from backend.problem import Problem
from backend.suites import sending
from backend.suites.looking import Looks, Show
from backend.suites.sending import Mode, Pick, Sent
from feedback_db import Store, audit
from feedback_db.types import Person, SuiteRun

MOST_CASES = 2_000  # that one click sends


class CannotSend(Problem):
    """Nothing of this can be judged; the message says why."""


def send_picked(store: Store, person: Person, run_id: int, picks: Sequence[Pick], *, mode: Mode = "same") -> Sent:
    """Cells that somebody picked by hand, as on the compare page. Raises CannotSend."""
    access.require(person, "compare")
    if not picks:
        raise CannotSend("Mark rows or cells of the table first.", "nothing_picked")
    return _sent(store, person, store.get(SuiteRun, run_id), picks, "all", mode)


def send_shown(
    store: Store, person: Person, run_id: int, show: Show, *, mode: Mode = "same", looks: Looks | None = None
) -> Sent:
    """Every case that a filter shows. Those that a rule chose are no fair sample: they are asked first and stand in no leaderboard.
    Raises CannotSend."""
    access.require(person, "compare")
    run = store.get(SuiteRun, run_id)
    case_ids = (looks or Looks()).of(store, run).shown(show)
    return _sent(store, person, run, [Pick(case_id) for case_id in case_ids], show, mode)


def _sent(store: Store, person: Person, run: SuiteRun, picks: Sequence[Pick], show: Show, mode: Mode) -> Sent:
    if not 1 <= len(picks) <= MOST_CASES:
        raise CannotSend(
            f"One click sends 1 to {MOST_CASES:,} cases, not {len(picks):,}. Choose a narrower filter, or mark some.",
            "many_sent",
            most=MOST_CASES,
            n=len(picks),
        )
    made = sending.send(
        store, run, picks, reason=sending.REASONS[show], queue="random" if show == "all" else "priority", mode=mode
    )
    audit.record(
        store, person, "send_to_labelling", "run", run.id, {"cases": len(picks), "made": made.training + made.votes}
    )
    return made
