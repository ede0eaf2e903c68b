"""The bank and the versions on the build page: found, changed, taken out, taken in; pointed at, compared, reverted."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from backend import curating, testing
from backend.prompting import add_cases
from feedback_db import models
from feedback_db.types import Demonstration, Template
from tests.backend.test_testing import finished
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, judge, parts
from tests.ui.pages.test_build import form


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("build_open")
    return opened


def test_a_demonstration_is_found_changed_and_taken_out(tab: Tab, studio: Studio) -> None:
    project, typed = studio.project.id, form(scenario="customer service", language="en")
    tab.call("add_demonstration", "Is it raining?", "It is.", "weather", "wet, odd", project, "", *typed)
    found = tab.call("build_find_bank", project, "WEATHER", *typed)[0]
    (row,) = found["rows"]
    assert (row["input"], row["tags"], row["judged"]) == ("Is it raining?", "wet, odd", "")
    filled = tab.call("build_edit", event={"edit": row["id"]})
    assert filled[1:5] == ["Is it raining?", "It is.", "weather", "customer service, wet, odd"]
    shown = tab.call(
        "change_demonstration",
        None,
        "Is it raining?",
        "It is.",
        "sky",
        "customer service, wet",
        project,
        "raining",
        *typed,
    )[0]
    assert [(one["label"], one["tags"]) for one in shown["rows"]] == [("sky", "wet")]
    tab.call("build_edit", event={"edit": row["id"]})
    shown = tab.call("remove_demonstration", None, project, "raining", *typed)[0]
    assert shown["rows"] == [] and shown["words"]["empty"].startswith("No demonstration holds")
    picked = form(scenario="customer service", language="en", bank={"picked": [row["id"]]})
    (kept,) = tab.call("build_find_bank", project, "raining", *picked)[0]["rows"]
    assert kept["source"] == "taken out"


def test_winners_are_taken_in_by_one_click(tab: Tab, studio: Studio) -> None:
    judge(studio, 20)
    typed, project = form(scenario="customer service"), studio.project.id or 0
    offered = curating.winners(studio.store, studio.engineer, project)
    assert len(offered) > 2
    first = offered[0]
    shown, told, winners, button = tab.call("keep_winner", project, "", *typed, event={"id": first.completion_id})
    made = studio.store.find(Demonstration, "completion_id = ?", [first.completion_id])
    assert len(made) == 1 and parts(told, "note")[0]["text"] == "1 added to the bank."
    assert [row["judged"] for row in shown["rows"] if row["id"] == made[0].id] == ["100 % of 1"]
    assert len(parts(winners, "table")[0]["rows"]) == len(offered) - 1 and button["visible"]
    _, told, _, button = tab.call("keep_winners", project, "", *typed)
    assert parts(told, "note")[0]["text"] == f"{len(offered) - 1} added to the bank." and not button["visible"]


def test_versions_are_compared_pointed_at_and_reverted(tab: Tab, studio: Studio) -> None:
    project, store = studio.project.id or 0, studio.store
    ids = []
    for body in ("Say {{word}}", "Sing {{word}}"):
        picker, *_ = tab.call("save_template", project, *form(name="words", body=body, scenario="words"))
        ids.append(picker["value"])
    cases = add_cases(
        store, studio.engineer, project, [({"word": word}, word) for word in ("one", "two")], scenario="words"
    )
    suite = testing.save_suite(
        store, studio.engineer, project, name="w", case_ids=[case.id or 0 for case in cases], checks="contains:Sing"
    )
    live = models.live(store, "policy")
    run = testing.start(store, studio.engineer, suite.id or 0, [(id, live.id or 0) for id in ids])  # type: ignore[union-attr]
    finished(store, studio.engine, run)
    changes = tab.call("build_changes", ids[0], ids[1])[0]
    assert ["gone", "Say"] in parts(changes, "diff")[0]["pieces"] and ["new", "Sing"] in parts(changes, "diff")[0][
        "pieces"
    ]
    table = parts(changes, "table")[0]
    assert [row["cells"][0]["text"] for row in table["rows"]] == ["gained", "gained"]
    assert "0 before, 2 now, of 2 cases; 2 gained, 0 lost" in table["caption"]
    shown = tab.call("point_alias", project, ids[0], "production")
    assert [row["cells"][1] for row in parts(shown[0], "table")[0]["rows"]] == [
        "",
        {"text": "production", "badge": "ok"},
    ]
    with pytest.raises(gr.Error, match="alias"):
        tab.call("point_alias", project, ids[0], "no blanks")
    opened = tab.call("revert_template", project, ids[0])
    newest = store.find(Template, "name = 'words'", order_by="version desc")[0]
    assert (newest.version, newest.body, opened[0]["value"]) == (3, "Say {{word}}", newest.id)
    assert parts(opened[-1], "note")[0]["text"] == "words, version 3, is saved."
    assert "Open a saved version" in parts(tab.call("revert_template", project, None)[-1], "note")[0]["text"]


def test_an_annotator_is_refused_every_act(studio: Studio, studio_app: Any) -> None:
    tab = Tab(studio_app, "/studio", token_for(studio, studio.annotator))  # type: ignore[arg-type]
    typed = form()
    for name, given in (
        ("point_alias", [1, 1, "production"]), ("drop_alias", [1, 1, "production"]), ("revert_template", [1, 1]),
        ("comment_template", [1, "x"]), ("change_demonstration", [1, "a", "b", "", "", 1, "", *typed]),
        ("remove_demonstration", [1, 1, "", *typed]), ("keep_winners", [1, "", *typed]), ("build_changes", [1, 2]),
    ):  # fmt: skip
        with pytest.raises(gr.Error):
            tab.call(name, *given)
