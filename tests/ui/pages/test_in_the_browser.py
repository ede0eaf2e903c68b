"""The pages of engineers and admins in a real browser: accessible, keyboard, text that stays text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback_db.types import Judgement
from tests.ui.accessible import broken
from tests.ui.pages.studio import HOSTILE, Studio

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
        assert broken(page) == [], path


def test_the_token_bar_shows_every_part_as_wide_as_it_is(studio: Studio, studio_page: Open) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/", wait_until="commit")
    whole, drawn = page.locator("#prompt .vw-segments .vw-bar", has=page.locator("i")).evaluate(
        """bar => [bar.getBoundingClientRect().width, [...bar.querySelectorAll("i")].map(one => ({
            wide: one.getBoundingClientRect().width, high: one.getBoundingClientRect().height, part: +one.style.flexGrow }))]"""
    )
    of = sum(one["part"] for one in drawn)
    assert len(drawn) > 2 and all(one["high"] >= 8 for one in drawn)
    assert [one["wide"] for one in drawn] == pytest.approx([whole * one["part"] / of for one in drawn], abs=1.5)


def test_what_is_pasted_deleted_or_written_by_an_input_method_is_in_the_prompt_too(
    studio: Studio, studio_page: Open
) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/", wait_until="commit")
    page.wait_for_selector("#prompt .vw-message")
    field, shown = page.locator("#system-text textarea"), page.locator("#prompt .vw-message").first
    field.fill("Pasted words")  # an input without a key, as a paste is
    expect(shown).to_contain_text("Pasted words")
    field.press("End")
    for _ in "words":
        field.press("Backspace")
    expect(shown).not_to_contain_text("words")
    page.context.new_cdp_session(page).send(
        "Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2}
    )
    page.context.new_cdp_session(page).send("Input.insertText", {"text": "你好"})
    expect(shown).to_contain_text("Pasted 你好")
    field.press_sequentially("abcdefghijklmnop", delay=30)
    expect(shown).to_contain_text("abcdefghijklmnop")


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
    order = page.locator("#bank tbody tr button[data-key^=edit]")
    expect(order.nth(0)).to_have_text("2")
    page.keyboard.press("Alt+ArrowUp")
    expect(order.nth(0)).to_have_text("1")
    page.locator("#bank tbody tr").nth(1).drag_to(page.locator("#bank tbody tr").nth(0))
    expect(order.nth(0)).to_have_text("2")
    page.get_by_role("tab").nth(0).press("Enter")
    legend = page.locator("#prompt .vw-legend li.vw-demonstration")
    expect(legend).to_have_count(2)
    expect(legend.nth(0)).to_contain_text("2")


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_versions_and_the_bank_are_accessible(studio: Studio, studio_page: Open, theme: str, lang: str) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/", wait_until="commit")
    page.wait_for_selector("#prompt .vw-message")
    page.locator("#system-text textarea").press("End")
    page.locator("#system-text textarea").press_sequentially(f" {theme}.")
    expect(page.locator("#prompt .vw-message").first).to_contain_text(f" {theme}.")
    page.click("#save")
    expect(page.locator("#build-status .vw-ok")).to_be_visible()
    page.get_by_role("tab").nth(1).press("Enter")
    page.locator("#bank [data-key^=edit]").first.press("Enter")
    expect(page.locator("#change-demonstration")).to_be_visible()
    assert broken(page) == []
    page.get_by_role("tab").nth(2).press("Enter")
    expect(page.locator("#changes ins")).to_contain_text(theme)
    page.click("#point-alias")
    expect(page.locator("#versions .vw-badge")).to_have_text("production")
    page.locator("#comment textarea").fill(HOSTILE)
    page.locator("#say").press("Enter")
    expect(page.locator("#comments .vw-text")).to_have_text(HOSTILE)
    assert broken(page) == []
    page.locator("#comments button").press("Enter")
    expect(page.locator("#comments .vw-text")).to_have_count(0)


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


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_columns_are_looked_at_judged_and_gone_on_from_by_keyboard(
    studio: Studio, studio_page: Open, theme: str, lang: str
) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/compare", wait_until="commit")
    expect(page.locator("#case input")).not_to_have_value("")
    page.fill("#seed input", str(500 + len(lang)))
    page.locator("#run").press("Enter")
    page.wait_for_selector("[data-key=demonstration-1]")
    page.locator("[data-key=sight-diff]").press("Enter")
    expect(page.locator(".vw-pane").nth(1).locator("mark.vw-differs").first).to_be_visible()
    page.locator("[data-key=sight-markdown]").press("Enter")
    expect(page.locator(".vw-pane .vw-text strong").first).to_have_text("bold")
    assert page.locator(".vw-pane img").count() == 0 and page.evaluate("window.hacked") is None
    assert broken(page) == []
    page.locator("[data-key=sight-logps]").press("Enter")
    expect(page.locator(".vw-pane").first.locator("mark.vw-token").first).to_have_attribute("title", "-1.00 · 36.8 %")
    assert broken(page) == []
    page.locator("[data-key=best-1]").press("Enter")
    expect(page.locator("#next-go")).to_be_enabled()
    page.locator("#next-turn textarea").fill("And then? 然后")
    page.locator("#next-go").press("Enter")
    expect(page.locator(".vw-messages .vw-text").last).to_have_text("And then? 然后")
    expect(page.locator(".vw-pane .vw-text").first).to_contain_text("“And then? 然后”")


def test_one_column_is_stopped_and_the_rest_judged_while_it_still_writes(studio: Studio, studio_page: Open) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/compare", wait_until="commit")
    expect(page.locator("#case input")).not_to_have_value("")
    page.fill("#seed input", "600")
    studio.engine.pause_seconds = 0.4
    try:
        page.click("#run")
        expect(page.locator(".vw-pane .vw-text").nth(1)).to_contain_text("Thank you")
        page.click("[data-key=stop-0]")
        expect(page.locator(".vw-pane").first).to_have_attribute("data-state", "stopped")
        expect(page.locator(".vw-pane").nth(1)).to_have_attribute("data-state", "streaming")
        expect(page.locator(".vw-pane .vw-text").nth(1)).to_contain_text("asking about")  # more than A has
        page.click("[data-key=best-1]")
        expect(page.locator("#compare-status")).to_contain_text("Not all had ended")
        expect(page.locator(".vw-pane").nth(1)).to_have_attribute("data-state", "stopped")
    finally:
        studio.engine.pause_seconds = 0.0
    (kept,) = studio.store.find(Judgement, "partial = 1")
    assert kept.ranks == (2, 1) and kept.client == "compare"
