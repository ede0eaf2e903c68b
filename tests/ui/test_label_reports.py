"""Reports from the label page, in a real browser: by mouse and by key, never lost, and told to those who look after the project."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from feedback_db.types import Report
from tests.ui.accessible import broken
from tests.ui.test_label_form import press
from tests.ui.test_label_page import open_desk, ready


def reports(house, work) -> list[tuple[str, str | None]]:
    return [(one.category, one.note) for one in house.store.find(Report, "project_id = ?", [work.id], order_by="id")]


@pytest.mark.parametrize(("lang", "theme"), [("en", "light"), ("zh-CN", "dark")])
def test_a_report_by_mouse_says_what_is_missing_and_leaves_the_comparison(house, page_of, project, lang, theme):
    work = project(2)
    page = page_of(house.ann, lang, theme)
    desk = open_desk(page)
    page.click("#report")
    page.click("#send-report")
    alert = page.locator("dialog [role=alert]")
    expect(alert).to_have_text("Choose what is wrong first." if lang == "en" else "请先选择问题类型。")
    page.check("dialog input[value=other]")
    page.click("#send-report")
    expect(alert).to_contain_text("asked for" if lang == "en" else "必填")
    expect(page.locator("#report-note")).to_be_focused()
    assert broken(page) == []
    page.fill("#report-note", "the <b>question</b> names a person 人名")
    page.click("#send-report")
    expect(page.locator("#said")).to_contain_text("still yours" if lang == "en" else "仍由您评判")
    assert page.get_attribute("#desk", "data-ready") == desk
    assert reports(house, work) == [("other", "the <b>question</b> names a person 人名")]


def test_what_was_typed_for_a_report_waits_after_esc_and_a_reload(house, page_of, project):
    work = project(2)
    page = page_of(house.ann)
    open_desk(page)
    press(page, "x", "2")
    page.keyboard.insert_text("line 3 is")
    press(page, "Escape")
    page.reload()
    ready(page)
    press(page, "x")
    expect(page.locator("#report-note")).to_have_value("line 3 is")
    expect(page.locator("dialog input[value=broken]")).to_be_checked()
    press(page, "Enter")  # on the reason
    expect(page.locator("#said")).to_contain_text("Reported")
    assert reports(house, work) == [("broken", "line 3 is")]
    press(page, "x")
    expect(page.locator("#report-note")).to_have_value("")


def test_a_report_made_offline_goes_out_once_even_after_a_crash(house, page_of, project):
    work = project(2)
    page = page_of(house.ann)
    page.route(
        "**/api/label/report", lambda route: (route.fetch(), route.abort())
    )  # it arrives, and nobody hears of it
    open_desk(page)
    press(page, "x", "1", "Control+Enter")
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    page.unroute("**/api/label/report")
    page.reload()
    expect(page.locator("#said")).to_contain_text("Reported")
    assert reports(house, work) == [("unclear", None)]


def test_an_ended_session_keeps_a_report(house, page_of, project):
    work = project(2)
    page = page_of(house.eve)
    open_desk(page)
    cookies = page.context.cookies()
    page.context.clear_cookies(name="whetstone")
    press(page, "x", "4")
    page.keyboard.insert_text("用不得")
    press(page, "Control+Enter")
    page.wait_for_url("**/login?next=/label/")
    page.context.add_cookies(cookies)
    page.goto("/label/")
    expect(page.locator("#said")).to_contain_text("Reported")
    assert reports(house, work) == [("harmful", "用不得")]


def test_the_top_bar_counts_reports_for_who_reviews_and_nobody_else(house, page_of, project):
    project(2)
    page = page_of(house.ann)
    desk = open_desk(page)
    press(page, "x", "1", "Control+Enter")
    expect(page.locator("#said")).to_contain_text("Reported")
    press(page, "1", "Enter")
    ready(page, desk)
    expect(page.locator("#said")).to_contain_text("Saved")
    press(page, "x", "2", "Control+Enter")
    expect(page.locator("#said")).to_contain_text("Reported")
    expect(page.locator(".wh-bar")).not_to_contain_text("2")
    caretaker = page_of(house.admin)
    open_desk(caretaker)
    badge = caretaker.locator(".wh-bar nav .wh-badge")
    expect(badge).to_have_text("2")
    expect(badge).to_have_attribute("title", "Reported and not yet decided: 2")
    assert broken(caretaker) == []
