"""Checks and cases as text: what was meant is what is read, and a mistake is named with its line."""

import pytest

from backend.suites.checks import BadCheck, parse
from backend.suites.pasted import BadCases, cases_of
from backend.suites.written import checks_of, line_of


def test_a_line_is_a_check_as_promptfoo_writes_it() -> None:
    found = checks_of(
        'contains:refund\n\n# a remark\nnot-icontains:sorry: no\nlevenshtein(3):kitten\nis-json\nword-count:{"max": 5}\n'
    )
    assert [check.as_row() for check in found] == [
        {"type": "contains", "value": "refund"},
        {"type": "not-icontains", "value": "sorry: no"},
        {"type": "levenshtein", "value": "kitten", "threshold": 3.0},
        {"type": "is-json"},
        {"type": "word-count", "value": {"max": 5}},
    ]


def test_a_line_may_be_the_check_as_json() -> None:
    assert checks_of('{"type": "equals", "value": "a", "weight": 2}')[0].weight == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("is-json\ncontain:x", 'Line 2: there is no check "contain"'),
        ("contains-any", "Line 1 (contains-any): the value is None"),
        ("\n{broken", "Line 2: no JSON"),
        ("levenshtein(.):a", "Line 1: (.) is no number"),
    ],
)
def test_a_mistake_in_a_check_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BadCheck) as caught:
        checks_of(text)
    assert says in str(caught.value)


def test_every_check_is_written_as_a_line_that_reads_back() -> None:
    rows = [
        {"type": "contains", "value": "a: b"},
        {"type": "not-regex", "value": "^x$"},
        {"type": "contains-any", "value": ["a", "b, c"]},
        {"type": "equals", "value": "two\nlines", "weight": 0.5, "metric": "form"},
        {"type": "bleu", "threshold": 0.3},
        {"type": "length", "value": {"min": 1}},
        {"type": "contains", "value": " spaced "},
    ]
    for check in parse(rows):
        assert checks_of(line_of(check)) == (check,)
    assert line_of(parse(rows)[0]) == "contains:a: b"


def test_csv_has_a_header_and_an_expected_answer() -> None:
    found, _, _ = cases_of('\ufeffinput,expected\n"Where, oh ""where""?",here\n退款,\n')
    assert [(one.line, one.values, one.expected) for one in found] == [
        (2, {"input": 'Where, oh "where"?'}, "here"),
        (3, {"input": "退款"}, None),
    ]


def test_json_lines_are_cases_too() -> None:
    (found,) = cases_of('\n{"input": "a", "n": 3, "expected": "b"}\n').cases
    assert (found.line, found.values, found.expected) == (2, {"input": "a", "n": "3"}, "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no cases"),
        ("input,input\na,b", 'column "input" is there twice'),
        ("input,\na,b", "a column has no name"),
        ("expected\na", "no variable beside"),
        ("input,b\na", "Line 2: 1 field, but the header has 2"),
        ('input\n"a"b', "Line 2"),
        ("input,b\n,", "Line 2: every variable is empty"),
        ('{"a": 1}\n{"b": 1}', "Line 2: the variables differ"),
        ('{"a": [1]}', '"a" must be a text or a number'),
        ('{"a": 1}\n[1]', "Line 2: a case is a table"),
        ('{"a": 1}\n{', "Line 2: no JSON"),
    ],
)
def test_a_mistake_in_cases_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BadCases) as caught:
        cases_of(text)
    assert says in str(caught.value)
