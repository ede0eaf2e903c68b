"""The models page: what a model rests on; promote and roll back ask once more and say what they did."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from feedback_db import models
from feedback_db.types import Job, Model
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts


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
