"""Snapshots: which judgements a job may see, frozen and hashed, and the rows made from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .store import Store, as_json
from .types import Message, Snapshot

# What reaches training: heads of label assignments, seen before any reveal, on whole answers.
TRAINABLE = """
  from current_judgements j join comparisons k on k.id = j.comparison_id
  where j.project_id = ? and j.purpose = 'label' and j.ranks is not null and k.gold is null
    and j.after_reveal = 0 and j.partial = 0 and j.redacted_at is null
"""


def trainable_count(store: Store, project_id: int, after_judgement_id: int = 0) -> int:
    """Judgements a reward model could be trained on, of those newer than ``after_judgement_id``."""
    return store.value(f"select count(*) {TRAINABLE} and j.id > ?", [project_id, after_judgement_id])


def freeze_preferences(store: Store, project_id: int, name: str, person_id: int | None) -> Snapshot:
    """Freeze every trainable judgement of a project; equal rows give an equal digest."""
    with store.write() as db:
        members = store.rows(
            f"select j.id, (select split from cases where id = k.case_id) as split {TRAINABLE} order by j.id",
            [project_id],
        )
        snapshot = store.add(
            Snapshot(
                project_id=project_id,
                name=name,
                version=_next_version(store, project_id, name),
                kind="preference",
                as_of_judgement_id=store.value("select coalesce(max(id), 0) from judgements"),
                person_id=person_id,
            )
        )
        db.conn.executemany(
            "insert into snapshot_judgements(snapshot_id, position, judgement_id, split) values (?,?,?,?)",
            [(snapshot.id, position, m["id"], m["split"]) for position, m in enumerate(members)],
        )
        return _frozen(store, snapshot, len(members))


def freeze_prompts(store: Store, project_id: int, name: str, prompt_ids: list[int], person_id: int | None) -> Snapshot:
    """Freeze a list of prompts a policy is to be trained on."""
    with store.write():
        snapshot = store.add(
            Snapshot(
                project_id=project_id,
                name=name,
                version=_next_version(store, project_id, name),
                kind="prompts",
                filters={"prompt_ids": prompt_ids},
                as_of_judgement_id=store.value("select coalesce(max(id), 0) from judgements"),
                person_id=person_id,
            )
        )
        return _frozen(store, snapshot, len(prompt_ids))


def _next_version(store: Store, project_id: int, name: str) -> int:
    return 1 + store.value(
        "select coalesce(max(version), 0) from snapshots where project_id = ? and name = ?", [project_id, name]
    )


def _frozen(store: Store, snapshot: Snapshot, n: int) -> Snapshot:
    digest = hashlib.sha256(rows_text(store, snapshot).encode()).digest()
    store.db.conn.execute(
        "update snapshots set state = 'frozen', n = ?, digest = ? where id = ?", [n, digest, snapshot.id]
    )
    return replace(snapshot, state="frozen", n=n, digest=digest)


def rows_text(store: Store, snapshot: Snapshot) -> str:
    """The snapshot as JSON lines: a function of rows that never change, so it can be written again at any time."""
    rows = _preference_rows(store, snapshot) if snapshot.kind == "preference" else _prompt_rows(store, snapshot)
    return "".join(as_json(row) + "\n" for row in rows)


def _preference_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row per judgement; a comparison judged by m people counts once (weight 1/m each), so their shares are the soft label."""
    judged = store.rows(
        'select j.id, j.comparison_id, j.shown, j.ranks, j.strength, j.both_bad, s.split, c.id as case_id, c."values", c.conversation, '
        "count(*) over (partition by j.comparison_id) as people "
        "from snapshot_judgements s join judgements j on j.id = s.judgement_id join comparisons k on k.id = j.comparison_id "
        "join cases c on c.id = k.case_id where s.snapshot_id = ? order by s.position",
        [snapshot.id],
    )
    items = store.rows(
        "select i.comparison_id, i.completion_id, t.text, t.finish_reason from comparison_items i "
        "join completions t on t.id = i.completion_id where i.comparison_id in "
        "(select j.comparison_id from snapshot_judgements s join judgements j on j.id = s.judgement_id where s.snapshot_id = ?) "
        "order by i.comparison_id, i.position",
        [snapshot.id],
    )
    answers: dict[int, list[dict[str, Any]]] = {}
    for item in items:
        answers.setdefault(item["comparison_id"], []).append(
            {"completion": item["completion_id"], "text": item["text"], "ended": item["finish_reason"] != "length"}
        )
    return [
        {
            "case": row["case_id"],
            "split": row["split"],
            "conversation": _asked(row),
            "answers": [answers[row["comparison_id"]][position] for position in json.loads(row["shown"])],
            "ranks": json.loads(row["ranks"]),
            "weight": 1 / row["people"],
            "strength": row["strength"],
            "both_bad": bool(row["both_bad"]),
            "judgements": [row["id"]],
        }
        for row in judged
    ]


def _prompt_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    wanted = snapshot.filters["prompt_ids"]
    found = {
        row["id"]: row
        for row in store.rows(
            'select p.id, p.messages, c.id as case_id, c.split, c."values", c.conversation from prompts p '
            "join cases c on c.id = p.case_id where p.project_id = ?",
            [snapshot.project_id],
        )
    }
    return [
        {
            "prompt": i,
            "case": found[i]["case_id"],
            "split": found[i]["split"],
            "messages": json.loads(found[i]["messages"]),
            "conversation": _asked(found[i]),
        }
        for i in wanted
    ]


def conversation(values: Mapping[str, str] | None, messages: Sequence[Message] | None) -> list[Message]:
    """A case as annotators and reward models see it: its turns, or its values as one user message.

    The value named ``input`` stands alone; other names are shown before their texts.
    """
    if messages is not None:
        return list(messages)
    named = values or {}
    text = named["input"] if "input" in named else "\n".join(f"{name}: {value}" for name, value in named.items())
    return [{"role": "user", "content": text}]


def _asked(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row that holds a case's JSON columns."""
    values, messages = row["values"], row["conversation"]
    return conversation(json.loads(values) if values else None, json.loads(messages) if messages else None)


def models_touched_by(store: Store, judgement_id: int) -> list[int]:
    """Ids of the models whose training saw this judgement."""
    rows = store.rows(
        "select distinct j.output_model_id as id from snapshot_judgements s join jobs j on j.snapshot_id = s.snapshot_id "
        "where s.judgement_id = ? and j.output_model_id is not null order by 1",
        [judgement_id],
    )
    return [row["id"] for row in rows]
