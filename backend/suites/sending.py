"""Answers of a run as comparisons for people to judge, blind.

What a comparison holds decides what a win in it speaks for. Answers to equal prompts make training pairs. Where a case has no two
of those, its columns are set against each other: that is a vote for demonstrations or for a template and trains nobody
(feedback_db.comparisons.basis_of finds out which). Equal texts are one answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from backend.labels.making import add_comparison
from backend.suites.looking import Look, Show
from feedback_db import Store, comparisons, suites
from feedback_db.types import Cell, Completion, Suite, SuiteRun

Mode = Literal["same", "across"]
Queue = Literal["random", "priority"]
MOST_ANSWERS = 16  # of one comparison
MOST_BY_RULE = 200  # comparisons that one rule of one run makes by itself
TOGETHER = 50  # cases of one transaction, so that nobody's judgement waits for long
REASONS: dict[Show, str] = {
    "all": "sent from a run",
    "failed": "a check failed",
    "differ": "columns disagree",
    "worse": "worse than the first column",
    "close": "the reward model hardly tells them apart",
}


class Pick(NamedTuple):
    """Cells of one case: all columns, or some."""

    case_id: int
    arms: frozenset[int] | None = None


class Sent(NamedTuple):
    """Comparisons that were made: of equal prompts, and across demonstrations or templates; and cases that made none."""

    training: int = 0
    votes: int = 0
    known: int = 0  # were in the queue or judged before
    alone: int = 0  # have no two different answers


def send(
    store: Store,
    run: SuiteRun,
    picks: Sequence[Pick],
    *,
    reason: str,
    queue: Queue,
    mode: Mode = "same",
    most: int | None = None,
) -> Sent:
    """Make the comparisons. ``mode`` "same": equal prompts where a case has two different answers to one, else across columns;
    "across": always across. ``queue``: whether chance chose these cases, so that statistics may count them."""
    counts: dict[str, int] = defaultdict(int)
    for at in range(0, len(picks), TOGETHER):
        if most is not None and counts["training"] + counts["votes"] >= most:
            break
        some = picks[at : at + TOGETHER]
        answers = _answers(store, run, [pick.case_id for pick in some])
        with store.write():
            for pick in some:
                of_case = [
                    (cell, one) for cell, one in answers[pick.case_id] if pick.arms is None or cell.arm in pick.arms
                ]
                groups = _groups(store, of_case, mode)
                counts["alone"] += not groups
                for ids in groups:
                    if comparisons.existing_comparison(store, ids) is not None:
                        counts["known"] += 1
                        continue
                    made = add_comparison(
                        store,
                        run.project_id,
                        pick.case_id,
                        ids,
                        overlap=None,
                        reason=f"{reason} · run {run.id}",
                        arm=queue,
                    )
                    counts["training" if made.basis == "prompt" else "votes"] += 1
    return Sent(**counts)


def send_by_rules(store: Store, run: SuiteRun) -> None:
    """What a run that is done sends by itself; the cases that its rules chose are no fair sample, and the queue knows. A run that is
    cut off here does it again, and makes nothing twice."""
    if not run.sends:
        return
    look = Look(run, store.get(Suite, run.suite_id))
    look.add(suites.told(store, run.id or 0))
    for rule in run.sends:
        picks = [Pick(case_id) for case_id in look.shown(rule)]  # type: ignore[arg-type]
        made = send(store, run, picks, reason=REASONS[rule], queue="priority", most=MOST_BY_RULE)  # type: ignore[index]
        suites.count_sent(store, run.id or 0, made.training + made.votes)


Answers = list[tuple[Cell, Completion]]


def _answers(store: Store, run: SuiteRun, case_ids: Sequence[int]) -> dict[int, Answers]:
    cells = [cell for cell in suites.cells(store, run.id or 0, case_ids) if cell.completion_id is not None]
    found = suites.completions(store, [cell.completion_id or 0 for cell in cells])
    by_case: dict[int, Answers] = {case_id: [] for case_id in case_ids}
    for cell in cells:
        by_case[cell.case_id].append((cell, found[cell.completion_id or 0]))
    return by_case


def _groups(store: Store, answers: Answers, mode: Mode) -> list[list[int]]:
    """Ids of the answers of each comparison that this case makes."""
    digests = suites.prompt_digests(store, [one.prompt_id for _, one in answers])
    by_prompt: dict[bytes, list[Completion]] = defaultdict(list)
    for _, one in answers:
        by_prompt[digests[one.prompt_id]].append(one)
    same = [ids for several in by_prompt.values() if len(ids := _different(several)) > 1]
    if same and mode == "same":
        return same
    first = {cell.arm: one for cell, one in reversed(answers)}  # of each column its first repeat
    across = _different([first[arm] for arm in sorted(first)])
    return [across] if len(across) > 1 else []


def _different(answers: Collection[Completion]) -> list[int]:
    """One of each text that says something, at most as many as are compared at once."""
    texts: dict[str, int] = {}
    for one in answers:
        if one.text.strip() and one.id is not None:
            texts.setdefault(one.text, one.id)
    return list(texts.values())[:MOST_ANSWERS]
