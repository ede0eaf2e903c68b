"""Snapshots: which judgements a job may see, frozen and hashed. Their rows are made in snapshot_rows.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from . import documents
from .snapshot_rows import answer_rows, rows_text, unpaired_rows
from .store import Store
from .types import Snapshot, SnapshotKind

# What reaches training: heads of label assignments, seen before any reveal, on whole answers. Where a reviewer has decided,
# that judgement alone: it was given blind first and confirmed, or changed, in sight of what the others said.
TRAINABLE = """
  from current_judgements j join comparisons k on k.id = j.comparison_id
  where j.project_id = ? and j.ranks is not null and k.gold is null and k.void_reason is null
    and j.partial = 0 and j.redacted_at is null and (j.purpose = 'review' or (j.purpose = 'label' and j.after_reveal = 0
      and not exists (select 1 from assignments r where r.project_id = j.project_id and r.comparison_id = j.comparison_id
        and r.purpose = 'review' and r.state = 'submitted')))
"""
# An answer somebody wrote says nothing of any other, and a win across two templates is a vote for a template.
COMPARED = " and k.kind <> 'demonstration' and k.basis <> 'template'"


def trainable_count(store: Store, project_id: int, after_judgement_id: int = 0) -> int:
    """Judgements a reward model could be trained on, of those newer than ``after_judgement_id``."""
    return store.value(f"select count(*) {TRAINABLE} {COMPARED} and j.id > ?", [project_id, after_judgement_id])


def written_count(store: Store, project_id: int) -> int:
    """Answers that people wrote where nothing was shown to compare."""
    return store.value(f"select count(*) {TRAINABLE} and k.kind = 'demonstration'", [project_id])


class Verdicts(NamedTuple):
    """Single answers that the judgements call good or bad, at most: those of several people count more than once."""

    desirable: int
    undesirable: int


def verdicts_at_most(store: Store, project_id: int) -> Verdicts:
    """By columns alone, so that a page may ask; the snapshot looks at every answer."""
    (found,) = store.rows(
        "select coalesce(sum(is_decided + is_edited + is_good * size), 0) as desirable, "
        "coalesce(sum(is_decided + is_edited + is_flagged + is_bad * size), 0) as undesirable from ("
        "select not j.both_bad and not j.both_good and coalesce(j.verdict, 'ranks') <> 'tie' as is_decided, j.edited_text is not null as is_edited, "
        "json_array_length(coalesce(j.flags, '[]')) as is_flagged, j.both_bad as is_bad, j.both_good as is_good, json_array_length(j.shown) as size "
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
    with_good: bool = False,
    newest_of: int | None = None,
    reliability: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Freeze every trainable judgement of a project; equal rows give an equal digest.

    ``with_prompts``: each row also holds the rendered prompt of each answer, for a policy that learns from pairs.
    ``weights``: person id -> what that person's judgements count beside those of others on one comparison, 1 if not
    named. The judgements of a person of weight 0 are left out, and ``statistics`` counts them.
    ``with_good``: behind them stand the answers worth learning from, for a reward model that sets a policy's against them.
    ``newest_of``: a model's id; each row says whether an answer is of that model.
    ``reliability``: tables of people (soft.py); training rows of pairs carry the share that they and what was said make
    probable, and ``statistics`` counts those comparisons.
    """
    filters: dict[str, Any] = {"with_prompts": True} if with_prompts else {}
    filters |= _of_people(weights, reliability)
    if newest_of is not None:
        filters["newest_of"] = newest_of
    with store.write():
        if store.value(f"select 1 {TRAINABLE} and j.edited_text is not null limit 1", [project_id]):
            filters["with_edits"] = True
        if with_good:
            filters["demonstrations"] = demonstrations(store, project_id)
        snapshot, n = _with_judgements(store, project_id, name, "preference", filters, person_id)
        return _frozen(store, snapshot, n)


def _of_people(weights: Mapping[int, float] | None, reliability: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is frozen of how much people count."""
    found: dict[str, Any] = {}
    if reliability is not None:
        found["reliability"] = dict(reliability)
    if weights:
        found["weights"] = {str(judge): weight for judge, weight in sorted(weights.items())}
    return found


def freeze_queue(store: Store, project_id: int, name: str, person_id: int | None, waiting: Sequence[int]) -> Snapshot:
    """Freeze every trainable judgement with the arm it came from, and behind them the comparisons that wait for one."""
    with store.write():
        filters: dict[str, Any] = {"waiting": list(waiting)}
        snapshot, n = _with_judgements(store, project_id, name, "preference", filters, person_id)
        return _frozen(store, snapshot, n)


def freeze_answers(store: Store, project_id: int, name: str, person_id: int | None) -> Snapshot:
    """Freeze the answers worth learning from: demonstrations, edited answers, winners. ``n`` counts the answers."""
    with store.write():
        filters = {"demonstrations": demonstrations(store, project_id)}
        snapshot, _ = _with_judgements(store, project_id, name, "sft", filters, person_id)
        return _frozen(store, snapshot, len(answer_rows(store, snapshot)))


def freeze_baked(
    store: Store, project_id: int, name: str, person_id: int | None, pairs: Sequence[tuple[int, int]]
) -> Snapshot:
    """Freeze answers with the prompts they are to be learnt under: (prompt id, completion id). ``n`` counts them."""
    with store.write():
        snapshot = _begun(store, project_id, name, "sft", {"baked": [list(pair) for pair in pairs]}, person_id)
        return _frozen(store, snapshot, len(pairs))


def freeze_unpaired(
    store: Store,
    project_id: int,
    name: str,
    person_id: int | None,
    weights: Mapping[int, float] | None = None,
    reliability: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Freeze every answer that was judged, written or mended, each as good, as bad or as neither. ``n`` counts the first two.

    ``weights`` and ``reliability`` as in ``freeze_preferences``: on training cases they say what each person's word on an answer
    counts beside those of others.
    """
    with store.write():
        filters: dict[str, Any] = {"demonstrations": demonstrations(store, project_id)} | _of_people(
            weights, reliability
        )
        snapshot, _ = _with_judgements(store, project_id, name, "unpaired", filters, person_id)
        n = sum(row["desirable"] is not None for row in unpaired_rows(store, snapshot))
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
        "select j.id, j.comparison_id, j.person_id, k.kind, (select split from cases where id = k.case_id) as split "
        f"{TRAINABLE} {COMPARED if kind == 'preference' else ''} order by j.id",
        [project_id],
    )
    weights = filters.get("weights", {})
    members = [row for row in every if weights.get(str(row["person_id"]), 1) > 0]
    statistics = _left_out(every, members) if weights else {}
    if "reliability" in filters and kind == "unpaired":
        statistics |= {"weighed_people": len(filters["reliability"]["people"])}
    elif "reliability" in filters:
        soft = {row["comparison_id"] for row in members if row["split"] == "train" and row["kind"] == "pair"}
        statistics |= {"soft_comparisons": len(soft), "soft_people": len(filters["reliability"]["people"])}
    snapshot = _begun(store, project_id, name, kind, filters, person_id, statistics or None)
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


def demonstrations(store: Store, project_id: int) -> list[tuple[int, str]]:
    """Id and split of the worked examples that say what a good answer is.

    Not those with a label, whose input alone does not tell what is asked, nor those that were winners or that a
    judgement wrote, which the judgements bring in. One that asks what a held-out case asks is held out as well.
    """
    rows = store.rows(
        'select d.id, coalesce((select c.split from cases c, json_each(c."values") v where c.project_id = d.project_id '
        "and c.split <> 'train' and v.value = d.input limit 1), 'train') as split "
        "from demonstrations d where d.project_id = ? and d.label is null and d.source <> 'winner' and d.judgement_id is null order by d.id",
        [project_id],
    )
    return [(row["id"], row["split"]) for row in rows]


def models_touched_by(store: Store, judgement_id: int) -> list[int]:
    """Ids of the models whose training saw this judgement."""
    rows = store.rows(
        "select distinct j.output_model_id as id from snapshot_judgements s join jobs j on j.snapshot_id = s.snapshot_id "
        "where s.judgement_id = ? and j.output_model_id is not null order by 1",
        [judgement_id],
    )
    return [row["id"] for row in rows]
