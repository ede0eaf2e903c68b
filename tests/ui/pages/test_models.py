"""The models page: what a model rests on; promote and roll back ask once more and say what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from backend import retraining
from feedback_db import models
from feedback_db.types import Job, Model
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, build, judge, parts, run_job
from ui.web import create_app


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return Tab(studio_app, "/admin", token_for(studio, studio.admin))  # type: ignore[arg-type]


def test_the_live_policy_is_shown_with_figures_lineage_and_moves(tab: Tab, studio: Studio) -> None:
    live = models.live(studio.store, "policy")
    assert live is not None
    outputs = tab.call("models_open")
    detail = outputs[2]
    rows = [(name, cell) for part in parts(detail, "facts") for name, cell in part["rows"]]
    assert ("Score gain on held-out prompts", "1.06 (0.81–1.31, n = 40)") in rows
    assert ("Parent", {"text": "starter", "href": "/admin/models?model=1"}) in rows
    job = studio.store.get(Job, live.job_id or 0)
    assert ("Made by", {"text": f"job {job.id}", "href": f"/admin/train?job={job.id}"}) in rows
    assert parts(detail, "table")[0]["rows"][0]["cells"][1:] == ["candidate → live", "root", "a clear gain"]


def test_promote_and_roll_back_ask_change_the_stage_and_say_what_they_did(tab: Tab, studio: Studio) -> None:
    store = studio.store
    live = models.live(store, "policy")
    waiting = store.find(Model, "kind = 'policy' and stage = 'candidate'")[0]
    assert live is not None
    tab.call("models_choose", event={"id": waiting.id})
    row, question, other = tab.call("ask_promote", None)
    assert (row["visible"], other["visible"]) == (True, False)
    asked = parts(question, "note")[0]["text"]
    assert asked.startswith(f"Put {waiting.name} live in place of {live.name}? ")
    replaced = int(asked.split("? ")[1].split()[0])
    assert replaced > 0
    said = parts(tab.call("promote", None, "better answers")[-2], "note")[0]["text"]
    assert store.get(Model, waiting.id or 0).stage == "live"
    assert store.get(Model, live.id or 0).stage == "retired"
    assert said.startswith(f"{waiting.name} is live in place of {live.name}. {replaced} open comparisons")
    tab.call("ask_roll_back", None)
    said = parts(tab.call("roll_back", None)[-1], "note")[0]["text"]
    assert store.get(Model, live.id or 0).stage == "live"
    assert said.startswith(f"{live.name} is live in place of {waiting.name}.")
    with pytest.raises(gr.Error, match="live already"):
        tab.call("promote", None, "")


FALL = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 30}
JUDGED = {
    "n": 120,
    "accuracy": {"value": 0.81, "low": 0.73, "high": 0.87, "n": 120},
    "train_accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 300},
    "margin": FALL,
    "baselines": {"length": {"value": 0.56, "low": 0.47, "high": 0.65, "n": 120, "rule": "shorter wins"}},
    "verdict": "usable",
}
SHARE = {"value": 0.78, "low": 0.7, "high": 0.85, "n": 120}
LEARNT = {
    "sft": (
        {"n": 40, "loss": {"n": 40, "before": 0.9, "after": 0.5, "fall": FALL}, "verdict": "loss_fell"},
        "loss fall 0.4 (0.3–0.5, n = 30)",
        {
            "Fall of the held-out loss, nats per token": "0.4 (0.3–0.5, n = 30)",
            "Held-out loss, before → after": "0.9 → 0.5 (n = 40)",
        },
        "The held-out loss fell; the interval of its fall lies above zero.",
    ),
    "pretrain": (
        {
            "objective": "causal",
            "n": 30,
            "loss": {"n": 30, "before": 0.9, "after": 0.5, "fall": FALL},
            "perplexity": {"n": 900, "before": 2.5, "after": 1.6},
            "verdict": "loss_fell",
        },
        "loss fall 0.4 (0.3–0.5, n = 30)",
        {
            "Fall of the held-out loss, nats per token": "0.4 (0.3–0.5, n = 30)",
            "Held-out loss, before → after": "0.9 → 0.5 (n = 30)",
            "Held-out perplexity, before → after": "2.5 → 1.6 (n = 900)",
            "Learnt to predict": "the next token",
        },
        "The held-out loss fell; the interval of its fall lies above zero.",
    ),
    "dpo": (
        JUDGED,
        "accuracy 81 % (73–87, n = 120)",
        {
            "Held-out accuracy": "81 % (73–87, n = 120)",
            "Baseline: length alone": "56 % (47–65, n = 120)",
            "Accuracy in training": "90 % (80–95, n = 300)",
            "Margin of the implicit reward": "0.4 (0.3–0.5, n = 30)",
        },
        "Held-out accuracy is above every baseline.",
    ),
    "kto": (
        {
            **JUDGED,
            "sizes": {
                "train_desirable": 150,
                "train_undesirable": 100,
                "held_out_desirable": 40,
                "held_out_undesirable": 30,
            },
            "balance": 1.5,
            "desirable_reward": FALL,
        },
        "accuracy 81 % (73–87, n = 120)",
        {
            "Held-out accuracy": "81 % (73–87, n = 120)",
            "Baseline: length alone": "56 % (47–65, n = 120)",
            "Accuracy in training": "90 % (80–95, n = 300)",
            "Margin of the implicit reward": "0.4 (0.3–0.5, n = 30)",
            "Implicit reward of desirable answers; below 0 they became less likely": "0.4 (0.3–0.5, n = 30)",
            "Answers trained on": "150 desirable, 100 undesirable",
            "Weight of desirable over undesirable answers": "1.5 (1 to 1.33 is advised)",
        },
        "Held-out accuracy is above every baseline.",
    ),
    "reward": (
        {
            "n": 120,
            "accuracy": {"value": 0.81, "low": 0.73, "high": 0.87, "n": 120},
            "members": [
                {"accuracy": {"value": 0.8, "low": 0.72, "high": 0.86, "n": 120}, "log_loss": 0.4},
                {"accuracy": {"value": 0.7, "low": 0.61, "high": 0.77, "n": 120}, "log_loss": 0.5},
            ],
            "spread": {"value": 0.31, "n": 240},
            "probe": {**SHARE, "gain": {"value": 0.03, "low": -0.02, "high": 0.08, "n": 40}},
            "ties": {"theta": 1.8, "n": 150, "log_loss": 0.92, "expected": 0.22, "observed": 0.2},
            "train_accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 300},
            "verdict": "usable",
        },
        "accuracy 81 % (73–87, n = 120)",
        {
            "Held-out accuracy": "81 % (73–87, n = 120)",
            "Member 1 alone": "80 % (72–86, n = 120)",
            "Member 2 alone": "70 % (61–77, n = 120)",
            "Disagreement of the members on held-out answers": "0.31 (n = 240)",
            "Linear probe on the bare base": "78 % (70–85, n = 120)",
            "Accuracy over the probe's in points, mean over cases": "+3.0 (-2.0 – +8.0, n = 40). Not shown to beat the probe, "
            "which takes a moment to fit: label more, or train otherwise.",
            "Ties model": "theta 1.8, log loss 0.92; ties expected 22 %, judged 20 % (n = 150)",
            "Accuracy in training": "90 % (80–95, n = 300)",
        },
        "Held-out accuracy is above every baseline.",
    ),
}


@pytest.mark.parametrize("kind", LEARNT)
def test_a_model_that_learnt_from_judgements_shows_what_it_is_worth(tmp_path: Path, kind: str) -> None:
    house = build(tmp_path)
    judge(house, 24)
    report, figure, expected, verdict = LEARNT[kind]
    job = retraining.train(house.store, house.admin, house.project.id or 0, kind, changes={})
    made = run_job(house, job, 3, report)
    assert made is not None and made.kind == ("reward" if kind == "reward" else "policy")
    tab = Tab(create_app(house.ui), "/admin", token_for(house, house.admin))  # type: ignore[arg-type]
    tab.call("models_open")
    outputs = tab.call("models_choose", event={"id": made.id})
    shown = [part for value in outputs if isinstance(value, dict) and "parts" in value for part in value["parts"]]
    rows = [(name, cell) for part in shown if part["t"] == "facts" for name, cell in part["rows"]]
    learnt = dict(rows[: len(expected)])
    assert learnt == expected and rows[len(expected)][0] == "Parent"
    assert verdict in [part["text"] for part in shown if part["t"] == "note"]
    table = next(part for part in shown if part["t"] == "table")
    assert figure in next(row["cells"] for row in table["rows"] if row["id"] == made.id)
    house.store.close()
