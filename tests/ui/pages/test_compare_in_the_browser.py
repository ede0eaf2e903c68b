"""The compare page in a real browser: eight columns can be set and read, and what is voted on is what is on the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.engines.client import EngineError
from feedback_db.types import Judgement
from tests.ui.accessible import broken
from tests.ui.house import serving
from tests.ui.pages.studio import HOSTILE, Studio, worked_in
from ui.web import create_app

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One of its own: columns are proposed with the newest models, and others' tests register some that its engine does not know."""
    made = worked_in(tmp_path_factory.mktemp("compare"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def studio_app(studio: Studio) -> Any:
    return create_app(studio.ui)


@pytest.fixture(scope="module")
def studio_url(studio_app: Any) -> Iterator[str]:
    with serving(studio_app) as address:
        yield address


CUT = """() => [...document.querySelectorAll('.wh-settings [data-testid=block-info]')].filter(one => {
    const range = document.createRange();
    range.selectNodeContents(one);
    const room = one.closest('.block').getBoundingClientRect();
    return range.getClientRects().length > 1 || range.getBoundingClientRect().right > room.right + 1;
}).map(one => one.textContent)"""


def opened(page: Page, columns: int = 2) -> None:
    page.goto("/studio/compare")
    expect(page.locator("#model-A input").first).not_to_have_value("")
    if columns != 2:
        page.locator("#columns input").first.click()
        page.get_by_role("option", name=str(columns)).first.click()
        expect(page.locator(".wh-settings > .column")).to_have_count(columns)


@pytest.mark.parametrize("lang", ["en", "zh-CN"])
def test_the_settings_of_eight_columns_can_be_read_on_a_laptop_and_a_phone(studio: Studio, studio_page, lang):
    page = studio_page(studio.engineer, lang)
    opened(page, 8)
    for width, least in ((1440, 320), (1280, 280), (390, 300)):
        page.set_viewport_size({"width": width, "height": 900})
        widths = page.evaluate("[...document.querySelectorAll('.wh-settings > .column')].map(one => one.offsetWidth)")
        assert len(widths) == 8 and min(widths) >= least, (width, widths)
        assert page.evaluate(CUT) == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    names = page.evaluate(
        "[...document.querySelectorAll('.wh-settings > .column')].map(one => getComputedStyle(one, '::before').content)"
    )
    assert names == [f'"{one}"' for one in "ABCDEFGH"], "each says whose settings they are"


def test_what_became_of_a_run_is_in_sight_below_eight_columns(studio: Studio, studio_page):
    page = studio_page(studio.engineer)
    opened(page, 8)
    page.click("#run")
    expect(page.locator("#compare-status")).to_contain_text("answers are stored")
    assert page.evaluate("document.querySelector('#compare-status').getBoundingClientRect().bottom <= innerHeight + 1")


def test_texts_are_held_against_the_first_column_that_has_an_answer(studio: Studio, studio_page, monkeypatch):
    whole = studio.engine.stream

    def stream(*given, **settings):
        for at, piece in enumerate(whole(*given, **settings)):
            if settings["max_tokens"] == 7 and at == 2:
                raise EngineError("The engine stopped in the middle of an answer. Ask again.", "engine_cut_off")
            yield piece

    monkeypatch.setattr(studio.engine, "stream", stream)
    page = studio_page(studio.engineer)
    opened(page, 3)
    page.fill("#max-tokens-A input", "7")
    page.click("#run")
    expect(page.locator("#compare-status")).to_contain_text("No answer came from A")
    page.click("[data-key=sight-diff]")
    expect(page.locator(".vw-pane").nth(2).locator("mark.vw-differs").first).to_be_visible()
    marked = [page.locator(".vw-pane").nth(at).locator("mark.vw-differs").count() for at in range(2)]
    assert marked == [0, 0], "neither the error nor what the others are held against"
    assert page.locator("[data-key=best-0]").count() == 0 and page.locator("[data-key=best-1]").count() == 1


def test_a_run_takes_the_place_of_a_battle_that_still_writes(studio: Studio, studio_page):
    page = studio_page(studio.engineer)
    opened(page)
    before = len(studio.store.find(Judgement))
    studio.engine.pause_seconds = 0.03
    try:
        page.click("#battle")
        expect(page.locator(".vw-pane .vw-text").first).not_to_have_text("")
        battle = page.get_attribute(".vw-panes", "data-key")
        page.click("#run")
        expect(page.locator("#compare-status")).to_contain_text("answers are stored")
        page.wait_for_timeout(1500)  # by now the battle would have ended too
    finally:
        studio.engine.pause_seconds = 0.0
    assert page.get_attribute(".vw-panes", "data-key") != battle
    expect(page.locator(".vw-title").first).not_to_have_text("who is it?")
    for name in ("left", "tie", "right", "both_bad"):
        expect(page.locator(f"#battle-{name}")).to_be_disabled()
    run = page.evaluate("document.querySelector('.vw-panes').dataset.key")
    page.evaluate("key => { document.querySelector('.vw-panes').dataset.key = key; }", battle)
    page.click("#vote-tie")  # as if the other texts had been drawn a moment ago
    expect(page.locator("#compare-status")).to_contain_text("Other answers stand on the page by now")
    assert len(studio.store.find(Judgement)) == before
    page.evaluate("key => { document.querySelector('.vw-panes').dataset.key = key; }", run)
    page.click("#vote-tie")
    expect(page.locator("#compare-status")).to_contain_text("Saved")
    assert len(studio.store.find(Judgement)) == before + 1


def test_answers_stream_as_text_and_go_to_labelling(studio: Studio, studio_page) -> None:
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
    studio: Studio, studio_page, theme: str, lang: str
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


def test_one_column_is_stopped_and_the_rest_judged_while_it_still_writes(studio: Studio, studio_page) -> None:
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
