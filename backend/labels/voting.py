"""A judgement given where the answers were made, without the queue: of a battle, or of columns side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from backend.labels.form import Answer
from backend.problem import Problem
from feedback_db import Store, comparisons, judgements
from feedback_db.types import Assignment, Comparison, Completion, Judgement, Person, Prompt


class CannotVote(Problem):
    """There is nothing to choose between, or this was judged already; the message says which."""


def vote_on(
    store: Store,
    person: Person,
    completion_ids: Sequence[int],
    answer: Answer,
    key: bytes,
    *,
    reason: str,
    client: str,
    arm: Literal["random", "priority"] = "random",
    partial: bool = False,
) -> Judgement:
    """Keep what somebody says of stored answers to one case, as they stood left to right. Joins the caller's transaction.

    Answers with the same text are one answer: all have the best rank that one of them was given. One that stands there twice, as
    two columns that asked the same have it, is judged once. ``partial``: some of them had not ended, so the judgement is about
    what was shown and is never trained on. Raises CannotVote.
    """
    found = [store.get(Completion, i) for i in dict.fromkeys(completion_ids)]
    asked = store.get(Prompt, found[0].prompt_id)
    if len({one.text for one in found}) < 2:
        raise CannotVote("All wrote the same: there is nothing to choose between. Use another seed.", "all_the_same")
    ranks = _by_text(store, completion_ids, answer.ranks)
    completion_ids = [one.id or 0 for one in found]
    comparison = comparisons.existing_comparison(store, completion_ids)
    if comparison is None:
        kind: Literal["pair", "rank"] = "pair" if len(found) == 2 else "rank"
        made = Comparison(
            project_id=asked.project_id, case_id=asked.case_id, kind=kind, size=len(found), reason=reason, arm=arm
        )
        comparison = comparisons.add_comparison(store, made, completion_ids)
    order = [one.id for one in comparisons.completions_of(store, comparison.id or 0)]
    now, shown = store.now(), tuple(order.index(i) for i in completion_ids)
    if store.find(Assignment, "comparison_id = ? and person_id = ?", [comparison.id, person.id]):
        raise CannotVote("You have judged these answers already.", "judged_already")
    fresh = store.get(Comparison, comparison.id or 0)
    lease = store.add(
        Assignment(
            comparison_id=comparison.id or 0, person_id=person.id or 0, project_id=asked.project_id, shown=shown,
            purpose="label" if fresh.slots_left > 0 and fresh.status == "open" else "surplus", leased_at=now, expires_at=now,
        )
    )  # fmt: skip
    return judgements.add(
        store,
        Judgement(
            key=key, assignment_id=lease.id or 0, comparison_id=comparison.id or 0, person_id=person.id or 0, shown=shown,
            ranks=tuple(ranks[one.text] for one in found), both_bad=answer.both_bad, strength=answer.strength, seconds=answer.seconds, client=client,
            guideline_id=judgements.guideline_id(store, asked.project_id), partial=partial, created_at=now,
        ),
    )  # fmt: skip


def _by_text(store: Store, completion_ids: Sequence[int], ranks: Sequence[int]) -> dict[str, int]:
    """Each text with the best rank that one of its answers was given."""
    best: dict[str, int] = {}
    for id, rank in zip(completion_ids, ranks, strict=True):
        text = store.get(Completion, id).text
        best[text] = min(rank, best.get(text, rank))
    return best
