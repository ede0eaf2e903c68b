"""The test page: a suite is saved, run in columns, looked at case by case, and its answers sent to labelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from backend import prompting, testing
from backend.engines.kept import SamplingSettings
from backend.problem import Phrase
from backend.suites import running
from feedback_db import models, prompts
from tests.ui.accessible import broken
from tests.ui.pages.studio import Studio, Tab, opened_in, parts
from ui.web import create_app

PASTED = "word,expected\nred,red\nblue,blue\n"


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return opened_in(studio, studio_app, "suites_open")


def form(**changes: Any) -> list[Any]:
    given = {
        "name": "colours",
        "template": None,
        "split": "all",
        "most": 100,
        "pasted": PASTED,
        "checks": "contains",
        "threshold": "",
        "file": None,
    }
    return list({**given, **changes}.values())


def test_a_file_of_cases_is_read_beside_what_is_pasted_and_the_longest_answer_has_room(
    tab: Tab, studio: Studio, tmp_path: Path
) -> None:
    project_id = studio.project.id or 0
    path = tmp_path / "more.yaml"
    expected = '{"company": "' + "a" * 200 + '"}'
    path.write_text(f"- vars: {{word: '007'}}\n  expected: '{expected}'\n", encoding="utf-8")
    uploaded = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    said, _, _, room, *_ = tab.call("save_suite", project_id, 0, *form(name="of a file", file=uploaded))
    assert "3 cases" in parts(said, "note")[0]["text"] and room == 160
    suite = next(one for one in testing.named(studio.store, studio.engineer, project_id) if one.name == "of a file")
    assert tab.call("choose_suite", project_id, suite.id)[-1] == 160


def ran(studio: Studio) -> int:
    """A finished run of two columns over two cases; its id."""
    store, bob, project_id = studio.store, studio.engineer, studio.project.id or 0
    cases = prompting.add_cases(store, bob, project_id, [({"word": word}, word) for word in ("red", "blue")])
    ids = [case.id or 0 for case in cases]
    suite = testing.save_suite(store, bob, project_id, name="colours", case_ids=ids, checks="contains")
    drafts = [
        prompting.Draft(name=f"colour {n}", body=f"{verb} {{{{word}}}}") for n, verb in enumerate(("Say", "Repeat"))
    ]
    templates = [prompting.save_template(store, bob, project_id, draft).id or 0 for draft in drafts]
    live = models.live(store, "policy")
    assert live is not None
    run = testing.start(store, bob, suite.id or 0, [(template, live.id or 0) for template in templates])
    while testing.progress(store, bob, run.id or 0).run.state == "running":
        running.advance(store, studio.engine)
    return run.id or 0


def test_a_suite_is_saved_with_its_pasted_cases_and_refused_with_the_line(tab: Tab, studio: Studio) -> None:
    project_id = studio.project.id or 0
    said, emptied, file, room, *_ = tab.call("save_suite", project_id, 0, *form())
    assert "2 cases, 1 check." in parts(said, "note")[0]["text"] and (emptied, room) == ("", 64) and not file
    with pytest.raises(gr.Error, match="Line 3: 1 field,"):
        tab.call("save_suite", project_id, 0, *form(pasted="word,expected\na,b\nc"))
    with pytest.raises(gr.Error, match="Line 1: there is no check"):
        tab.call("save_suite", project_id, 0, *form(checks="contain:x"))
    with pytest.raises(gr.Error, match="between 0 and 1"):
        tab.call("save_suite", project_id, 0, *form(threshold="high"))


def test_a_run_is_proposed_with_the_live_model_whatever_was_trained_since(fresh_studio: Studio) -> None:
    studio, tab = fresh_studio, opened_in(fresh_studio, create_app(fresh_studio.ui), "suites_open")
    live = models.live(studio.store, "policy")
    newest = models.policies(studio.store)[0]
    assert live is not None and newest.id != live.id and newest.stage == "candidate"
    proposed = tab.call("suites_open")[9]
    assert (proposed["choices"][0][1], proposed["value"]) == (newest.id, [live.id])


def test_a_run_shows_columns_pairs_and_cases(tab: Tab, studio: Studio) -> None:
    run_id = ran(studio)
    shown = tab.call("choose_run", studio.project.id, event={"id": run_id})
    columns, pairs = parts(shown[2], "table")
    assert len(columns["rows"]) == 2 and all("n = 2" in columns["rows"][0]["cells"][at]["sub"] for at in (1, 2, 4, 5))
    assert pairs["rows"][0]["cells"][0] == "B"
    cases = parts(shown[6], "table")[0]
    assert len(cases["rows"]) == 2
    case_id = cases["rows"][0]["id"]
    opened = tab.call("choose_case", studio.project.id, run_id, "all", 0, None, [], event={"id": case_id})
    told = parts(opened[2], "messages")[0]["items"]
    assert told[0]["text"] and told[1]["text"] == "red" and "contains" in told[2]["foot"]
    place = (studio.project.id, run_id, "all", 0, case_id)
    redrawn, *_, button = tab.call("choose_case", *place, None, event={"mark": {"id": case_id}})
    assert parts(redrawn, "table")[0]["marks"] == [[case_id, 0], [case_id, 1]] and "Send 2" in button["value"]
    (sent,) = tab.call("send_marked", run_id, None, "same")
    assert "1 comparison waits in the queue: 0 of equal prompts, 1" in parts(sent, "note")[0]["text"]
    redrawn, *_ = tab.call("choose_case", *place, None, event={"mark": {"id": case_id, "arm": 1}})
    assert parts(redrawn, "table")[0]["marks"] == [[case_id, 0]]
    (sent,) = tab.call("send_shown", run_id, "all", "across")
    assert [part["text"][:2] for part in parts(sent, "note")] == [
        "1 ",
        "1 ",
    ]  # the other case, and one that was sent before


def test_a_run_names_its_suite_its_regressions_and_rules_that_sent_nothing(tab: Tab, studio: Studio) -> None:
    store, bob, project_id = studio.store, studio.engineer, studio.project.id or 0
    first = testing.progress(store, bob, ran(studio)).run
    arms = [(arm["template"], arm["model"]) for arm in first.arms]

    def told(checks: str, columns: list[tuple[int, int]], **more: Any) -> tuple[list[str], list[dict[str, Any]]]:
        ids = list(testing.suite(store, bob, first.suite_id).case_ids)
        suite = testing.save_suite(store, bob, project_id, name="told", case_ids=ids, checks=checks)
        run = testing.start(store, bob, suite.id or 0, columns, **more)
        while testing.progress(store, bob, run.id or 0).run.state == "running":
            running.advance(store, studio.engine)
        shown = tab.call("choose_run", project_id, event={"id": run.id})
        row = next(row for row in parts(shown[0], "table")[0]["rows"] if row["id"] == run.id)
        assert row["cells"][1] == f"told · v{suite.version}"
        return [one["text"] for one in parts(shown[2], "note")], parts(shown[6], "table")[0]["rows"]

    said, _ = told("contains:no such words", arms[:1], sends=["failed"])
    assert any("Nothing went to labelling by itself" in one for one in said)
    said, _ = told("contains:no such words", arms, sends=["failed"], seed=7)
    assert any("went to labelling when it was done" in one for one in said)
    said, rows = told("not-contains:“Repeat b", arms, follows=True)
    assert "1 case that A passes fails in another column; regressions stand first below." in said
    assert "blue" in rows[0]["cells"][0] and len(rows) == 2


def test_the_injection_suite_comes_with_a_template_to_try_it_on(tab: Tab, studio: Studio) -> None:
    project_id = studio.project.id or 0
    said, *_ = tab.call("add_injection", project_id)
    assert "24 cases" in parts(said, "note")[0]["text"]
    (suite,) = [one for one in testing.named(studio.store, studio.engineer, project_id) if one.name == "injection"]
    newest = prompting.versions(studio.store, studio.engineer, project_id, "injection")[0].template
    assert "{{canary}}" in newest.system_text and len(suite.case_ids) == 24
    again, *_ = tab.call("add_injection", project_id)
    assert again == said and len(prompting.versions(studio.store, studio.engineer, project_id, "injection")) == 1


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility(studio: Studio, studio_page: Any, theme: str, lang: str) -> None:
    run_id = ran(studio)
    page = studio_page(studio.engineer, lang, theme)
    page.goto(f"/studio/test?run={run_id}")
    page.locator("#run-cases button").first.click()
    expect(page.locator("#run-answers")).to_contain_text("red")
    for one in ("th", "td"):  # a figure stands below its name
        expect(page.locator(f"#run-told {one}.vw-number").first).to_have_css("text-align", "right")
    box = page.locator("#run-cases input.vw-mark").nth(1)
    box.focus()
    page.keyboard.press("Space")
    expect(page.locator("#run-cases input.vw-mark").nth(1)).to_be_checked()
    assert page.evaluate("document.activeElement.dataset.key").endswith("-0"), "the keyboard stays where it was"
    expect(page.locator("#run-cases input.vw-mark").nth(1)).to_have_css("background-color", "rgb(18, 128, 92)")
    page.set_viewport_size({"width": 390, "height": 844})
    named = page.locator("#run-told td").first
    assert named.evaluate("one => one.getBoundingClientRect().width") > 90, (
        "a column's name is not broken letter by letter"
    )
    page.set_viewport_size({"width": 1440, "height": 900})
    assert broken(page) == []


def test_boxes_that_are_marked_in_quick_succession_are_all_marked(studio: Studio, studio_page: Any) -> None:
    page = studio_page(studio.engineer)
    page.goto(f"/studio/test?run={ran(studio)}")
    boxes = page.locator("#run-cases input.vw-mark")
    expect(boxes).to_have_count(6)
    boxes.evaluate_all("all => [1, 5].forEach((at) => all[at].click())")  # the second while the first is on its way
    expect(page.locator("#send-marked")).to_have_text("Send 2 marked")
    for at, box in enumerate(boxes.all()):
        expect(box).to_be_checked(checked=at in (1, 5))


def test_an_answer_that_was_cut_off_says_so(tab: Tab, studio: Studio) -> None:
    store, bob, project_id = studio.store, studio.engineer, studio.project.id or 0
    (case,) = prompting.add_cases(store, bob, project_id, [({"word": "green"}, "green")])
    suite = testing.save_suite(store, bob, project_id, name="cut", case_ids=[case.id or 0], checks="contains:Thank")
    template = prompting.save_template(store, bob, project_id, prompting.Draft(name="cut", body="Say {{word}}"))
    live = models.live(store, "policy")
    assert live is not None
    run = testing.start(
        store, bob, suite.id or 0, [(template.id or 0, live.id or 0)], samplings=[SamplingSettings(max_tokens=5)]
    )
    while testing.progress(store, bob, run.id or 0).run.state == "running":
        running.advance(store, studio.engine)
    assert testing.cut_off(store, bob, run.id or 0) == 1
    shown = tab.call("choose_run", project_id, event={"id": run.id})
    assert any("1 answer was cut off at 5 tokens" in one["text"] for one in parts(shown[2], "note"))
    assert "cut off" in str(parts(shown[6], "table"))
    opened = tab.call("choose_case", project_id, run.id, "all", 0, None, [], event={"id": case.id})
    assert "cut off" in str(opened[2])


def test_why_a_cell_failed_or_has_no_answer_is_said_in_chinese_on_a_chinese_page(tab: Tab, studio: Studio) -> None:
    store, bob, project_id = studio.store, studio.engineer, studio.project.id or 0
    (case,) = prompting.add_cases(store, bob, project_id, [({"word": "grey"}, "grey")])
    suite = testing.save_suite(store, bob, project_id, name="why", case_ids=[case.id or 0], checks="contains:闪电")
    drafts = [prompting.Draft(name=f"why {body}", body=body) for body in ("Say {{word}}", "Say it in a {{tone}} tone")]
    templates = [prompting.save_template(store, bob, project_id, draft) for draft in drafts]
    live = models.live(store, "policy")
    assert live is not None
    run = testing.start(store, bob, suite.id or 0, [(one.id or 0, live.id or 0) for one in templates])
    while testing.progress(store, bob, run.id or 0).run.state == "running":
        running.advance(store, studio.engine)
    for one in templates:
        prompts.retire_template(store, one.id or 0)
    tab.call("choose_run", project_id, event={"id": run.id})
    said = {}
    for lang in ("en", "zh-CN"):
        tab.request.request.cookies["wh_lang"] = lang
        opened = tab.call("choose_case", project_id, run.id, "all", 0, None, [], event={"id": case.id})
        _, answered, refused = parts(opened[2], "messages")[0]["items"][-3:]
        said[lang] = (answered["foot"], refused["text"])
    tab.request.request.cookies["wh_lang"] = "en"
    assert said["en"][0].endswith('✗ lacks "闪电"') and 'the variable "tone" has no value' in said["en"][1]
    assert said["zh-CN"][0].endswith("✗ 缺少“闪电”") and "变量“tone”没有值" in said["zh-CN"][1]


def test_a_run_under_way_tells_that_the_engine_was_started_again_in_the_readers_language(
    tab: Tab, studio: Studio, monkeypatch: Any
) -> None:
    store, bob, done = studio.store, studio.engineer, ran(studio)
    event = Phrase("The engine had stopped (exit code -9).", "engine_was_ended", exit=-9, time="12:00")
    monkeypatch.setattr(studio.engine, "last_event", event)
    before = testing.progress(store, bob, done).run
    arm = before.arms[0]
    run = testing.start(store, bob, before.suite_id, [(arm["template"], arm["model"])], seed=77)
    try:
        english = str(tab.call("choose_run", studio.project.id, event={"id": run.id}))
        tab.request.request.cookies["wh_lang"] = "zh-CN"
        chinese = str(tab.call("choose_run", studio.project.id, event={"id": run.id}))
        of_done = str(tab.call("choose_run", studio.project.id, event={"id": done}))
    finally:
        testing.stop(store, bob, run.id or 0)
    assert "The engine had stopped (exit code -9) and was started again at 12:00." in english
    assert "引擎曾停止(退出码 -9),已于 12:00 重新启动。" in chinese and "引擎曾停止" not in of_done
