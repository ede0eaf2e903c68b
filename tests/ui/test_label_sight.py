"""How a desk is looked at, in a real browser: Markdown that stays text, what is asked beside the answers, scrolling together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.labels import form as forms
from backend.labels.form import Form
from feedback_db.types import Guideline
from tests.ui.accessible import broken
from tests.ui.house import House
from tests.ui.test_label_page import chosen, judgements, open_desk, ready

NICE = (
    "## Restart **safely**\n\n1. Open `http://192.168.1.1`\n2. Choose *Restart*\n   - wait two minutes\n\n"
    "```python\nx = 1 < 2\n```\n\n| step | minutes |\n|---|---|\n| restart | 2 |\n\n> Settings stay.\n\n"
)
HOSTILE_MARKDOWN = (
    "![x](http://evil.example/pixel.png) [click](javascript:window.hacked=1) <http://evil.example>\n\n"
    '<img src=x onerror="window.hacked=1"> <style>*{display:none}</style> <form action=//evil.example><button>go</button></form>\n\n'
    "```\"><script>window.hacked=1</script>\n</code></pre><script>window.hacked=1</script>\n```\n\n"
    "[a](data:text/html,<script>window.hacked=1</script>)\n\n| <b>x</b> | ![](//evil.example/y) |\n|--|--|\n| ${window.hacked=1} | {{constructor}} |\n\n"
    "# <svg onload=window.hacked=1>\n\n"
)  # fmt: skip
READ = """([text, most]) => {
  const base = document.querySelector("script[src*='boot.js']").src.replace("boot.js", "");
  return import(base + "markdown.js").then(({ parsed }) => {
    const shown = (one) => one.tag ? `<${one.tag}>${one.children.map(shown).join("")}</${one.tag}>` : text.slice(one.from, one.to);
    const began = performance.now();
    const tree = parsed(text);
    return [tree.map(shown).join("").slice(0, most), performance.now() - began];
  });
}"""


def read(page: Page, text: str) -> str:
    return page.evaluate(READ, [text, 100_000])[0]


def asked(form: Form = Form()) -> dict[str, Any]:
    return forms.stored(form)


def test_markdown_is_shown_as_what_it_means_and_as_written_on_a_key(house, page_of, project):
    project(1, texts=(NICE, "plain "), label_form=asked())
    page = page_of(house.ann)
    open_desk(page)
    shown = page.locator(".answer", has_text="safely").locator(".body > .txt")
    expect(shown.locator("[role=heading] strong")).to_have_text("safely")
    expect(shown.locator("ol > li")).to_have_count(2)
    expect(shown.locator("li li")).to_have_text("wait two minutes")
    expect(shown.locator("pre code")).to_have_text("x = 1 < 2")
    expect(shown.locator("td").last).to_have_text("2")
    page.keyboard.press("p")
    expect(shown.locator("ol, pre, table, strong")).to_have_count(0)
    assert "## Restart **safely**" in shown.inner_text()
    expect(page.locator("#sight-plain")).to_have_attribute("aria-pressed", "true")
    page.reload()
    ready(page)
    assert "## Restart **safely**" in shown.inner_text(), "it stays as this person wants it"


def test_a_project_can_have_texts_shown_as_they_are_written(house, page_of, project):
    project(1, texts=(NICE, "plain "), label_form=asked(Form(markdown=False)))
    page = page_of(house.ann)
    open_desk(page)
    assert "## Restart **safely**" in page.locator(".answer", has_text="safely").inner_text()
    expect(page.locator("#sight-plain")).to_be_hidden()


def test_hostile_markdown_runs_nothing_loads_nothing_and_leads_nowhere(house, page_of, project):
    project(1, texts=(HOSTILE_MARKDOWN, NICE), label_form=asked())
    page = page_of(
        house.ann
    )  # fails the test when anything is asked of another machine, or the page's policy is broken
    open_desk(page)
    body = page.locator(".answer", has_text="evil").locator(".body > .txt")
    made = body.locator(
        "a, img, script, style, form, button, iframe, svg, object, link, [onerror], [onload], [href], [src]"
    )
    expect(made).to_have_count(0)
    for written in (
        "http://evil.example/pixel.png",
        "javascript:window.hacked=1",
        "<script>window.hacked=1</script>",
        "onerror",
    ):
        assert written in body.inner_text(), "it is shown, not hidden"
    assert page.evaluate("window.hacked") is None


def test_blocks_and_marks_are_read_as_people_mean_them(house, page_of, project):
    project(1)
    page = page_of(house.ann)
    open_desk(page)
    for text, tree in {
        "a *b* **c** `d*e*` ~~f~~ \\*g\\*": "<p>a <em>b</em> <strong>c</strong> <code>d*e*</code> <s>f</s> *g*</p>",
        "snake_case_name 2 * 3 * 4 **open": "<p>snake_case_name 2 * 3 * 4 **open</p>",
        "**中文**结尾 ***both***": "<p><strong>中文</strong>结尾 <em><strong>both</strong></em></p>",
        "- a\n- b\n\n  more\n1. c": "<ul><li><p>a</p></li><li><p>b</p><p>more</p></li></ul><ol><li><p>c</p></li></ol>",
        "> a\n> *b\n> c*\n\nd\ne": "<blockquote><p>a\n<em>b\nc</em></p></blockquote><p>d\ne</p>",
        "```js\n*x*\n\n# y": "<pre><span>js</span><code>*x*\n\n# y</code></pre>",
        "# t #\n***\n#no": "<div>t</div><hr></hr><p>#no</p>",
        "[t](u) ![i](v) [x] [y](": "<p><span>t<span>u</span></span> <span>i<span>v</span></span> [x] [y](</p>",
        "| a | b |\n|:--|--:|\n| c | d \\| e |": (
            "<div><table><tr><th>a</th><th>b</th></tr><tr><td>c</td><td>d | e</td></tr></table></div>"
        ),
    }.items():
        assert read(page, text) == tree, text


def test_no_text_makes_the_page_wait(house, page_of, project):
    project(1)
    page = page_of(house.ann)
    open_desk(page)
    for text in ("*a " * 30_000, "[" * 90_000, "[](" * 30_000, "".join("`" * n + " " for n in range(1, 400)), ">" * 90_000,
                 "\n".join(" " * 2 * n + "- a" for n in range(300)), "**a _b " * 6000 + "_ **" * 6000, "|" * 45_000 + "\n" + "|-" * 20_000):  # fmt: skip
        assert page.evaluate(READ, [text, 10])[1] < 3000, text[
            :12
        ]  # milliseconds; a tenth of it where nothing else runs


def test_a_highlight_in_rendered_text_quotes_the_text_as_it_is_written(house, page_of, project):
    work = project(1, texts=(NICE, "plain "), label_form=asked(Form(span_tags=("odd",))))
    page = page_of(house.ann)
    open_desk(page)
    page.evaluate(
        """() => {
          const find = (text) => {
            const walker = document.createTreeWalker(document.querySelector("#desk .pair"), NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) if (walker.currentNode.data.includes(text)) return walker.currentNode;
          };
          getSelection().setBaseAndExtent(find("safely"), 2, find("192"), 4);
        }"""
    )
    page.keyboard.press("m")
    assert page.locator("mark.span").count() > 1
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#look-again")).to_be_visible()
    (span,) = json.loads(judgements(house, work)[0]["spans"])
    assert span["text"] == "fely**\n\n1. Open `http"


def test_a_sentence_that_is_highlighted_by_keys_can_be_seen(house, page_of, project):
    work = project(
        1, texts=("Do this.\n\n1. Open it!\n2. 等一分钟。\n\n3.", "plain "), label_form=asked(Form(span_tags=("odd",)))
    )
    page = page_of(house.ann)
    open_desk(page)
    place = "AB".index(page.locator(".answer", has_text="Open it").get_attribute("data-side") or "")
    page.keyboard.press("14"[place])
    page.keyboard.press("m")
    for shown in ("Do this.", "Open it!", "等一分钟。"):
        expect(page.locator("mark.here")).to_contain_text(shown)
        for key in ("1", "ArrowRight"):
            page.keyboard.press(key)
    for key in ("Escape", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#look-again")).to_be_visible()
    quoted = [one["text"] for one in json.loads(judgements(house, work)[0]["spans"])]
    assert quoted == ["Do this.", "1. Open it!", "2. 等一分钟。"]


def test_what_is_asked_and_the_guidelines_stand_beside_the_answers_on_a_key(house, page_of, project):
    work = project(1, texts=(NICE * 4, "plain "), label_form=asked())
    house.store.add(Guideline(project_id=work.id, body="Choose what **helps**.\n" * 60))
    page = page_of(house.ann)
    open_desk(page)
    guide = page.locator("#desk .guide")
    expect(guide).to_be_hidden()
    page.keyboard.press("g")
    expect(guide.locator("strong").first).to_have_text("helps")
    boxes = [page.locator(one).bounding_box() or {} for one in ("#desk .case", "#desk .guide", "#desk .pair")]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["x"] + boxes[0]["width"] < boxes[2]["x"]
    height, visible = page.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert height <= visible
    assert broken(page) == []
    heard = page.locator("#desk").aria_snapshot()
    for part in (
        'region "Guidelines"',
        'region "Conversation"',
        'button "Guidelines v1" [pressed]',
        'button "Plain"',
        'button "My judgements"',
    ):
        assert part in heard, part
    page.reload()
    ready(page)
    expect(guide).to_be_visible()
    page.click("#guidelines")
    expect(guide).to_be_hidden()


def test_answers_scroll_together_when_asked_to(house, page_of, project):
    project(1, texts=(NICE * 12, "word " * 3000), label_form=asked())
    page = page_of(house.ann)
    open_desk(page)
    scroll = (
        "[...document.querySelectorAll('.answer > .body')].map(b => b.scrollTop / (b.scrollHeight - b.clientHeight))"
    )
    half = "b => { b.scrollTop = (b.scrollHeight - b.clientHeight) / 2; }"
    page.locator(".answer > .body").first.evaluate(half)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # it was heard of
    assert page.evaluate(scroll)[1] == 0
    page.keyboard.press("y")
    page.wait_for_function(f"Math.abs({scroll}[0] - {scroll}[1]) < 0.02 && {scroll}[1] > 0.4")
    page.locator(".answer > .body").nth(1).evaluate("b => { b.scrollTop = 0; }")
    page.wait_for_function(f"{scroll}[0] < 0.01")


@pytest.mark.parametrize("layout", ["digits", "home"])
def test_the_ways_of_looking_turn_by_key_and_stay(house: House, page_of, project, layout):
    project(2, texts=("It takes two minutes ", "It takes five minutes "), label_form=asked())
    page = page_of(house.eve)
    desk = open_desk(page)
    if layout == "home":
        page.keyboard.press("?")
        page.click("input[name=layout][value=home]")
    view, diff = ("v", "d") if layout == "digits" else ("v", "n")
    for name in ("stacked", "focus", "side"):
        page.keyboard.press(view)
        expect(page.locator("#desk .pair")).to_have_attribute("data-view", name)
    page.keyboard.press(diff)
    expect(page.locator("mark.differs").first).to_have_text(
        "two" if "two" in page.inner_text(".answer .txt") else "five"
    )
    for key, name in (("p", "#sight-plain"), ("y", "#sight-sync"), ("g" if layout == "digits" else "u", "#guidelines")):
        for pressed in ("true", "false"):
            page.keyboard.press(key)
            expect(page.locator(name)).to_have_attribute("aria-pressed", pressed)
    page.keyboard.press("h" if layout == "digits" else "o")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press(view)
    page.keyboard.press("1" if layout == "digits" else "d")
    assert chosen(page) == "a2"
    page.keyboard.press("Enter")
    ready(page, desk)
    expect(page.locator("#desk .pair")).to_have_attribute("data-view", "stacked")
    expect(page.locator("mark.differs").first).to_be_visible()
