"""The compare page: columns stream together, can be stopped, and go blind to labelling."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from backend import comparing, labelling
from backend.engines.client import EngineError, Piece
from backend.streaming import Pane
from feedback_db import models
from feedback_db.cases import conversation
from feedback_db.types import Case, Comparison, Judgement, Template
from tests.ui.pages.studio import Studio, Tab, opened_in, parts
from ui.pages.compare_run import finished
from ui.text import Text
from ui.web import create_app


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return opened_in(studio, studio_app, "compare_open")


def asked(studio: Studio, seed: int, case_place: int = 0) -> list[Any]:
    """Case, seed, number of columns, number of seeds, and template, model, temperature, top-p, tokens of eight columns."""
    template = studio.store.find(Template, "name = 'customer service'")[0]
    case = studio.store.find(Case, "scenario = 'customer service'")[case_place]
    live, other = [model.id for model in models.policies(studio.store)][:2]
    columns = [value for model in (live, other) * 4 for value in (template.id, model, 1.0, 1.0, 96)]
    return [case.id, seed, 2, 1, *columns]


def key_of(steps: list[list[Any]]) -> str:
    """Of the run whose columns were drawn last: what the browser sends with every click."""
    drawn = [step[0] for step in steps if isinstance(step[0], dict) and "parts" in step[0]]
    return parts(drawn[-1], "panes")[0]["key"]


def told(value: Any) -> str:
    return " ".join(part["text"] for part in parts(value, "note"))


def test_two_columns_stream_side_by_side_and_go_to_labelling(tab: Tab, studio: Studio) -> None:
    steps = tab.stream("compare_run", *asked(studio, seed=41))
    first, last = steps[0], steps[-1]
    assert [pane["state"] for pane in parts(first[0], "panes")[0]["items"]] == ["waiting", "waiting"]
    assert last[2]["interactive"] is True
    status, send = tab.call("send_to_labelling", None)
    made = studio.store.find(Comparison, "reason = 'sent by an engineer'", order_by="id desc")[0]
    assert f"Comparison {made.id} waits" in parts(status, "note")[0]["text"]
    assert send["interactive"] is False
    assert made.size == 2


def test_eight_columns_stream_at_the_same_time_and_become_one_ranking(tab: Tab, studio: Studio) -> None:
    given = asked(studio, seed=141)
    given[2] = 8
    models_of = [model.id for model in models.policies(studio.store)]
    templates = [one.id for one in studio.store.find(Template, "scenario = 'customer service'")]
    chosen = [(template, model) for template in templates for model in models_of]
    chosen = (chosen * 8)[:8]
    given[4:] = [value for at, (template, model) in enumerate(chosen) for value in (template, model, 1.0, 1.0, 96 + at)]
    steps = tab.stream("compare_run", *given)
    shown = [parts(step[0], "panes")[0]["items"] for step in steps if isinstance(step[0], dict) and "parts" in step[0]]
    assert len(shown[-1]) == 8 and {pane["badge"] for pane in shown[-1]} == set("ABCDEFGH")
    texts = [pane["text"] for pane in shown[-1]]
    assert 2 < len(set(texts)) < 8, "some of them happen to be word for word the same"
    assert "count as one answer" in told(steps[-1][3]) and steps[-1][2]["interactive"] is True
    tab.call("send_to_labelling", None)
    made = studio.store.find(Comparison, "reason = 'sent by an engineer'", order_by="id desc")[0]
    assert (made.kind, made.size) == ("rank", len(set(texts))), "each text once"
    with studio.store.write() as db:
        db.conn.execute("update comparisons set status = 'retired' where id = ?", [made.id])  # others judge pairs
    best = next(at for at, text in enumerate(texts) if texts.count(text) > 1)
    status, _, go_on = tab.call("compare_act", None, event={"act": "best", "at": best, "key": key_of(steps)})
    kept = studio.store.find(Judgement, "client = 'compare'")[-1]
    alike = ", ".join("ABCDEFGH"[at] for at, text in enumerate(texts) if text == texts[best])
    assert f"Saved {kept.id}. Best: {alike}." in told(status) and go_on["interactive"] is True
    steps = tab.stream("compare_go_on", None, "And then?")
    assert len(parts(steps[-2][0], "panes")[0]["items"]) == 8, "every column answers the next turn"


def test_answers_of_the_same_text_cannot_be_sent_and_the_page_says_why(tab: Tab, studio: Studio) -> None:
    given = asked(studio, seed=43)
    column = slice(4, 9)
    given[9:14] = given[column]  # the second column asks what the first asks
    last = tab.stream("compare_run", *given)[-1]
    assert last[2]["interactive"] is False
    assert "nothing to choose between" in told(last[3])


def test_the_annotator_sees_neither_model_nor_template_of_a_sent_comparison(studio: Studio) -> None:
    desk = labelling.next_desk(studio.store, studio.annotator, studio.project.id or 0)
    shown = repr(desk)
    assert desk is not None
    assert not any(name in shown for name in ("ppo-", "starter", "customer service · v"))


def test_stop_closes_the_streams_of_the_engine(tab: Tab, studio: Studio) -> None:
    studio.engine.pause_seconds = 0.3  # neither ends by itself before it is closed
    closed = studio.engine.closed
    try:
        steps = tab.stream("compare_run", *asked(studio, seed=42), stop_after=4)
        deadline = time.monotonic() + 30
        while studio.engine.closed < closed + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        studio.engine.pause_seconds = 0.0
    assert studio.engine.closed == closed + 2
    (status,) = tab.call("compare_stop", key_of(steps))
    assert told(status) == "All had ended already: nothing was left to stop."


def test_each_seed_is_a_comparison_of_its_own(tab: Tab, studio: Studio) -> None:
    given = asked(studio, seed=300)
    given[3] = 3
    shown = parts(tab.stream("compare_run", *given)[-2][0], "panes")[0]["items"]
    assert [pane["title"][-3:] for pane in shown] == ["300", "300", "301", "301", "302", "302"]
    before = studio.store.value("select count(*) from comparisons")
    (status, _) = tab.call("send_to_labelling", None)
    assert studio.store.value("select count(*) from comparisons") == before + 3
    assert "3 comparisons wait" in parts(status, "note")[0]["text"]
    with studio.store.write() as db:
        db.conn.execute("update comparisons set status = 'retired' where reason = 'sent by an engineer'")
    given[2], given[3] = 8, 3
    with pytest.raises(gr.Error, match="more than 16 answers"):
        tab.stream("compare_run", *given)


def test_the_best_column_is_judged_kept_and_gone_on_from(tab: Tab, studio: Studio) -> None:
    steps = tab.stream("compare_run", *asked(studio, seed=44))
    pane = parts(steps[-2][0], "panes")[0]["items"][1]
    assert pane["acts"] == "best demonstration case" and pane["logps"][0][1] == -1.0
    assert "nats/token" in pane["foot"]
    with pytest.raises(gr.Error, match="judged best"):
        tab.stream("compare_go_on", None, "And then?")
    key = key_of(steps)
    status, *_, go_on = tab.call("compare_act", None, event={"act": "best", "at": 1, "key": key})
    kept = studio.store.find(Judgement, "client = 'compare'")[-1]
    assert (kept.ranks, kept.partial) == ((2, 1), False) and go_on["interactive"] is True
    assert f"Saved {kept.id}. Best: B." in parts(status, "note")[0]["text"]
    assert studio.store.get(Comparison, kept.comparison_id).arm == "priority", "names were in sight"
    status = tab.call("compare_act", None, event={"act": "best", "at": 0, "key": key})[0]
    assert f"Saved {kept.id}. Best: B." in parts(status, "note")[0]["text"], (
        "it is judged once, and the page says as what"
    )
    steps = tab.stream("compare_go_on", None, "And then?")
    (shown, *_), key = steps[-2], key_of(steps)
    said = parts(shown, "messages")[0]["items"]
    assert said[-2]["text"] == pane["text"] and said[-1]["text"] == "And then?"
    again = parts(shown, "panes")[0]["items"]
    assert all("“And then?”" in one["text"] for one in again) and again[0]["text"] != again[1]["text"]
    case = studio.store.find(Case, "source = 'turn'")[-1]
    assert case.judgement_id == kept.id
    said_by = tab.call("compare_act", None, event={"act": "case", "at": 0, "key": key})[0]
    assert "expected" in parts(said_by, "note")[0]["text"]
    assert studio.store.find(Case, "source = 'answer'")[-1].expected == again[0]["text"]
    with pytest.raises(gr.Error, match="one question"):
        tab.call("compare_act", None, event={"act": "demonstration", "at": 0, "key": key})
    key = key_of(tab.stream("compare_run", *asked(studio, seed=45)))
    said_by = tab.call("compare_act", None, event={"act": "demonstration", "at": 0, "key": key})[0]
    assert "Kept as demonstration" in parts(said_by, "note")[0]["text"]


def test_all_columns_alike_or_all_bad_is_said_with_one_click(tab: Tab, studio: Studio) -> None:
    for event, both_bad, seed in (("compare_tie", False, 46), ("compare_bad", True, 47)):
        key = key_of(tab.stream("compare_run", *asked(studio, seed=seed)))
        status, _, go_on = tab.call(event, None, key)
        kept = studio.store.find(Judgement, "client = 'compare'")[-1]
        assert (kept.ranks, kept.both_bad) == ((1, 1), both_bad) and go_on["interactive"] is False
        assert f"Saved {kept.id}" in parts(status, "note")[0]["text"]


@pytest.fixture
def breaking(studio: Studio, monkeypatch: Any) -> None:
    """A column of 7 tokens at most fails after its first words."""
    whole = studio.engine.stream

    def stream(*given: Any, **settings: Any) -> Iterator[Piece]:
        for at, piece in enumerate(whole(*given, **settings)):
            if settings["max_tokens"] == 7 and at == 2:
                raise EngineError("The engine stopped in the middle of an answer. Ask again.", "engine_cut_off")
            yield piece

    monkeypatch.setattr(studio.engine, "stream", stream)


def of_columns(studio: Studio, seed: int, tokens: Sequence[int]) -> list[Any]:
    """As ``asked``, with a column for each number of tokens at most."""
    given = asked(studio, seed)
    given[2] = len(tokens)
    for at, most in enumerate(tokens):
        given[4 + 5 * at + 4] = most
    return given


def test_a_column_that_failed_is_no_answer_and_the_others_go_on_without_it(
    tab: Tab, studio: Studio, breaking: None
) -> None:
    steps = tab.stream("compare_run", *of_columns(studio, 48, [7, 96, 96]))
    pane, last = parts(steps[-2][0], "panes")[0], steps[-1]
    assert [one["acts"] for one in pane["items"]] == ["", *["best demonstration case"] * 2]
    assert [one["void"] for one in pane["items"]] == [True, False, False]
    assert "middle of an answer" in pane["items"][0]["problem"]
    assert told(last[3]) == (
        "No answer came from A: the reason stands there. "
        "The other 2 answers are stored; they alone are judged, compared and sent."
    )
    assert [last[at]["interactive"] for at in (2, 5, 6)] == [True, True, True]
    key = key_of(steps)
    status = tab.call("compare_act", None, event={"act": "best", "at": 0, "key": key})[0]
    assert "no answer to judge" in told(status)
    status, *_, go_on = tab.call("compare_act", None, event={"act": "best", "at": 2, "key": key})
    assert "Best: C." in told(status) and go_on["interactive"] is True
    steps = tab.stream("compare_go_on", None, "And then?")
    again = parts(steps[-2][0], "panes")[0]["items"]
    assert [one["title"] for one in again] == [one["title"] for one in pane["items"][1:]], "each with its own name"
    assert all("“And then?”" in one["text"] for one in again)


def test_columns_that_failed_are_never_told_to_have_written_the_same(tab: Tab, studio: Studio, breaking: None) -> None:
    steps = tab.stream("compare_run", *of_columns(studio, 49, [7, 96, 7]))
    pane, last = parts(steps[-2][0], "panes")[0], steps[-1]
    assert told(last[3]) == (
        "No answer came from A, C: the reason stands there. One answer is stored; a comparison needs two."
    )
    assert [one["acts"] for one in pane["items"]] == ["", "demonstration case", ""], "the best of one is no judgement"
    assert [last[at]["interactive"] for at in (2, 5, 6)] == [False, False, False]
    last = tab.stream("compare_run", *of_columns(studio, 50, [7, 7]))[-1]
    assert told(last[3]) == "No answer came from A, B: the reason stands there."
    same = of_columns(studio, 51, [96, 7, 96])
    same[14:16] = same[4:6]  # the third column asks what the first asks
    last = tab.stream("compare_run", *same)[-1]
    assert told(last[3]).startswith("No answer came from B: the reason stands there. All wrote the same")
    assert last[2]["interactive"] is False


def test_what_was_stopped_before_its_first_word_is_said_to_be_nothing() -> None:
    ui: Any = SimpleNamespace(
        guard=SimpleNamespace(say=Text(), language=lambda: "en"), engine=SimpleNamespace(last_event=None), text=Text()
    )
    others = [Pane(text=text, state="done", completion_id=at) for at, text in enumerate("ab", 1)]
    assert told(finished(ui, [Pane(state="stopped"), *others])).startswith("Stopped before the first word: A. Nothing")
    assert "unless you judge it" in told(finished(ui, [Pane(text="x", state="stopped"), *others]))


def test_annotators_are_asked_for_an_ideal_answer_to_the_case(tab: Tab, studio: Studio) -> None:
    (said,) = tab.call("ask_to_write", asked(studio, seed=0)[0])
    made = studio.store.find(Comparison, "kind = 'demonstration'")[-1]
    assert f"Request {made.id} waits" in parts(said, "note")[0]["text"]
    with studio.store.write() as db:
        db.conn.execute("update comparisons set status = 'retired' where id = ?", [made.id])


def test_a_sampling_setting_out_of_range_says_what_it_may_be(tab: Tab, studio: Studio) -> None:
    wanted = asked(studio, seed=0)
    wanted[6] = 9.0
    with pytest.raises(gr.Error, match="temperature must be between 0 and 2"):
        tab.stream("compare_run", *wanted)


def test_comparisons_for_many_cases_are_counted_with_those_left_out(tab: Tab, studio: Studio, monkeypatch: Any) -> None:
    template = studio.store.find(Template, "name = 'customer service'")[0]
    model = models.live(studio.store, "policy")
    assert model is not None
    before = studio.store.value("select count(*) from comparisons")
    (said,) = tab.call("make_comparisons", studio.project.id, template.id, model.id, 3)
    made = studio.store.value("select count(*) from comparisons") - before
    assert parts(said, "note")[0]["text"].startswith(f"{made} comparisons wait")
    with pytest.raises(gr.Error, match=f"1 to {comparing.MOST_AT_ONCE} cases"):
        tab.call("make_comparisons", studio.project.id, template.id, model.id, 0)


def test_a_battle_hides_who_answers_until_the_vote_is_stored(fresh_studio: Studio) -> None:
    studio, tab = fresh_studio, opened_in(fresh_studio, create_app(fresh_studio.ui), "compare_open")
    names = [model.name for model in models.policies(studio.store)]
    steps = tab.stream("battle", studio.project.id)
    assert not any(name in str(step[0]) for step in steps for name in names if name != "starter" or "starter" in name)
    assert steps[-1][3]["interactive"] is True
    assert all(not one["interactive"] for one in steps[0][7:]), "the votes on a run that is not on the page any more"
    assert {pane["foot"] for step in steps[:-1] for pane in parts(step[0], "panes")[0]["items"]} <= {
        "",
        "writing…",
        "done",
    }
    shown, status, *buttons = tab.call("battle_vote_right", None, key_of(steps))
    named = [pane["title"] for pane in parts(shown, "panes")[0]["items"]]
    assert len(set(named)) == 2 and set(named) <= set(names), "each stands over its answer now"
    said = parts(status, "note")[0]["text"]
    assert sum(name in said for name in names) >= 2 and all(not one["interactive"] for one in buttons)
    kept = studio.store.find(Judgement, "client = 'battle'")[-1]
    assert kept.ranks == (2, 1) and f"Saved {kept.id}" in said
    made = studio.store.get(Comparison, kept.comparison_id)
    assert (made.status, made.judged, made.reason) == ("done", 1, "a battle")
    case = studio.store.get(Case, made.case_id)
    for step in steps[:-1]:
        assert (
            parts(step[0], "messages")[0]["items"][-1]["text"]
            == conversation(case.values, case.conversation)[-1]["content"]
        )
    again = tab.call("battle_vote_right", None, key_of(steps))
    assert f"Saved {kept.id}" in told(again[1])
