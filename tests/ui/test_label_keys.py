"""Every key of the label page, in a real browser. The keys are read from the page's own table: one without a test here fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.labels.form import Form
from feedback_db.types import Report
from tests.ui.house import ALL
from tests.ui.test_label_form import last, press
from tests.ui.test_label_page import chosen, judgements, open_desk, ready

LAYOUTS = ("digits", "home")
MODULE = "document.querySelector(\"script[src*='boot.js']\").src.replace('boot.js', 'label_keys.js')"
SIDES = {"digits": "123456", "home": {2: "fj", 4: "dfjk", 6: "sdfjkl"}}
VERDICTS = {2: ["a1", "b1"], 4: ["a2", "a1", "b1", "b2"], 6: ["a3", "a2", "a1", "b1", "b2", "b3"]}
SHIFTED = [f"Shift+Digit{n}" for n in range(1, 7)]
PLACES = {"digits": [*"1234567890", *SHIFTED], "home": [*"asdfghjkl;", *SHIFTED]}


def table(page: Page) -> dict[str, dict[str, str]]:
    """Layout -> key -> act, as the page has it."""
    return page.evaluate(f"import({MODULE}).then(({{ LAYOUTS }}) => LAYOUTS)")


def choose_layout(page: Page, layout: str) -> None:
    if layout != "digits":
        press(page, "?")
        page.click(f"input[name=layout][value={layout}]")


def pick(page: Page, verdict: str) -> None:
    page.check(f"#desk input[value={verdict}]", force=True)
    page.focus("#desk")


def pressed(page: Page, button: str, key: str) -> None:
    """A switch that the key turns on, and off again."""
    for state in ("true", "false"):
        press(page, key)
        expect(page.locator(button)).to_have_attribute("aria-pressed", state)


def opens(page: Page, inside: str, key: str) -> None:
    """A dialog that the key opens and Esc closes; the comparison stays."""
    desk = page.get_attribute("#desk", "data-ready")
    press(page, key)
    expect(page.locator(f"dialog {inside}").first).to_be_visible()
    press(page, "Escape")
    expect(page.locator("dialog")).to_have_count(0)
    assert page.get_attribute("#desk", "data-ready") == desk and page.locator("#desk:focus").count() == 1


# ---- what each key does with a pair; every function leaves the desk as it found it, but for the verdict


def chooses(verdict: str) -> Callable[[Page, str], None]:
    def tries(page: Page, key: str) -> None:
        pick(page, "a1" if verdict != "a1" else "tie")
        press(page, key)
        assert chosen(page) == verdict

    return tries


def moves(verdict: str) -> Callable[[Page, str], None]:
    def tries(page: Page, key: str) -> None:
        pick(page, "tie")
        press(page, key)
        assert chosen(page) == verdict

    return tries


def writes_why(page: Page, key: str) -> None:
    press(page, key)
    expect(page.locator("#rationale")).to_be_focused()
    press(page, "Escape")
    assert page.input_value("#rationale") == "" and page.locator("#desk:focus").count() == 1


def edits(page: Page, key: str) -> None:
    pick(page, "b1")
    press(page, key)
    expect(page.locator("[data-side=B] .editor")).to_be_focused()
    expect(page.locator("[data-side=A] .editor")).to_be_hidden()
    press(page, "Escape")
    page.click("[data-side=B] .edit .plain")
    expect(page.locator("[data-side=B] .editor")).to_be_hidden()


def flags(page: Page, key: str) -> None:
    pick(page, "b1")
    press(page, key)
    button = page.locator("[data-flag='unsafe:1']")
    expect(button).to_be_focused()
    for state in ("true", "false"):
        press(page, "Space")
        expect(button).to_have_attribute("aria-pressed", state)
    page.focus("#desk")


def asks(page: Page, key: str) -> None:
    press(page, key)
    assert page.locator("#asks .ask.active input:focus").count() == 1
    press(page, "Escape")
    assert page.locator("#asks .ask.active").count() == 0


def marks(page: Page, key: str) -> None:
    press(page, key)
    expect(page.locator("mark.here").first).to_be_visible()
    press(page, "Escape")
    expect(page.locator("mark.here")).to_have_count(0)


def turns_the_view(page: Page, key: str) -> None:
    for name in ("stacked", "focus", "side"):
        press(page, key)
        expect(page.locator("#desk .pair")).to_have_attribute("data-view", name)


def goes_on(page: Page, key: str) -> None:
    pick(page, "a1")
    opens(page, "#said-next", key)


def submits(page: Page, key: str) -> None:
    pick(page, "a1")
    desk = page.get_attribute("#desk", "data-ready") or ""
    press(page, key)
    ready(page, desk)
    expect(page.locator("#said")).to_contain_text("Saved")


def takes_back(page: Page, key: str) -> None:
    before = page.get_attribute("#desk", "data-ready") or ""
    submits(page, "Enter")
    after = page.get_attribute("#desk", "data-ready") or ""
    press(page, key)
    assert ready(page, after) == before and chosen(page) == "a1"
    expect(page.locator("#said")).to_contain_text("Taken back")


def nothing(page: Page, key: str) -> None:
    """Of a ranking; a pair is left as it is."""
    pick(page, "a1")
    press(page, key)
    assert chosen(page) == "a1"


PAIR: dict[str, Callable[[Page, str], None]] = {
    "submit": submits, "undo": takes_back, "left": moves("a1"), "right": moves("b1"), "tie": chooses("tie"), "bad": chooses("bad"),
    "good": chooses("good"), "why": writes_why, "edit": edits, "flags": flags, "asks": asks, "marks": marks, "view": turns_the_view,
    "diff": lambda page, key: pressed(page, "#sight-diff", key), "plain": lambda page, key: pressed(page, "#sight-plain", key),
    "sync": lambda page, key: pressed(page, "#sight-sync", key), "guidelines": lambda page, key: pressed(page, "#guidelines", key),
    "help": lambda page, key: opens(page, "dl", key), "history": lambda page, key: opens(page, "h2", key),
    "skip": lambda page, key: opens(page, "li button", key), "report": lambda page, key: opens(page, "#report-note", key),
    "go_on": goes_on, "back": nothing, "equal": nothing,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_key_of_the_table_does_with_a_pair_what_it_says(house, page_of, asked, layout):
    asked(8, replace(ALL, continues=True))
    page = page_of(house.ann)
    open_desk(page)
    choose_layout(page, layout)
    keys = table(page)[layout]
    assert len(keys) > 20
    for key, act in keys.items():
        PAIR[act](page, "Space" if key == " " else key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sheet_names_every_key_of_the_table_and_no_other(house, page_of, asked, layout):
    asked(1, replace(ALL, continues=True))
    page = page_of(house.ann)
    open_desk(page)
    choose_layout(page, layout)
    acts = set(table(page)[layout].values())
    press(page, "?")
    shown = page.locator("dialog dt kbd").all_inner_texts()
    named = page.evaluate(
        f"([layout, acts]) => import({MODULE}).then(({{ keyOf }}) => acts.map((act) => keyOf(layout, act)))",
        [layout, sorted(acts)],
    )
    sides = {"digits": "1 – 6", "home": "S D F J K L"}[layout]
    assert sorted(shown) == sorted([*named, sides, "Esc", "Ctrl", "Enter"])
    words = page.locator("dialog dd").all_inner_texts()
    assert all(words) and len(set(words)) == len(words), "each says what it does"


@pytest.mark.parametrize("steps", VERDICTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_keys_of_the_sides_are_their_verdicts(house, page_of, asked, layout, steps):
    work = asked(steps + 1, replace(ALL, steps=steps))
    page = page_of(house.ann)
    desk = open_desk(page)
    choose_layout(page, layout)
    keys: Any = SIDES[layout]
    for key, verdict in zip(keys if layout == "digits" else keys[steps], VERDICTS[steps], strict=False):
        press(page, key)
        assert chosen(page) == verdict
        press(page, "Enter")
        desk = ready(page, desk)
    strengths = [int(verdict[1]) for verdict in VERDICTS[steps]]
    expect(page.locator("#said")).to_contain_text("Saved")
    assert [row["strength"] for row in judgements(house, work)] == strengths


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sixteen_answers_have_a_key_each_with_ties_and_a_way_back(house, page_of, asked, layout):
    work = asked(1, kind="rank", size=16)
    page = page_of(house.ann)
    open_desk(page)
    choose_layout(page, layout)
    places = PLACES[layout]
    order = page.locator(".strip")
    for n, key in enumerate(places):
        press(page, key)
        expect(order).to_have_text("ABCDEFGHIJKLMNOP"[: n + 1])
    for n in reversed(range(16)):
        press(page, "Backspace")
        if n:
            expect(order).to_have_text("ABCDEFGHIJKLMNOP"[:n])
    for equal in ["=", "t"] if layout == "home" else ["="]:
        press(page, places[0], equal, places[1])
        expect(page.locator(".strip .tier")).to_have_count(1)
        press(page, "Backspace", "Backspace")
    press(page, "ArrowRight")
    expect(page.locator("[data-side=B] .body")).to_be_focused()
    press(page, "ArrowLeft", "ArrowLeft")
    expect(page.locator("[data-side=P] .body")).to_be_focused()
    press(page, places[15], "=", places[2], *places[3:15], places[1], "Enter")
    expect(page.locator("#look-again")).to_be_visible()
    assert last(house, work)["ranks"] == [15, 14, 1, *range(2, 14), 1]


def test_questions_and_highlights_have_keys_of_their_own_while_they_last(house, page_of, asked):
    for layout, (two, three) in {"digits": ("2", "3"), "home": ("s", "d")}.items():
        work = asked(1, Form(aspects=("kind",), confidence=True, span_tags=("false", "odd")))
        page = page_of(house.ann)
        open_desk(page)
        choose_layout(page, layout)
        press(page, "1" if layout == "digits" else "d")
        verdict = chosen(page)
        press(page, "q" if layout == "digits" else "r", three, two)  # B is kinder; fairly sure
        press(page, "m", "ArrowRight", "ArrowLeft", "ArrowDown", two, "Escape")
        assert chosen(page) == verdict == "a2", "no verdict was meant"
        press(page, "Enter")
        expect(page.locator("#look-again")).to_be_visible()
        kept = last(house, work)
        assert (kept["aspects"], kept["confidence"]) == ({"kind": [2, 1]}, 2), layout
        assert [(one["place"], one["tag"], one["start"]) for one in kept["spans"]] == [(1, "odd", 0)], layout


@pytest.mark.parametrize(("layout", "skip", "report", "third"), [("digits", "s", "x", "3"), ("home", "x", "b", "d")])
def test_reasons_have_a_key_each_where_the_hands_rest(house, page_of, asked, layout, skip, report, third):
    work = asked(3)
    page = page_of(house.ann)
    desk = open_desk(page)
    choose_layout(page, layout)
    press(page, report)
    expect(page.locator("dialog kbd").nth(2)).to_have_text(third.upper())
    press(page, third)
    expect(page.locator("#report-note")).to_be_focused()
    page.keyboard.insert_text("第二行有电话 123 asdf")
    press(page, "Control+Enter")
    expect(page.locator("#said")).to_contain_text("Reported")
    assert page.get_attribute("#desk", "data-ready") == desk, "it stays"
    (made,) = house.store.find(Report, "project_id = ?", [work.id])
    assert (made.category, made.note) == ("personal", "第二行有电话 123 asdf")
    press(page, skip)
    expect(page.locator("dialog kbd").nth(2)).to_have_text(third.upper())
    press(page, third)
    ready(page, desk)
    expect(page.locator("#said")).to_have_text("Skipped.")
    facts = house.store.rows("select facts from audit_events where action = 'skip' order by id desc limit 1")[0][
        "facts"
    ]
    assert facts == '{"reason":"personal"}' and judgements(house, work) == []


@pytest.mark.parametrize(("kind", "size"), [("pair", 2), ("rank", 3)])
def test_without_single_keys_none_does_anything_and_tab_reaches_all(house, page_of, asked, kind, size):
    work = asked(2, kind=kind, size=size)
    page = page_of(house.ann)
    desk = open_desk(page)
    keys = {key for layout in table(page).values() for key in layout if len(key) == 1 and key != " "} | set(
        "0123456789;"
    )
    choose_layout(page, "off")
    for key in sorted(keys):
        press(page, key)
        assert page.locator("dialog").count() == 0, key
    assert chosen(page) is None and page.locator(".strip .tier").count() == 0
    assert page.get_attribute("#desk", "data-ready") == desk and judgements(house, work) == []
    assert page.locator("#desk kbd", has_not_text="?").count() == 0, "no key is promised that does nothing"
    reached = set()
    page.focus("#project")
    for _ in range(80):
        press(page, "Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
    assert {"rationale", "undo", "report", "skip", "submit", "keys", "past"} <= reached
    assert ("verdict" if kind == "pair" else "rank") in reached


def test_a_key_with_control_or_while_composing_is_not_ours(house, page_of, asked):
    work = asked(1)
    page = page_of(house.ann)
    desk = open_desk(page)
    keys = [key for key in table(page)["digits"] if key not in ("ArrowLeft", "ArrowRight", "Backspace", "Enter")]
    page.evaluate(
        """keys => keys.forEach(key => [{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { isComposing: true }, { keyCode: 229 }]
            .forEach(how => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...how }))))""",
        [*keys, "1", "4"],
    )
    assert chosen(page) is None and page.locator("dialog").count() == 0
    assert page.get_attribute("#desk", "data-ready") == desk and judgements(house, work) == []
