"""Single answers that people called good or bad: what each judgement says of each answer, and what most of them say."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .store import as_json

UNDESIRABLE_FLAGS = (
    "unsafe",
    "false",
    "personal",
)  # "unsafe:1" is about the answer at place 1 of ``shown``; our choice


class Vote(NamedTuple):
    """What one judgement, or one demonstration, says of one answer."""

    answered: Mapping[str, Any]  # case, split, messages and answer of its row
    is_desirable: bool | None  # None: somebody saw the answer and said neither
    source: str
    judgement: int | None = None
    demonstration: int | None = None
    weight: float = 1.0  # what it counts beside others on one answer


class Opinion(NamedTuple):
    """What a judgement says of the completion at one canonical position."""

    position: int
    is_desirable: bool | None
    source: str


def opinions(judgement: Mapping[str, Any]) -> list[Opinion]:
    """Of every answer that was shown. A flag tells most, then an edit (what is mended was not good), then "both bad" or
    "both good".

    Otherwise the one that is first alone is desirable and the one that is last alone is not; the answers between them,
    and ties, say nothing: better than another is not the same as good.
    """
    shown, ranks = json.loads(judgement["shown"]), json.loads(judgement["ranks"])
    if not shown:
        return []
    flagged = _flagged(judgement["flags"])
    best, worst = min(ranks), max(ranks)
    found = []
    for place, (position, rank) in enumerate(zip(shown, ranks, strict=True)):
        if place in flagged:
            found.append(Opinion(position, False, "flagged"))
        elif judgement["edited_text"] and position == judgement["edited_position"]:
            found.append(Opinion(position, False, "mended"))
        elif judgement["both_bad"]:
            found.append(Opinion(position, False, "both_bad"))
        elif judgement["both_good"]:
            found.append(Opinion(position, True, "both_good"))
        elif best < worst and rank in (best, worst) and ranks.count(rank) == 1:
            found.append(Opinion(position, rank == best, "winner" if rank == best else "loser"))
        else:
            found.append(Opinion(position, None, "silent"))
    return found


def _flagged(flags: str | None) -> set[int]:
    """Places, as shown, of answers that nobody should be given."""
    pairs = [str(flag).partition(":") for flag in json.loads(flags or "[]")]
    return {int(place) for name, _, place in pairs if name in UNDESIRABLE_FLAGS and place.isdecimal()}


def votes_of(
    judgement: Mapping[str, Any],
    asked: Sequence[Any],
    items: Sequence[Mapping[str, Any]],
    answers: Sequence[Any],
    weight: float = 1.0,
) -> Iterator[Vote]:
    """A judgement as votes. ``items`` and ``answers`` are its comparison's completions in canonical positions; ``asked``
    is the case as a conversation, for an answer that was written where there was none to mend."""
    place, text = judgement["edited_position"], judgement["edited_text"]
    mended = items[place] if place is not None and place < len(items) else None
    if mended is not None and text == mended["text"]:
        judgement = {**judgement, "edited_text": None}  # nothing was mended
    rest = {"case": judgement["case_id"], "split": judgement["split"]}
    for opinion in opinions(judgement):
        answered = {
            **rest,
            "messages": json.loads(items[opinion.position]["messages"]),
            "answer": answers[opinion.position],
        }
        yield Vote(answered, opinion.is_desirable, opinion.source, judgement["id"], weight=weight)
    if judgement["edited_text"]:
        messages = json.loads(mended["messages"]) if mended is not None else list(asked)
        answer = {"completion": None, "text": text, "ended": True}
        yield Vote({**rest, "messages": messages, "answer": answer}, True, "edited", judgement["id"], weight=weight)


def rows_of(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """One row per answer, in the order of the first votes. Equal texts that answer one prompt are one answer."""
    groups: dict[str, list[Vote]] = {}
    for vote in votes:
        row = vote.answered
        key = as_json([row["case"], row["messages"], row["answer"]["text"], row["answer"]["ended"]])
        groups.setdefault(key, []).append(vote)
    return [_row(group) for group in groups.values()]


def _row(votes: Sequence[Vote]) -> dict[str, Any]:
    """The verdict is what more than half of the votes' weight says, its weight by how much it outweighs the opposite: 1
    when all agree, a third for two against one that count alike. Without a verdict (None) the row stays, so that it is counted."""
    desirable = [vote for vote in votes if vote.is_desirable is True]
    undesirable = [vote for vote in votes if vote.is_desirable is False]
    good, bad, total = (math.fsum(vote.weight for vote in some) for some in (desirable, undesirable, votes))
    most, fewest = (desirable, undesirable) if good > bad else (undesirable, desirable)
    is_decided = 2 * max(good, bad) > total  # not where nobody counts anything
    return {
        **votes[0].answered,
        "desirable": (most is desirable) if is_decided else None,
        "weight": abs(good - bad) / total if is_decided else 0.0,
        "source": Counter(vote.source for vote in most).most_common(1)[0][0] if is_decided else "undecided",
        "is_contradicted": bool(fewest),
        "judgements": sorted({vote.judgement for vote in votes if vote.judgement is not None}),
        "demonstrations": sorted({vote.demonstration for vote in votes if vote.demonstration is not None}),
    }
