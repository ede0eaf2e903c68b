"""Scoring label words behind few-shot prompts beside plain transformers, and the search over orders of demonstrations.

Both sides get the same Llama model with random weights, the same texts and one thread, and run in turn, each time in a process of its
own. Ours is the engine's server asked by its client: HTTP, tokenizer and all. Theirs is a forward of the whole prompt, for each label
or once for all labels, of whose logits only those that are asked for are made. A forward takes the same time for every case, so theirs
is timed on some of the cases, and both are told per case; ours scores all of them, its shared beginning included. Seconds are of
processor time. The measurement ends where two scores differ.
"""

import os
import statistics
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from backend.prompts import calibrate
from bench import matrix, report, workload
from bench.generation import run
from bench.training import CACHE, PAIRS, PeerFailed

OURS, THEIRS = ["-m", "bench.scoring_side"], ["bench/peers/score_side.py"]
SHOWN, SHOWN_TOKENS, CASE_TOKENS = 8, 56, 36  # demonstrations, tokens of each, tokens of a case
LABELS, CASES = 4, 64
ORDERS, PROBES = 24, 30
TIMED = 4  # cases that theirs is timed on
REPEATS = {"labels": 5, "orders": 3}
ALIKE = 1e-4  # nats, in float32
REACH, SHARE = 8.0, 1 / 6


class Work(NamedTuple):
    groups: list[list[str]]  # prompts that share their demonstrations, one request each
    labels: list[str]

    @property
    def prompts(self) -> list[str]:
        return [prompt for group in self.groups for prompt in group]


def measure(quick: bool, only: str | None = None, pairs: Path | None = None) -> report.Found:
    """``only``: the one size of models to measure."""
    given = pairs or (PAIRS if PAIRS.exists() else None)
    size = only or ("6M" if quick else "90M")
    folder = workload.prepare(CACHE, given, [size])
    rows: list[report.Row] = []
    facts: list[dict[str, Any]] = []
    label_words = scoring(
        folder, size, ["per_label", "per_case"], 1 if quick else REPEATS["labels"], labels_work(folder)
    )
    ours, theirs = label_words["ours"], label_words["per_label"]
    name = f"{LABELS} label words, k = {SHOWN} ({size}, {_each(ours)} against {_each(theirs)} ms a case)"
    rows.append(report.at_least(name, "a forward per label", _speeds(ours), _speeds(theirs), REACH))
    once = label_words["per_case"]
    name = f"{LABELS} label words, k = {SHOWN} ({size}, {_each(ours)} against {_each(once)} ms a case)"
    rows.append(report.at_least(name, "a forward per case", _speeds(ours), _speeds(once), 1.0))
    facts.append({"work": "labels", "size": size, **label_words})
    print(report.table(rows), flush=True)
    search = scoring(folder, size, ["per_case"], 1 if quick else REPEATS["orders"], orders_work(folder))
    ours, once = search["ours"], search["per_case"]
    name = f"{ORDERS} orders x {PROBES} cases ({size}, {_each(ours)} against {_each(once)} ms a case)"
    rows.append(report.row(name, "a forward per case", ours["cpu_seconds_a_case"], once["cpu_seconds_a_case"], SHARE))
    facts.append({"work": "orders", "size": size, **search})
    print(report.table(rows), flush=True)
    page = matrix.measure(quick)
    return report.Found([*rows, *page["rows"]], {"runs": [*facts, {"work": "matrix", **page["facts"]}]})


def scoring(folder: Path, size: str, ways: list[str], times: int, work: Work) -> dict[str, Any]:
    """Ours and each plain way in turn, seconds a case. Raises PeerFailed where a score differs."""
    every = work.prompts
    timed = [every[at * len(every) // TIMED] for at in range(TIMED)]
    order = {"base": str(folder / f"base-{size}"), "threads": 1, "labels": work.labels, "warm": "Input:"}
    found: dict[str, list[dict[str, Any]]] = {"ours": [], **{way: [] for way in ways}}
    for _ in range(times):
        found["ours"].append(run(OURS, {**order, "groups": work.groups}, "ours"))
        for way in ways:
            found[way].append(run(THEIRS, {**order, "prompts": timed}, way))
    mine = [found["ours"][0]["scores"][at * len(every) // TIMED] for at in range(TIMED)]
    for way in ways:
        theirs = found[way][0]["scores"]
        gaps = [abs(a - b) for one, other in zip(mine, theirs, strict=True) for a, b in zip(one, other, strict=True)]
        if max(gaps) > ALIKE:
            raise PeerFailed(f"{way}, {size}: scores differ by {max(gaps):.2g} nats.")
    return {
        side: {
            "cases": len(every) if side == "ours" else TIMED,
            "cpu_seconds_a_case": [one["cpu_seconds"] / len(one["scores"]) for one in runs],
            "seconds_a_case": [one["seconds"] / len(one["scores"]) for one in runs],
            "peak_mb": [round(one["peak_mb"]) for one in runs],
        }
        for side, runs in found.items()
    }


def labels_work(folder: Path) -> Work:
    shown, cases, labels = texts(folder, CASES)
    return Work([[_prompt(shown, case) for case in cases]], labels)


def orders_work(folder: Path) -> Work:
    """The same demonstrations in 24 orders, each before the same cases."""
    shown, cases, labels = texts(folder, PROBES)
    orders = [[shown[at] for at in order] for order in calibrate.orders(SHOWN, seed=0, most=ORDERS)]
    return Work([[_prompt(order, case) for case in cases] for order in orders], labels)


def texts(folder: Path, cases: int) -> tuple[list[str], list[str], list[str]]:
    """Demonstrations, cases and labels, made of the workload's own words; a label is one token."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    rng = Random(0)
    read = [one for prompt in workload.prompts(folder, 200, 64) for one in prompt]

    def said(tokens: int) -> str:
        start = rng.randrange(len(read) - tokens)
        return " ".join(tokenizer.decode(read[start : start + tokens]).split())

    words = (tokenizer.decode([token]) for token in sorted(set(read)))
    plain = [word for word in words if word.startswith(" ") and word[1:].isalpha() and len(word) > 4]
    labels = rng.sample(plain, LABELS)
    shown = [f"Input: {said(SHOWN_TOKENS)}\nOutput:{rng.choice(labels)}\n\n" for _ in range(SHOWN)]
    return shown, [said(CASE_TOKENS) for _ in range(cases)], labels


def _prompt(shown: list[str], case: str) -> str:
    return "".join(shown) + f"Input: {case}\nOutput:"


def _speeds(side: dict[str, Any]) -> list[float]:
    return [1 / seconds for seconds in side["cpu_seconds_a_case"]]


def _each(side: dict[str, Any]) -> str:
    return f"{1000 * statistics.median(side['cpu_seconds_a_case']):.3g}"
