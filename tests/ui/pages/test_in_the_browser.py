"""The pages of engineers and admins in a real browser: accessible, keyboard, text that stays text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.ui.pages.studio import HOSTILE, Studio

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
PAGES = {
    "/studio/": "#prompt .vw-message",
    "/studio/compare": "#many-model input",
    "/admin/train?job=2": "#samples .vw-message",
    "/admin/models": "#detail .vw-facts",
    "/admin/engines": "#engines .vw-note",
}
pytestmark = pytest.mark.browser
Open = Callable[..., Page]


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_axe_finds_nothing(studio: Studio, studio_page: Open, theme: str, lang: str) -> None:
    page = studio_page(studio.admin, lang, theme)
    for path, marker in PAGES.items():
        page.goto(path, wait_until="commit")
        page.wait_for_selector(marker)
        assert violations(page) == [], path


def violations(page: Page) -> list[Any]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [(problem["id"], problem["nodes"][0]["target"], problem["nodes"][0]["failureSummary"]) for problem in found]


def test_demonstrations_are_chosen_and_ordered_by_keyboard(studio: Studio, studio_page: Open) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/", wait_until="commit")
    page.wait_for_selector("#prompt .vw-message")
    page.get_by_role("tab").nth(1).press("Enter")
    for n in (1, 2):
        page.locator(f"#bank [data-key=use-{n}]").focus()
        page.keyboard.press("Space")
    page.locator("#bank [data-key=down-1]").press("Enter")
    expect(page.locator("#bank [data-key=down-1]")).to_be_focused()
    expect(page.locator("#k input")).to_have_value("2")
    page.get_by_role("tab").nth(0).press("Enter")
    expect(page.locator("#prompt .vw-note")).to_contain_text("2, 1")


def test_answers_stream_as_text_and_go_to_labelling(studio: Studio, studio_page: Open) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/compare", wait_until="commit")
    expect(page.locator("#case input")).not_to_have_value("")
    page.click("#run")
    expect(page.locator("#send")).to_be_enabled()
    assert HOSTILE in page.locator(".vw-pane .vw-text").first.inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator(".vw-pane img").count() == 0
    page.click("#send")
    expect(page.locator("#compare-status")).to_contain_text("waits for labelling")
