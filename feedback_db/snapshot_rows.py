"""Rows of a snapshot, each kind's own: functions of rows that never change, so they can be made again at any time."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from . import documents, soft, unpaired
from .cases import asked_of
from .store import Store, as_json
from .types import Message, Snapshot

OF_SNAPSHOT = "select judgement_id from snapshot_judgements where snapshot_id = ?"


def rows_text(store: Store, snapshot: Snapshot) -> str:
    """The snapshot as JSON lines: a function of rows that never change, so it can be written again at any time."""
    make = {
        "preference": _preference_rows,
        "prompts": _prompt_rows,
        "sft": answer_rows,
        "unpaired": unpaired_rows,
        "texts": _text_rows,
    }[snapshot.kind]
    rows = make(store, snapshot)
    if snapshot.kind == "preference" and "demonstrations" in snapshot.filters:
        rows += _good_rows(store, snapshot)
    return "".join(as_json(row) + "\n" for row in rows)


def _preference_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row per judgement; a comparison judged by m people counts once, so their weights are the soft label."""
    judged = store.rows(
        "select j.id, j.comparison_id, j.person_id, j.shown, j.ranks, j.strength, j.both_bad, j.edited_position, "
        "j.edited_text, s.split, case when k.arm = 'priority' and k.score is null then 'chosen' else k.arm end as arm, "
        'c.id as case_id, c."values", c.conversation '
        "from snapshot_judgements s join judgements j on j.id = s.judgement_id join comparisons k on k.id = j.comparison_id "
        "join cases c on c.id = k.case_id where s.snapshot_id = ? order by s.position",
        [snapshot.id],
    )
    items = _items(store, OF_SNAPSHOT, [snapshot.id])
    with_prompts = bool(snapshot.filters.get("with_prompts"))
    newest_of = snapshot.filters.get("newest_of")
    waiting = snapshot.filters.get("waiting")
    shares = _soft_shares(judged, snapshot.filters.get("reliability"))
    rows = [
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
            **({"share": _as_shown(row, shares[row["comparison_id"]])} if row["comparison_id"] in shares else {}),
            **({"comparison": row["comparison_id"], "arm": row["arm"]} if waiting is not None else {}),
            **({"is_newest": _is_of(items[row["comparison_id"]], newest_of)} if newest_of is not None else {}),
        }
        for row, weight in zip(judged, _shares(judged, snapshot.filters.get("weights", {})), strict=True)
    ]
    if snapshot.filters.get("with_edits"):
        rows += [
            _mended_pair(row, judgement, items[judgement["comparison_id"]][judgement["edited_position"]])
            for row, judgement in zip(rows, judged, strict=True)
            if judgement["edited_text"] and judgement["edited_position"] is not None and row["split"] == "train"
        ]
    return rows + _waiting_rows(store, waiting or [])


def _soft_shares(judged: Sequence[Mapping[str, Any]], reliability: Mapping[str, Any] | None) -> dict[int, float]:
    """Comparison id -> probable share of position 0, of pairs to train on; held-out rows stay what people said."""
    said: dict[int, list[tuple[int, int]]] = {}
    for row in judged if reliability is not None else ():
        places, ranks = json.loads(row["shown"]), json.loads(row["ranks"])
        if len(ranks) == 2 and row["split"] == "train":
            named = soft.category(dict(zip(places, ranks, strict=True)))
            said.setdefault(row["comparison_id"], []).append((row["person_id"], named))
    return {comparison: soft.share(reliability or {}, rows) for comparison, rows in said.items()}


def _as_shown(row: Mapping[str, Any], share: float) -> float:
    """The share of the answer that stood first."""
    return share if json.loads(row["shown"])[0] == 0 else round(1 - share, 6)


def _waiting_rows(store: Store, waiting: Sequence[int]) -> list[dict[str, Any]]:
    """Comparisons that nobody has judged, in this order: what they ask and what was answered."""
    wanted = json.dumps(list(waiting))
    asked = store.rows(
        'select k.id, c.id as case_id, c.split, c."values", c.conversation from json_each(?) w '
        "join comparisons k on k.id = w.value join cases c on c.id = k.case_id order by w.key",
        [wanted],
    )
    answers: dict[int, list[dict[str, Any]]] = {}
    for item in store.rows(
        "select i.comparison_id, i.completion_id, t.text, t.finish_reason from json_each(?) w "
        "join comparison_items i on i.comparison_id = w.value join completions t on t.id = i.completion_id "
        "order by i.comparison_id, i.position",
        [wanted],
    ):
        answers.setdefault(item["comparison_id"], []).append(_answer(item))
    return [
        {
            "comparison": row["id"],
            "arm": "waiting",  # which arm it goes to is decided when it is ordered
            "case": row["case_id"],
            "split": row["split"],
            "conversation": asked_of(row),
            "answers": answers[row["id"]],
        }
        for row in asked
    ]


def _mended_pair(row: dict[str, Any], judgement: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody wrote in the place of an answer is better than that answer; of the others it says nothing.

    Only for training: held-out figures are about answers of models.
    """
    written = {"completion": None, "text": judgement["edited_text"], "ended": True}
    pair = {**row, "answers": [written, _answer(item)], "ranks": [1, 2], "strength": None, "both_bad": False}
    pair.pop("share", None)
    if "prompts" in row:
        pair["prompts"] = [json.loads(item["messages"])] * 2
    return pair


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


def _is_of(items: list[dict[str, Any]], model_id: int) -> bool:
    """Whether a comparison holds an answer of this model."""
    return any(item["model_id"] == model_id for item in items)


def _answer(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"completion": item["completion_id"], "text": item["text"], "ended": item["finish_reason"] != "length"}


def answer_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """What a policy learns to write; it reads the prompt alone."""
    if "baked" in snapshot.filters:
        return _baked_rows(store, snapshot)
    return [
        {name: value for name, value in row.items() if name != "conversation"} for row in _good_rows(store, snapshot)
    ]


def _baked_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Answers to one prompt of a case, each under another prompt of that case, in the order in which they were frozen."""
    rows = store.rows(
        "select p.messages, c.id as case_id, c.split, t.id as completion_id, t.text, t.finish_reason from json_each(?) w"
        " join prompts p on p.id = json_extract(w.value, '$[0]') join completions t on t.id = json_extract(w.value, '$[1]')"
        " join cases c on c.id = p.case_id order by w.key",
        [json.dumps(snapshot.filters["baked"])],
    )
    return [
        {
            "case": row["case_id"],
            "split": row["split"],
            "messages": json.loads(row["messages"]),
            "answer": _answer(row),
            "source": "baked",
        }
        for row in rows
    ]


def _good_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
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
            "conversation": [{"role": "user", "content": row["input"]}],
            "answer": {"completion": None, "text": row["output"], "ended": True},
            "source": "demonstration",
            "demonstration": row["id"],
        }
        for row in shown
        if row["id"] in splits
    ]


def unpaired_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row per answer that was written, judged or mended: see unpaired.py."""
    return unpaired.rows_of(_votes(store, snapshot))


def _votes(store: Store, snapshot: Snapshot) -> Iterator[unpaired.Vote]:
    for row in _demonstrated(store, snapshot):
        answered = {name: row[name] for name in ("case", "split", "messages", "answer")}
        yield unpaired.Vote(answered, True, "demonstration", demonstration=row["demonstration"])
    judged = store.rows(
        "select j.id, j.comparison_id, j.person_id, j.shown, j.ranks, j.both_bad, j.both_good, j.flags, j.edited_text, j.edited_position, "
        'c.id as case_id, s.split, c."values", c.conversation from snapshot_judgements s '
        "join judgements j on j.id = s.judgement_id join comparisons k on k.id = j.comparison_id "
        "join cases c on c.id = k.case_id where s.snapshot_id = ? order by s.position",
        [snapshot.id],
    )
    items = _items(store, OF_SNAPSHOT, [snapshot.id])
    for row in judged:
        some = items.get(row["comparison_id"], [])
        counts = _counts(snapshot.filters, row["person_id"], row["split"])
        yield from unpaired.votes_of(row, asked_of(row), some, [_answer(item) for item in some], counts)


def _counts(filters: Mapping[str, Any], person_id: int, split: str) -> float:
    """What a person's word counts: the weight that was given, and in training times that of their reliability."""
    given = float(filters.get("weights", {}).get(str(person_id), 1.0))
    if split != "train" or "reliability" not in filters:
        return given
    return given * soft.weight(filters["reliability"], person_id)


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
    rest = {
        "case": first["case_id"],
        "split": first["split"],
        "conversation": asked_of(first),
        "judgements": [row["id"] for row in judgements],
    }
    edits = [row for row in judgements if row["edited_text"]]
    found = []
    for row in edits:
        place = row["edited_position"] or 0
        asked = json.loads(items[place]["messages"]) if place < len(items) else asked_of(row)
        answer = {"completion": None, "text": row["edited_text"], "ended": True}
        found.append({**rest, "messages": asked, "answer": answer, "source": "edited"})
    place = None if edits or not items else _winner(judgements)
    if place is not None:
        asked = json.loads(items[place]["messages"])
        found.append({**rest, "messages": asked, "answer": _answer(items[place]), "source": "winner"})
    return found


def _items(store: Store, which: str, values: list[Any]) -> dict[int, list[dict[str, Any]]]:
    """Comparison id -> its completions in canonical positions, of the comparisons that some judgements are about."""
    rows = store.rows(
        "select i.comparison_id, i.completion_id, t.text, t.finish_reason, t.model_id, p.messages from comparison_items i "
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


def _text_rows(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    return documents.rows(store, snapshot.project_id, snapshot.filters["as_of_document_id"])
