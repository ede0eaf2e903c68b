"""The whole loop without a browser: a scripted annotator judges by a hidden rule, and the rule scores what came out of it.

It drives the same activities as the pages, the same engine process and the same workers. The rule (polite, and right)
is known to the scripted annotator and to the final score alone; training sees judgements, a tenth of them wrong.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from backend import administering, comparing, labelling, opening, promoting, retraining, signing_in, starting
from backend.engines import kept
from backend.jobs.folder import held_out_scores
from backend.problem import Problem
from backend.settings import Settings
from backend.starter import service
from feedback_db import Store, comparisons, models, people, prompts
from feedback_db.types import Case, Comparison, Job, Model, Person, Prompt, Template

NOISE = 0.10  # share of judgements turned round; a tie that is turned becomes a side
TIMES = {"train": 2, "val": 4, "test": 4}  # comparisons per case: more where accuracy is measured
SAMPLES = 4  # answers per held-out case and policy in the final score
BOOTSTRAPS = 2000
ANNOTATOR = "scripted-annotator"


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


class DemoFailed(Problem):
    """A job of the demo did not end well; the message is the job's own."""


def run(settings: Settings, *, seed: int, own_folder: bool) -> int:
    """Run the loop in the data folder, or in a new one; the last line printed is one JSON object of its figures."""
    began = time.monotonic()
    if own_folder:
        settings = replace(settings, data_dir=Path(tempfile.mkdtemp(prefix="whetstone-demo-")))
    _say(began, f"data folder {settings.data_dir}, seed {seed}")
    with opening.opened(settings) as house:
        result = _loop(house, seed, began)
    print(json.dumps(result), flush=True)
    return 0


def _loop(house: opening.House, seed: int, began: float) -> dict[str, Any]:
    store = house.store
    project_id = starting.ensure_sample(store).id or 0
    admin, annotator = _people(store)
    base = models.live(store, "policy")
    assert base is not None and base.id is not None
    asked = _requests(store, project_id)
    made = comparing.make_comparisons(store, house.engine, admin, requests=asked, model_id=base.id)
    _say(began, f"{len(made.comparisons)} comparisons of the base's own answers ({made.alike} pairs were alike)")

    judgements = _judge_all(store, annotator, project_id, seed)
    _say(began, f"{judgements} judgements by a rule, {NOISE:.0%} of them turned round")

    reward = _trained(house, retraining.train_reward(store, admin, project_id, changes={}, seed=seed), began)
    accuracy, length = _reward_accuracy(store, held_out_scores(house.settings.runs_dir / str(reward.id)), seed)
    _say(
        began,
        f"reward model: {accuracy.mean:.3f} of held-out comparisons as the rule says; longer or shorter wins: {length:.3f}",
    )

    ppo = _trained(house, retraining.run_ppo(store, admin, project_id, changes={}, seed=seed), began)
    policy = promoting.promote(store, house.settings.models_dir, admin, ppo.output_model_id or 0, reason="demo")
    comparing.refill(store, house.engine, project_id=project_id, target=house.settings.queue_target)
    _say(began, f"{policy.name} is live; {comparisons.open_count(store, project_id)} comparisons of its answers wait")

    cases = _held_out(store, project_id)
    before, after = (_rule_scores(house, cases, model, seed) for model in (base, policy))
    gain = _bootstrap([b - a for a, b in zip(before, after, strict=True)], seed)
    report = models.evaluation_of(store, policy.id or 0, "ppo")
    assert report is not None
    return {
        "judgements": judgements,
        "reward_accuracy": round(accuracy.mean, 4),
        "reward_accuracy_low": round(accuracy.low, 4),
        "baseline_length_accuracy": round(length, 4),
        "hidden_rule_before": round(float(np.mean(before)), 4),
        "hidden_rule_after": round(float(np.mean(after)), 4),
        "gain_low": round(gain.low, 4),
        "gain_high": round(gain.high, 4),
        "kl": round(report.result["held_out"]["kl"]["value"], 4),
        "seconds": round(time.monotonic() - began, 1),
        "model_id": policy.id,
    }


def _people(store: Store) -> tuple[Person, Person]:
    signing_in.first_admin_token(store)
    admin = people.active_admins(store)[0]
    known = people.by_name(store, ANNOTATOR)
    return admin, known or administering.add_person(store, admin, ANNOTATOR, "annotator").person


def _requests(store: Store, project_id: int) -> list[tuple[int, int]]:
    """Every customer-service case under the plain template of its language, held-out ones more than once."""
    asked = []
    for template in _plain_templates(store, project_id):
        for case in prompts.cases(store, project_id, scenario=starting.SERVICE, language=template.language):
            asked += [(template.id or 0, case.id or 0)] * TIMES[case.split]
    return asked


def _plain_templates(store: Store, project_id: int) -> list[Template]:
    found = prompts.templates(store, project_id)
    return [t for t in found if t.scenario == starting.SERVICE and not t.few_shot]


# ---- the scripted annotator


def _judge_all(store: Store, annotator: Person, project_id: int, seed: int) -> int:
    """Judge until the queue is empty, through the same activity as the label page. Returns how many were judged."""
    rng = Random(f"annotator {seed}")
    desk = labelling.next_desk(store, annotator, project_id)
    count = 0
    while desk is not None:
        scores = [_rule(desk.conversation[-1]["content"], text) for text in desk.answers]
        ranks = _ranks(scores, rng)
        answer = labelling.Answer(ranks=ranks, strength=None if ranks[0] == ranks[1] else 1, seconds=0.0)
        key = uuid.UUID(int=rng.getrandbits(128), version=4).bytes
        desk = labelling.submit(store, annotator, desk.assignment, key, answer).desk
        count += 1
    return count


def _ranks(scores: Sequence[int], rng: Random) -> tuple[int, ...]:
    """1 for the better score, equal for a tie; turned round with the probability of the noise."""
    difference = scores[0] - scores[1]
    if rng.random() < NOISE:
        difference = -difference or rng.choice((-1, 1))
    if difference == 0:
        return (1, 1)
    return (1, 2) if difference > 0 else (2, 1)


def _rule(question: str, answer: str) -> int:
    """The hidden rule: one point for politeness, one for the right answer."""
    verdict = service.judge_question(question, answer)
    if verdict is None:
        raise DemoFailed(f"The rule knows only questions of the sample project, not {question!r}.")
    return verdict.score


# ---- figures


def _trained(house: opening.House, job: Job, began: float) -> Job:
    done = house.jobs.run_to_end(job, lambda job: None)
    if done.state != "done" or done.output_model_id is None:
        raise DemoFailed(f"The {job.kind} job ended as {done.state}: {done.error}")
    _say(began, f"{job.kind} job done: model {done.output_model_id}")
    return done


def _reward_accuracy(store: Store, held_out: list[dict[str, Any]], seed: int) -> tuple[Interval, float]:
    """How often the reward model sides with the rule on held-out comparisons where the rule takes a side, and how often
    length alone does (the better of its two directions). The interval is a bootstrap over cases."""
    hits: dict[int, list[float]] = {}
    longer: list[float] = []
    for row in held_out:
        comparison = comparisons.existing_comparison(store, row["completions"])
        assert comparison is not None
        truth, lengths = _truth(store, comparison, row["completions"])
        if truth == 0:
            continue
        difference = row["scores"][0] - row["scores"][1]
        hits.setdefault(comparison.case_id, []).append(_agrees(difference, truth))
        longer.append(_agrees(lengths, truth))
    cases = list(hits.values())
    rng = np.random.default_rng(seed)
    means = [_pooled([cases[i] for i in rng.integers(len(cases), size=len(cases))]) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, [0.025, 0.975])
    share = float(np.mean(longer))
    return Interval(_pooled(cases), float(low), float(high)), max(share, 1 - share)


def _truth(store: Store, comparison: Comparison, completion_ids: list[int]) -> tuple[int, int]:
    """(difference of the rule's scores, difference of the lengths) of the two answers, without noise."""
    texts = {c.id: c.text for c in comparisons.completions_of(store, comparison.id or 0)}
    first, second = (texts[i] for i in completion_ids)
    question = (store.get(Case, comparison.case_id).values or {})["input"]
    return _rule(question, first) - _rule(question, second), len(first) - len(second)


def _agrees(difference: float, truth: int) -> float:
    return 0.5 if difference == 0 else float((difference > 0) == (truth > 0))


def _pooled(cases: list[list[float]]) -> float:
    flat = [hit for hits in cases for hit in hits]
    return math.fsum(flat) / len(flat)


def _held_out(store: Store, project_id: int) -> list[tuple[Template, Case]]:
    return [
        (template, case)
        for template in _plain_templates(store, project_id)
        for case in prompts.cases(store, project_id, scenario=starting.SERVICE, language=template.language)
        if case.split != "train"
    ]


def _rule_scores(house: opening.House, cases: list[tuple[Template, Case]], model: Model, seed: int) -> list[float]:
    """Per held-out case the rule's mean score of fresh answers of this model, between 0 and 2."""
    client = house.engine.client()
    most = kept.SamplingSettings().max_tokens
    asked = [
        kept.keep_prompt(house.store, house.engine, client, template, case, most, None) for template, case in cases
    ]

    def score(prompt: Prompt, case: Case) -> float:
        answers = client.complete(
            prompt.messages, model=kept.engine_name(model), n=SAMPLES, seed=1_000_000 + seed, max_tokens=most
        )
        return sum(_rule((case.values or {})["input"], answer.text) for answer in answers) / SAMPLES

    with ThreadPoolExecutor(comparing.AT_ONCE) as pool:
        return list(pool.map(score, asked, [case for _, case in cases]))


def _bootstrap(values: list[float], seed: int) -> Interval:
    """Mean with a percentile bootstrap over cases, 95 %."""
    drawn = np.random.default_rng(seed).choice(values, size=(BOOTSTRAPS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))


def _say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)
