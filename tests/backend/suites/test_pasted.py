"""Checks of single cases: promptfoo's columns and tests mean the same here, and a slip of the pen is named with line and field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.suites.checks import BadCheck, parse
from backend.suites.grammar import row_of_cell
from backend.suites.pasted import BadCases, cases_of


@pytest.mark.parametrize(
    ("cell", "row"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        ("refund", {"type": "equals", "value": "refund"}),
        ("not-applicable", {"type": "equals", "value": "not-applicable"}),
        ("Note: it is late", {"type": "equals", "value": "Note: it is late"}),
        ("12:30", {"type": "equals", "value": "12:30"}),
        ("退款:是", {"type": "equals", "value": "退款:是"}),
        ("contains:a: b", {"type": "contains", "value": "a: b"}),
        ("not-icontains: sorry ", {"type": "not-icontains", "value": "sorry"}),
        ("is-json", {"type": "is-json"}),
        ("rouge-n(0.4):a b", {"type": "rouge-n", "value": "a b", "threshold": 0.4}),
        ("levenshtein:kitten", {"type": "levenshtein", "value": "kitten", "threshold": 0.75}),
        ("levenshtein(5):kitten", {"type": "levenshtein", "value": "kitten", "threshold": 5.0}),
        ("contains-any:a, b", {"type": "contains-any", "value": "a, b"}),
        ("grade:Is polite", {"type": "llm-rubric", "value": "Is polite"}),
        ("not-llm-rubric:Is rude", {"type": "not-llm-rubric", "value": "Is rude"}),
        ("equals:contain:x", {"type": "equals", "value": "contain:x"}),
        ("regex:a\nb", {"type": "regex", "value": "a\nb"}),
    ],
)
def test_a_cell_is_read_as_promptfoo_reads_it(cell: str, row: dict[str, Any]) -> None:
    assert row_of_cell(cell, "here") == row
    parse([row])


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("contain:refund", 'here: there is no check "contain". Is "contains" meant?'),
        ("is-jsn", 'Is "is-json" meant?'),
        ("similar(0.8):x", 'there is no check "similar"'),
        ("javascript:output.length", "is code, and code is never run here"),
        ("python:len(output)", "is code"),
        ("not-javascript:x", "is code"),
        ("levenshtein(five):x", "(five) is no number"),
    ],
)
def test_a_cell_that_seems_to_name_a_check_that_is_not_there_is_an_error(cell: str, says: str) -> None:
    with pytest.raises(BadCheck) as caught:
        row_of_cell(cell, "here")
    assert says in str(caught.value)


def test_columns_of_promptfoo_are_checks_and_threshold_of_their_row_alone() -> None:
    text = (
        "question,__expected1,__expected2,__metric,__threshold,__config:__expected1:threshold,__description\n"
        'a,rouge-n:x y,"contains:{{question}}",form,0.5,0.3,first\n'
        "b,,,,,,second\n"
    )
    (first, second), left_out, has_checks = cases_of(text)
    assert first.values == {"question": "a"} and first.threshold == 0.5
    assert first.checks == (
        {"type": "rouge-n", "value": "x y", "threshold": 0.3, "metric": "form"},
        {"type": "contains", "value": "{{question}}", "metric": "form"},
    )
    assert (second.checks, second.threshold) == ((), None)
    assert left_out == ("__description",) and has_checks


def test_json_lines_of_tests_have_asserts() -> None:
    row = {
        "vars": {"q": "a", "n": 3},
        "assert": [{"type": "equals", "value": "b", "weight": 2}],
        "threshold": 1,
        "metadata": {},
    }
    (found,), left_out, has_checks = cases_of(json.dumps(row) + "\n")
    assert (found.values, found.threshold) == ({"q": "a", "n": "3"}, 1.0)
    assert found.checks == ({"type": "equals", "value": "b", "weight": 2.0},)
    assert left_out == ("metadata",) and has_checks
    assert not cases_of("q\na\n").has_checks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("q,__expected\na,b\nc,contain:x", 'Line 3, __expected: there is no check "contain"'),
        ("q,__expected2\na,contains-any:", "Line 2, __expected2 (contains-any): the value is None"),
        ("q,_expected\na,b", 'column "_expected" has one underscore'),
        ("q,__prefix\na,b", 'column "__prefix" is not taken'),
        ("q,__config:__expected2:threshold\na,1", "the column __expected2, which is not there"),
        ("q,__expected,__threshold\na,b,2", "Line 2, threshold: 2 must lie between 0 and 1"),
        ("q,__expected,__threshold\na,b,much", "Line 2, threshold: 'much' is no number"),
        ("__expected\nb", "no variable beside"),
        (
            '{"vars": {"q": "a"}, "assert": [{"type": "equals"}, {"type": "contain"}]}',
            'Line 1, assert 2: there is no check "contain"',
        ),
        ('{"vars": {"q": "a"}, "assert": {}}\n{"vars": {"q": "a"}, "assert": "x"}', 'Line 2: "assert" must be a list'),
        ('{"vars": {"q": ["a", "b"]}}', '"q" must be a text or a number'),
        ('{"vars": {"q": "a"}, "options": {}}', 'Line 1: "options" is not taken'),
        ('{"vars": {"q": "a"}, "assert": [{"type": "javascript", "value": "1"}]}', "Line 1, assert 1"),
    ],
)
def test_a_mistake_is_named_with_line_and_field(text: str, says: str) -> None:
    with pytest.raises(BadCases) as caught:
        cases_of(text)
    assert says in str(caught.value)
