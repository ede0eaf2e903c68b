"""How sure a model is of cases that nobody has answered, and which of them to label for that: the second stage of vote-k.

Su et al. 2022 (arXiv:2209.01975), section 2.1 and algorithm 1: once a first part is labelled, the model answers all the rest with
what is labelled as its demonstrations; the cases are put in the order of its confidence, the surest tenth is left out, the others
are cut into as many equal groups as cases are wanted, and of each group the one with the most votes is taken. Which
demonstrations are shown is the template's own matter here, and confidence in a closed set of labels is the share of the likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backend.engines.answers import Client
from backend.engines.features import embedder
from backend.engines.kept import engine_name
from backend.prompts import calibrate
from backend.prompts.chat import text_of
from backend.prompts.fewshot import FewShot, choose
from backend.prompts.labelwords import Scored, Scorer, asked, score
from backend.prompts.votek import vote_in_groups
from feedback_db import Store
from feedback_db.types import Case, Demonstration, Model, Template

from .plans import AT_ONCE, Ask, Plan

SAID_TOKENS = 48  # of an answer that is no label: enough to see how sure it is; our choice
LEFT_OUT = 0.1  # of the cases, the surest: theirs
UNSURE = -1e9  # nats; of an answer without a token


class Pick(NamedTuple):
    case_id: int
    confidence: float  # the share of the likeliest label, or the geometric mean of its answer's token probabilities
    group: int  # 1 holds the least sure
    votes: float


class Sure(NamedTuple):
    """What a model's confidence comes to; ``picks`` once it was asked about all cases."""

    confidences: list[float]  # of the cases that were asked about, in their order
    left_out: int  # the surest, of which none is taken
    picks: list[Pick]


def asks(case_count: int) -> list[Ask]:
    """A part for every so many cases."""
    return [Ask(f"search:{at}", None, "search") for at in range(-(-case_count // AT_ONCE))]


def cases_of(plan: Plan, ask: Ask) -> Sequence[int]:
    at = int(ask.name.split(":")[1]) * AT_ONCE
    return plan.search[at : at + AT_ONCE]


def measured(
    store: Store, engine: Any, client: Client, scorer: Scorer, template: Template, model: Model,
    pool: Sequence[Demonstration], plan: Plan, ask: Ask,
) -> Scored:  # fmt: skip
    """Log-confidence of each case of a part, (N, 1) in nats. Raises EngineError."""
    embed, few_shot = embedder(store, engine), FewShot.parse(template.few_shot)
    cases = [store.get(Case, id) for id in cases_of(plan, ask)]
    messages = [asked(template, case, choose(pool, text_of(case), few_shot, embed)) for case in cases]
    name = engine_name(model)
    if plan.labels:
        found = score(scorer, messages, plan.labels, name)
        return Scored([[float(np.log(own.max()))] for own in calibrate.shares(found.logps)], found.straddling)
    said = [client.complete(one, model=name, seed=0, temperature=0.0, max_tokens=SAID_TOKENS)[0] for one in messages]
    return Scored([[UNSURE if one.mean_logp is None else one.mean_logp] for one in said], [])


def sure_found(
    plan: Plan, found: Mapping[str, Sequence[Sequence[float]]], texts: Mapping[int, str], labelled: Sequence[str]
) -> Sure:
    """``texts`` of the cases by id; ``labelled`` are the inputs that had an answer when the model was asked."""
    logps = [own[0] for ask in plan.asks if ask.name in found for own in found[ask.name]]
    confidences = [float(np.exp(logp)) for logp in logps]
    if len(logps) < len(plan.search):
        return Sure(confidences, 0, [])
    by_confidence = sorted(range(len(logps)), key=lambda at: (logps[at], at))  # least sure first
    left_out = int(LEFT_OUT * len(logps))
    kept = by_confidence[: len(logps) - left_out]
    groups = [part.tolist() for part in np.array_split(np.array(kept, dtype=int), min(plan.wanted, len(kept)))]
    first = len(labelled)
    every = [*labelled, *(texts[id] for id in plan.search)]
    votes = vote_in_groups(every, [[first + at for at in group] for group in groups], range(first))
    picks = [
        Pick(plan.search[vote.place - first], confidences[vote.place - first], at, vote.score)
        for at, vote in enumerate(votes, 1)
    ]
    return Sure(confidences, left_out, picks)
