"""Reviewing: how good the judgements are, who agrees with whom, and what a project asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backend.access import require
from backend.labels import form as forms
from backend.labels.form import Form
from backend.problem import Problem
from backend.stats import agreement
from backend.stats.agreement import Agreement, Counts, Estimate
from backend.stats.apart import apart
from backend.stats.people import relied_on
from feedback_db import Store, audit, comparisons, people, quality
from feedback_db.store import as_json
from feedback_db.types import Comparison, Person, Project

SPLIT_MOST = 20  # divided comparisons on one page
RANDOM_LEAST = 0.1  # of the random arm: without it no figure can be trusted


NOT_KNOWN = agreement.share(0, 0)


class ReviewProblem(Problem):
    """A setting of a project, or a gold order, cannot be as it is; the message says why."""


class Own(NamedTuple):
    """What somebody may know of their own work; shares with their interval and n."""

    judged: int
    gold: Estimate  # gold comparisons ordered as their author did
    consistency: Estimate  # silent repeats answered as before
    left: Estimate  # the left answer chosen, where a side was: half is fair
    longer: Estimate  # the longer answer chosen
    agrees: Estimate  # pairs with others' judgements that are equal
    seconds: Estimate | None  # median


class Judge(NamedTuple):
    name: str
    own: Own
    right: Estimate  # of the pairs that probably have a better answer, how many this person named (Dawid & Skene)


class Quality(NamedTuple):
    agreement: Agreement
    cohen: Estimate  # Cohen's kappa, where the same two people judged all that several judged
    judges: list[Judge]
    split: list[Comparison]


def own(store: Store, person: Person, project_id: int) -> Own:
    """A person's own figures: coaching, not a ranking of people."""
    require(person, "label")
    agrees = _agrees(_with_others(quality.said(store, project_id)))
    return _own(store, project_id, person.id or 0, agrees)


def overview(store: Store, person: Person, project_id: int) -> Quality:
    """All figures of a project."""
    require(person, "review")
    said = _with_others(quality.said(store, project_id))
    counts = agreement.count(said[:, 0], said[:, 2], len(quality.CATEGORIES))
    agrees = _agrees(said)
    trusted = relied_on(store, project_id).right
    judges = [
        Judge(people.shown_name(store, judge), _own(store, project_id, judge, agrees), trusted.get(judge, NOT_KNOWN))
        for judge in quality.judges(store, project_id)
    ]
    return Quality(
        apart(agreement.measure, counts),
        _cohen(said),
        judges,
        quality.split(store, project_id, SPLIT_MOST),
    )


def _with_others(said: Sequence[quality.Said]) -> Counts:
    """(N, 3): comparison, person and category of what was said of comparisons that more than one person judged."""
    rows = np.array(said, np.int64).reshape(-1, 3)
    _, place, judged = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    return rows[judged[place] > 1]


def _cohen(said: Counts) -> Estimate:
    """Of two people; nothing of more."""
    if len(np.unique(said[:, 1])) != 2:
        return agreement.NOTHING
    rows = said[np.lexsort((said[:, 1], said[:, 0]))]
    return apart(agreement.cohen, rows[0::2, 2], rows[1::2, 2], len(quality.CATEGORIES))


def _agrees(said: Counts) -> dict[int, Estimate]:
    """Of each person: how many of the pairs of their judgements with others' are equal."""
    counts = agreement.count(said[:, 0], said[:, 2], len(quality.CATEGORIES))
    _, place = np.unique(said[:, 0], return_inverse=True)
    judges, who = np.unique(said[:, 1], return_inverse=True)
    equal = np.bincount(who, counts[place, said[:, 2]] - 1, minlength=len(judges))
    others = np.bincount(who, counts.sum(1)[place] - 1, minlength=len(judges))
    return {
        int(judge): agreement.share(float(hits), float(n)) for judge, hits, n in zip(judges, equal, others, strict=True)
    }


def _own(store: Store, project_id: int, person_id: int, agrees: Mapping[int, Estimate]) -> Own:
    habits = quality.habits(store, project_id, person_id)
    gold = [
        passes(json.loads(row["gold"]), json.loads(row["ranks"]), json.loads(row["shown"]))
        for row in quality.gold_answers(store, project_id, person_id)
    ]
    repeats = quality.repeats(store, project_id, person_id)
    return Own(
        judged=habits.judged,
        gold=agreement.share(sum(gold), len(gold)),
        consistency=agreement.share(sum(before == again for before, again in repeats), len(repeats)),
        left=agreement.share(*habits.left),
        longer=agreement.share(*habits.longer),
        agrees=agrees.get(person_id, NOT_KNOWN),
        seconds=agreement.median(habits.seconds),
    )


def passes(gold: Sequence[int], ranks: Sequence[int], shown: Sequence[int]) -> bool:
    """Whether ranks, by place, order every pair as gold does that names an order; ``gold`` goes by canonical position."""
    mine = dict(zip(shown, ranks, strict=True))
    return all(
        mine[one] < mine[other] for one in range(len(gold)) for other in range(len(gold)) if gold[one] < gold[other]
    )


# ---- what a project asks


def project(store: Store, person: Person, project_id: int) -> tuple[Project, Form]:
    require(person, "review")
    found = store.get(Project, project_id)
    return found, forms.parse(found.label_form)


def save_form(
    store: Store,
    person: Person,
    project_id: int,
    form: Form,
    *,
    overlap: int,
    gold_every: int,
    repeat_share: float,
    random_share: float,
) -> Project:
    """Ask this from the next desk on. Raises BadForm or ReviewProblem."""
    require(person, "review")
    form = forms.parse(forms.stored(form))
    if not 1 <= overlap <= 50 or not 0 <= gold_every <= 1000:
        raise ReviewProblem("Overlap is 1 to 50, and gold comes at most every 1000 comparisons.", "bad_overlap")
    if not 0 <= repeat_share <= 0.5 or not RANDOM_LEAST <= random_share <= 1:
        raise ReviewProblem(
            "Repeats are 0 to 0.5 of all comparisons, and at least 0.1 come from the random arm.", "bad_shares"
        )
    with store.write():
        before = store.get(Project, project_id)
        settings = {**before.settings, "repeat_share": repeat_share, "random_share": random_share}
        quality.save_settings(store, project_id, as_json(forms.stored(form)), as_json(settings), overlap, gold_every)
        facts = {
            "overlap": overlap,
            "gold_every": gold_every,
            "repeat_share": repeat_share,
            "random_share": random_share,
        }
        audit.record(store, person, "change_label_form", "project", project_id, facts)
        return store.get(Project, project_id)


def ask_one_more(store: Store, person: Person, comparison_id: int) -> Comparison:
    """People disagree: one more of them is asked."""
    require(person, "review")
    with store.write():
        if store.get(Comparison, comparison_id).overlap >= 50:
            raise ReviewProblem("This comparison was asked of 50 people already.", "asked_enough")
        quality.ask_one_more(store, comparison_id)
        audit.record(store, person, "ask_one_more", "comparison", comparison_id, {})
        return store.get(Comparison, comparison_id)


def make_gold(store: Store, person: Person, comparison_id: int, order: Sequence[int]) -> Comparison:
    """A gold comparison of the same answers; ``order`` holds ranks by canonical position. The judged one stays as it is."""
    require(person, "review")
    with store.write():
        found = store.get(Comparison, comparison_id)
        if len(order) != found.size or min(order, default=0) != 1 or len(set(order)) == 1:
            raise ReviewProblem(
                f"Gold names an order of the {found.size} answers, 1 for the best; not all can be equal.",
                "bad_gold",
                size=found.size,
            )
        answers = [answer.id or 0 for answer in comparisons.completions_of(store, comparison_id)]
        gold = Comparison(
            project_id=found.project_id, case_id=found.case_id, kind=found.kind, size=found.size, gold=tuple(order),
            queue_key=found.queue_key, reason="gold",
        )  # fmt: skip
        added = comparisons.add_comparison(store, gold, answers)
        audit.record(store, person, "make_gold", "comparison", added.id, {"of": comparison_id})
        return added
