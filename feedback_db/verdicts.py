"""Verdicts: what reward models and judges said of answers, each kept by the digest of what was asked, so that it is asked once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .store import Store, as_row
from .types import Verdict


def verdicts(store: Store, digests: Sequence[bytes]) -> dict[bytes, Verdict]:
    """Those that are known, by digest."""
    marks = ",".join("?" * len(digests))
    return {one.digest: one for one in store.find(Verdict, f"digest in ({marks})", list(digests), "digest")}


def keep(store: Store, verdict: Verdict) -> None:
    """One that is there stays."""
    row = as_row(replace(verdict, created_at=store.now()))
    with store.write() as db:
        db.conn.execute(
            f"insert or ignore into verdicts ({','.join(row)}) values ({','.join('?' * len(row))})", tuple(row.values())
        )


class Said(NamedTuple):
    """One person's ranking of answers: completion id -> rank, 1 is best."""

    comparison: int
    person: int
    ranks: dict[int, int]


SAID = (
    "select a.comparison_id, a.person_id, j.shown, j.ranks,"
    " (select json_group_array(completion_id) from (select completion_id from comparison_items i where i.comparison_id = k.id"
    " order by position)) as items"
    " from (select distinct i.comparison_id as id from cells l join comparison_items i on i.completion_id = l.completion_id"
    " where l.run_id = ?) m join comparisons k on k.id = m.id join assignments a on a.comparison_id = k.id"
    " join judgements j on j.id = a.head_judgement_id"
    " where a.state = 'submitted' and a.purpose in ('label', 'surplus') and j.ranks is not null and j.after_reveal = 0"
    " and j.partial = 0 and k.gold is null and k.void_reason is null"
)


def said(store: Store, run_id: int) -> list[Said]:
    """What people said, blind, of the answers of a run: heads of judgements on comparisons that hold one of them."""
    found = []
    for row in store.rows(SAID, [run_id]):
        items, shown, ranks = (json.loads(row[name]) for name in ("items", "shown", "ranks"))
        by_answer = {items[position]: rank for position, rank in zip(shown, ranks, strict=True)}
        found.append(Said(row["comparison_id"], row["person_id"], by_answer))
    return found


def newest_judgement(store: Store) -> int:
    """Changes whenever somebody said something more."""
    return int(store.value("select coalesce(max(id), 0) from judgements"))
