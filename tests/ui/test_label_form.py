"""Label forms in a real browser: every kind of question by key and by mouse, kept as asked, for everybody's eyes and hands."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from backend.labels.form import Form
from tests.ui.accessible import broken
from tests.ui.house import ALL, House
from tests.ui.test_label_page import chosen, judgements, on_server, open_desk, prefetched, ready, until


def last(house: House, work: Any) -> dict[str, Any]:
    row = judgements(house, work)[-1]
    packed = ("ranks", "shown", "aspects", "flags", "spans")
    return {**row, **{name: json.loads(row[name]) if row[name] else None for name in packed}}


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_everything_a_form_asks_is_answered_by_keys_alone(house, page_of, asked):
    work = asked(2)
    page = page_of(house.ann)
    desk = open_desk(page)
    texts = page.locator(".answer .body > .txt").all_inner_texts()
    press(page, "5", "q", "4", "2", "1", "3", "2")  # B much better; points 4 and 2; truthful A, kind B; fairly sure
    assert page.locator("#desk:focus").count() == 1, "after the last question the desk has the keys again"
    press(page, "f", "Space", "Escape")
    press(page, "e", "Control+a")
    page.keyboard.insert_text("用菜单重启 🙂")
    press(page, "Escape", "m", "1", "Escape", "d", "r")
    page.keyboard.type("because 1 2 3")
    press(page, "Control+Enter")
    ready(page, desk)
    expect(page.locator("#said")).to_contain_text("Saved")
    kept = last(house, work)
    assert (kept["ranks"], kept["strength"], kept["confidence"]) == ([2, 1], 2, 2)
    assert kept["aspects"] == {"truthful": [1, 2], "kind": [2, 1], "": [4, 2]}
    assert kept["flags"] == ["unsafe:1"] and kept["rationale"] == "because 1 2 3"
    assert kept["edited_text"] == "用菜单重启 🙂" and kept["edited_position"] == kept["shown"][1]
    (span,) = kept["spans"]
    assert span["tag"] == "false" and span["place"] == 1 and texts[1].startswith(span["text"])


def test_five_answers_are_ranked_by_keys_with_a_tie_and_a_step_back(house, page_of, asked):
    work = asked(2, kind="rank", size=5)
    page = page_of(house.ann)
    desk = open_desk(page)
    press(page, "3", "1", "5", "Backspace", "=", "2", "Enter")
    expect(page.locator("#alert")).to_contain_text("Rank the answers first")
    press(page, "4", "Enter")  # the fifth is the last one left
    ready(page, desk)
    expect(page.locator("#said")).to_contain_text("Saved")
    assert last(house, work)["ranks"] == [2, 2, 1, 3, 4]


def test_ranks_are_given_taken_out_and_dragged_by_mouse(house, page_of, asked):
    work = asked(1, kind="rank", size=3)
    page = page_of(house.ann)
    open_desk(page)
    for letter in "CAB":
        page.click(f"[data-side={letter}] .rank")
    order = page.locator(".strip")
    expect(order).to_have_text("CAB")
    chip, first = page.locator(".strip [data-place='1']").bounding_box(), page.locator(".strip li").first.bounding_box()
    page.mouse.move(chip["x"] + 10, chip["y"] + 10)
    page.mouse.down()
    page.mouse.move(first["x"] - 4, first["y"] + 10, steps=4)
    page.mouse.up()
    expect(order).to_have_text("BCA")
    page.click(".strip [data-place='2']")
    expect(order).to_have_text("BA")
    page.click("#submit")
    expect(page.locator("#look-again")).to_be_visible()
    assert last(house, work)["ranks"] == [2, 1, 3]


def test_of_many_answers_best_and_worst_are_enough_where_the_form_says_so(house, page_of, asked):
    work = asked(1, replace(ALL, best_worst=True), kind="rank", size=4)
    page = page_of(house.ann)
    open_desk(page)
    press(page, "4", "1", "Enter")
    expect(page.locator("#look-again")).to_be_visible()
    assert last(house, work)["ranks"] == [3, 2, 2, 1]


def test_answers_are_rated_where_nothing_is_compared(house, page_of, asked):
    work = asked(1, Form(), kind="rate", size=3)
    page = page_of(house.ann)
    open_desk(page)
    press(page, "Enter")
    expect(page.locator("#alert")).to_contain_text("points")
    press(page, "q", "2", "5", "2", "Enter")
    expect(page.locator("#look-again")).to_be_visible()
    kept = last(house, work)
    assert kept["ranks"] == [2, 1, 2] and kept["aspects"] == {"": [2, 5, 2]}


def test_a_reason_that_is_asked_for_is_asked_for(house, page_of, asked):
    work = asked(1, replace(ALL, rationale="required"))
    page = page_of(house.ann)
    open_desk(page)
    press(page, "1", "Enter")
    expect(page.locator("#alert")).to_contain_text("asks for a reason")
    expect(page.locator("#rationale")).to_be_focused()
    page.keyboard.type("so")
    press(page, "Control+Enter")
    expect(page.locator("#look-again")).to_be_visible()
    assert last(house, work)["rationale"] == "so"


def test_the_home_row_judges_without_moving_a_hand_and_the_choice_of_keys_stays(house, page_of, asked):
    work = asked(8)
    page = page_of(house.ann)
    desk = open_desk(page)
    press(page, "?")
    page.click("input[name=layout][value=home]")
    for key in ("s", "d", "f", "j", "k", "l"):
        press(page, key, "Space")
        desk = ready(page, desk)
    page.reload()
    ready(page)
    press(page, ";")
    assert chosen(page) == "good"
    press(page, "a")
    assert chosen(page) == "bad"
    press(page, "g", "?")
    assert chosen(page) == "tie"
    page.click("input[name=layout][value=off]")
    press(page, "f", "1", "s", "t")
    expect(page.locator("dialog")).to_have_count(0)
    assert chosen(page) == "tie"
    said = [(row["ranks"], row["strength"]) for row in judgements(house, work)]
    assert said == [("[1,2]", 3), ("[1,2]", 2), ("[1,2]", 1), ("[2,1]", 1), ("[2,1]", 2), ("[2,1]", 3)]


NEXT = """async old => {
    const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key, code: key === "1" ? "Digit1" : key, bubbles: true }));
    press("1");
    const began = performance.now();
    press("Enter");
    while (desk.dataset.ready === old) await new Promise(requestAnimationFrame);
    return performance.now() - began;
}"""


def test_the_next_comparison_lies_there_at_once_however_slow_the_way_to_the_server(house, page_of, asked):
    work = asked(8)
    page = page_of(house.ann)
    on_their_way: list[Route] = []

    def hold(route: Route) -> None:
        on_their_way.append(route)

    page.route("**/api/label/submit", hold)
    desk = open_desk(page)
    took = []
    for n in range(7):  # the best of them: a core that others keep busy is no failure
        prefetched(page)
        before = page.inner_text("#said")
        took.append(page.evaluate(NEXT, desk))
        until(page, lambda n=n: len(on_their_way) > n)
        assert len(judgements(house, work)) == n, "it is not saved yet, and the page does not say so"
        assert page.inner_text("#said") == before
        desk = page.get_attribute("#desk", "data-ready") or ""
        on_their_way[n].continue_()
        expect(page.locator("#said")).to_have_text(re.compile(rf"^Saved (?!{before.removeprefix('Saved ') or 0}$)"))
        assert len(judgements(house, work)) == n + 1
    assert min(took) < 100, took


def test_a_half_made_ranking_and_an_edit_survive_a_reload_and_another_browser(house, page_of, asked):
    asked(2, kind="rank", size=4)
    page = page_of(house.ann)
    desk = open_desk(page)
    press(page, "2", "4", "f", "Space", "Escape", "e", "Control+a")
    page.keyboard.insert_text("half a thought 半句")
    until(page, lambda: on_server(house, desk).get("edited_text") == "half a thought 半句")
    expect(page.locator("#said")).to_have_text("Draft kept")
    page.close()
    other = page_of(house.ann)
    assert open_desk(other) == desk
    expect(other.locator(".strip")).to_have_text("BD")
    assert other.input_value("[data-side=B] .editor") == "half a thought 半句"
    expect(other.locator("[data-side=B] [data-flag='unsafe:1']")).to_have_attribute("aria-pressed", "true")


def test_work_goes_on_offline_and_is_sent_when_the_network_is_back(house, page_of, asked):
    work = asked(3)
    page = page_of(house.ann)
    desk = open_desk(page)
    prefetched(page)
    page.context.set_offline(True)
    press(page, "1", "Enter")
    desk = ready(page, desk)
    expect(page.locator("#alert")).to_contain_text("kept on this device")
    press(page, "2", "Enter", "3")  # waits its turn
    assert judgements(house, work) == []
    page.context.set_offline(False)
    ready(page, desk)
    expect(page.locator("#said")).to_contain_text("Saved")
    assert [row["strength"] for row in judgements(house, work)] == [3, 2]


@pytest.mark.parametrize(("lang", "theme"), [("en", "light"), ("zh-CN", "dark")])  # colours know nothing of words
def test_no_rule_of_accessibility_is_broken(house, page_of, asked, lang, theme):
    for kind, size in (("pair", 2), ("rank", 5), ("rate", 3)):
        asked(1, kind=kind, size=size)
        page = page_of(house.ann, lang, theme)
        open_desk(page)
        press(page, "1", "2", "e", "Escape", "f", "Space", "d", "m")
        assert broken(page) == [], kind
        press(page, "Escape", "Escape", "s")
        expect(page.locator("dialog")).to_be_visible()
        assert broken(page) == []
        for key, inside in (("?", "dl"), ("x", "#report-note"), ("h", "h2")):
            press(page, "Escape", key)
            expect(page.locator(f"dialog {inside}")).to_be_visible()
            assert broken(page) == [], key
        press(page, "Escape")
        page.click("#skip")
        press(page, "Enter")
        expect(page.locator("#look-again")).to_be_visible()
        assert broken(page) == [], "nothing is left"


@pytest.mark.parametrize(("kind", "size"), [("pair", 2), ("rank", 7), ("rate", 3)])
def test_a_phone_shows_all_of_a_form_without_scrolling_sideways(house, page_of, asked, kind, size):
    asked(1, kind=kind, size=size)
    page = page_of(house.ann, size=(390, 844))
    open_desk(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.evaluate(
        "[...document.querySelectorAll('#desk .acts button, #desk .verdict label, #desk .ask label, #desk .tools button')]"
        ".map(one => one.getBoundingClientRect().height).filter(height => height && height < 32)"
    )
    assert small == []
    assert broken(page) == []
    for button in ("#report", "#skip", "#keys"):
        page.click(button)
        assert page.evaluate("document.querySelector('dialog').scrollWidth <= innerWidth"), button
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), button
        press(page, "Escape")


HEARD = {
    ("rank", "en"): ('list "Order, best first"', 'button "Take A out of the order"', 'button /rank 1/', 'group "truthful: C"'),
    ("rate", "en"): ('group "Points for C"', 'radio "5"', 'region "Answer C"'),
    ("pair", "zh-CN"): (
        'region "比较"', 'region "对话"', 'region "回答 A"', 'radiogroup "哪个回答更好?"', 'radio "5 B 好得多"', 'group "A 的分数"',
        'button "不安全: B"', 'textbox "为什么?(可选)"', 'button "S 跳过"', 'button "X 报告"', 'button /提交/', 'progressbar "您已完成的,占全部可做的"',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "lang"), HEARD)
def test_a_screen_reader_hears_every_kind_of_desk(house, page_of, asked, kind, lang):
    asked(1, kind=kind, size={"pair": 2}.get(kind, 3))
    page = page_of(house.ann, lang)
    open_desk(page)
    press(page, "1")
    desk = page.locator("#desk")
    for part in HEARD[kind, lang]:
        expect(desk).to_match_aria_snapshot(f"- '{part}'")


@pytest.mark.parametrize(("lang", "parts"), [
    ("en", {"s": ('dialog "Skip this comparison?"', 'button /No reason/'), "?": ('dialog "Keys"', 'radio "Home row: hands stay where they rest"'),
            "x": ('dialog "Report"', 'group "What is wrong here?"', 'radio "1 The question cannot be understood"', 'textbox "What exactly? (optional)"'),
            "h": ('dialog "My judgements, newest first"',)}),
    ("zh-CN", {"s": ('dialog "跳过此比较?"',), "x": ('dialog "报告"', 'group "这里有什么问题?"', 'radio "6 其他"', 'textbox "具体是什么?(可选)"')}),
])  # fmt: skip
def test_a_screen_reader_hears_what_opens_over_the_desk_and_what_was_done(house, page_of, asked, lang, parts):
    asked(1)
    page = page_of(house.ann, lang)
    open_desk(page)
    for key, heard in parts.items():
        press(page, key)
        expect(page.locator("dialog")).to_be_visible()
        for part in heard:
            expect(page.locator("body")).to_match_aria_snapshot(f"- '{part}'")
        press(page, "Escape")
        expect(page.locator("dialog")).to_have_count(0)
    press(page, "Enter")
    wrong = "Choose a verdict first: a side, a tie, or both." if lang == "en" else "请先作出选择:一侧、平局或两者。"
    expect(page.get_by_role("alert")).to_have_text(wrong)
    press(page, "1", "Enter")
    expect(page.get_by_role("status").filter(has_text="Saved" if lang == "en" else "已保存")).to_have_count(1)


def test_a_screen_reader_hears_what_is_asked(house, page_of, asked):
    asked(1)
    page = page_of(house.ann)
    open_desk(page)
    heard = page.locator("#desk").aria_snapshot()
    for part in ('region "Answer A"', 'radiogroup "Which answer is better?"', 'group "Points for A"', 'group "truthful"',
                 'group "How sure are you?"', 'button "unsafe: B"', 'textbox "Why? (optional)"'):  # fmt: skip
        assert part in heard, part
