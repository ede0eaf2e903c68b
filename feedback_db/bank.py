"""The bank of demonstrations as judged: how answers fared that became demonstrations, or were written with them in the prompt."""

from __future__ import annotations

from typing import NamedTuple

from .store import Store

# One row per judged answer and judgement. Points: the share of the others it beat, a tie is half; 0 for all when all were bad.
JUDGED = """with said as (
  select j.id, j.both_bad, k.id as comparison, json_extract(j.shown, '$[' || place.key || ']') as position,
    json_array_length(j.ranks) as size, place.value as rank
  from assignments a join judgements j on j.id = a.head_judgement_id join comparisons k on k.id = a.comparison_id,
    json_each(j.ranks) place
  where a.project_id = :project and a.state = 'submitted' and a.purpose in ('label', 'surplus') and j.after_reveal = 0
    and k.void_reason is null and json_array_length(j.ranks) > 1
), judged as (
  select i.completion_id as completion, said.id as judgement, case when said.both_bad then 0.0 else
    (count(*) over (partition by said.id order by rank desc groups unbounded preceding)
     - count(*) over (partition by said.id, rank) + (count(*) over (partition by said.id, rank) - 1) / 2.0) / (size - 1) end as points
  from said join comparison_items i on i.comparison_id = said.comparison and i.position = said.position
)"""


class Fared(NamedTuple):
    """Points of answers in judgements, 0 to 1 (0.5: as good as what stood beside it), and how many judgements."""

    points: float
    n: int


class Winner(NamedTuple):
    """An answer that people preferred and that is no demonstration yet."""

    completion_id: int
    judgement_id: int  # the newest that says so
    case_id: int
    text: str
    fared: Fared


def of_their_own(store: Store, project_id: int) -> dict[int, Fared]:
    """Of demonstrations that were answers: how these fared when they were judged."""
    sql = (
        f"{JUDGED} select d.id, avg(points), count(*) from demonstrations d join judged on judged.completion = d.completion_id"
        " where d.project_id = :project group by d.id"
    )
    return _fared(store, sql, project_id)


def in_prompts(store: Store, project_id: int) -> dict[int, Fared]:
    """Of demonstrations that prompts have shown: how the answers to these prompts fared. What else was in them counts too."""
    sql = (
        f"{JUDGED} select s.demonstration_id, avg(points), count(*) from judged join completions c on c.id = judged.completion"
        " join prompt_demonstrations s on s.prompt_id = c.prompt_id group by s.demonstration_id"
    )
    return _fared(store, sql, project_id)


def winners(store: Store, project_id: int, most: int) -> list[Winner]:
    """Answers to cases for training that beat more than half of what stood beside them and are in no demonstration, the surest
    first: those with the most points above what chance would give."""
    sql = (
        f"{JUDGED} select completion, max(judgement), p.case_id, c.text, avg(points), count(*) from judged"
        " join completions c on c.id = completion join prompts p on p.id = c.prompt_id join cases k on k.id = p.case_id"
        " where k.split = 'train' and k.conversation is null"
        " and not exists (select 1 from demonstrations d where d.project_id = :project"
        " and (d.completion_id = completion or d.output = c.text))"
        " group by completion having avg(points) > 0.5 order by sum(points - 0.5) desc, completion limit :most"
    )
    rows = store.db.conn.execute(sql, {"project": project_id, "most": most}).fetchall()
    return [Winner(one, judgement, case, text, Fared(points, n)) for one, judgement, case, text, points, n in rows]


def _fared(store: Store, sql: str, project_id: int) -> dict[int, Fared]:
    found = store.db.conn.execute(sql, {"project": project_id})
    return {id: Fared(points, n) for id, points, n in found}
