"""Snapshots: which judgements a job may see, frozen and hashed, and the rows made from them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from . import documents, unpaired
from .cases import asked_of
from .store import Store, as_json
from .types import Message, Snapshot, SnapshotKind

# What reaches training: heads of label assignments, seen before any reveal, on whole answers.
TRAINABLE = """
  from current_judgements j join comparisons k on k.id = j.comparison_id
  where j.project_id = ? and j.purpose = 'label' and j.ranks is not null and k.gold is null
    and j.after_reveal = 0 and j.partial = 0 and j.redacted_at is null
"""

OF_SNAPSHOT = "select judgement_id from snapshot_judgements where snapshot_id = ?"


def trainable_count(store: Store, project_id: int, after_judgement_id: int = 0) -> int:
    """Judgements a reward model could be trained on, of those newer than ``after_judgement_id``."""
    return store.value(f"select count(*) {TRAINABLE} and j.id > ?", [project_id, after_judgement_id])


class Verdicts(NamedTuple):
    """Single answers that the judgements call good or bad, at most: those of several people count more than once."""

    desirable: int
    undesirable: int


def verdicts_at_most(store: Store, project_id: int) -> Verdicts:
    """By columns alone, so that a page may ask; the snapshot looks at every answer."""
    (found,) = store.rows(
        "select coalesce(sum(is_decided + is_edited), 0) as desirable, "
        "coalesce(sum(is_decided + is_edited + is_flagged + is_bad * size), 0) as undesirable from ("
        "select not j.both_bad and coalesce(j.verdict, 'ranks') <> 'tie' as is_decided, j.edited_text is not null as is_edited, "
        "json_array_length(coalesce(j.flags, '[]')) as is_flagged, j.both_bad as is_bad, json_array_length(j.shown) as size "
        f"{TRAINABLE})",
        [project_id],
    )
    return Verdicts(found["desirable"], found["undesirable"])


def freeze_preferences(
    store: Store,
    project_id: int,
    name: str,
    person_id: int | None,
    with_prompts: bool = False,
    weights: Mapping[int, float] | None = None,
) -> Snapshot:
    """Freeze every trainable judgement of a project; equal rows give an equal digest.

    ``with_prompts``: each row also holds the rendered prompt of each answer, for a policy that learns from pairs.
    ``weights``: person id -> what that person's judgements count beside those of others on one comparison, 1 if not
    named. The judgements of a person of weight 0 are left out, and ``statistics`` counts them.
    """
    filters: dict[str, Any] = {"with_prompts": True} if with_prompts else {}
    if weights:
        filters["weights"] = {str(judge): weight for judge, weight in sorted(weights.items())}
    with store.write():
        snapshot, n = _with_judgements(store, project_id, name, "preference", filters, person_id)
        return _frozen(store, snapshot, n)


def freeze_answers(store: Store, project_id: int, name: str, person_id: int | None) -> Snapshot:
    """Freeze the answers worth learning from: demonstrations, edited answers, winners. ``n`` counts the answers."""
    with store.write():
        filters = {"demonstrations": demonstrations(store, project_id)}
        snapshot, _ = _with_judgements(store, project_id, name, "sft", filters, person_id)
        return _frozen(store, snapshot, len(_answer_rows(store, snapshot)))


def freeze_unpaired(store: Store, project_id: int, name: str, person_id: int | None) -> Snapshot:
    """Freeze every answer that was judged, written or mended, each as good, as bad or as neither. ``n`` counts the first two."""
    with store.write():
        filters = {"demonstrations": demonstrations(store, project_id)}
        snapshot, _ = _with_judgements(store, project_id, name, "unpaired", filters, person_id)
        n = sum(row["desirable"] is not None for row in _unpaired_rows(store, snapshot))
        return _frozen(store, snapshot, n)


def _with_judgements(
    store: Store,
    project_id: int,
    name: str,
    kind: SnapshotKind,
    filters: dict[str, Any],
    person_id: int | None,
) -> tuple[Snapshot, int]:
    """A snapshot that rests on every trainable judgement that counts, not yet frozen, and how many there are."""
    every = store.rows(
        "select j.id, j.comparison_id, j.person_id, (select split from cases where id = k.case_id) as split "
        f"{TRAINABLE} order by j.id",
        [project_id],
    )
    weights = filters.get("weights", {})
    members = [row for row in every if weights.get(str(row["person_id"]), 1) > 0]
    statistics = _left_out(every, members) if weights else None
    snapshot = _begun(store, project_id, name, kind, filters, person_id, statistics)
    store.db.conn.executemany(
        "insert into snapshot_judgements(snapshot_id, position, judgement_id, split) values (?,?,?,?)",
        [(snapshot.id, position, m["id"], m["split"]) for position, m in enumerate(members)],
    )
    return snapshot, len(members)


def _left_out(every: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many judgements, and comparisons with all of theirs, the weights of people leave out."""
    comparisons = ({row["comparison_id"] for row in rows} for rows in (every, members))
    before, after = map(len, comparisons)
    return {"judgements_left_out": len(every) - len(members), "comparisons_left_out": before - after}


def freeze_prompts(store: Store, project_id: int, name: str, prompt_ids: list[int], person_id: int | None) -> Snapshot:
    """Freeze a list of prompts a policy is to be trained on."""
    with store.write():
        snapshot = _begun(store, project_id, name, "prompts", {"prompt_ids": prompt_ids}, person_id)
        return _frozen(store, snapshot, len(prompt_ids))


def freeze_texts(store: Store, project_id: int, name: str, person_id: int | None) -> Snapshot:
    """Freeze all documents of a project; equal texts give an equal digest. ``n`` counts them."""
    with store.write():
        filters = {"as_of_document_id": documents.newest(store, project_id)}
        snapshot = _begun(store, project_id, name, "texts", filters, person_id)
        return _frozen(store, snapshot, documents.count(store, project_id))


def _begun(
    store: Store,
    project_id: int,
    name: str,
    kind: SnapshotKind,
    filters: dict[str, Any],
    person_id: int | None,
    statistics: dict[str, Any] | None = None,
) -> Snapshot:
    """A snapshot without its rows, not yet frozen."""
    return store.add(
        Snapshot(
            project_id=project_id,
            name=name,
            version=_next_version(store, project_id, name),
            kind=kind,
            filters=filters,
            as_of_judgement_id=store.value("select coalesce(max(id), 0) from judgements"),
            statistics=statistics,
            person_id=person_id,
        )
    )


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
    make = {
        "preference": _preference_rows,
        "prompts": _prompt_rows,
        "sft": _answer_rows,
        "unpaired": _unpaired_rows,
        "texts": _text_rows,
    }[snapshot.kind]
    rows = make(store, snapshot)
    return "".join(as_json(row) + "\n" for row in rows)


def _preference_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row per judgement; a comparison judged by m people counts once, so their weights are the soft label."""
    judged = store.rows(
        "select j.id, j.comparison_id, j.person_id, j.shown, j.ranks, j.strength, j.both_bad, s.split, "
        'c.id as case_id, c."values", c.conversation '
        "from snapshot_judgements s join judgements j on j.id = s.judgement_id join comparisons k on k.id = j.comparison_id "
        "join cases c on c.id = k.case_id where s.snapshot_id = ? order by s.position",
        [snapshot.id],
    )
    items = _items(store, OF_SNAPSHOT, [snapshot.id])
    with_prompts = bool(snapshot.filters.get("with_prompts"))
    return [
        {
            "case": row["case_id"],
            "split": row["split"],
            "conversation": asked_of(row),
            "answers": [_answer(items[row["comparison_id"]][i]) for i in json.loads(row["shown"])],
            "ranks": json.loads(row["ranks"]),
            "weight": weight,
            "strength": row["strength"],
            "both_bad": bool(row["both_bad"]),
            "judgements": [row["id"]],
            **({"prompts": _prompts_of(row, items[row["comparison_id"]])} if with_prompts else {}),
        }
        for row, weight in zip(judged, _shares(judged, snapshot.filters.get("weights", {})), strict=True)
    ]


def _shares(judged: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> list[float]:
    """What each judgement counts: weight / sum of the weights on its comparison, 1 / m to the bit where all are equal."""
    mine = [float(weights.get(str(row["person_id"]), 1.0)) for row in judged]
    on: dict[int, list[float]] = {}
    for row, weight in zip(judged, mine, strict=True):
        on.setdefault(row["comparison_id"], []).append(weight)
    return [
        1 / len(all_of_it) if len(set(all_of_it)) == 1 else weight / math.fsum(all_of_it)
        for weight, all_of_it in ((weight, on[row["comparison_id"]]) for row, weight in zip(judged, mine, strict=True))
    ]


def _prompts_of(row: Mapping[str, Any], items: list[dict[str, Any]]) -> list[list[Message]]:
    """The rendered prompt of each answer, in the order in which the answers were shown."""
    return [json.loads(items[position]["messages"]) for position in json.loads(row["shown"])]


def _answer(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"completion": item["completion_id"], "text": item["text"], "ended": item["finish_reason"] != "length"}


def _answer_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Demonstrations first, then one row per edit or decided comparison. The judged ones have their case's split."""
    return _demonstrated(store, snapshot) + _decided(store, OF_SNAPSHOT, [snapshot.id])


def _demonstrated(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The demonstrations a snapshot was frozen with."""
    splits = dict(snapshot.filters["demonstrations"])
    shown = store.rows(
        "select id, input, output from demonstrations where project_id = ? order by id", [snapshot.project_id]
    )
    return [
        {
            "case": None,
            "split": splits[row["id"]],
            "messages": [{"role": "user", "content": row["input"]}],
            "answer": {"completion": None, "text": row["output"], "ended": True},
            "source": "demonstration",
            "demonstration": row["id"],
        }
        for row in shown
        if row["id"] in splits
    ]


def _unpaired_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row per answer that was written, judged or mended: see unpaired.py."""
    return unpaired.rows_of(_votes(store, snapshot))


def _votes(store: Store, snapshot: Snapshot) -> Iterator[unpaired.Vote]:
    for row in _demonstrated(store, snapshot):
        answered = {name: row[name] for name in ("case", "split", "messages", "answer")}
        yield unpaired.Vote(answered, True, "demonstration", demonstration=row["demonstration"])
    judged = store.rows(
        "select j.id, j.comparison_id, j.shown, j.ranks, j.both_bad, j.flags, j.edited_text, j.edited_position, "
        'c.id as case_id, s.split, c."values", c.conversation from snapshot_judgements s '
        "join judgements j on j.id = s.judgement_id join comparisons k on k.id = j.comparison_id "
        "join cases c on c.id = k.case_id where s.snapshot_id = ? order by s.position",
        [snapshot.id],
    )
    items = _items(store, OF_SNAPSHOT, [snapshot.id])
    for row in judged:
        some = items.get(row["comparison_id"], [])
        yield from unpaired.votes_of(row, asked_of(row), some, [_answer(item) for item in some])


def _decided(store: Store, which: str, values: list[Any]) -> list[dict[str, Any]]:
    """The answers that some judgements (``which`` selects their ids) say are worth learning from.

    An edited answer stands for its comparison. Otherwise the one answer that more than half of the judges put first
    alone, and did not call bad, does; without such an answer the comparison says nothing here.
    """
    judged = store.rows(
        "select j.id, j.comparison_id, j.shown, j.ranks, j.both_bad, j.edited_text, j.edited_position, c.id as case_id, "
        'c.split, c."values", c.conversation '
        "from judgements j join comparisons k on k.id = j.comparison_id join cases c on c.id = k.case_id "
        f"where j.id in ({which}) order by j.comparison_id, j.id",
        values,
    )
    items = _items(store, which, values)
    found = []
    for comparison_id, group in groupby(judged, key=lambda row: row["comparison_id"]):
        found += _worth_learning(list(group), items.get(comparison_id, []))
    return found


def _worth_learning(judgements: list[dict[str, Any]], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one comparison."""
    first = judgements[0]
    rest = {"case": first["case_id"], "split": first["split"], "judgements": [row["id"] for row in judgements]}
    edits = [row for row in judgements if row["edited_text"]]
    found = []
    for row in edits:
        place = row["edited_position"] or 0
        asked = json.loads(items[place]["messages"]) if place < len(items) else asked_of(row)
        answer = {"completion": None, "text": row["edited_text"], "ended": True}
        found.append({**rest, "messages": asked, "answer": answer, "source": "edited"})
    place = None if edits else _winner(judgements)
    if place is not None:
        asked = json.loads(items[place]["messages"])
        found.append({**rest, "messages": asked, "answer": _answer(items[place]), "source": "winner"})
    return found


def _items(store: Store, which: str, values: list[Any]) -> dict[int, list[dict[str, Any]]]:
    """Comparison id -> its completions in canonical positions, of the comparisons that some judgements are about."""
    rows = store.rows(
        "select i.comparison_id, i.completion_id, t.text, t.finish_reason, p.messages from comparison_items i "
        "join completions t on t.id = i.completion_id join prompts p on p.id = t.prompt_id where i.comparison_id in "
        f"(select comparison_id from judgements where id in ({which})) order by i.comparison_id, i.position",
        values,
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["comparison_id"], []).append(row)
    return found


def _winner(judgements: Sequence[Mapping[str, Any]]) -> int | None:
    """The position that more than half of these judgements of one comparison put first alone."""
    votes: Counter[int] = Counter()
    for row in judgements:
        ranks = json.loads(row["ranks"])
        if ranks.count(min(ranks, default=0)) == 1 and not row["both_bad"]:
            votes[json.loads(row["shown"])[ranks.index(min(ranks))]] += 1
    place, count = votes.most_common(1)[0] if votes else (None, 0)
    return place if 2 * count > len(judgements) else None


def demonstrations(store: Store, project_id: int) -> list[tuple[int, str]]:
    """Id and split of the worked examples that say what a good answer is.

    Not those with a label, whose input alone does not tell what is asked, nor those that were winners, which the
    judgements bring in. One that asks what a held-out case asks is held out as well.
    """
    rows = store.rows(
        'select d.id, coalesce((select c.split from cases c, json_each(c."values") v where c.project_id = d.project_id '
        "and c.split <> 'train' and v.value = d.input limit 1), 'train') as split "
        "from demonstrations d where d.project_id = ? and d.label is null and d.source <> 'winner' order by d.id",
        [project_id],
    )
    return [(row["id"], row["split"]) for row in rows]


def _text_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    return documents.rows(store, snapshot.project_id, snapshot.filters["as_of_document_id"])


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
            "conversation": asked_of(found[i]),
        }
        for i in wanted
    ]


def models_touched_by(store: Store, judgement_id: int) -> list[int]:
    """Ids of the models whose training saw this judgement."""
    rows = store.rows(
        "select distinct j.output_model_id as id from snapshot_judgements s join jobs j on j.snapshot_id = s.snapshot_id "
        "where s.judgement_id = ? and j.output_model_id is not null order by 1",
        [judgement_id],
    )
    return [row["id"] for row in rows]
