"""The test page: a suite is saved, run in columns, looked at case by case, and its answers sent to labelling."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from backend import prompting, testing
from feedback_db import models
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
PASTED = "word,expected\nred,red\nblue,blue\n"


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("suites_open")
    return opened


def form(**changes: Any) -> list[Any]:
    given = {"name": "colours", "template": None, "split": "all", "most": 100, "pasted": PASTED, "checks": "contains", "threshold": ""}
    return list({**given, **changes}.values())


def ran(studio: Studio, tab: Tab) -> int:
    """A finished run of two columns over two cases; its id."""
    project_id = studio.project.id or 0
    tab.call("save_suite", project_id, 0, *form())
    (suite,) = [one for one in testing.named(studio.store, studio.engineer, project_id) if one.name == "colours"]
    drafts = [prompting.Draft(name=f"colour {n}", body=body) for n, body in enumerate(("Say {{word}}", "Repeat {{word}}"))]
    templates = [prompting.save_template(studio.store, studio.engineer, project_id, draft).id for draft in drafts]
    live = models.live(studio.store, "policy")
    assert live is not None
    before = {one.run.id for one in testing.runs(studio.store, studio.engineer, project_id)}
    tab.call("start_run", project_id, suite.id, templates, [live.id], 0.0, 16, 1, 0)
    (new,) = {one.run.id for one in testing.runs(studio.store, studio.engineer, project_id)} - before
    for _ in range(20):
        testing.advance(studio.store, studio.engine)  # type: ignore[attr-defined]
    return new or 0


def test_a_suite_is_saved_with_its_pasted_cases_and_refused_with_the_line(tab: Tab, studio: Studio) -> None:
    project_id = studio.project.id or 0
    said, emptied, *_ = tab.call("save_suite", project_id, 0, *form())
    assert "2 cases, 1 checks" in parts(said, "note")[0]["text"] and emptied == ""
    with pytest.raises(gr.Error, match="Line 3: 1 fields"):
        tab.call("save_suite", project_id, 0, *form(pasted="word,expected\na,b\nc"))
    with pytest.raises(gr.Error, match='Line 1: there is no check "contain"'):
        tab.call("save_suite", project_id, 0, *form(checks="contain:x"))
    with pytest.raises(gr.Error, match="between 0 and 1"):
        tab.call("save_suite", project_id, 0, *form(threshold="high"))


def test_a_run_shows_columns_pairs_and_cases(tab: Tab, studio: Studio) -> None:
    run_id = ran(studio, tab)
    assert run_id
    shown = tab.select("choose_run", run_id, studio.project.id)
    columns, pairs = parts(shown[2], "table")
    assert len(columns["rows"]) == 2 and "n = 2" in columns["rows"][0]["cells"][1]
    assert pairs["rows"][0]["cells"][0] == "B"
    cases = parts(shown[6], "table")[0]
    assert len(cases["rows"]) == 2
    case_id = cases["rows"][0]["id"]
    opened = tab.select("choose_case", case_id, run_id)
    told = parts(opened[1], "messages")[0]["items"]
    assert told[0]["text"] and told[1]["text"] == "red" and "contains" in told[2]["foot"]
    (sent,) = tab.call("send_answers", run_id, case_id)
    assert "waits in the queue" in parts(sent, "note")[0]["text"]


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility(
    studio: Studio, studio_page: Any, tab: Tab, theme: str, lang: str
) -> None:
    run_id = ran(studio, tab)
    page = studio_page(studio.engineer, lang, theme)
    page.goto(f"/studio/test?run={run_id}")
    page.locator("#run-cases button").first.click()
    expect(page.locator("#run-answers")).to_contain_text("red")
    found = Axe().run(page, options=RULES).response["violations"]
    assert [(one["id"], one["nodes"][0]["target"], one["nodes"][0]["failureSummary"]) for one in found] == []
