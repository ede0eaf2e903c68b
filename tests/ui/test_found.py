"""What is stored of a cell, why it failed or has no answer, is said in the reader's language, and as it was in English."""

from __future__ import annotations

import json
import re

import pytest

from backend.engines.answers import EngineError
from backend.problem import Phrase, Problem, read_back, stored, stored_text, words_of
from backend.prompts.problem import TemplateProblem
from backend.suites import asking, written
from backend.suites.checks import BadCheck, look
from backend.suites.kinds import KINDS, Given, Told
from backend.suites.place import Place
from ui.strings import STRINGS
from ui.text import Text

CHECKS = """
equals:a
not-equals:a
iequals:it holds 7 words
one-of:a, b
contains:holds
contains:lacking
contains-any:x, y
contains-any:holds, y
contains-all:x, holds
contains-all:It, holds
starts-with:It
starts-with:Not
ends-with:words
ends-with:else
regex:\\d
regex:\\d\\d
levenshtein(2):It holds
levenshtein(200):It holds
similarity:It holds
number:7
number:8
word-count:4
word-count:9
{"type": "length", "value": {"max": 3}}
lines:1
is-refusal
not-is-refusal
finish-reason:length
latency(5)
latency(5000)
tokens:3
perplexity(1)
perplexity-score
is-json
contains-json
json-equals:{"a": 1}
json-fields:{"a": 1}
list-f1:[1]
rouge-n:a b
rouge-2:a b
rouge-l:It holds 7 words
bleu:It holds
gleu:It holds
chrf:It holds
exact-match:It holds
f1:It holds
reward:kind
llm-rubric:Is polite
llm-rubric:Is short
""".strip()
ANSWERS = ["It holds 7 words", "", '{"a": 1}', "[1, 2]", '{"a": NaN}', "It cannot, sorry, i can't help"]
TOLD = {
    "reward:kind": Told(-1.0, None, "kind-1"),
    "llm-rubric:Is polite": asking.verdict_of("no json"),
    "llm-rubric:Is short": asking.verdict_of('{"reason": 1, "score": 2, "pass": 3}'),
}


def in_both(said: str) -> tuple[str, str]:
    """In English and in Chinese, once it was stored and read again."""
    text = Text()
    assert read_back(json.loads(json.dumps(stored(said)))) == read_back(stored_text(said)) == said
    back = read_back(stored_text(said))
    return text.problem(back, "en"), text.problem(back, "zh-CN")


def test_what_every_check_finds_is_said_in_both_languages() -> None:
    seen: set[str] = set()
    for answer in ANSWERS:
        for told in (True, False):
            given = Given(
                answer=answer, seconds=0.1 if told else None, tokens=4 if told else None, told=TOLD if told else {},
                mean_logp=-1.0 if told else None,
            )  # fmt: skip
            for check in written.checks_of(CHECKS):
                found = look(check, given).reason
                seen.add(check.type)
                english, chinese = in_both(found)
                assert english == found, check
                if isinstance(found, Phrase):
                    assert re.search("[\u4e00-\u9fff]", chinese) and not re.search(r"\{\w+}", chinese), (check, chinese)
                else:  # figures and names alone
                    assert re.fullmatch(r'-?[\d.]+( ms)?|JSON|"[^"]*"|length', found), (check, found)
    assert seen >= set(KINDS) - {"icontains", "icontains-any", "icontains-all"}


def test_a_string_of_what_is_found_stands_for_each_that_the_checks_give() -> None:
    names = {key for key in STRINGS if key.startswith("problem.found_")}
    assert len(names) > 50


@pytest.mark.parametrize(
    ("error", "chinese"),
    [
        (EngineError("The engine took too long to answer.", "engine_slow"), "引擎回答超时"),
        (TemplateProblem.undefined("tone", 3), "第 3 行:变量“tone”没有值"),
        (Problem("x", "row_text", row=2, problem=TemplateProblem.undefined("tone", 3)), "第 2 条消息:第 3 行:变量“tone”"),
        (BadCheck("weight is -1; it must not be below 0.", "check_weight", Place("line", 4), value="-1"), "第 4 行:weight"),
        (EngineError("Our provider says no."), "Our provider says no."),
    ],
)  # fmt: skip
def test_a_refusal_that_was_stored_is_said_with_its_place_and_what_is_within_it(error: Problem, chinese: str) -> None:
    said = words_of(error)
    assert said == str(error)
    assert in_both(said)[1].startswith(chinese)


def test_what_was_stored_before_words_had_codes_is_shown_as_it_stands() -> None:
    assert read_back('lacks "a"') == 'lacks "a"'
    assert read_back('{"a": 1}') == '{"a": 1}', "an answer of a provider that happens to be JSON"
    for text in ('{"said": ', '{"said": "a"}', '{"said": "a", "code": "b", "values": 1}'):
        assert read_back(stored_text(text)) == text, "only begins like words with a code"
