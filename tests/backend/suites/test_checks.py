"""Every check says yes to what it asks for and no to what it does not; what cannot be read is refused with its place."""

import json
import time
from typing import Any

import pytest

from backend.suites.checks import KEYS, BadCheck, look, parse
from backend.suites.grading import GRADED  # these have tests of their own
from backend.suites.kinds import KINDS, Given

CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [  # a check, an answer that passes, one that fails
    ({"type": "equals", "value": "refund"}, {"answer": " ｒｅｆｕｎｄ\n"}, {"answer": "Refund"}),
    ({"type": "equals", "value": {"a": [1]}}, {"answer": '{"a": [1.0]}'}, {"answer": '{"a": [2]}'}),
    ({"type": "equals"}, {"answer": "yes", "expected": "yes"}, {"answer": "no", "expected": "yes"}),
    ({"type": "iequals", "value": "Refund"}, {"answer": "REFUND"}, {"answer": "refunds"}),
    ({"type": "one-of", "value": 'a, "b, c"'}, {"answer": "B, C"}, {"answer": "b"}),
    ({"type": "contains", "value": "退款"}, {"answer": "可以退款。"}, {"answer": "可以退 款。"}),
    ({"type": "contains", "value": "{{order}}"}, {"answer": "order 7", "values": {"order": "7"}}, {"answer": "8", "values": {"order": "7"}}),
    ({"type": "not-contains", "value": "sorry"}, {"answer": "done"}, {"answer": "sorry"}),
    ({"type": "icontains", "value": "Sorry"}, {"answer": "so SORRY"}, {"answer": "fine"}),
    ({"type": "contains-any", "value": ["a", "b"]}, {"answer": "xb"}, {"answer": "xc"}),
    ({"type": "icontains-any", "value": "A,B"}, {"answer": "xb"}, {"answer": "xc"}),
    ({"type": "contains-all", "value": "a,b"}, {"answer": "b a"}, {"answer": "b"}),
    ({"type": "icontains-all", "value": ["A", "b"]}, {"answer": "B a"}, {"answer": "B"}),
    ({"type": "starts-with", "value": "Dear"}, {"answer": "Dear you"}, {"answer": "Oh dear"}),
    ({"type": "ends-with", "value": "."}, {"answer": "Yes. "}, {"answer": "Yes"}),
    ({"type": "regex", "value": r"\b\d{6}\b"}, {"answer": "code 600519"}, {"answer": "code 60051"}),
    ({"type": "levenshtein", "value": "kitten", "threshold": 3}, {"answer": "sitting"}, {"answer": "knitting it"}),
    ({"type": "similarity", "value": "kitten", "threshold": 0.5}, {"answer": "sitten"}, {"answer": "dog"}),
    ({"type": "number", "value": 32000}, {"answer": "about 3.2万"}, {"answer": "about 3.2"}),
    ({"type": "number", "threshold": 0.1}, {"answer": "it is 1,050", "expected": "1000"}, {"answer": "none", "expected": "1000"}),
    ({"type": "word-count", "value": {"max": 3}}, {"answer": "one two three"}, {"answer": "退款要三天"}),
    ({"type": "word-count", "value": 5}, {"answer": "退款要三天"}, {"answer": "退款"}),
    ({"type": "length", "value": {"min": 2}}, {"answer": "ab"}, {"answer": "a"}),
    ({"type": "lines", "value": {"min": 2, "max": 2}}, {"answer": "a\n\nb\n"}, {"answer": "a"}),
    ({"type": "is-refusal"}, {"answer": "I’m sorry, but I can't do that."}, {"answer": "Here it is."}),
    ({"type": "is-refusal"}, {"answer": "抱歉，我无法提供。"}, {"answer": "给您。"}),
    ({"type": "finish-reason", "value": "stop"}, {"answer": "a"}, {"answer": "a", "finish_reason": "length"}),
    ({"type": "latency", "threshold": 1000}, {"answer": "a", "seconds": 0.5}, {"answer": "a", "seconds": 2.0}),
    ({"type": "tokens", "value": {"max": 3}}, {"answer": "a", "tokens": 3}, {"answer": "a", "tokens": 4}),
    ({"type": "perplexity", "threshold": 3}, {"answer": "a", "mean_logp": -1.0}, {"answer": "a", "mean_logp": -2.0}),
    ({"type": "perplexity-score"}, {"answer": "a", "mean_logp": 0.0}, {"answer": "a", "mean_logp": -1.0}),
    ({"type": "is-json"}, {"answer": '```json\n{"a": 1}\n```'}, {"answer": "{'a': 1}"}),
    ({"type": "is-json", "value": {"required": ["a"]}}, {"answer": '{"a": 1}'}, {"answer": '{"b": 1}'}),
    ({"type": "contains-json", "value": {"type": "array"}}, {"answer": 'so {"a": 1} and [2]'}, {"answer": 'so {"a": 1}'}),
    ({"type": "json-equals", "value": {"a": 1, "b": 2}}, {"answer": '{"b": 2, "a": 1}'}, {"answer": '{"a": 1}'}),
    ({"type": "json-fields", "value": {"a": {"b": "X"}, "c": 2}}, {"answer": '{"c": 2.0, "a": {"b": " x"}}'}, {"answer": '{"c": 2}'}),
    ({"type": "list-f1", "threshold": 0.6}, {"answer": '[["a","r","b"],["c","r","d"]]', "expected": '[["A","r","b"]]'}, {"answer": "[]", "expected": '["a"]'}),
    ({"type": "rouge-n", "value": "the cat sat"}, {"answer": "The cat sat"}, {"answer": "a dog ran"}),
    ({"type": "rouge-2", "value": "the cat sat"}, {"answer": "The cat sat"}, {"answer": "sat cat the"}),
    ({"type": "rouge-l", "value": "三天内退款"}, {"answer": "三天内退款"}, {"answer": "款退内天三"}),
    ({"type": "bleu", "value": "the cat sat on the mat"}, {"answer": "the cat sat on the mat"}, {"answer": "a dog"}),
    ({"type": "bleu", "value": "我们将在三天之内退款"}, {"answer": "我们将在三天之内退款"}, {"answer": "请稍候"}),
    ({"type": "gleu", "value": "the cat sat"}, {"answer": "the cat sat"}, {"answer": "a dog ran"}),
    ({"type": "chrf", "value": "the cat sat"}, {"answer": "the cat sat"}, {"answer": "zzz"}),
    ({"type": "exact-match", "value": "The Eiffel Tower!"}, {"answer": "eiffel tower"}, {"answer": "eiffel"}),
    ({"type": "f1", "value": "the Eiffel Tower", "threshold": 0.6}, {"answer": "Eiffel"}, {"answer": "Paris"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "good", "bad"), CASES, ids=lambda one: one.get("type", "") if "type" in one else "")
def test_a_check_knows_right_from_wrong(row: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]) -> None:
    (check,) = parse([row])
    yes, no = look(check, Given(**good)), look(check, Given(**bad))
    assert yes.passed and not no.passed and yes.reason and no.reason
    assert 0 <= no.score <= yes.score <= 1
    other = {**row, "type": row["type"].removeprefix("not-") if check.is_negated else f"not-{row['type']}"}
    (negated,) = parse([other])
    assert not look(negated, Given(**good)).passed


def test_every_kind_is_tried_above() -> None:
    assert {row["type"].removeprefix("not-") for row, _, _ in CASES} == set(KINDS) - set(GRADED) and len(KINDS) >= 25


def test_a_check_is_written_as_it_was_read() -> None:
    rows = [{"type": "not-regex", "value": "a+", "weight": 2.5, "metric": "form"}, {"type": "bleu", "threshold": 0.25}]
    assert [check.as_row() for check in parse(rows)] == rows


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"type": "contain", "value": "x"}, 'no check "contain"'),
        ({"type": "contains", "values": "x"}, "no setting values"),
        ({"type": "contains-any"}, "must be a list of texts"),
        ({"type": "regex", "value": "("}, "must be a regular expression"),
        ({"type": "is-json", "value": {"type": 7}}, "must be a JSON schema"),
        ({"type": "equals", "threshold": "high"}, "threshold is 'high'"),
        ({"type": "equals", "weight": -1}, "must not be below 0"),
        ({"type": "word-count", "value": {"least": 1}}, "must be a number"),
        ("contains:x", "is no table"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(row: Any, says: str) -> None:
    with pytest.raises(BadCheck, match="Check 2") as caught:
        parse([{"type": "is-json"}, row])
    assert says in str(caught.value)
    assert set(KEYS) >= {"type", "value"}


def test_a_value_is_filled_in_once() -> None:
    (check,) = parse([{"type": "contains", "value": "{{x}}"}])
    assert look(check, Given(answer="{{expected}}", expected="secret", values={"x": "{{expected}}"})).passed


def test_a_variable_that_is_not_there_fails_and_is_named() -> None:
    (check,) = parse([{"type": "contains", "value": "{{order}}"}])
    found = look(check, Given(answer="7"))
    assert not found.passed and "order" in found.reason


def test_an_expression_that_runs_wild_is_stopped() -> None:
    (check,) = parse([{"type": "regex", "value": "(a|a)*$"}])
    start = time.thread_time()  # what others do on this core does not count
    found = look(check, Given(answer="a" * 40 + "!" * 2 + "a" * 40 + "b"))
    assert time.thread_time() - start < 2 and (found.passed or "took longer" in found.reason)
    (hard,) = parse([{"type": "regex", "value": "^(a|a)*b$"}])
    found = look(hard, Given(answer="a" * 60))
    assert not found.passed


def test_deep_and_broken_json_is_an_answer_that_fails_and_no_error() -> None:
    (check,) = parse([{"type": "is-json"}])
    for answer in ("[" * 100_000, '{"a": NaN}', "", "{", json.dumps("text")[:-1]):
        found = look(check, Given(answer=answer))
        assert not found.passed and "no JSON" in found.reason
