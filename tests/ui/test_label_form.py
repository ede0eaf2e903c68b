"""Label forms in a real browser: every kind of question by key and by mouse, kept as asked, for everybody's eyes and hands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from backend.labels import form as forms
from backend.labels.form import Form
from feedback_db.types import Completion
from tests.ui.house import House
from tests.ui.test_label_page import chosen, judgements, open_desk, ready

ALL = Form(
    steps=6, both_good=True, aspects=("truthful", "kind"), points=True, span_tags=("false", "odd"), confidence=True
)
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture
def asked(house: House, project):
    """A new project with this form and comparisons of this kind and size."""

    def make(count: int, form: Form = ALL, kind: str = "pair", size: int = 2):
        work = project(count, label_form=forms.stored(form))
        if kind == "pair":
            return work
        for row in house.store.rows("select id from comparisons where project_id = ?", [work.id]):
            held = "select c.* from completions c join comparison_items i on i.completion_id = c.id where i.comparison_id = ?"
            one = house.store.rows(held, [row["id"]])[0]
            with house.store.write() as db:
                db.conn.execute("update comparisons set kind = ?, size = ? where id = ?", [kind, size, row["id"]])
                for n in range(2, size):
                    text = f"Answer {n}. Restart it in the menu, please! Then wait for the light."
                    given: dict[str, Any] = {name: one[name] for name in ("prompt_id", "model_id", "sampling_id")}
                    made = house.store.add(Completion(**given, seed=n, text=text, finish_reason="stop"))
                    db.conn.execute("insert into comparison_items values (?,?,?)", [row["id"], n, made.id])
        return work

    return make


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
    assert chosen(page) == "tie" and page.locator("dialog").count() == 0
    said = [(row["ranks"], row["strength"]) for row in judgements(house, work)]
    assert said == [("[1,2]", 3), ("[1,2]", 2), ("[1,2]", 1), ("[2,1]", 1), ("[2,1]", 2), ("[2,1]", 3)]


def test_the_next_comparison_lies_there_at_once_however_slow_the_way_to_the_server(house, page_of, asked):
    work = asked(4)
    page = page_of(house.ann)
    page.route("**/api/label/submit", lambda route: (page.wait_for_timeout(700), route.continue_()))
    desk = open_desk(page)
    page.wait_for_timeout(600)  # it is read; meanwhile the next one comes
    took = page.evaluate(
        """async old => {
            const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key, code: key === "1" ? "Digit1" : key, bubbles: true }));
            press("1");
            const began = performance.now();
            press("Enter");
            while (desk.dataset.ready === old) await new Promise(requestAnimationFrame);
            return performance.now() - began;
        }""",
        desk,
    )
    assert took < 100, f"{took:.0f} ms"
    assert judgements(house, work) == [], "it is not saved yet, and the page does not say so"
    assert page.inner_text("#said") == ""
    expect(page.locator("#said")).to_contain_text("Saved")
    assert len(judgements(house, work)) == 1


def test_a_half_made_ranking_and_an_edit_survive_a_reload_and_another_browser(house, page_of, asked):
    asked(2, kind="rank", size=4)
    page = page_of(house.ann)
    desk = open_desk(page)
    press(page, "2", "4", "f", "Space", "Escape", "e", "Control+a")
    page.keyboard.insert_text("half a thought 半句")
    page.wait_for_timeout(1500)
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
    page.wait_for_timeout(600)
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


@pytest.mark.parametrize(("lang", "theme"), [("en", "light"), ("en", "dark"), ("zh-CN", "light"), ("zh-CN", "dark")])
def test_no_rule_of_accessibility_is_broken(house, page_of, asked, lang, theme):
    for kind, size in (("pair", 2), ("rank", 5)):
        asked(1, kind=kind, size=size)
        page = page_of(house.ann, lang, theme)
        open_desk(page)
        press(page, "1", "2", "e", "Escape", "f", "Space", "d", "m")
        assert broken(page) == [], kind
        press(page, "Escape", "Escape", "s")
        expect(page.locator("dialog")).to_be_visible()
        assert broken(page) == []
        press(page, "Escape", "?")
        expect(page.locator("dialog dl")).to_be_visible()
        assert broken(page) == []


def broken(page: Page) -> list[str]:
    found = Axe().run(page, options=WCAG).response["violations"]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]


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


def test_a_screen_reader_hears_what_is_asked(house, page_of, asked):
    asked(1)
    page = page_of(house.ann)
    open_desk(page)
    heard = page.locator("#desk").aria_snapshot()
    for part in ('region "Answer A"', 'radiogroup "Which answer is better?"', 'group "Points for A"', 'group "truthful"',
                 'group "How sure are you?"', 'button "unsafe: B"', 'textbox "Why? (optional)"'):  # fmt: skip
        assert part in heard, part
