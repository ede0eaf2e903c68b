"""The exchange page: a report before anything changes, all of it imported, exports as a download, in both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from backend import importing
from feedback_db.types import Case
from tests.ui.accessible import broken
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts

FILES = Path(__file__).parents[2] / "backend" / "exchange" / "files"


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("exchange_open")
    return opened


def test_an_export_is_written_and_offered(tab: Tab, studio: Studio) -> None:
    project = studio.project.id or 0
    which, templates, _ = tab.call("exchange_export-what", project, "template")
    assert which["choices"] and templates["visible"] is False
    said, offered = tab.call("write_export", "template", which["value"], [], "html")
    assert ".prompts.html is ready" in parts(said, "note")[0]["text"] and offered["interactive"]
    with pytest.raises(gr.Error, match="no cases"):
        tab.call("write_export", "template", which["value"], [], "promptfoo-csv")


def test_a_file_is_reported_and_then_imported_and_downloaded_again(studio: Studio, studio_page: Any) -> None:
    page = studio_page(studio.engineer)
    page.goto("/studio/exchange")
    before = len(studio.store.find(Case))
    page.locator("input[type=file]").set_input_files(
        [str(FILES / "few_shot.json"), str(FILES / "refunds.promptfoo.yaml")]
    )
    report = page.locator("#import-report")
    expect(report).to_contain_text("3 templates, 4 cases, 1 suite")
    expect(report).to_contain_text("refunds.promptfoo.yaml, line 30")
    expect(report).to_contain_text("output.length < 200")
    assert len(studio.store.find(Case)) == before
    page.locator("#import-apply").click()
    expect(report).to_contain_text("4 cases")
    expect(report.get_by_role("link")).to_have_attribute("href", f"/studio/test?project={studio.project.id}")
    assert len(studio.store.find(Case)) == before + 4
    page.reload()
    expect(page.locator("#export-which input")).not_to_have_value("")
    page.locator("#export-write").click()
    expect(page.locator("#export-report")).to_contain_text("is ready")
    with page.expect_download() as held:
        page.locator("#export-download").click()
    assert "icontains" in Path(held.value.path()).read_text(encoding="utf-8")


def test_a_broken_file_is_refused_with_its_line_in_the_readers_language(
    studio: Studio, studio_page: Any, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n", encoding="utf-8")
    page = studio_page(studio.engineer, "zh-CN")
    page.goto("/studio/exchange")
    page.locator("input[type=file]").set_input_files(str(tmp_path / "t.csv"))
    expect(page.locator("body")).to_contain_text("t.csv 第 2 行")


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility(studio: Studio, studio_page: Any, theme: str, lang: str) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/exchange")
    page.locator("input[type=file]").set_input_files(str(FILES / "colours.cforge"))
    expect(page.locator("#import-report")).to_contain_text("e2")
    assert broken(page) == []


def test_every_sentence_on_files_has_its_chinese() -> None:
    from backend.exchange.reasons import FILES as OF_FILES
    from backend.exchange.reasons import PARTS, REMARKS
    from ui.strings.exchange import ZH

    assert set(ZH) == {*OF_FILES, *PARTS, *REMARKS}
    assert importing.FORMATS
