"""What a reviewer decides: pairs on which people are divided, pairs they agree on, and what everybody said of one."""

from __future__ import annotations

from typing import Any

from .store import Store

SIDES = (  # of pairs that count, by whoever
    " from assignments a join judgements j on j.id = a.head_judgement_id join comparisons k on k.id = a.comparison_id"
    " where a.project_id = :project and a.state = 'submitted' and a.purpose in ('label', 'surplus') and j.after_reveal = 0"
    " and k.kind = 'pair' and k.gold is null and k.void_reason is null"
)
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
    """Every judgement that counts, oldest first: {"person_id", "purpose", "side", "both_bad", "strength", "rationale", "at"}."""
    return store.rows(
        f"select a.person_id, a.purpose, {SIDE} as side, j.both_bad, j.strength, j.rationale, j.created_at as at"
        " from assignments a join judgements j on j.id = a.head_judgement_id where a.comparison_id = ? and a.state = 'submitted'"
        " order by j.id",
        [comparison_id],
    )


def make_void(store: Store, comparison_id: int, reason: str) -> None:
    """Nobody is asked about it again, and what was said of it counts nowhere."""
    store.db.conn.execute(
        "update comparisons set status = 'retired', void_reason = ? where id = ?", [reason, comparison_id]
    )
