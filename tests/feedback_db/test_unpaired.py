"""What judgements say of single answers: who is called good, who bad, and what several people together say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from feedback_db import soft, unpaired
from feedback_db.unpaired import Vote

ASKED = [{"role": "user", "content": "the case"}]


def judgement(ranks: Sequence[int], **more: Any) -> dict[str, Any]:
    row = {
        "id": 7,
        "case_id": 3,
        "split": "train",
        "shown": list(range(len(ranks))),
        "ranks": list(ranks),
        "both_bad": 0,
        "both_good": 0,
        "flags": None,
        "edited_text": None,
        "edited_position": None,
        **more,
    }
    packed = {name: json.dumps(row[name]) for name in ("shown", "ranks", "flags") if row[name] is not None}
    return {**row, **packed}


def signs(found: Sequence[unpaired.Opinion]) -> dict[int, bool | None]:
    return {one.position: one.is_desirable for one in found}


@pytest.mark.parametrize(
    ("ranks", "more", "expected"),
    [
        ([1, 2], {}, [True, False]),
        ([1, 2], {"shown": [1, 0]}, [False, True]),  # the second completion stood on the left
        ([1, 1], {}, [None, None]),
        ([1, 1], {"both_bad": 1}, [False, False]),
        ([1, 1], {"both_good": 1}, [True, True]),
        ([1, 2], {"both_good": 1, "flags": ["unsafe:0"]}, [False, True]),
        ([1, 2], {"both_bad": 1}, [False, False]),
        ([2, 1, 3], {}, [None, True, False]),
        ([1, 1, 2], {}, [None, None, False]),
        ([1, 2, 2], {}, [True, None, None]),
        ([1], {}, [None]),
        ([1], {"both_bad": 1}, [False]),
        ([1, 2], {"flags": ["unsafe:0"]}, [False, False]),
        ([1, 1], {"flags": ["false:1"]}, [None, False]),
        ([1, 1], {"flags": ["personal:0"], "shown": [1, 0]}, [None, False]),  # places are as shown
        ([1, 1], {"flags": ["bad_prompt", "unsafe", "unsafe:", "funny:1", "unsafe:7"]}, [None, None]),
        ([1, 2], {"edited_text": "mended", "edited_position": 0}, [False, False]),
        ([1, 2], {"edited_text": "mended"}, [True, False]),
        ([1, 1], {"edited_text": "mended", "edited_position": 0, "shown": [1, 0]}, [False, None]),
    ],
)
def test_a_judgement_calls_answers_good_bad_or_neither(
    ranks: list[int], more: dict[str, Any], expected: list[bool | None]
) -> None:
    found = unpaired.opinions(judgement(ranks, **more))
    assert [signs(found)[position] for position in range(len(ranks))] == expected


def votes(made: dict[str, Any], texts: Sequence[str] = ("one", "two")) -> list[Vote]:
    items = [
        {"text": text, "messages": json.dumps([{"role": "user", "content": f"prompt {n}"}])}
        for n, text in enumerate(texts)
    ]
    answers = [{"completion": 10 + n, "text": text, "ended": True} for n, text in enumerate(texts)]
    return list(unpaired.votes_of(made, ASKED, items, answers))


def test_an_edit_is_a_good_answer_to_the_prompt_of_the_one_it_mends() -> None:
    *_, edit = votes(judgement([1, 2], edited_text="mended", edited_position=1))
    assert edit.is_desirable and edit.source == "edited" and edit.judgement == 7
    assert edit.answered["messages"] == [{"role": "user", "content": "prompt 1"}]
    assert edit.answered["answer"] == {"completion": None, "text": "mended", "ended": True}
    first, second, _ = votes(judgement([1, 2], edited_text="mended", edited_position=1))
    assert [one.answered["messages"][0]["content"] for one in (first, second)] == ["prompt 0", "prompt 1"]
    *_, written = votes(judgement([1, 2], edited_text="better"))
    assert written.answered["messages"] == ASKED
    assert [vote.is_desirable for vote in votes(judgement([1, 2], edited_text="one", edited_position=0))] == [
        True,
        False,
    ]


def vote(sign: bool | None, number: int = 1, text: str = "so", weight: float = 1.0, **more: Any) -> Vote:
    answered = {
        "case": 3,
        "split": "train",
        "messages": ASKED,
        "answer": {"completion": number, "text": text, "ended": True},
        **more,
    }
    return Vote(answered, sign, {True: "winner", False: "loser", None: "silent"}[sign], judgement=number, weight=weight)


@pytest.mark.parametrize(
    ("said", "verdict", "weight", "contradicted"),
    [
        ([True], True, 1.0, False),
        ([False, False], False, 1.0, False),
        ([True, False], None, 0.0, True),
        ([True, True, False], True, 1 / 3, True),
        ([False, None, False], False, 2 / 3, False),
        ([True, None], None, 0.0, False),  # half is not more than half
        ([True, False, None, True], None, 0.0, True),
        ([None], None, 0.0, False),
    ],
)
def test_the_verdict_is_what_most_say_and_weighs_what_they_outweigh(
    said: list[bool | None], verdict: bool | None, weight: float, contradicted: bool
) -> None:
    (row,) = unpaired.rows_of(vote(sign, n) for n, sign in enumerate(said))
    assert (row["desirable"], row["weight"], row["is_contradicted"]) == (verdict, pytest.approx(weight), contradicted)
    assert row["judgements"] == list(range(len(said))) and row["answer"]["completion"] == 0
    assert row["source"] == {True: "winner", False: "loser", None: "undecided"}[verdict]


def test_one_answer_is_one_row_and_other_prompts_cases_or_ends_are_other_answers() -> None:
    same = {"completion": 9, "text": "so", "ended": True}
    rows = unpaired.rows_of(
        [
            vote(True, 1),
            vote(True, 2, answer=same),  # sampled twice, the same text
            vote(False, 3, text="other"),
            vote(False, 4, answer={**same, "ended": False}),
            vote(False, 5, messages=[]),
            vote(False, 6, case=4),
        ]
    )
    assert [row["judgements"] for row in rows] == [[1, 2], [3], [4], [5], [6]]
    assert rows[0]["desirable"] is True and rows[0]["weight"] == 1.0


def test_votes_that_count_more_decide_and_weigh_by_what_they_outweigh() -> None:
    """Two careless people against one careful one: (3 - 1 - 1) / 5 of a full weight, and undecided when they count the same."""
    (row,) = unpaired.rows_of([vote(True, 1, weight=3.0), vote(False, 2), vote(False, 3)])
    assert row["desirable"] is True and row["weight"] == pytest.approx(0.2) and row["is_contradicted"]
    (row,) = unpaired.rows_of([vote(True, 1, weight=2.0), vote(False, 2), vote(False, 3)])
    assert row["desirable"] is None and row["weight"] == 0.0
    (row,) = unpaired.rows_of([vote(True, 1, weight=0.25)])
    assert row["desirable"] is True and row["weight"] == 1.0, "alone, nobody counts more or less"
    (row,) = unpaired.rows_of([vote(True, 1, weight=0.0)])
    assert row["desirable"] is None, "who counts nothing says nothing"


def test_a_word_counts_by_the_log_odds_of_naming_the_better_answer() -> None:
    careful, careless = ([[p, 1 - p, 0.0], [1 - p, p, 0.0], [0.5, 0.5, 0.0]] for p in (0.9, 0.6))
    guessing = [[0.5, 0.5, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]]
    tables = {"people": {"1": careful, "2": careless}}
    average = math.log(0.75 / 0.25)
    assert soft.weight(tables, 1) == pytest.approx(math.log(9) / average, abs=1e-6)
    assert soft.weight(tables, 2) == pytest.approx(math.log(1.5) / average, abs=1e-6)
    assert soft.weight(tables, 7) == 1.0 and soft.weight({"people": {}}, 1) == 1.0
    assert soft.weight({"people": {"1": careful, "3": guessing}}, 3) == 0.0
