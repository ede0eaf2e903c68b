"""The quality page: figures with what they rest on, and a form that annotators see at once."""

from __future__ import annotations

import uuid
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from backend import adjudicating, comparing, labelling, reviewing
from backend.labels import form as forms
from feedback_db import audit, comparisons, jobs
from feedback_db.types import Assignment, Comparison, Job, Judgement, Project
from tests.ui.accessible import broken
from tests.ui.house import add_comparisons, token_for
from tests.ui.pages.studio import Studio, Tab, parts


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]
    opened.call("quality_open")
    return opened


def fields(**changes: Any) -> list[Any]:
    given = {
        "steps": 6, "choices": ["tie", "both_bad", "points"], "aspects": "kind,true", "tags": "", "flags": ["unsafe"],
        "rationale": "optional", "overlap": 1, "gold": 0, "repeats": 0.0, "random": 0.3, "reveal": "others", "holdout": 0.2,
    }  # fmt: skip
    return list({**given, **changes}.values())


def test_every_figure_says_what_it_rests_on(tab: Tab, studio: Studio) -> None:
    shown = tab.call("quality_project", studio.project.id)[0]
    (tables, cards) = (parts(shown, "table"), parts(shown, "cards")[0]["items"])
    assert cards[0]["value"] == "–" and "n = 0" in cards[0]["hint"]  # nobody judged what another did
    people = tables[0]["rows"]
    assert people[0]["cells"][0] == "ann" and "n = " in people[0]["cells"][6]


def test_a_saved_form_is_asked_with_the_next_desk(tab: Tab, studio: Studio) -> None:
    before = studio.project.label_form
    try:
        (said,) = tab.call("save_form", studio.project.id, *fields())
        assert "next comparison" in parts(said, "note")[0]["text"]
        form = forms.parse(studio.store.get(Project, studio.project.id or 0).label_form)
        assert (form.reveal, form.reveal_holdout, form.markdown) == ("others", 0.2, False)
        assert form.steps == 6 and form.aspects == ("kind", "true") and not form.edit and form.flags == ("unsafe",)
        desk = labelling.next_desk(studio.store, studio.annotator, studio.project.id or 0)
        assert desk is not None and desk.form["points"] is True
        with pytest.raises(gr.Error, match="different names"):
            tab.call("save_form", studio.project.id, *fields(aspects="a, a"))
        with pytest.raises(gr.Error, match="random arm"):
            tab.call("save_form", studio.project.id, *fields(random=0.0))
    finally:
        tab.call("save_form", studio.project.id, *fields(steps=4, choices=["tie", "both_bad", "edit"], aspects=""))
    assert before


def test_the_queue_is_ordered_by_a_rule_and_the_page_says_what_is_known_of_its_gain(tab: Tab, studio: Studio) -> None:
    job = None
    waiting = comparisons.open_count(studio.store, studio.project.id or 0)
    comparing.refill(
        studio.store, studio.engine, project_id=studio.project.id or 0, target=waiting + 12
    )  # others work here too
    try:
        said, shown, _ = tab.call("order_queue", studio.project.id, "coverage", "once")
        job = studio.store.find(Job, "kind = 'score'")[0]
        assert f"Job {job.id}" in parts(said, "note")[0]["text"]
        assert "Not measured yet" in parts(shown, "note")[2]["text"]
        assert [card["value"] for card in parts(shown, "cards")[0]["items"]][1] == "0"
        tab.call("order_queue", studio.project.id, "coverage", "once")
        assert len(studio.store.find(Job, "kind = 'score'")) == 1, "one click is one job"
        with pytest.raises(gr.Error, match="already"):
            tab.call("order_queue", studio.project.id, "coverage", "twice")
        assert "parts" not in tab.call("order_tick", studio.project.id, None)[0], "nothing changed"
        jobs.claim(studio.store, job.id or 0)
        shown = tab.call("order_tick", studio.project.id, None)[0]
        assert f"Job {job.id} is ordering" in parts(shown, "note")[1]["text"]
    finally:
        if job is not None:
            jobs.set_state(studio.store, job.id or 0, "cancelling")
            jobs.set_state(studio.store, job.id or 0, "cancelled")


def test_the_queue_is_ordered_by_itself_where_that_is_asked_and_the_page_says_when(tab: Tab, studio: Studio) -> None:
    try:
        with pytest.raises(gr.Error, match="20 to 100000"):
            tab.call("repeat_order", studio.project.id, "coverage", 5)
        said, shown, _ = tab.call("repeat_order", studio.project.id, "coverage", 50)
        assert "after every 50 new judgements" in parts(said, "note")[0]["text"]
        assert "once there are 200" in parts(shown, "note")[-1]["text"]
        assert 50 in tab.call("quality_project", studio.project.id)
    finally:
        shown = tab.call("repeat_order", studio.project.id, "coverage", 0)[1]
    assert "not ordered by itself" in parts(shown, "note")[-1]["text"]


def divided(studio: Studio) -> Comparison:
    """A pair of which the annotator and the admin say the opposite."""
    store, project_id = studio.store, studio.project.id or 0
    first = store.find(Judgement, "verdict in ('a', 'b')")[0]
    reviewing.ask_one_more(store, studio.engineer, first.comparison_id)
    desk = labelling.next_desk(store, studio.admin, project_id)
    assert desk is not None
    lease = store.get(Assignment, desk.assignment)
    assert lease.comparison_id == first.comparison_id
    places = dict(zip(first.shown, first.ranks or (), strict=True))
    ranks = tuple(3 - places[position] for position in lease.shown)
    answer = labelling.Answer(ranks=ranks, strength=1, seconds=1.0)
    labelling.submit(store, studio.admin, lease.id or 0, uuid.uuid4().bytes, answer)
    return store.get(Comparison, first.comparison_id)


def test_a_reviewer_judges_blind_then_sees_all_and_may_decide_otherwise(tab: Tab, studio: Studio) -> None:
    store, asked = studio.store, divided(studio)
    tab.call("quality_project", studio.project.id)
    seen, told, _, *buttons = tab.call("review_look", asked.id)
    assert len(parts(seen, "panes")[0]["items"]) == 2 and told["parts"] == [] and buttons[0]["interactive"]
    assert "ann" not in str(seen)
    told = tab.call("review_left", None, [])[0]
    assert [row["cells"][1] for row in parts(told, "table")[0]["rows"]] == ["label", "label", "review"]
    assert parts(told, "table")[0]["rows"][2]["cells"][2] == "Left"
    told = tab.call("review_right", None, [])[0]
    assert parts(told, "table")[0]["rows"][2]["cells"][2] == "Right"
    chain = store.find(Judgement, "comparison_id = ? and person_id = ?", [asked.id, studio.engineer.id])
    assert [one.act for one in chain] == ["submit", "correct"] and chain[1].after_reveal
    with pytest.raises(gr.Error, match="1 to 500"):
        tab.call("review_void", None, "", studio.project.id)
    said = tab.call("review_void", None, "cut off", studio.project.id)[1]
    assert f"Comparison {asked.id} is set aside" in parts(said, "note")[0]["text"]
    assert store.get(Comparison, asked.id or 0).void_reason == "cut off"
    (none, *_lists) = tab.call("make_gold", studio.project.id, None)
    assert "all agree" in parts(none, "note")[0]["text"]


def test_a_ranking_is_decided_by_letters_and_flags_and_a_report_is_left_as_it_is(tab: Tab, studio: Studio) -> None:
    store = studio.store
    (asked,) = add_comparisons(store, studio.project, 1, overlap=2, first=950, texts=("one ", "two ", "three "))
    lease = store.add(
        Assignment(
            comparison_id=asked.id or 0, person_id=studio.annotator.id or 0, project_id=studio.project.id or 0, state="skipped",
            shown=(0, 1, 2), leased_at=1, expires_at=1,
        )
    )  # fmt: skip
    audit.record(store, studio.annotator, "skip", "assignment", lease.id, {"reason": "broken"})
    tab.call("save_form", studio.project.id, *fields(flags=["unsafe", "bad_prompt"]))
    try:
        lists = [value for value in tab.call("quality_project", studio.project.id) if isinstance(value, dict)]
        names = [name for value in lists for name, id in value.get("choices") or () if id == asked.id]
        assert names == [f"{asked.id}: skipped: Text is broken or empty; 0 judgements"]
        labelling.report(store, studio.annotator, lease.id or 0, uuid.uuid4().bytes, "other", "<b>third</b> 第三个")
        lists = [value for value in tab.call("quality_project", studio.project.id) if isinstance(value, dict)]
        names = [name for value in lists for name, id in value.get("choices") or () if id == asked.id]
        assert names == [f"{asked.id}: reported: Something else, skipped: Text is broken or empty; 0 judgements"]
        seen, _, _, *controls = tab.call("review_look", asked.id)
        assert parts(seen, "note")[0]["text"] == "Reported: Something else: “<b>third</b> 第三个”"
        left, order, _, flags = controls[0], controls[4], controls[5], controls[6]
        assert [one["badge"] for one in parts(seen, "panes")[0]["items"]] == ["A", "B", "C"]
        assert not left["interactive"] and order["interactive"] and flags["visible"]
        assert [flag for _, flag in flags["choices"][-2:]] == ["unsafe:2", "bad_prompt"]
        assert ["A: unsafe", "unsafe:0"] in [list(one) for one in flags["choices"]] and len(flags["choices"]) == 4
        with pytest.raises(gr.Error, match="A to C once"):
            tab.call("review_order", None, "A > B", [])
        told = tab.call("review_order", None, "c > a = b", ["unsafe:0", "bad_prompt"])[0]
        row, *others = parts(told, "table")[0]["rows"]
        assert [(one["cells"][0], one["cells"][1], one["cells"][5]) for one in others] == [
            ("ann", "report", "Something else: <b>third</b> 第三个"), ("ann", "skip", "Text is broken or empty"),
        ]  # fmt: skip
        assert row["cells"][2:4] == ["C > A = B", "A: unsafe, The question itself is bad"]
        (said,) = store.find(Judgement, "comparison_id = ?", [asked.id])
        assert said.ranks == (2, 2, 1) and said.flags == ("unsafe:0", "bad_prompt")
        kept = tab.call("review_keep", None, studio.project.id)
        assert f"Comparison {asked.id} is left" in parts(kept[1], "note")[0]["text"] and not kept[3]["interactive"]
        assert store.get(Comparison, asked.id or 0).cleared_at
    finally:
        adjudicating.void(store, studio.engineer, asked.id or 0, "made for this test")
        tab.call("save_form", studio.project.id, *fields(steps=4, choices=["tie", "both_bad", "edit"], aspects=""))


def test_a_new_guideline_is_in_force_at_once_and_says_what_it_changed(tab: Tab, studio: Studio) -> None:
    before = tab.call("quality_project", studio.project.id)[-2]
    said, body, shown = tab.call("save_guideline", studio.project.id, f"{before}\nThen the kinder one.")
    assert "is in force" in parts(said, "note")[0]["text"] and body.endswith("kinder one.")
    changed = parts(shown, "diff")[0]["pieces"]
    assert changed[-1][0] == "new" and "kinder" in changed[-1][1]
    desk = labelling.next_desk(studio.store, studio.annotator, studio.project.id or 0)
    assert desk is not None and desk.guideline.endswith("kinder one.")


@pytest.mark.parametrize(("theme", "lang"), [("light", "en"), ("dark", "zh-CN")])
def test_the_page_breaks_no_rule_of_accessibility(studio: Studio, studio_page: Any, theme: str, lang: str) -> None:
    page = studio_page(studio.engineer, lang, theme)
    page.goto("/studio/quality")
    expect(page.locator("#quality table").first).to_be_visible()
    for place, drawn in enumerate(
        ("#quality table", "#boards h2", "#order h2", "#conflict", "#guidelines h2, #guideline", "#steps")
    ):
        page.get_by_role("tab").nth(place).click()
        expect(page.locator(drawn).first).to_be_visible()
        assert broken(page) == []
