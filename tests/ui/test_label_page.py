"""The label page in a real browser: a queue by keyboard, nothing lost, nothing run, nothing told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from feedback_db.types import Project
from tests.ui.house import SECRET_MODEL, House
from ui.web import page_links

READY = "#desk[data-ready]"


def judgements(house: House, project: Project) -> list[dict]:
    return house.store.rows(
        "select j.* from judgements j join comparisons c on c.id = j.comparison_id where c.project_id = ? order by j.id",
        [project.id],
    )


def open_desk(page: Page) -> str:
    page.goto("/label/")
    return ready(page)


def ready(page: Page, other_than: str = "") -> str:
    page.wait_for_function(
        "old => document.querySelector('#desk')?.dataset.ready && desk.dataset.ready !== old", arg=other_than
    )
    return page.get_attribute("#desk", "data-ready") or ""


def prefetched(page: Page) -> None:
    """The desk after this one has come, and will lie there at once."""
    page.wait_for_selector("#desk[data-ahead]")


def saved(page: Page) -> None:
    """Nothing waits to be sent: the next desk may lie there before the server has the one before."""
    page.wait_for_function("!Object.keys(localStorage).some((key) => key.includes(':submit:'))")


def on_server(house: House, desk: str) -> dict[str, Any]:
    """The draft of this desk as the server has it."""
    found = house.store.value("select body from drafts where assignment_id = ?", [int(desk)])
    return json.loads(found) if found else {}


def until(page: Page, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what no element of the page shows; the page's requests go on meanwhile."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        page.wait_for_timeout(20)


def chosen(page: Page) -> str | None:
    return page.evaluate("document.querySelector('#desk input:checked')?.value ?? null")


def test_a_whole_queue_is_labelled_by_keyboard_alone(house, page_of, project):
    work = project(7)
    page = page_of(house.ann)
    desk = open_desk(page)
    for key in "1234tb":
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        desk = ready(page, desk)
    page.keyboard.press("ArrowLeft")
    assert chosen(page) == "a1"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert chosen(page) == "a2"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.type("clear and polite, 1 2 3 t b s z")
    assert chosen(page) == "a1"
    page.keyboard.press("Control+Enter")
    expect(page.locator("#look-again")).to_be_visible()
    rows = judgements(house, work)
    assert [(row["ranks"], row["strength"], row["both_bad"]) for row in rows] == [
        ("[1,2]", 2, 0), ("[1,2]", 1, 0), ("[2,1]", 1, 0), ("[2,1]", 2, 0), ("[1,1]", None, 0), ("[1,1]", None, 1), ("[1,2]", 1, 0),
    ]  # fmt: skip
    assert rows[-1]["rationale"] == "clear and polite, 1 2 3 t b s z" and rows[-1]["seconds"] > 0
    page.keyboard.press("z")
    ready(page, "empty")
    assert chosen(page) == "a1" and "clear and polite" in page.input_value("#rationale")


def test_a_link_opens_the_queue_of_its_project(house, page_of, project):
    first, second = project(2), project(2)
    house.store.db.conn.execute("update projects set archived_at = null where id = ?", [first.id])
    page = page_of(house.ann)
    for wanted in (second, first):
        page.goto(f"/label/?project={wanted.id}")
        ready(page)
        expect(page.locator("#project")).to_have_value(str(wanted.id))
    house.store.db.conn.execute("update projects set archived_at = 1 where id = ?", [first.id])


def test_ten_rapid_judgements_lose_nothing_and_rapid_enters_store_one(house, page_of, project):
    work = project(12)
    page = page_of(house.eve)
    first = open_desk(page)
    page.keyboard.press("1")
    for _ in range(10):
        page.keyboard.press("Enter")
    ready(page, first)
    expect(page.locator("#alert")).to_contain_text("Choose a verdict")
    saved(page)
    assert len(judgements(house, work)) == 1
    for _ in range(10):
        page.keyboard.press("2")
        page.keyboard.press("Enter")
    expect(page.locator("#done")).to_have_text("11 / 12")
    saved(page)
    rows = judgements(house, work)
    assert len(rows) == 11 and len({row["comparison_id"] for row in rows}) == 11


def test_a_reply_that_is_lost_and_a_retry_give_one_judgement(house, page_of, project):
    work = project(3)
    page = page_of(house.ann)
    lost = []

    def lose_the_first(route):
        if lost:
            route.continue_()
            return
        lost.append(route.fetch())  # the server has it, the browser never hears
        route.abort()

    page.route("**/api/label/submit", lose_the_first)  # before the page: one that is open already may slip past it
    first = open_desk(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    ready(page, first)
    saved(page)
    assert lost and len(judgements(house, work)) == 1


def test_a_draft_survives_a_reload_and_the_comparison_stays(house, page_of, project):
    project(4)
    page = page_of(house.ann)
    desk = open_desk(page)
    texts = page.locator(".answer .txt").all_inner_texts()
    page.keyboard.press("3")
    page.keyboard.press("r")
    page.keyboard.type("因为更好 🙂")
    page.keyboard.press("Escape")
    page.reload()
    until(page, lambda: on_server(house, desk).get("rationale") == "因为更好 🙂")
    assert ready(page) == desk
    assert page.input_value("#rationale") == "因为更好 🙂" and chosen(page) == "b1"
    assert page.locator(".answer .txt").all_inner_texts() == texts
    page.evaluate("localStorage.clear()")  # another browser: the server has it too
    page.reload()
    assert ready(page) == desk and page.input_value("#rationale") == "因为更好 🙂"


def test_what_could_not_be_sent_goes_out_after_a_reload(house, page_of, project):
    work = project(3)
    page = page_of(house.ann)
    page.route("**/api/label/submit", lambda route: route.abort())
    open_desk(page)
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    page.reload()
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    assert judgements(house, work) == []
    page.unroute("**/api/label/submit")
    expect(page.locator("#said")).to_contain_text("Saved")
    assert [row["ranks"] for row in judgements(house, work)] == ["[2,1]"]


def test_an_ended_session_keeps_the_answer_and_leads_to_sign_in(house, page_of, project):
    work = project(2)
    page = page_of(house.eve)
    open_desk(page)
    prefetched(page)  # nothing but the judgement is to find that the session has ended
    cookies = page.context.cookies()
    page.context.clear_cookies(name="whetstone")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/login\?next=/label/$"))
    page.context.add_cookies(cookies)
    page.goto("/label/")
    expect(page.locator("#said")).to_contain_text("Saved")
    assert len(judgements(house, work)) == 1


def test_composing_chinese_triggers_no_key_and_enter_on_a_button_is_a_click(house, page_of, project):
    work = project(2)
    page = page_of(house.ann)
    open_desk(page)
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true, bubbles: true}))")
    page.keyboard.press("Control+1")
    assert chosen(page) is None
    page.keyboard.press("1")
    page.focus("#skip")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("2")  # in the dialog: a reason, not a verdict
    expect(page.locator("dialog")).to_have_count(0)
    assert judgements(house, work) == []


def test_the_sheet_the_skip_and_its_cancel(house, page_of, project):
    work = project(3)
    page = page_of(house.ann)
    desk = open_desk(page)
    page.keyboard.press("?")
    expect(page.locator("dialog dl")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.keyboard.press("s")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    assert page.get_attribute("#desk", "data-ready") == desk
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    ready(page, desk)
    assert (
        house.store.value("select count(*) from assignments where project_id = ? and state = 'skipped'", [work.id]) == 1
    )


def test_hostile_text_is_shown_as_text_and_no_payload_names_a_model(house, page_of, project):
    project(2)
    page = page_of(house.ann)
    heard = []

    def hear(reply):
        heard.append(reply)

    page.on("response", hear)
    open_desk(page)
    texts = page.locator(".answer .txt").all_inner_texts()
    assert any("<script>window.hacked=1</script><img src=x" in text and "${window.hacked=1}" in text for text in texts)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("Saved")
    assert page.evaluate("window.hacked") is None
    bodies = [
        reply.body().decode("utf-8", "replace")
        for reply in heard
        if reply.request.resource_type in ("fetch", "document")
    ]
    assert len(bodies) >= 4 and not any(SECRET_MODEL in body for body in bodies)
    assert not any(
        word in body for body in bodies if body.startswith('{"') for word in ("completion", "model_id", "seed")
    )


def test_two_people_in_two_languages_and_a_phone(house, page_of, project):
    project(3, overlap=2)
    page = page_of(house.eve, lang="zh-CN", theme="dark", size=(390, 844))
    open_desk(page)
    expect(page.locator("#submit")).to_contain_text("提交")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.querySelector('.desk .card')).backgroundColor") == "rgb(30, 41, 59)"
    page.check("input[value=a1]")
    page.click("#submit")
    expect(page.locator("#said")).to_contain_text("已保存")
    page.click("[data-lang-to]")
    expect(page.locator("#submit")).to_contain_text("Submit")
    page.click("[data-theme-switch]")
    assert page.evaluate("document.body.classList.contains('dark')") is False


def test_one_screen_without_scrolling_on_a_desk(house, page_of, project):
    project(1)
    page = page_of(house.ann)
    open_desk(page)
    height, visible = page.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert height <= visible


def test_an_empty_house_says_so(house: House, page_of, project):
    project(0)
    page = page_of(house.ann)
    page.goto("/label/")
    expect(page.locator("#look-again")).to_be_focused()


def test_the_top_bar_shows_what_the_role_may_open(house: House, page_of, project):
    project(1)
    for person, links in [(house.ann, ["/label/"]), (house.admin, [link.path for link in page_links()])]:
        page = page_of(person)
        open_desk(page)
        assert (
            page.evaluate("[...document.querySelectorAll('.wh-bar nav a')].map(a => a.getAttribute('href'))") == links
        )
