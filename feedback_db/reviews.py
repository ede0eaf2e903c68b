"""What a reviewer decides: what divides people, what they flagged, reported or skipped as broken, pairs they agree on, and what
everybody said of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .store import Store
from .types import Report

COUNTED = (  # judgements that count, by whoever
    " from assignments a join judgements j on j.id = a.head_judgement_id join comparisons k on k.id = a.comparison_id"
    " where a.project_id = :project and a.state = 'submitted' and a.purpose in ('label', 'surplus') and j.after_reveal = 0"
    " and k.gold is null and k.void_reason is null"
)
SIDES = f"{COUNTED} and k.kind = 'pair'"
NOT_REVIEWED = (
    " and not exists (select 1 from assignments r where r.project_id = :project and r.comparison_id = a.comparison_id"
    " and r.purpose = 'review' and r.state = 'submitted')"
)
NOT_MINE = (  # who has judged it is not blind to it
    " and not exists (select 1 from assignments m where m.comparison_id = a.comparison_id and m.person_id = :person"
    " and m.state in ('submitted', 'leased'))"
)
SIDE = "case when j.verdict = 'a' then 0 when j.verdict = 'b' then 1 else 2 end"


def divided(store: Store, project_id: int, person_id: int, most: int) -> list[tuple[int, int, int]]:
    """(comparison, person, 0 first, 1 second, 2 neither): what was said of pairs with judgements for both sides, that
    nobody has reviewed and this person has not judged. Of ``most`` pairs, the most even ones."""
    found = store.db.conn.execute(
        f"select a.comparison_id, a.person_id, {SIDE}{SIDES} and a.comparison_id in (select a.comparison_id{SIDES}{NOT_REVIEWED}"
        f"{NOT_MINE} group by a.comparison_id having sum(j.verdict = 'a') > 0 and sum(j.verdict = 'b') > 0"
        " order by abs(sum(j.verdict = 'a') - sum(j.verdict = 'b')) * 1.0 / count(*), count(*) desc, 1 limit :most)",
        {"project": project_id, "person": person_id, "most": most},
    )
    return [tuple(row) for row in found.fetchall()]


def ranked(store: Store, project_id: int, person_id: int, most: int) -> list[tuple[int, int, list[int], list[int]]]:
    """(comparison, person, ranks, shown) of rankings that several people gave, nobody has reviewed and this person has not
    judged; of ``most`` judgements, the newest ones."""
    found = store.db.conn.execute(
        f"select a.comparison_id, a.person_id, j.ranks, j.shown{COUNTED} and k.kind in ('rank', 'rate') and k.size > 1 and k.judged > 1"
        f"{NOT_REVIEWED}{NOT_MINE} order by j.id desc limit :most",
        {"project": project_id, "person": person_id, "most": most},
    )
    return [(id, by, json.loads(ranks), json.loads(shown)) for id, by, ranks, shown in found.fetchall()]


def flagged(store: Store, project_id: int, person_id: int, most: int) -> list[tuple[int, str]]:
    """(comparison, flag without its place) of what was flagged since a reviewer last left it as it is, that nobody has reviewed and
    this person has not judged; the newest ``most`` judgements."""
    rows = store.rows(
        f"select a.comparison_id as id, j.flags{COUNTED} and j.flags is not null and j.created_at > coalesce(k.cleared_at, 0)"
        f"{NOT_REVIEWED}{NOT_MINE} order by j.id desc limit :most",
        {"project": project_id, "person": person_id, "most": most},
    )
    return [(row["id"], flag.partition(":")[0]) for row in rows for flag in json.loads(row["flags"])]


def skipped(store: Store, project_id: int, person_id: int, reasons: Sequence[str], most: int) -> list[tuple[int, str]]:
    """(comparison, reason) of what was skipped for one of these reasons, as ``flagged``. A reason stands with the act of skipping."""
    found = store.db.conn.execute(
        f"select a.comparison_id, {WHY}{SKIPPED} and a.project_id = :project and k.void_reason is null"
        f" and e.at > coalesce(k.cleared_at, 0){NOT_REVIEWED}{NOT_MINE} order by e.id desc limit :most",
        {"project": project_id, "person": person_id, "most": most, "reasons": json.dumps(list(reasons))},
    )
    return [tuple(row) for row in found.fetchall()]


WHY = "json_extract(e.facts, '$.reason')"
SKIPPED = (
    " from assignments a join comparisons k on k.id = a.comparison_id"
    " join audit_events e on e.object = 'assignment' and e.object_id = a.id and e.action = 'skip'"
    f" where a.state = 'skipped' and {WHY} in (select value from json_each(:reasons))"
)


def skips_of(store: Store, comparison_id: int, reasons: Sequence[str]) -> list[dict[str, Any]]:
    """Who skipped it for one of these reasons, oldest first: {"person_id", "reason"}."""
    return store.rows(
        f"select a.person_id, {WHY} as reason{SKIPPED} and a.comparison_id = :id order by e.id",
        {"id": comparison_id, "reasons": json.dumps(list(reasons))},
    )


def clear(store: Store, comparison_id: int) -> None:
    """What was flagged or reported until now waits for nobody any more."""
    store.db.conn.execute("update comparisons set cleared_at = ? where id = ?", [store.now(), comparison_id])
    close_reports(store, comparison_id)


# ---- reports: what is told of a comparison without leaving it


def report_by_key(store: Store, key: bytes) -> Report | None:
    found = store.find(Report, "key = ?", [key])
    return found[0] if found else None


def reports_by(store: Store, comparison_id: int, person_id: int) -> int:
    """How many open reports this person made of it."""
    found = "select count(*) from reports where comparison_id = ? and person_id = ? and closed_at is null"
    return int(store.value(found, [comparison_id, person_id]))


def told(store: Store, project_id: int, most: int) -> list[tuple[int, str]]:
    """(comparison, category) of the newest open reports."""
    found = store.db.conn.execute(
        "select a.comparison_id, a.category from reports a join comparisons k on k.id = a.comparison_id"
        " where a.project_id = :project and a.closed_at is null and k.void_reason is null order by a.id desc limit :most",
        {"project": project_id, "most": most},
    )
    return [tuple(row) for row in found.fetchall()]


def told_of(store: Store, comparison_id: int) -> list[Report]:
    """Every report of a comparison, oldest first, closed ones too."""
    return store.find(Report, "comparison_id = ?", [comparison_id], order_by="id")


def open_reports(store: Store, most: int) -> int:
    """Comparisons of open projects with a report that waits; counting stops at ``most``."""
    found = (
        "select count(*) from (select distinct r.comparison_id from projects p join reports r on r.project_id = p.id"
        " and r.closed_at is null where p.archived_at is null limit ?)"
    )
    return int(store.value(found, [most]))


def close_reports(store: Store, comparison_id: int) -> None:
    """A reviewer has decided what was reported until now."""
    store.db.conn.execute(
        "update reports set closed_at = ? where comparison_id = ? and closed_at is null", [store.now(), comparison_id]
    )


def unanimous(store: Store, project_id: int, least: int, most: int) -> list[dict[str, Any]]:
    """Pairs that at least so many judged and all for one side, and that no gold was made of: {"id", "side", "n"}."""
    return store.rows(
        f"select a.comparison_id as id, min({SIDE}) as side, count(*) as n{SIDES} and not exists (select 1 from comparison_items i"
        " join comparison_items g on g.completion_id = i.completion_id join comparisons o on o.id = g.comparison_id"
        " where i.comparison_id = a.comparison_id and i.position = 0 and o.gold is not null)"
        " group by a.comparison_id having n >= :least and sum(j.verdict = 'a') in (0, n) and sum(j.verdict = 'b') in (0, n)"
        " and side < 2 order by n desc, 1 limit :most",
        {"project": project_id, "least": least, "most": most},
    )


def said_of(store: Store, comparison_id: int) -> list[dict[str, Any]]:
    """Every judgement that counts, oldest first: {"person_id", "purpose", "ranks", "shown", "both_bad", "both_good", "strength", "flags",
    "rationale"}; ranks, shown and flags are JSON texts."""
    return store.rows(
        "select a.person_id, a.purpose, j.ranks, j.shown, j.both_bad, j.both_good, j.strength, coalesce(j.flags, '[]') as flags, j.rationale"
        " from assignments a join judgements j on j.id = a.head_judgement_id where a.comparison_id = ? and a.state = 'submitted'"
        " order by j.id",
        [comparison_id],
    )


def make_void(store: Store, comparison_id: int, reason: str) -> None:
    """Nobody is asked about it again, and what was said of it counts nowhere."""
    store.db.conn.execute(
        "update comparisons set status = 'retired', void_reason = ? where id = ?", [reason, comparison_id]
    )
    close_reports(store, comparison_id)
