"""What was judged, as statistics read it: pairs by canonical position, of the random arm, before any reveal.

Priorities choose what is uncertain, so figures about people and models rest on the arm that chance filled. Judgements that
came too late to count (surplus) say as much about agreement as others; gold and silent repeats stand in queries of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .store import Store
from .types import Comparison

CATEGORIES = ("a", "b", "tie", "both_bad", "both_good")
PAIRS = (
    " from assignments a join judgements j on j.id = a.head_judgement_id join comparisons k on k.id = a.comparison_id"
    " where a.state = 'submitted' and a.project_id = :project and (:person is null or a.person_id = :person)"
    " and j.after_reveal = 0 and k.kind = 'pair' and k.void_reason is null"
)
COUNTED = f"{PAIRS} and a.purpose in ('label', 'surplus') and k.gold is null and k.arm = 'random'"
CATEGORY = "case when j.both_good then 4 when j.both_bad then 3 when j.verdict = 'tie' then 2 when j.verdict = 'b' then 1 else 0 end"


class Said(NamedTuple):
    """One person's judgement of one pair: ``category`` counts in CATEGORIES."""

    comparison: int
    person: int
    category: int


class Habits(NamedTuple):
    """Counts of one person; each pair is (how often, of how many)."""

    left: tuple[int, int]  # the left answer was chosen, of pairs where a side was
    longer: tuple[int, int]  # the longer one was chosen, of those whose lengths differ
    seconds: tuple[float, ...]  # active ones, of each judgement, in rising order
    judged: int


def said(store: Store, project_id: int) -> list[Said]:
    """Every judgement of a pair that agreement is measured on."""
    sql = f"select a.comparison_id, a.person_id, {CATEGORY} {COUNTED}"
    return [Said(*row) for row in store.db.conn.execute(sql, {"project": project_id, "person": None}).fetchall()]


def said_by_guideline(store: Store, project_id: int) -> list[tuple[int, Said]]:
    """What ``said`` tells, each with the version of the guideline it was given by; without one it is left out."""
    sql = f"select j.guideline_id, a.comparison_id, a.person_id, {CATEGORY} {COUNTED} and j.guideline_id is not null"
    found = store.db.conn.execute(sql, {"project": project_id, "person": None})
    return [(row[0], Said(*row[1:])) for row in found.fetchall()]


def sides(store: Store, project_id: int) -> list[tuple[int, int, int]]:
    """(comparison, person, 0 first, 1 second, 2 neither) of every judged pair of either arm, gold with the rest.

    How careful somebody is does not depend on which pairs were chosen, so the priority arm counts here.
    """
    found = store.db.conn.execute(
        f"select a.comparison_id, a.person_id, min({CATEGORY}, 2) {PAIRS} and a.purpose in ('label', 'surplus', 'gold')",
        {"project": project_id, "person": None},
    )
    return [tuple(row) for row in found.fetchall()]


def gold_sides(store: Store, project_id: int) -> dict[int, int]:
    """Gold pairs: comparison -> 0 the first is better, 1 the second, 2 neither."""
    rows = store.rows(
        "select id, json_extract(gold, '$[0]') as one, json_extract(gold, '$[1]') as other from comparisons"
        " where project_id = ? and gold is not null and kind = 'pair' and void_reason is null",
        [project_id],
    )
    return {row["id"]: 2 if row["one"] == row["other"] else int(row["one"] > row["other"]) for row in rows}


ITEMS = (
    " join comparison_items i0 on i0.comparison_id = k.id and i0.position = 0 join completions c0 on c0.id = i0.completion_id"
    " join comparison_items i1 on i1.comparison_id = k.id and i1.position = 1 join completions c1 on c1.id = i1.completion_id"
)


def habits(store: Store, project_id: int, person_id: int) -> Habits:
    values = {"project": project_id, "person": person_id}
    row = store.rows(
        "select count(*) as n, coalesce(sum(side), 0) as sides, coalesce(sum(side and is_left), 0) as lefts,"
        " coalesce(sum(side and la <> lb), 0) as uneven, coalesce(sum(side and la <> lb and (verdict = 'a') = (la > lb)), 0) as longer"
        " from (select j.verdict, j.verdict in ('a', 'b') as side, (j.verdict = 'a') = (json_extract(j.shown, '$[0]') = 0) as is_left,"
        f" length(c0.text) as la, length(c1.text) as lb {COUNTED.replace(' where ', ITEMS + ' where ', 1)})",
        values,
    )[0]
    seconds = store.rows(f"select coalesce(j.active_seconds, j.seconds) as s {COUNTED} order by 1", values)
    return Habits(
        left=(row["lefts"], row["sides"]),
        longer=(row["longer"], row["uneven"]),
        seconds=tuple(row["s"] for row in seconds),
        judged=row["n"],
    )


def gold_answers(store: Store, project_id: int, person_id: int) -> list[dict[str, Any]]:
    """This person's judgements of gold comparisons of any kind: {"ranks", "shown", "gold"} as JSON texts."""
    return store.rows(
        "select j.ranks, j.shown, k.gold from assignments a join judgements j on j.id = a.head_judgement_id"
        " join comparisons k on k.id = a.comparison_id where a.state = 'submitted' and a.purpose = 'gold'"
        " and a.project_id = ? and a.person_id = ? and k.gold is not null and k.void_reason is null",
        [project_id, person_id],
    )


def repeats(store: Store, project_id: int, person_id: int) -> list[tuple[int, int]]:
    """Categories of the first judgement and of its silent repeat, both by canonical position."""
    then = CATEGORY.replace("j.", "f.")
    return [
        (row["before"], row["again"])
        for row in store.rows(
            f"select {then} as before, {CATEGORY} as again {PAIRS.replace(' where ', FIRST + ' where ', 1)} and a.purpose = 'repeat'",
            {"project": project_id, "person": person_id},
        )
    ]


FIRST = (
    " join assignments b on b.comparison_id = a.comparison_id and b.person_id = a.person_id and b.purpose = 'label'"
    " join judgements f on f.id = b.head_judgement_id"
)


def judges(store: Store, project_id: int) -> list[int]:
    """Ids of those who have judged in this project."""
    rows = store.rows("select distinct person_id as id from tallies where project_id = ? and judged > 0", [project_id])
    return [row["id"] for row in rows]


def split(store: Store, project_id: int, most: int) -> list[Comparison]:
    """Comparisons on which people took opposite sides, the most divided first."""
    found = store.rows(
        f"select a.comparison_id as id, sum(j.verdict = 'a') as a, sum(j.verdict = 'b') as b {COUNTED}"
        " group by a.comparison_id having a > 0 and b > 0 order by min(a, b) desc, a + b desc, 1 limit :most",
        {"project": project_id, "person": None, "most": most},
    )
    return [store.get(Comparison, row["id"]) for row in found]


def ask_one_more(store: Store, comparison_id: int) -> None:
    """One judgement more than was wanted so far; people are asked at once."""
    store.db.conn.execute("update comparisons set overlap = overlap + 1 where id = ?", [comparison_id])


def save_settings(store: Store, project_id: int, form: str, settings: str, overlap: int, gold_every: int) -> None:
    """What a project asks from now on, and how its queue is mixed; comparisons made later want ``overlap`` judgements."""
    store.db.conn.execute(
        "update projects set label_form = ?, settings = ?, overlap = ?, gold_every = ? where id = ?",
        [form, settings, overlap, gold_every, project_id],
    )
