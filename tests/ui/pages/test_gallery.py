"""The gallery page: cards by area, what is inside, and a scenario taken into a project or a new one."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from backend import scenarios
from feedback_db import prompts
from feedback_db.types import Project
from tests.ui.accessible import broken
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]


def items(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for group in parts(value, "shelf")[0]["groups"] for item in group["items"]]


def drop(studio: Studio, name: str) -> None:
    with studio.store.write() as db:
        db.conn.execute("update projects set archived_at = 1 where name = ?", [name])


def test_the_page_opens_with_the_readers_language_and_shows_both_on_demand(tab: Tab, studio: Studio) -> None:
    _, language, shelf, _ = tab.call("gallery_open")
    every = scenarios.gallery(studio.engineer)
    assert language == "en" and {item["badge"] for item in items(shelf)} == {"English"}
    (shelf,) = tab.call("gallery_language", "all", None)
    assert [item["title"] for item in items(shelf)] == [one.title for one in every]


def test_a_chosen_scenario_shows_what_is_inside(tab: Tab, studio: Studio) -> None:
    first = scenarios.gallery(studio.engineer, language="zh")[0]
    _, shelf, inside, name, _ = tab.call("choose_scenario", "zh", event={"id": f"{first.key}.zh"})
    assert name == first.title
    assert [item["id"] for item in items(shelf) if item["chosen"]] == [f"{first.key}.zh"]
    assert parts(inside, "cards")[0]["items"][0]["value"] == str(len(first.cases))
    assert parts(inside, "messages")[1]["items"][-1]["text"] == first.cases[0].expected
    with pytest.raises(gr.Error, match="no scenario"):
        tab.call("choose_scenario", "zh", event={"id": "weather.zh"})


def test_it_is_added_once_and_a_new_project_opens_the_ways_on(tab: Tab, studio: Studio) -> None:
    first = scenarios.gallery(studio.engineer, language="en")[0]
    before = len(prompts.projects(studio.store))
    tab.call("choose_scenario", "en", event={"id": f"{first.key}.en"})  # what is chosen stays with the tab
    said, _ = tab.call("make_project", "Help desk", None)
    made = prompts.project_named(studio.store, "Help desk")
    try:
        assert made is not None and made.label_form == first.label_form
        ways = [row[1]["href"] for row in parts(said, "facts")[0]["rows"]]
        assert (
            ways[0].startswith(f"/studio/?project={made.id}&template=") and ways[1] == f"/studio/test?project={made.id}"
        )
        said, picker = tab.call("add_scenario", made.id, None)
        assert "nothing was added" in parts(said, "note")[0]["text"] and picker["value"] == made.id
        with pytest.raises(gr.Error, match="already"):
            tab.call("make_project", "Help desk", None)
        assert len(prompts.projects(studio.store)) == before + 1
    finally:
        drop(studio, "Help desk")


def test_without_a_choice_the_page_says_what_to_do(tab: Tab, studio: Studio) -> None:
    said, _ = tab.call("add_scenario", studio.project.id, None)
    assert parts(said, "note")[0]["text"] == "Choose a scenario first."


@pytest.mark.browser
@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility_and_is_used_by_keyboard(
    studio: Studio, studio_page: Any, theme: str, lang: str
) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/gallery")
    card = page.locator("#gallery .vw-choice button").first
    card.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#scenario .vw-message").first).to_be_visible()
    expect(page.locator("#gallery .vw-chosen button")).to_have_attribute("aria-pressed", "true")
    name = f"{theme} desk"
    page.locator("#new-project input, #new-project textarea").fill(name)
    page.click("#make-project")
    expect(page.locator("#gallery-status a").first).to_be_visible()
    assert broken(page) == []
    assert studio.store.find(Project, "name = ?", [name])
    drop(studio, name)
