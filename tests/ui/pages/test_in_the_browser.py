"""The pages of engineers and admins in a real browser: accessible, keyboard, text that stays text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

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
