"""What is half done on the label page is there again: offline, with a session that ended, in another tab, for every kind of desk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.ui.test_label_form import press
from tests.ui.test_label_page import chosen, judgements, on_server, open_desk, prefetched, ready, until

WORDS = "half a thought 半句 🙂"


def half_a_pair(page: Page) -> None:
    press(page, "3", "f", "Space", "Escape", "e", "Control+a")
    page.keyboard.insert_text(f"better {WORDS}")
    press(page, "Escape", "r")
    page.keyboard.insert_text(WORDS)


def is_half_a_pair(page: Page) -> None:
    expect(page.locator("#rationale")).to_have_value(WORDS)
    assert chosen(page) == "a1"
    expect(page.locator("[data-side=A] .editor")).to_have_value(f"better {WORDS}")
    expect(page.locator("[data-flag='unsafe:0']")).to_have_attribute("aria-pressed", "true")


def half_a_rank(page: Page) -> None:
    press(page, "3", "=", "1", "r")
    page.keyboard.insert_text(WORDS)


def is_half_a_rank(page: Page) -> None:
    expect(page.locator(".strip .tier")).to_have_text("AC")
    expect(page.locator("#rationale")).to_have_value(WORDS)


def half_a_rate(page: Page) -> None:
    press(page, "q", "4", "2", "Escape", "r")
    page.keyboard.insert_text(WORDS)


def is_half_a_rate(page: Page) -> None:
    given = "[...document.querySelectorAll('#asks .ask input:checked')].slice(0, 2).map(one => one.value)"
    page.wait_for_function(f"{given}.length === 2")
    assert page.evaluate(given) == ["4", "2"]
    expect(page.locator("#rationale")).to_have_value(WORDS)


Half = tuple[str, int, Callable[[Page], None], Callable[[Page], None]]
HALVES: list[Half] = [
    ("pair", 2, half_a_pair, is_half_a_pair),
    ("rank", 4, half_a_rank, is_half_a_rank),
    ("rate", 3, half_a_rate, is_half_a_rate),
]
KINDS = pytest.mark.parametrize(("kind", "size", "half", "is_half"), HALVES, ids=[half[0] for half in HALVES])


@KINDS
def test_what_was_typed_offline_reaches_the_server_when_the_network_is_back(
    house, page_of, asked, kind, size, half, is_half
):
    asked(2, kind=kind, size=size)
    page = page_of(house.ann)
    desk = open_desk(page)
    page.context.set_offline(True)
    with page.expect_event("requestfailed", lambda asked: asked.url.endswith("/draft")):
        half(page)
    assert on_server(house, desk) == {}
    page.context.set_offline(False)
    expect(page.locator("#said")).to_have_text("Draft kept")
    until(page, lambda: on_server(house, desk).get("rationale") == WORDS)
    page.evaluate("localStorage.clear()")
    page.reload()
    assert ready(page) == desk
    is_half(page)


def test_a_draft_that_did_not_arrive_is_sent_again_by_itself(house, page_of, asked):
    asked(2)
    page = page_of(house.ann)
    page.clock.install()
    lost: list[Route] = []
    page.route(
        "**/api/label/draft", lambda route: (lost.append(route), route.abort() if len(lost) == 1 else route.continue_())
    )
    desk = open_desk(page)
    press(page, "r")
    page.keyboard.insert_text(WORDS)

    def arrived() -> bool:
        page.clock.fast_forward(1000)
        return on_server(house, desk).get("rationale") == WORDS

    until(page, arrived)
    assert len(lost) == 2
    expect(page.locator("#said")).to_have_text("Draft kept")


@KINDS
def test_an_ended_session_keeps_what_is_half_done(house, page_of, asked, kind, size, half, is_half):
    work = asked(2, kind=kind, size=size)
    page = page_of(house.eve)
    page.clock.install()
    desk = open_desk(page)
    prefetched(page)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)  # the draft is sent when all of it stands there
    cookies = page.context.cookies()
    page.context.clear_cookies(name="whetstone")
    half(page)
    page.clock.resume()
    page.wait_for_url("**/login?next=/label/")
    page.context.add_cookies(cookies)
    page.goto("/label/")
    assert ready(page) == desk and judgements(house, work) == []
    is_half(page)


@KINDS
def test_two_tabs_show_the_same_half(house, page_of, asked, kind, size, half, is_half):
    asked(2, kind=kind, size=size)
    page = page_of(house.ann)
    desk = open_desk(page)
    other = page.context.new_page()
    assert open_desk(other) == desk
    half(page)
    is_half(other)
    press(other, "Control+a")
    other.locator("#rationale").fill("and so on")
    expect(page.locator("#rationale")).to_have_value("and so on")
    other.close()
    page.reload()
    assert ready(page) == desk and page.input_value("#rationale") == "and so on"
    until(page, lambda: on_server(house, desk).get("rationale") == "and so on")
