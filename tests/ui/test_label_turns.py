"""Beyond the desk at hand, in a real browser: own judgements, the next turn, what is told, answers of one's own, several tabs."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from backend import comparing, labelling, opening
from backend.labels import form as forms
from backend.labels.form import Form
from backend.registry.bases import Base
from feedback_db.types import Case
from tests.ui.accessible import broken
from tests.ui.house import SECRET_MODEL, House
from tests.ui.test_label_form import press
from tests.ui.test_label_page import chosen, judgements, on_server, open_desk, prefetched, ready, saved, until

LOOKS = [("en", "light"), ("zh-CN", "dark")]


def asked(**form: Any) -> dict[str, Any]:
    return forms.stored(Form(**form))


def judge(page: Page, *keys: str) -> str:
    """Judge the desk by these keys and go on to the next; returns the one that lies there then."""
    desk = page.get_attribute("#desk", "data-ready") or ""
    press(page, *keys, "Enter")
    lies = ready(page, desk)
    saved(page)
    return lies


def look_back(page: Page) -> None:
    """Open the newest of one's own judgements."""
    press(page, "h")
    expect(page.locator("dialog .past button").first).to_be_focused()
    press(page, "Enter")


# ---- one's own judgements


@pytest.mark.parametrize(("lang", "theme"), LOOKS)
def test_own_judgements_are_seen_and_corrected_by_keyboard(house, page_of, project, lang, theme):
    work = project(4, label_form=asked())
    page = page_of(house.ann, lang, theme)
    open_desk(page)
    judge(page, "1")
    desk = judge(page, "t")
    press(page, "3", "h")
    lines = page.locator("dialog .past button")
    expect(lines).to_have_count(2)
    assert broken(page) == []
    verdicts = [line.locator("b").inner_text() for line in lines.all()]
    assert verdicts == (["Tie", "A much better"] if lang == "en" else ["平局", "A 好得多"])
    press(page, "Tab", "Enter")  # the second line, the first judgement
    again = ready(page, desk)
    assert chosen(page) == "a2"
    assert broken(page) == []
    press(page, "4", "r")
    page.keyboard.type("on second thought")
    press(page, "Control+Enter")
    assert ready(page, again) == desk and chosen(page) == "b1", "the desk that lay there comes back with its draft"
    rows = judgements(house, work)
    assert [(row["act"], row["ranks"], row["supersedes"]) for row in rows] == [
        ("submit", "[1,2]", None), ("submit", "[1,1]", None), ("correct", "[2,1]", rows[0]["id"]),
    ]  # fmt: skip
    assert rows[2]["rationale"] == "on second thought"
    press(page, "h")
    expect(page.locator("dialog .past small").nth(1)).to_contain_text("corrected" if lang == "en" else "已更正")


def test_a_judgement_looked_at_again_is_left_as_it_was(house, page_of, project):
    work = project(3, label_form=asked())
    page = page_of(house.ann)
    open_desk(page)
    desk = judge(page, "1")
    look_back(page)
    again = ready(page, desk)
    expect(page.locator(".chip.corrects")).to_contain_text("Changing judgement")
    expect(page.locator("#undo")).to_be_hidden()
    press(page, "4", "s")
    assert ready(page, again) == desk
    expect(page.locator("#said")).to_have_text("Left as it was.")
    assert len(judgements(house, work)) == 1
    look_back(page)
    ready(page, desk)
    assert chosen(page) == "a2", "nothing of the change that was dropped is left"


def test_what_another_person_judged_is_not_in_my_list_nor_any_name(house, page_of, project):
    project(3, overlap=2, label_form=asked())
    for person in (house.eve, house.ann):
        page = page_of(person)
        open_desk(page)
        judge(page, "1")
        with page.expect_response("**/api/label/history") as told:
            press(page, "h")
        expect(page.locator("dialog .past button")).to_have_count(1)
        said = told.value.text()
        assert not any(word in said for word in (SECRET_MODEL, "person", "completion", "gold", "purpose")), said


def test_a_judgement_that_is_still_on_its_way_is_in_the_list(house, page_of, project):
    project(3, label_form=asked())
    page = page_of(house.ann)
    on_their_way: list[Route] = []

    def hold(route: Route) -> None:
        on_their_way.append(route)

    page.route("**/api/label/submit", hold)
    desk = open_desk(page)
    prefetched(page)  # so that the list can be asked for before the server has answered
    press(page, "1", "Enter")
    ready(page, desk)
    press(page, "h")
    until(page, lambda: bool(on_their_way))
    assert page.locator("dialog").count() == 0
    on_their_way[0].continue_()
    expect(page.locator("dialog .past button")).to_have_count(1)


# ---- what is told after the vote


def test_others_are_told_after_the_vote_and_only_where_the_project_says_so(house: House, page_of, project):
    work = project(3, overlap=2, label_form=asked(reveal="others", reveal_holdout=0.0))
    for _ in range(3):
        desk = labelling.next_desk(house.store, house.eve, work.id or 0)
        assert desk is not None
        answer = labelling.Answer(ranks=(1, 2), seconds=1.0)
        labelling.submit(house.store, house.eve, desk.assignment, uuid.uuid4().bytes, answer)
    page = page_of(house.ann)
    open_desk(page)
    expect(page.locator("#told")).to_have_text("")
    judge(page, "1")
    expect(page.locator("#told")).to_contain_text("Of 1 other, by who is best: A 0 · B 1")  # eve saw the sides turned
    with house.store.write() as db:
        db.conn.execute("update projects set label_form = ? where id = ?", [json.dumps(asked()), work.id])
    page.reload()
    ready(page)
    judge(page, "1")
    expect(page.locator("#said")).to_contain_text("Saved")
    expect(page.locator("#told")).to_have_text("")


# ---- the next turn


@pytest.fixture
def talks(house: House, project) -> Callable[[int], Any]:
    """A project whose conversations go on, with a policy that answers."""

    def make(count: int) -> Any:
        opening.register_base(house.store, Base("starter", Path("/nowhere"), hashlib.sha256(b"starter").digest()))
        return project(count, label_form=asked(continues=True))

    return make


@pytest.mark.parametrize(("lang", "theme"), LOOKS)
def test_the_better_answer_is_gone_on_from_turn_by_turn(house, page_of, talks, lang, theme):
    work = talks(2)
    page = page_of(house.ann, lang, theme)
    desk = open_desk(page)
    press(page, "c")
    expect(page.locator("dialog")).to_have_count(0)
    press(page, "2", "c")
    expect(page.locator("#said-next")).to_be_focused()
    assert broken(page) == []
    page.keyboard.insert_text("And then? 然后呢")
    press(page, "Control+Enter")
    desk = ready(page, desk)
    said = page.locator("#desk .case .txt")
    expect(said.last).to_have_text("And then? 然后呢")
    expect(page.locator(".answer").first).to_contain_text("to “And then? 然后呢”")
    press(page, "b", "c", "Escape", "4")
    turns = said.count()
    page.click("#go-on")
    page.fill("#said-next", "Thanks")
    page.click("#say-next")
    ready(page, desk)
    expect(said).to_have_count(turns + 2)
    assert [row["ranks"] for row in judgements(house, work)] == ["[1,2]", "[2,1]"]
    cases = house.store.find(Case, "project_id = ? and source = 'turn'", [work.id])
    assert [case.judgement_id for case in cases] == [row["id"] for row in judgements(house, work)]


def test_what_was_to_be_said_waits_when_no_answer_came(house, page_of, talks):
    work = talks(3)
    page = page_of(house.ann)
    page.route(
        "**/api/label/go-on", lambda route: route.fulfill(status=502, json={"error": "The engine is out of breath."})
    )
    desk = open_desk(page)
    press(page, "1", "c")
    page.fill("#said-next", "And then?")
    press(page, "Control+Enter")
    desk = ready(page, desk)
    expect(page.locator("#alert")).to_have_text("The engine is out of breath.")
    assert len(judgements(house, work)) == 1, "the judgement is saved all the same"
    press(page, "z")
    ready(page, desk)
    press(page, "c")
    expect(page.locator("#said-next")).to_have_value("And then?")
    page.fill("#said-next", "And then, 接着?")
    page.reload()
    ready(page)
    press(page, "1", "c")
    expect(page.locator("#said-next")).to_have_value("And then, 接着?")


# ---- an answer of one's own


@pytest.mark.parametrize(("lang", "theme"), LOOKS)
def test_the_ideal_answer_is_written_where_nothing_is_shown(house, page_of, project, lang, theme):
    work = project(1, label_form=asked())
    case = house.store.find(Case, "project_id = ?", [work.id])[0]
    with house.store.write() as db:
        db.conn.execute("update comparisons set status = 'retired' where project_id = ?", [work.id])
    comparing.ask_to_write(house.store, house.bob, case.id or 0)
    page = page_of(house.ann, lang, theme)
    desk = open_desk(page)
    assert broken(page) == []
    press(page, "Enter")
    expect(page.locator("#alert")).not_to_have_text("")
    press(page, "e")
    page.keyboard.insert_text("用菜单重启。1 2 3 t b s z")
    until(page, lambda: on_server(house, desk).get("edited_text") == "用菜单重启。1 2 3 t b s z")
    page.reload()
    assert ready(page) == desk
    assert page.input_value(".editor") == "用菜单重启。1 2 3 t b s z"
    height, visible = page.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert height <= visible
    press(page, "e", "Control+Enter")
    expect(page.locator("#look-again")).to_be_visible()
    (row,) = judgements(house, work)
    assert (row["ranks"], row["edited_text"]) == ("[]", "用菜单重启。1 2 3 t b s z")
    press(page, "z")
    ready(page, "empty")
    assert page.input_value(".editor") == "用菜单重启。1 2 3 t b s z"


# ---- several tabs, crashes, long offline spells


def second_tab(page: Page) -> Page:
    other = page.context.new_page()
    other.goto("/label/")
    ready(other)
    return other


def test_two_tabs_show_one_draft_and_what_is_saved_in_one_is_gone_from_the_other(house, page_of, project):
    work = project(3, label_form=asked())
    page = page_of(house.ann)
    desk = open_desk(page)
    other = second_tab(page)
    assert other.get_attribute("#desk", "data-ready") == desk
    press(page, "1", "r")
    page.keyboard.insert_text("written here")
    expect(other.locator("#rationale")).to_have_value("written here")
    assert chosen(other) == "a2"
    press(page, "Control+Enter")
    next_one = ready(page, desk)
    assert ready(other, desk) == next_one
    assert len(judgements(house, work)) == 1


def test_what_was_typed_for_a_judgement_that_was_saved_elsewhere_waits_in_the_list(house, page_of, project):
    work = project(3, label_form=asked())
    page, other = page_of(house.ann), page_of(house.ann)  # two browsers: one hears nothing of the other
    page.context.add_cookies(other.context.cookies())  # type: ignore[arg-type]
    first = open_desk(page)
    assert open_desk(other) == first
    judge(page, "1")
    press(other, "4", "r")
    other.keyboard.insert_text("typed in vain?")
    press(other, "Control+Enter")
    expect(other.locator("#alert")).to_contain_text("already")
    second = ready(other, first)
    look_back(other)
    ready(other, second)
    assert other.input_value("#rationale") == "typed in vain?" and chosen(other) == "b2"
    assert len(judgements(house, work)) == 1


def test_two_tabs_offline_lose_nothing_when_the_browser_is_killed(house, page_of, project):
    work = project(4, label_form=asked())
    page = page_of(house.ann)
    page.route(
        "**/api/label/submit", lambda route: route.abort()
    )  # before the page: one that is open already may slip past it
    open_desk(page)
    prefetched(page)
    press(page, "1", "Enter", "2")
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    kept = page.evaluate("Object.keys(localStorage).filter((one) => one.includes(':submit:')).length")
    assert kept == 1
    state = page.context.storage_state()
    page.context.close()  # no farewell reaches the server
    again = page_of(house.ann)
    origins = {one["origin"]: one["localStorage"] for one in state["origins"]}
    stored = [item for items in origins.values() for item in items]
    again.goto("/static/none")
    again.evaluate("items => items.forEach(({ name, value }) => localStorage.setItem(name, value))", stored)
    open_desk(again)
    expect(again.locator("#said")).to_contain_text("Saved")
    assert [row["strength"] for row in judgements(house, work)] == [2]
    assert chosen(again) == "a1", "the draft of the one after it as well"


def test_an_ended_session_keeps_a_correction_too(house, page_of, project):
    work = project(2, label_form=asked())
    page = page_of(house.ann)
    open_desk(page)
    desk = judge(page, "1")
    look_back(page)
    ready(page, desk)
    cookies = page.context.cookies()
    page.context.clear_cookies(name="whetstone")
    press(page, "4", "Enter")
    page.wait_for_url("**/login?next=/label/")
    page.context.add_cookies(cookies)
    page.goto("/label/")
    expect(page.locator("#said")).to_contain_text("Saved")
    assert [row["act"] for row in judgements(house, work)] == ["submit", "correct"]


def test_a_phone_shows_the_list_and_the_next_turn_without_scrolling_sideways(house, page_of, talks):
    talks(2)
    page = page_of(house.ann, size=(390, 844))
    open_desk(page)
    page.check("input[value=a1]")
    page.click("#go-on")
    assert page.evaluate("document.querySelector('dialog').getBoundingClientRect().width <= innerWidth")
    press(page, "Escape")
    page.click("#submit")
    expect(page.locator("#said")).to_contain_text("Saved")
    page.click("#past")
    expect(page.locator("dialog .past button")).to_have_count(1)
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
