"""Baking on the train page: it is started from there, followed, and its ladder says what each way reaches."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from backend import baking, prompting, testing
from backend.engines.answers import EngineError
from backend.engines.kept import engine_name
from backend.engines.scripted import ScriptedEngine
from backend.suites import running
from feedback_db import models
from feedback_db.types import Bake
from tests.backend.test_baking import LABELS, Knowing, trained
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return Tab(studio_app, "/admin", token_for(studio, studio.admin))  # type: ignore[arg-type]


def prepared(studio: Studio) -> tuple[int, int, int]:
    """A suite of sums, a template that shows examples, and one that does not."""
    person, project, store = studio.engineer, studio.project.id or 0, studio.store
    rows = [({"input": f"sum {n}"}, LABELS[n % 2 == 0]) for n in range(120)]
    cases = prompting.add_cases(store, person, project, rows, scenario="sums")
    suite = testing.save_suite(
        store, person, project, name="sums", case_ids=[case.id or 0 for case in cases], checks="equals"
    )
    long, short = (
        prompting.save_template(
            store, person, project,
            prompting.Draft(name=name, system_text=system, body="{{input}}", labels=LABELS, scenario="sums"),
        )
        for name, system in (("sums long", "Say odd or even. 1: odd. 2: even."), ("sums short", ""))
    )  # fmt: skip
    return suite.id or 0, long.id or 0, short.id or 0


def test_a_bake_is_started_followed_and_told_as_a_ladder(tab: Tab, studio: Studio) -> None:
    store, project, engine = studio.store, studio.project.id or 0, Knowing()
    live = models.live(store, "policy")
    assert live is not None
    engine.ignorant.add(engine_name(live))
    told, *_ = tab.call("start_bake", project, None, None, None, 96, True)
    assert "Choose a suite" in parts(told, "note")[0]["text"]
    chosen = prepared(studio)
    suites, long, _, *_ = tab.call("bake_project", project)
    assert chosen[0] in [id for _, id in suites["choices"]] and chosen[1] in [id for _, id in long["choices"]]
    told, _, under_way, log, _ = tab.call("start_bake", project, *chosen, 12, True)
    assert "has begun" in parts(told, "note")[0]["text"]
    bake = store.find(Bake, order_by="id desc")[0]
    assert parts(under_way, "table")[0]["rows"][0]["cells"][0] == f"Stop bake {bake.id}"
    row = parts(log, "table")[0]["rows"][0]
    assert row["cells"][1]["text"] == "sums long v1 → sums short v1" and row["cells"][2]["text"] == "answering"
    followed(studio, engine, bake, "training")
    bake = store.get(Bake, bake.id or 0)
    model = trained(store, bake)
    followed(studio, engine, bake, "done")
    _, under_way, log, stamp = tab.call("bake_tick", project, None)
    ladder = parts(log, "rungs")[0]["rows"]
    names = [row[0] for row in ladder]
    assert names[2] == f"baked · {model.name}" and names[-1].startswith("linear probe on ")
    assert all(0 <= low <= value <= high <= 1 for _, value, low, high, _ in ladder)
    assert ladder[0][1] == ladder[2][1] == 1.0 > ladder[1][1]
    said = parts(log, "note")[-1]
    assert said["text"].startswith("Baking saves ") and said["tone"] == "ok" and not parts(under_way, "table")
    assert tab.call("bake_tick", project, stamp)[0].get("__type__") == "update"
    store.db.conn.execute("update models set stage = 'retired' where id = ?", [model.id])


class Away(Knowing):
    """An engine that is not there."""

    def complete(self, *args: Any, **settings: Any) -> Any:
        raise EngineError("The engine cannot be reached: it has stopped or is starting. Try again in a moment.")


def test_stop_ends_the_bake_it_stands_beside_and_one_without_its_engine_says_what_it_waits_for(
    tab: Tab, studio: Studio
) -> None:
    store, project, chosen = studio.store, studio.project.id or 0, prepared(studio)
    for most in (13, 14):
        tab.call("start_bake", project, *chosen, most, True)
    newer, older = store.find(Bake, order_by="id desc", limit=2)
    running.advance(store, Away())
    baking.advance(store, Away())
    _, under_way, log, _ = tab.call("bake_tick", project, None)
    (table,) = parts(under_way, "table")
    said = {row["id"]: row["cells"] for row in table["rows"]}
    assert "cannot be reached" in said[newer.id][1] and f"Go on with run {newer.run_id}" in said[newer.id][1]
    assert parts(log, "table")[0]["rows"][0]["cells"][2]["text"] == "waiting"
    tab.call("stop_bake", project, event={"id": older.id})
    states = [store.get(Bake, one.id or 0).state for one in (newer, older)]
    assert states == ["asking", "stopped"]
    testing.go_on(store, studio.engineer, newer.run_id)
    baking.advance(store, Away())
    assert store.get(Bake, newer.id or 0).why == ""
    (table,) = parts(tab.call("bake_tick", project, None)[1], "table")
    assert [row["cells"][1] for row in table["rows"]] == ["nothing: it goes on by itself"]
    baking.stop(store, studio.admin, newer.id or 0)


def followed(studio: Studio, engine: ScriptedEngine, bake: Bake, state: str) -> None:
    for _ in range(60):
        running.advance(studio.store, engine)
        baking.advance(studio.store, engine)
        if studio.store.get(Bake, bake.id or 0).state == state:
            return
    raise AssertionError(studio.store.get(Bake, bake.id or 0))


def test_only_an_admin_bakes(studio: Studio, studio_app: Any) -> None:
    for person in (studio.engineer, studio.annotator):
        other = Tab(studio_app, "/admin", token_for(studio, person))  # type: ignore[arg-type]
        before = len(studio.store.find(Bake))
        for call in (("start_bake", 1, 1, 1, 2, 96, True), ("stop_bake", 1), ("bake_project", 1)):
            with pytest.raises(gr.Error):
                other.call(*call, event={"id": 1})
        assert len(studio.store.find(Bake)) == before
