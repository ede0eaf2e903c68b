"""The rows of a chat template on the build page: written, moved, deleted, saved; from a text template and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend import prompting
from feedback_db.types import Template
from tests.ui.accessible import broken
from tests.ui.house import token_for
from tests.ui.pages.studio import HOSTILE, Studio, Tab, parts
from tests.ui.pages.test_build import form, prompt, variables
from ui.pages.build_form import Form

Open = Callable[..., Page]
ROWS = [
    {"role": "system", "text": "Be {{tone}}."},
    {"role": "user", "text": f"Know {HOSTILE}?"},
    {"role": "assistant", "text": "Yes."},
    {"role": "demonstrations"},
    {"role": "user", "text": "{{input}}"},
]


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("build_open")
    return opened


def chat(rows: list[dict[str, str]], **typed: Any) -> list[Any]:
    return form(**{"kind": "chat", "body": "not this", "rows": {"rows": rows}, **typed})


def test_rows_are_previewed_saved_opened_and_compared(tab: Tab, studio: Studio) -> None:
    typed = chat(ROWS, name="by rows")
    boxes = variables(tab, typed)
    assert [box["label"] for box in boxes[1:3]] == ["tone", "input"]
    shown = prompt(tab, studio, typed, ["kind", "q"])
    assert [(m["role"], m["text"]) for m in parts(shown, "messages")[0]["items"]] == [
        ("system", "Be kind."), ("user", f"Know {HOSTILE}?"), ("assistant", "Yes."), ("user", "q"),
    ]  # fmt: skip
    first = tab.call("save_template", studio.project.id, *typed)[0]["value"]
    saved = studio.store.get(Template, first)
    assert list(saved.rows) == ROWS and saved.body == "" and saved.variables == ("tone", "input")
    opened = tab.call("build_template", studio.project.id, first)
    fields = dict(zip(Form._fields, opened[1:], strict=False))
    assert fields["kind"] == "chat" and fields["rows"]["visible"] and fields["rows"]["value"]["rows"] == ROWS
    assert not fields["body"]["visible"] and not fields["system_text"]["visible"]
    given = [field["value"] if isinstance(field, dict) and "value" in field else field for field in fields.values()]
    assert tab.call("save_template", studio.project.id, *given)[0]["value"] == first
    moved = chat([ROWS[0], *ROWS[3:4], *ROWS[1:3], ROWS[4]], name="by rows")
    second = tab.call("save_template", studio.project.id, *moved)[0]["value"]
    (diff,) = parts(tab.call("build_changes", first, second)[0], "diff")
    assert diff["label"] == "Rows" and {kind for kind, _ in diff["pieces"]} == {"same", "gone", "new"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "Row 1: the user row is empty"),
        ([*ROWS, {"role": "system", "text": "x"}], "Row 6: a template has one system row at most"),
        (ROWS[:3], "Row 3: the model answers the last row"),
        ([{"role": "root", "text": "x"}], 'Row 1: there is no role "root"'),
    ],
)
def test_what_is_wrong_with_a_row_stands_beside_the_editor(
    tab: Tab, studio: Studio, rows: list[dict[str, str]], said: str
) -> None:
    (told,) = parts(prompt(tab, studio, chat(rows), []), "note")
    assert told["tone"] == "bad" and told["text"].startswith(said)


def test_an_editor_that_sends_anything_breaks_nothing(tab: Tab, studio: Studio) -> None:
    for sent in (None, [], {"rows": 7}, {"rows": [1, None, {"role": {}, "text": []}]}):
        shown = prompt(tab, studio, form(kind="chat", rows=sent), [])
        assert parts(shown, "note")[0]["text"].startswith("Row 1")


def test_a_text_template_becomes_rows_and_comes_back(tab: Tab) -> None:
    shown = tab.call("build_kind", "chat", "Be kind.", "Say {{input}}", {"rows": []})
    assert shown[2]["value"]["rows"] == [
        {"role": "system", "text": "Be kind."},
        {"role": "user", "text": "Say {{input}}"},
    ]
    system, body, rows = tab.call("build_kind", "text", "old", "old", {"rows": ROWS})
    assert (system["value"], body["value"]) == ("Be {{tone}}.", "{{input}}") and not rows["visible"]
    again = tab.call("build_kind", "chat", "Be {{tone}}.", "Now {{input}}", {"rows": ROWS})[2]["value"]["rows"]
    assert again == [*ROWS[:4], {"role": "user", "text": "Now {{input}}"}]


@pytest.mark.browser
@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_rows_are_written_moved_and_saved_by_keyboard_and_by_mouse(
    studio: Studio, studio_page: Open, theme: str, lang: str
) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/", wait_until="commit")
    page.wait_for_selector("#prompt .vw-message")
    body = page.locator("#body textarea").input_value()
    page.click("#kind input")
    page.get_by_role("option").nth(1).click()
    texts, rows, shown = (
        page.locator("#rows textarea"),
        page.locator("#rows"),
        page.locator("#prompt .vw-message .vw-text"),
    )
    expect(texts).to_have_count(2)
    rows.locator("[data-key=add]").press("Enter")
    page.keyboard.insert_text("Sure?")
    expect(page.locator("#prompt .vw-bad")).to_contain_text("3")  # row 3: an assistant's is last
    assert broken(page) == []
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator("#rows textarea:focus")).to_have_value("Sure?")
    rows.locator("[data-key=role-1]").select_option("user")
    rows.locator("[data-key=add]").press("Enter")
    page.keyboard.insert_text("Yes.")
    page.keyboard.press("Alt+ArrowUp")
    expect(shown).to_have_count(4)
    expect(shown.nth(2)).to_have_text("Yes.")
    grips = rows.locator(".vw-rows-grip")
    grips.nth(2).drag_to(grips.nth(1))
    expect(texts.nth(1)).to_have_value("Yes.")
    rows.locator("[data-key=down-1]").press("Enter")
    expect(rows.locator("[data-key=down-2]")).to_be_focused()
    rows.locator("[data-key=delete-2]").press("Enter")
    expect(texts).to_have_count(3)
    expect(rows.locator("[data-key=undo]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(texts.nth(2)).to_have_value("Yes.")
    rows.locator("[data-key=add]").press("Enter")
    rows.locator("[data-key=role-4]").select_option("demonstrations")
    rows.locator("[data-key=role-4]").press("Alt+ArrowUp")
    expect(rows.locator(".vw-rows-place")).to_have_count(1)
    expect(shown).to_have_count(4)
    assert broken(page) == []
    name = f"～ rows {lang}"  # the last of the list: other tests open the first
    page.locator("#name :is(input, textarea)").fill(name)
    page.click("#save")
    expect(page.locator("#build-status .vw-ok")).to_be_visible()
    made = next(
        one for one in prompting.templates(studio.store, studio.engineer, studio.project.id or 0) if one.name == name
    )
    assert [row["role"] for row in made.rows][-4:] == ["user", "assistant", "demonstrations", "user"]
    assert [row["text"] for row in made.rows if "text" in row][-3:] == ["Sure?", "Yes.", body]
