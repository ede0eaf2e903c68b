"""Checks of single cases in a run: they are asked of that case alone, and whatever is counted is counted by case as before."""

from __future__ import annotations

import pytest

from backend import testing
from backend.engines.scripted import ScriptedEngine
from backend.suites.pasted import BadCases
from backend.testing import CannotTest
from feedback_db import Store
from feedback_db.types import Person, Project, Prompt
from tests.backend.suites.house import finished, pasted, started

OWN = "word,__expected1,__expected2,__threshold\nred,contains:red,contains:blue,0.5\nblue,contains:red,,\ngreen,,,\n"


@pytest.fixture
def echo() -> ScriptedEngine:
    return ScriptedEngine(lambda messages, model, seed: messages[-1]["content"])


def test_a_case_is_held_to_the_suites_checks_its_own_and_its_own_threshold(
    store: Store, engineer: Person, project: Project, echo: ScriptedEngine
) -> None:
    suite = pasted(store, engineer, project, OWN, "not-contains:sorry")
    run = finished(store, echo, started(store, engineer, project, suite))
    rows, _ = testing.rows(store, engineer, run.id or 0)
    red, blue, green = (row.cells[0][0][0] for row in rows)
    assert (len(red.results), len(blue.results), len(green.results)) == (3, 2, 1)
    assert red.passed and red.score == pytest.approx(2 / 3)  # its own threshold of a half
    assert not blue.passed and blue.score == pytest.approx(0.5)
    assert green.passed
    names = testing.check_names(store, engineer, run.id or 0, red.case_id)
    assert names == ["not-contains", "contains", "contains"]


def test_a_suite_without_checks_needs_one_for_every_case(store: Store, engineer: Person, project: Project) -> None:
    pasted(store, engineer, project, "word,__expected\nred,x\nblue,y\n")
    with pytest.raises(CannotTest, match="1 case has no check of its own"):
        pasted(store, engineer, project, OWN)


def test_the_same_case_twice_with_other_checks_is_refused_with_both_lines(
    store: Store, engineer: Person, project: Project
) -> None:
    with pytest.raises(BadCases, match="Line 3: the case of line 2 again"):
        pasted(store, engineer, project, "word,__expected\nred,x\nred,y\n")


def test_other_checks_of_a_case_make_another_version_and_the_same_ones_do_not(
    store: Store, engineer: Person, project: Project
) -> None:
    first, same = (pasted(store, engineer, project, "word,__expected\nred,x\n") for _ in range(2))
    other = pasted(store, engineer, project, "word,__expected\nred,y\n")
    assert (first.id, first.version, other.version) == (same.id, 1, 2)


def test_gold_answers_do_not_leak_into_prompts_through_braces_in_a_cell(
    store: Store, engineer: Person, project: Project, echo: ScriptedEngine
) -> None:
    text = "word,label,expected,__expected\nTell me {{label}} {{expected}} {{__expected}},GOLD-1,GOLD-2,GOLD-3\n"
    suite = pasted(store, engineer, project, text, "not-contains:GOLD")
    run = finished(store, echo, started(store, engineer, project, suite))
    (prompt,) = store.find(Prompt)
    assert prompt.messages[-1]["content"] == "Say Tell me {{label}} {{expected}} {{__expected}}"
    (row,), _ = testing.rows(store, engineer, run.id or 0)
    assert row.cells[0][0][0].results[0][1], "no answer saw a gold label"


def test_pairs_and_cases_needed_are_counted_by_case_however_many_checks_each_has(
    store: Store, engineer: Person, project: Project
) -> None:
    shouts = ScriptedEngine(lambda messages, model, seed: messages[-1]["content"].upper().replace("SAY", "Say"))
    rows = "".join(f"w{i},contains:{'W' if i < 3 else 'w'}{i},starts-with:Say,ends-with:{i}\n" for i in range(10))
    suite = pasted(store, engineer, project, f"word,__expected1,__expected2,__expected3\n{rows}")
    bodies = ("Say {{word}}", "Now say {{word}}", "Say it: {{word}}")
    run = finished(store, shouts, started(store, engineer, project, suite, bodies))
    found = testing.summary(store, engineer, run.id or 0)
    assert [column.passed.n for column in found.columns] == [10, 10, 10]
    assert [round(column.passed.value, 3) for column in found.columns] == [0.3, 0.0, 0.3]
    second, third = found.pairs
    assert (second.flips.gained, second.flips.lost, second.n) == (0, 3, 10) and second.needed is not None
    assert second.flips.p == pytest.approx(0.25) and second.adjusted == pytest.approx(0.5)
    assert third.needed is None
