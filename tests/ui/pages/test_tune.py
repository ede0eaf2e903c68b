"""The tune page: orders, numbers of demonstrations and calibration are measured, and the next case is labelled into the bank."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from backend import prompting, tuning
from backend.measuring import running
from backend.measuring.plans import places_of
from feedback_db import measurements, models
from feedback_db.types import Template
from tests.ui.accessible import broken
from tests.ui.pages.studio import Studio, Tab, opened_in, parts
from ui.web import create_app


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return opened_in(studio, studio_app, "tune_open")


@pytest.fixture
def sentiment(studio: Studio) -> Template:
    found = prompting.templates(studio.store, studio.engineer, studio.project.id or 0)
    return next(one for one in found if one.labels and one.language == "en" and one.name != "～ by case")


def live(studio: Studio) -> int:
    model = models.live(studio.store, "policy")
    assert model is not None and model.id
    return model.id


def finish(studio: Studio) -> None:
    """What runs comes to its end, whoever takes the next part of it: the house does so too once its pages were opened."""
    until = time.monotonic() + 60
    while measurements.running(studio.store) and time.monotonic() < until:
        if not running.advance(studio.store, studio.engine):
            time.sleep(0.05)


def measured(studio: Studio, template: Template, kind: Any) -> int:
    one = tuning.start(studio.store, studio.engine, studio.engineer, template.id or 0, live(studio), kind, most=10)
    finish(studio)
    return one.id or 0


def test_the_page_opens_with_a_template_that_has_labels_and_the_models_of_the_engine(tab: Tab, studio: Studio) -> None:
    _, _, template, model, *_ = tab.call("tune_open")
    shown = prompting.template(studio.store, studio.engineer, template["value"])
    assert shown.labels and shown.language == "en"
    assert model["value"] == live(studio) != model["choices"][0][1]  # the newest is a candidate


def test_orders_are_measured_and_the_chosen_one_becomes_a_version(
    tab: Tab, studio: Studio, sentiment: Template
) -> None:
    said, _, _, stop, go_on, *_ = tab.call("start_order", studio.project.id, sentiment.id, live(studio), 10, 0, 5, 10)
    id = tuning.measured(studio.store, studio.engineer, sentiment.id or 0)[0].measurement.id or 0
    assert "27 parts" in parts(said, "note")[0]["text"]
    assert stop["visible"] and not go_on["visible"]
    _, _, stop, go_on, *_ = tab.call("stop_order", sentiment.id, id)
    assert not stop["visible"] and go_on["visible"]
    tab.call("go_on_order", sentiment.id, id)
    finish(studio)
    shown, earlier, *_ = tab.call("choose_order", sentiment.id, event={"id": id})
    claims, orders = parts(shown, "table")
    assert len(orders["rows"]) == 24 and len(claims["rows"]) == 3 and "n = 10" in orders["rows"][0]["cells"][1]
    assert len(parts(shown, "strip")[0]["dots"]) == 24
    assert parts(earlier, "table")[0]["rows"][0]["cells"][3] == "27 / 27"
    _, again = tab.call("choose_order_row", id, event={"id": 5})
    assert [row["chosen"] for row in parts(again, "table")[-1]["rows"]].index(True) == 5
    said, _ = tab.call("keep_order", id, 5)
    newest = prompting.versions(studio.store, studio.engineer, studio.project.id or 0, sentiment.name)[0].template
    assert f"version {newest.version}" in parts(said, "note")[0]["text"]
    wanted = [int(id) for id in orders["rows"][5]["cells"][0].split(" · ")]
    assert (
        newest.few_shot["ids"] == wanted and newest.few_shot["choose"] == "fixed" and newest.labels == sentiment.labels
    )


def test_an_order_of_a_template_that_chooses_by_case_is_kept_as_its_seed(
    tab: Tab, studio: Studio, sentiment: Template
) -> None:
    few_shot = {**sentiment.few_shot, "choose": "nearest", "k": 3}
    draft = replace(prompting.draft_of(sentiment), name="～ by case", few_shot=few_shot)
    by_case = prompting.save_template(studio.store, studio.engineer, studio.project.id or 0, draft)
    id = measured(studio, by_case, "order")
    tab.call("tune_open")
    shown, *_ = tab.call("choose_order", by_case.id, event={"id": id})
    rows = parts(shown, "table")[-1]["rows"]
    assert sorted(row["cells"][0] for row in rows) == ["1 · 2 · 3", "1 · 3 · 2", "2 · 1 · 3", "2 · 3 · 1", "3 · 1 · 2", "3 · 2 · 1"]  # fmt: skip
    assert any("first choice of each case" in one["text"] for one in parts(shown, "note"))
    other = next(at for at, row in enumerate(rows) if row["cells"][0] == "1 · 2 · 3")
    tab.call("choose_order_row", id, event={"id": other})
    tab.call("keep_order", id, other)
    newest = prompting.versions(studio.store, studio.engineer, studio.project.id or 0, "～ by case")[0].template
    assert (newest.version, newest.few_shot["order"], newest.few_shot["choose"]) == (2, "seeded", "nearest")
    assert places_of(3, newest.few_shot["seed"]) == (1, 2, 3)
    own = next(at for at, row in enumerate(rows) if row["cells"][0] == "3 · 2 · 1")
    tab.call("choose_order_row", id, event={"id": own})
    tab.call("keep_order", id, own)  # reverts to the template's own order
    kept = prompting.versions(studio.store, studio.engineer, studio.project.id or 0, "～ by case")[0].template
    assert kept.version == 3 and kept.few_shot.get("order") != "seeded"


def test_the_curve_has_a_point_for_each_number(tab: Tab, studio: Studio, sentiment: Template) -> None:
    shown, *_ = tab.call("choose_count", sentiment.id, event={"id": measured(studio, sentiment, "count")})
    (drawn,) = parts(shown, "curve")
    assert [point["name"] for point in drawn["points"]] == ["0", "1", "2", "4", "8", "16"]
    assert sum(point["chosen"] for point in drawn["points"]) == 1


def test_bars_stand_before_and_after_calibration(tab: Tab, studio: Studio, sentiment: Template) -> None:
    id = measured(studio, sentiment, "calibration")
    shown, *_, case = tab.call("choose_calibration", sentiment.id, event={"id": id})
    assert parts(shown, "table")[0]["rows"][0]["cells"][0] == "none"
    (bars,) = parts(tab.call("tune_case", id, case["choices"][0][1])[0], "bars")
    assert [group["name"] for group in bars["groups"]] == ["none", "contextual", "domain", "batch", "PMI"]
    assert all(abs(sum(bar[1] for bar in group["bars"]) - 1) < 1e-6 for group in bars["groups"])
    assert sum(bar[2] for bar in bars["groups"][0]["bars"]) == 1  # what is right is marked
    assert parts(tab.call("tune_text", id, "a fine film")[0], "bars")[0]["groups"]
    assert "Measure first" in parts(tab.call("tune_text", id, " ")[0], "note")[0]["text"]


def test_the_next_to_label_goes_to_the_bank(tab: Tab, studio: Studio) -> None:
    found = prompting.templates(studio.store, studio.engineer, studio.project.id or 0)
    service = next(one for one in found if one.scenario == "customer service" and one.language == "en")
    shown, *_ = tab.call("find_next", service.id, 4)
    rows = parts(shown, "table")[0]["rows"]
    assert len(rows) == 4
    case_id = rows[0]["id"]
    chosen, _ = tab.call("choose_next", service.id, 4, event={"id": case_id})
    assert parts(chosen, "table")[0]["rows"][0]["chosen"]
    shown, _, _, emptied, said = tab.call("add_next", service.id, 4, None, case_id, "It is on its way.")
    assert "is in the bank" in parts(said, "note")[0]["text"] and emptied == ""
    assert case_id not in [row["id"] for row in parts(shown, "table")[0]["rows"]]
    rest = parts(tab.call("find_next", service.id, 100)[0], "table")[0]["rows"]
    assert case_id not in [row["id"] for row in rest]  # it is labelled
    tab.call("choose_next", service.id, 4, event={"id": rest[0]["id"]})
    with pytest.raises(gr.Error, match="both an input and an output"):
        tab.call("add_next", service.id, 4, None, case_id, " ")


def test_the_model_says_how_sure_it_is_and_a_case_it_doubts_goes_to_the_bank(fresh_studio: Studio) -> None:
    studio, tab = fresh_studio, opened_in(fresh_studio, create_app(fresh_studio.ui), "tune_open")
    found = prompting.templates(studio.store, studio.engineer, studio.project.id or 0)
    service = next(one for one in found if one.scenario == "customer service" and one.language == "en")
    said, *_ = tab.call("start_confidence", studio.project.id, service.id, live(studio), 10, 0, 5, 3)
    assert "was started" in parts(said, "note")[0]["text"]
    finish(studio)
    id = tuning.measured(studio.store, studio.engineer, service.id or 0)[0].measurement.id or 0
    shown, *_ = tab.call("choose_confidence", service.id, event={"id": id})
    assert parts(shown, "table"), shown
    rows = parts(shown, "table")[0]["rows"]
    assert len(rows) == 3 and [row["cells"][2] for row in rows] == ["1", "2", "3"]
    chosen, _ = tab.call("choose_unsure", id, event={"id": rows[1]["id"]})
    assert [row["chosen"] for row in parts(chosen, "table")[0]["rows"]] == [False, True, False]
    _, shown, _, emptied, said = tab.call("add_next", service.id, 4, id, rows[1]["id"], "It left us today.")
    assert "is in the bank" in parts(said, "note")[0]["text"] and emptied == ""
    again = parts(shown, "table")[0]["rows"]
    assert [row["id"] for row in again] == [row["id"] for row in rows]
    assert again[1]["cells"][4]["text"] == "in the bank" and again[0]["cells"][4] == ""


def test_what_cannot_be_measured_is_told_in_the_readers_language(tab: Tab, studio: Studio) -> None:
    found = prompting.templates(studio.store, studio.engineer, studio.project.id or 0)
    service = next(one for one in found if not one.labels)
    with pytest.raises(gr.Error, match="has no labels"):
        tab.call("start_order", studio.project.id, service.id, live(studio), 10, 0, 5, 10)


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility(
    studio: Studio, studio_page: Any, sentiment: Template, theme: str, lang: str
) -> None:
    for kind in ("order", "count", "calibration"):
        measured(studio, sentiment, kind)
    page = studio_page(studio.engineer, lang, theme)
    page.goto(f"/studio/tune?template={sentiment.id}")
    expect(page.locator("#order-shown svg circle")).to_have_count(24)
    for at, shown in ((0, None), (1, "#count-shown svg"), (2, "#calibration-shown table"), (3, "#start-confidence")):
        page.locator("button[role=tab]").nth(at).click()
        if shown:
            expect(page.locator(shown).first).to_be_visible()
        assert broken(page) == []
