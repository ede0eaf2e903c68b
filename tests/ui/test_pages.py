"""The other pages in a real browser: sign-in, people, accessibility."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from feedback_db import people
from tests.ui.accessible import broken
from tests.ui.house import PASSWORD


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_axe_finds_nothing(house, page_of, project, theme, lang):
    project(1)
    for person, path, marker in [(None, "/login", "form"), (house.ann, "/label/", "#desk[data-ready]"),
                                 (house.admin, "/admin/people", "#people [role=gridcell]")]:  # fmt: skip
        page = page_of(person, lang=lang, theme=theme)
        page.goto(path)
        page.wait_for_selector(marker)
        assert broken(page) == [], path


def test_an_admin_adds_a_person_who_signs_in_with_the_link(house, page_of):
    page = page_of(house.admin)
    page.goto("/admin/people")
    page.wait_for_selector("#people [role=gridcell]")
    page.fill("#new-name input, #new-name textarea", "nina")
    page.locator("#new-role label").nth(1).click()
    page.click("#add")
    link = page.locator("#link input, #link textarea")
    expect(link).to_have_value(re.compile("/invite/"))
    address = link.input_value()
    expect(page.locator("#people")).to_contain_text("nina")
    assert people.by_name(house.store, "nina").role == "engineer"
    guest = page_of(None)
    guest.goto(address)
    expect(guest.locator("h1")).to_contain_text("nina")
    guest.fill("input[name=password]", PASSWORD)
    guest.fill("input[name=again]", PASSWORD)
    guest.click("button.wh-primary")
    expect(guest.locator(".wh-name")).to_contain_text("nina · engineer")
    guest.click(".wh-bar form button")
    guest.wait_for_url("**/login")


def test_a_problem_is_said_in_the_persons_language(house, page_of):
    page = page_of(house.admin, lang="zh-CN")
    page.goto("/admin/people")
    page.wait_for_selector("#people [role=gridcell]")
    page.click("#disable")
    expect(page.locator("[data-testid=toast-body]")).to_contain_text("请先从列表中选择一个人员")
