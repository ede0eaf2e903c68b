"""Priorities: which waiting comparisons may be ordered, and putting them into an order. The order is found elsewhere.

Whether a comparison may be moved to the priority arm is a throw of a coin that nothing else knows, the same at every
ordering: what is left in the random arm stays a fair sample of everything, and figures about people and models rest on it.
Held-out cases stay there too; no model learns from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .store import Store, as_json
from .types import Job, Project

MOST = 5_000  # comparisons ordered at a time
CHUNK = 2_000  # rows per transaction, so that nobody's judgement waits for long
FIRST = 1 << 33  # queue keys begin here: behind what a series of rounds asks for, whose keys are below 2^32
SCALE = 1e6

UNTOUCHED = (  # nobody has judged it or is about to
    "c.project_id = :project and c.status = 'open' and c.gold is null and c.judged = 0 and c.slots_left = c.overlap"
    " and c.kind in ('pair', 'rank') and not exists (select 1 from judgements j where j.comparison_id = c.id)"
)
ORDERED = f"c.queue_key > {1 << 32}"  # of the priority arm


def coin(project: Project, comparison_id: int) -> float:
    """In [0, 1), the same for ever; below the share of the random arm a comparison stays in it."""
    key = str(project.settings.get("order_seed", project.created_at)).encode()[:64]
    found = hashlib.blake2b(f"arm:{comparison_id}".encode(), key=key, digest_size=8).digest()
    return int.from_bytes(found, "big") / 2**64


def waiting(store: Store, project: Project, most: int = MOST) -> list[int]:
    """Ids of what may be ordered now: first what was ordered before, then, as the queue has it, what the coin gives."""
    share = float(project.settings.get("random_share", 0.3))
    ordered = [row["id"] for row in _untouched(store, project, "priority", ORDERED, most)]
    rows = _untouched(store, project, "random", "s.split = 'train'", 4 * most)
    return [*ordered, *(row["id"] for row in rows if coin(project, row["id"]) >= share)][:most]


def _untouched(store: Store, project: Project, arm: str, where: str, most: int) -> list[dict[str, Any]]:
    return store.rows(
        "select c.id from comparisons c join cases s on s.id = c.case_id"
        f" where {UNTOUCHED} and c.arm = :arm and {where} order by c.queue_key, c.id limit :most",
        {"project": project.id, "arm": arm, "most": most},
    )


def apply(store: Store, job: Job, scores: Sequence[Mapping[str, Any]]) -> int:
    """Move what was scored to the priority arm, the highest score first; returns how many.

    What somebody has begun to judge in the meantime stays where it is: an arm never changes under a judgement.
    """
    moved = 0
    for start in range(0, len(scores), CHUNK):
        with store.write() as db:
            for row in scores[start : start + CHUNK]:
                cursor = db.conn.execute(
                    "update comparisons as c set arm = 'priority', queue_key = :key, score = :score, scored_by = :by,"
                    f" reason = :reason where c.id = :id and {UNTOUCHED}",
                    {
                        "project": job.project_id,
                        "id": row["comparison"],
                        "key": queue_key(row["score"]),
                        "score": row["score"],
                        "by": job.reward_model_id,
                        "reason": row["reason"],
                    },
                )
                moved += cursor.rowcount
    return moved


def queue_key(score: float) -> int:
    """Lower is sooner; scores are in nats, and none is near 1000."""
    return FIRST - round(SCALE * min(max(score, 0.0), 1000.0))


def shuffle(store: Store, project: Project) -> int:
    """Back to a random order within the priority arm; returns how many comparisons it touched.

    They do not go back to the random arm: what is left after the best were taken is no fair sample.
    """
    with store.write() as db:
        rows = _untouched(store, project, "priority", ORDERED, -1)
        for row in rows:
            key = FIRST + int(coin(project, row["id"]) * 2**32)
            db.conn.execute(
                "update comparisons set queue_key = ?, score = null, reason = 'shuffled' where id = ?", [key, row["id"]]
            )
        return len(rows)


def save_settings(store: Store, project_id: int, settings: Mapping[str, Any]) -> None:
    """All settings of a project, in place of those it had."""
    store.db.conn.execute("update projects set settings = ? where id = ?", [as_json(dict(settings)), project_id])


def top(store: Store, project_id: int, most: int) -> list[dict[str, Any]]:
    """What is asked next in the priority arm: {"id", "score", "reason"}."""
    return store.rows(
        "select c.id, c.score, c.reason from comparisons c indexed by comparisons_queue where c.project_id = ? and c.status = 'open'"
        " and c.slots_left > 0 and c.gold is null and c.arm = 'priority' order by c.queue_key, c.id limit ?",
        [project_id, most],
    )


def counts(store: Store, project_id: int) -> dict[str, int]:
    """Judged comparisons and waiting ones of both arms: {"random_judged", "random_waiting", "priority_judged", ...}.

    Of the priority arm those that a rule chose: not what people judged side by side, or went on to in a conversation.
    """
    found = {f"{arm}_{what}": 0 for arm in ("random", "priority") for what in ("judged", "waiting")}
    for row in store.rows(
        "select arm, sum(judged > 0) as judged, sum(status = 'open' and slots_left > 0) as waiting from comparisons"
        " where project_id = ? and gold is null and status <> 'retired' and (arm = 'random' or score is not null) group by arm",
        [project_id],
    ):
        found[f"{row['arm']}_judged"], found[f"{row['arm']}_waiting"] = row["judged"], row["waiting"]
    return found
