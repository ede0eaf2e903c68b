"""Making what annotators judge of answers that are stored: what would tell who wrote them is covered."""

from __future__ import annotations

from typing import Literal

from backend.labels import identity
from backend.prompts.digest import digest_of
from feedback_db import Store, cases, comparisons
from feedback_db.types import Case, Comparison, Completion, Model, Project


def add_comparison(
    store: Store,
    project_id: int,
    case_id: int,
    completion_ids: list[int],
    *,
    overlap: int | None,
    reason: str,
    arm: Literal["random", "priority"] = "random",
) -> Comparison:
    """A pair or a ranking of stored answers to one case, in a fixed shuffle; the one that holds just these is returned instead."""
    existing = comparisons.existing_comparison(store, completion_ids)
    if existing is not None:
        return existing
    kind: Literal["pair", "rank"] = "pair" if len(completion_ids) == 2 else "rank"
    wanted = overlap or store.get(Project, project_id).overlap
    comparison = Comparison(
        project_id=project_id,
        case_id=case_id,
        kind=kind,
        size=len(completion_ids),
        overlap=wanted,
        slots_left=wanted,
        arm=arm,
        queue_key=int.from_bytes(digest_of(completion_ids)[:4], "big"),  # a fixed shuffle
        reason=reason,
        leaked=leaked(store, case_id, completion_ids),
    )
    return comparisons.add_comparison(store, comparison, completion_ids)


def leaked(store: Store, case_id: int, completion_ids: list[int]) -> dict[str, list[list[int]]] | None:
    """Where the answers say who made them, by position; None when none of them does."""
    case = store.get(Case, case_id)
    asked = " ".join(message["content"] for message in cases.conversation(case.values, case.conversation))
    texts = [store.get(Completion, i).text for i in completion_ids]
    return identity.leaks(texts, [model.name for model in store.find(Model)], asked)
