"""Files of cases: what each kind gives, values as they are written, and mistakes with their line."""

from __future__ import annotations

import pytest

from backend.exchange.cases_file import cases_in
from backend.suites.pasted import BadCases

CSV = b"\xef\xbb\xbfcode,expected\n007,NO\n"
YAML = b"""# tests
- vars: {code: 007}
  expected: NO
  threshold: 0.5
  assert:
    - type: word-count
      value: 1
"""
CONFIGURATION = b"description: d\nprompts: [x]\ntests:\n  - vars: {code: 007}\n    description: one\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", CSV),
        ("a.JSONL", b'{"code": "007", "expected": "NO"}\n'),
        ("a.json", b'[{"code": "007", "expected": "NO"}]'),
        ("a.yml", b"- code: 007\n  expected: NO\n"),
    ],
)
def test_every_kind_of_file_gives_the_same_case(name: str, data: bytes) -> None:
    (case,) = cases_in(name, data).cases
    assert (case.values, case.expected, case.checks) == ({"code": "007"}, "NO", ())


def test_tests_in_yaml_bring_checks_and_a_threshold_of_their_own() -> None:
    found = cases_in("a.yaml", YAML)
    (case,) = found.cases
    assert (case.values, case.expected, case.threshold, case.line) == ({"code": "007"}, "NO", 0.5, 2)
    assert [(one["type"], one["value"]) for one in case.checks] == [("word-count", 1)] and found.has_checks


def test_of_a_configuration_the_tests_are_taken_and_the_rest_is_named() -> None:
    found = cases_in("a.yaml", CONFIGURATION)
    assert [one.values for one in found.cases] == [{"code": "007"}] and not found.has_checks
    assert set(found.left_out) == {"description", "prompts"}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.exe", b"x", "no file of cases"),
        ("a.yaml", b"- vars: {a: b}\n- vars: {c: d}\n", "Line 2: the variables differ"),
        ("a.yaml", b"- vars: {a: b}\n  provider: x\n", '"provider" is not taken'),
        ("a.yaml", b"- vars: {a: b}\n  assert: [{type: contain}]\n", "Line 1, assert 1"),
        ("a.yaml", b"a: &x b\nc: *x\n", "alias"),
        ("a.yaml", b"a: b\n", "no list of cases"),
        ("a.json", b"[1]", "a case is a table"),
        ("a.csv", b"a,b\nc\n", "Line 2: 1 field,"),
        ("a.csv", b"\xff\xfe\x00", "a.csv"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_taken(name: str, data: bytes, said: str) -> None:
    with pytest.raises(BadCases, match=said):
        cases_in(name, data)
