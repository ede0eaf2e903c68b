"""Label forms: what they ask, what they refuse, and what a judgement keeps of each kind of answer."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from backend import labelling
from backend.labelling import LabellingProblem
from backend.labels import form as forms
from backend.labels.form import Answer, BadForm, DoesNotFit, Form, Span
from feedback_db import judgements, snapshots
from feedback_db.snapshot_rows import rows_text
from feedback_db.types import Assignment, Comparison, Demonstration
from tests.feedback_db.test_queue import key
from tests.ui.house import build

ALL = Form(
    steps=6, both_good=True, aspects=("truthful", "kind"), points=True, span_tags=("false",), confidence=True
)  # fmt: skip
TEXTS = ("The sky is 🙂 green.", "天是蓝的。")
PAIR = Answer(ranks=(1, 2), strength=1, seconds=1.0)


@pytest.fixture
def house(tmp_path):
    made = build(tmp_path, comparisons=4)
    yield made
    made.store.close()


def ask(house, **form):
    """The project asks this from now on; returns the desk of ann."""
    with house.store.write() as db:
        values = [json.dumps(forms.stored(replace(ALL, **form))), house.project.id]
        db.conn.execute("update projects set label_form = ? where id = ?", values)
    return labelling.next_desk(house.store, house.ann, house.project.id)


def submit(house, desk, **said):
    done = labelling.submit(house.store, house.ann, desk.assignment, key(), replace(PAIR, **said))
    return house.store.find(type(judgements.head(house.store, house.store.get(Assignment, desk.assignment))))[-1], done


def test_a_form_survives_being_stored():
    assert forms.parse(json.loads(json.dumps(forms.stored(ALL)))) == ALL
    assert forms.parse({}) == Form() and forms.parse({"kind": "pair", "steps": 2}).steps == 2


@pytest.mark.parametrize(
    "stored",
    [{"steps": 5}, {"rationale": "always"}, {"flags": ["rude"]}, {"aspects": ["a", "a"]}, {"aspects": ["x" * 41]},
     {"span_tags": [""]}, {"aspects": [str(n) for n in range(13)]}],
)  # fmt: skip
def test_a_form_that_cannot_be_asked_is_refused(stored):
    with pytest.raises(BadForm):
        forms.parse(stored)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"ranks": (1,)}, "ranks_missing"),
        ({"ranks": (2, 2)}, "bad_ranks"),
        ({"ranks": (1, 3)}, "bad_ranks"),
        ({"ranks": (1, 1)}, "tie_strength"),
        ({"strength": 4}, "bad_strength"),
        ({"both_bad": True, "both_good": True}, "good_and_bad"),
        ({"aspects": {"rude": (1, 2)}}, "not_asked"),
        ({"aspects": {"kind": (1, 3)}}, "bad_points"),
        ({"points": (5,)}, "bad_points"),
        ({"points": (0, 5)}, "bad_points"),
        ({"flags": ("unsafe:2",)}, "unknown_flag"),
        ({"flags": ("unsafe",)}, "unknown_flag"),
        ({"flags": ("bad_prompt:0",)}, "unknown_flag"),
        ({"flags": ("rude:0",)}, "unknown_flag"),
        ({"flags": ("unsafe:²",)}, "unknown_flag"),
        ({"spans": (Span(place=0, start=0, end=3, text="The", tag="odd"),)}, "unknown_flag"),
        ({"spans": (Span(place=0, start=1, end=4, text="The", tag="false"),)}, "bad_span"),
        ({"spans": (Span(place=5, start=0, end=3, text="The", tag="false"),)}, "bad_span"),
        ({"spans": (Span(place=0, start=13, end=18, text="green", tag="false"),) * 51}, "many_spans"),
        ({"rationale": "x" * 20_001}, "long_text"),
        ({"edited_text": "blue"}, "bad_edit"),
        ({"edited_text": " ", "edited_place": 0}, "bad_edit"),
        ({"edited_text": "blue", "edited_place": 2}, "bad_edit"),
        ({"confidence": 4}, "bad_confidence"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_refused_with_a_reason(said, code):
    with pytest.raises(DoesNotFit) as refused:
        forms.check(replace(PAIR, **said), ALL, "pair", TEXTS)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ({"ranks": (1, 1), "strength": None}, {"tie": False}),
        ({"both_bad": True}, {"both_bad": False}),
        ({"both_good": True}, {"both_good": False}),
        ({"points": (1, 2)}, {"points": False}),
        ({"confidence": 2}, {"confidence": False}),
        ({"edited_text": "blue", "edited_place": 0}, {"edit": False}),
        ({"rationale": "so"}, {"rationale": "off"}),
        ({"rationale": "  "}, {"rationale": "required"}),
        ({"strength": 2}, {"steps": 2}),
    ],
)  # fmt: skip
def test_what_the_form_does_not_ask_is_refused(said, form):
    with pytest.raises(DoesNotFit):
        forms.check(replace(PAIR, **said), replace(ALL, **form), "pair", TEXTS)
    assert forms.check(replace(PAIR, rationale="so"), ALL, "pair", TEXTS)


def test_a_highlight_counts_code_points_so_that_emoji_and_chinese_keep_their_place():
    start = TEXTS[0].index("green")
    spans = (
        Span(place=0, start=start, end=start + 5, text="green", tag="false"),
        Span(place=1, start=0, end=3, text="天是蓝", tag="false"),
    )
    assert forms.check(replace(PAIR, spans=spans), ALL, "pair", TEXTS).spans == spans


@given(st.lists(st.integers(1, 5), min_size=1, max_size=16))
def test_ratings_become_ranks_of_the_same_order(points):
    given_ = Answer(points=tuple(points), seconds=1.0)
    ranks = forms.check(given_, ALL, "rate", ("",) * len(points)).ranks
    for i, one in enumerate(points):
        for j, other in enumerate(points):
            assert (one > other) == (ranks[i] < ranks[j])


def test_everything_a_form_asks_is_kept_and_comes_back_with_an_undo(house):
    desk = ask(house)
    text = desk.answers[1]
    said = {
        "both_good": True, "aspects": {"truthful": (2, 1), "kind": (1, 1)}, "points": (2, 5), "flags": ("false:0", "bad_prompt"),
        "spans": (Span(place=1, start=2, end=9, text=text[2:9], tag="false"),), "rationale": "因为 🙂", "confidence": 3,
    }  # fmt: skip
    kept, _ = submit(house, desk, **said)
    assert (kept.both_good, kept.confidence, kept.flags) == (True, 3, ("false:0", "bad_prompt"))
    assert kept.aspects == {"truthful": [2, 1], "kind": [1, 1], "": [2, 5]} and kept.spans[0]["text"] == text[2:9]
    assert kept.row_hash == judgements.row_hash(kept)
    assert judgements.row_hash(replace(kept, confidence=2)) != kept.row_hash
    draft = labelling.undo(house.store, house.ann, house.project.id, key()).draft
    assert draft["points"] == [2, 5] and draft["aspects"] == {"truthful": [2, 1], "kind": [1, 1]}
    assert draft["both_good"] and draft["confidence"] == 3 and draft["spans"][0]["tag"] == "false"


def test_a_refused_answer_stores_nothing_and_names_the_reason_in_its_code(house):
    desk = ask(house, rationale="required")
    with pytest.raises(LabellingProblem) as refused:
        submit(house, desk)
    assert (refused.value.code, refused.value.status) == ("rationale_missing", 422)
    assert house.store.value("select count(*) from judgements") == 0


def test_an_edited_answer_becomes_a_demonstration_and_a_pair_it_wins_and_goes_with_an_undo(house):
    desk = ask(house)
    kept, _ = submit(house, desk, edited_place=1, edited_text="Restart it in the menu.")
    comparison = house.store.get(Comparison, kept.comparison_id)
    original = desk.answers[1]
    assert kept.edited_position == kept.shown[1]
    (shown,) = house.store.find(Demonstration, "judgement_id = ?", [kept.id])
    assert shown.output == "Restart it in the menu." and "how do I restart" in shown.input
    rows = [json.loads(line) for line in rows_text(house.store, freeze(house)).splitlines()]
    pair = rows[-1]
    assert len(rows) == 2 and pair["case"] == comparison.case_id and pair["judgements"] == [kept.id]
    assert [one["text"] for one in pair["answers"]] == ["Restart it in the menu.", original] and pair["ranks"] == [1, 2]
    labelling.undo(house.store, house.ann, house.project.id, key())
    assert house.store.find(Demonstration, "judgement_id = ?", [kept.id]) == []


def test_text_that_was_opened_for_editing_and_left_alone_is_no_edit(house):
    desk = ask(house)
    kept, _ = submit(house, desk, edited_place=0, edited_text=desk.answers[0])
    assert kept.edited_text is None and kept.edited_position is None and not house.store.find(Demonstration)


def freeze(house):
    return snapshots.freeze_preferences(house.store, house.project.id, "s", None)


def test_a_snapshot_without_edits_has_the_rows_it_always_had(house):
    desk = ask(house)
    submit(house, desk)
    snapshot = freeze(house)
    assert (
        "with_edits" not in snapshot.filters and snapshot.n == len(rows_text(house.store, snapshot).splitlines()) == 1
    )
