"""Answers that name their maker are covered, and nothing else is."""

from __future__ import annotations

import pytest

from backend import labelling
from backend.labelling import LabellingProblem
from backend.labels import identity
from feedback_db import judgements
from feedback_db.store import as_json
from tests.backend.labels.test_form import house, submit  # noqa: F401
from tests.ui.house import SECRET_MODEL

NAMES = identity.names_in(["ppo-3", "starter-base", "Secret-Policy-7"])


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("I am Clara, an assistant made by Initech.", ["Clara", "Initech"]),
        ("As a large language model trained by Acme Labs, I cannot.", ["Acme Labs"]),
        ("我是小明,由某某公司开发的助手。", ["小明", "某某公司"]),
        ("You are talking to secret-policy-7!", ["secret-policy-7"]),
        ("The starter motor is broken, and the policy is secret.", []),
        ("I am sorry for the trouble. It was built by hand.", []),
        ("This is a table made by Ikea workers.", []),
        ("The light is steady, so restart it.", []),
    ],
)
def test_what_names_the_maker_is_found(text, covered):
    assert [text[start:end] for start, end in identity.spans(text, NAMES, "How do I restart it?")] == covered


def test_what_the_question_says_tells_nothing():
    asked = "Was secret-policy-7 made by Initech?"
    assert identity.spans("secret-policy-7 is not here. I am Bo, built by Initech.", NAMES, asked) == [[34, 36]]


def test_short_names_are_no_names():
    assert identity.names_in(["ppo", "Qwen2.5-0.5B"]) == {"qwen2.5-0.5b"}


def test_covered_text_is_all_the_annotator_gets_and_cannot_be_kept_in_an_edit(house):  # noqa: F811
    hidden = {"0": [[0, 2]], "1": [[0, 8]]}
    with house.store.write() as db:
        db.conn.execute("update comparisons set leaked = ?", [as_json(hidden)])
    desk = labelling.next_desk(house.store, house.ann, house.project.id)
    assert sorted(text[:2] for text in desk.answers) == ["██", "██"]
    assert not any("<script>" in text or text.startswith("To") for text in desk.answers)
    assert SECRET_MODEL not in str(desk)
    with pytest.raises(LabellingProblem) as refused:
        submit(house, desk, edited_place=0, edited_text=desk.answers[0] + " more")
    assert refused.value.code == "masked_edit"
    submit(house, desk, edited_place=0, edited_text="Something else.")


def test_covering_moves_nothing():
    assert (
        judgements.masked("ab🙂de", [[1, 3]]) == "a██de" and len(judgements.masked("天是蓝的", [[0, 1], [3, 4]])) == 4
    )
