"""Checks of the text itself."""

from __future__ import annotations

import csv
import math
import unicodedata
from typing import Any

import regex
from rapidfuzz.distance import Levenshtein

from backend.problem import Phrase
from backend.suites.kinds import (
    Given,
    Outcome,
    graded,
    is_limit,
    is_number,
    is_some,
    is_text,
    is_text_or_nothing,
    judged,
    kind,
    wanted,
)
from backend.suites.structured import read

REGEX_SECONDS = 0.2
TEXT = Phrase("a text", "asks_text")
EXPECTED = Phrase("a text, or nothing: the expected answer of the case", "asks_expected")
SEVERAL = Phrase("a list of texts, or texts with commas between", "asks_several")
LIMIT = Phrase('a number, or {"min": ..., "max": ...}', "asks_limit")
REFUSALS = (
    "i can't help", "i cannot help", "i can't assist", "i cannot assist", "i'm not able to", "i am not able to",
    "i'm unable to", "i am unable to", "i won't be able to", "i must decline", "as an ai", "i can't provide",
    "i cannot provide", "i'm sorry, but i can", "sorry, i can", "i can't comply", "i cannot comply",
    "我不能", "我无法", "无法提供", "不能提供", "无法协助", "作为一个人工智能", "作为人工智能", "抱歉，我", "抱歉,我",
)  # fmt: skip  # written by us; a phrase of a refusal, not a proof


def plain(text: str) -> str:
    """Compatibility forms unified (full-width digits and letters), outer white space gone."""
    return unicodedata.normalize("NFKC", text).strip()


def folded(text: str) -> str:
    return plain(text).casefold()


@kind("equals", EXPECTED)
def equals(given: Given, value: Any, _: float | None) -> Outcome:
    """Equal texts, or equal JSON where the value is a table or a list."""
    if isinstance(value, dict | list):
        return judged(read(given.answer) == value, "the same JSON", "another JSON, or none")
    right = wanted(given, value)
    return judged(plain(given.answer) == plain(right), "equal", f'not "{_short(right)}"')


@kind("iequals", EXPECTED, is_text_or_nothing)
def iequals(given: Given, value: Any, _: float | None) -> Outcome:
    """Equal but for upper and lower case."""
    right = wanted(given, value)
    return judged(folded(given.answer) == folded(right), "equal", f'not "{_short(right)}"')


@kind("one-of", SEVERAL, is_some)
def one_of(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(folded(given.answer) in map(folded, several(value)), "one of them", "none of them")


@kind("contains", EXPECTED, is_text_or_nothing)
def contains(given: Given, value: Any, _: float | None) -> Outcome:
    right = wanted(given, value)
    return judged(plain(right) in plain(given.answer), f'holds "{_short(right)}"', f'lacks "{_short(right)}"')


@kind("icontains", EXPECTED, is_text_or_nothing)
def icontains(given: Given, value: Any, _: float | None) -> Outcome:
    right = wanted(given, value)
    return judged(folded(right) in folded(given.answer), f'holds "{_short(right)}"', f'lacks "{_short(right)}"')


@kind("contains-any", SEVERAL, is_some)
def contains_any(given: Given, value: Any, _: float | None) -> Outcome:
    return _any(plain(given.answer), [plain(text) for text in several(value)])


@kind("icontains-any", SEVERAL, is_some)
def icontains_any(given: Given, value: Any, _: float | None) -> Outcome:
    return _any(folded(given.answer), [folded(text) for text in several(value)])


@kind("contains-all", SEVERAL, is_some)
def contains_all(given: Given, value: Any, _: float | None) -> Outcome:
    return _all(plain(given.answer), [plain(text) for text in several(value)])


@kind("icontains-all", SEVERAL, is_some)
def icontains_all(given: Given, value: Any, _: float | None) -> Outcome:
    return _all(folded(given.answer), [folded(text) for text in several(value)])


@kind("starts-with", TEXT, is_text)
def starts_with(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(plain(given.answer).startswith(plain(str(value))), "begins so", "begins otherwise")


@kind("ends-with", TEXT, is_text)
def ends_with(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(plain(given.answer).endswith(plain(str(value))), "ends so", "ends otherwise")


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(regex.compile(value) or True)
    except regex.error:
        return False


@kind("regex", Phrase("a regular expression", "asks_pattern"), _is_pattern)
def matches(given: Given, value: Any, _: float | None) -> Outcome:
    """Found anywhere. An expression that takes longer than a fifth of a second is stopped."""
    try:
        found = regex.search(value, given.answer, timeout=REGEX_SECONDS)
    except TimeoutError:
        raise ValueError(
            f"the expression took longer than {REGEX_SECONDS} s; write it so that it cannot backtrack"
        ) from None
    return judged(found is not None, "matches", "does not match")


@kind("levenshtein", EXPECTED, is_text_or_nothing)
def levenshtein(given: Given, value: Any, threshold: float | None) -> Outcome:
    """Letters to insert, delete or change; passes up to the threshold, which is 5 unless given."""
    most = 5.0 if threshold is None else threshold
    right = plain(wanted(given, value))
    distance = Levenshtein.distance(plain(given.answer), right)
    return judged(distance <= most, f"{distance} letters apart", f"{distance} letters apart, more than {most:g}")


@kind("similarity", EXPECTED, is_text_or_nothing)
def similarity(given: Given, value: Any, threshold: float | None) -> Outcome:
    """1 less the share of letters to change."""
    score = Levenshtein.normalized_similarity(folded(given.answer), folded(wanted(given, value)))
    return graded(score, 0.75 if threshold is None else threshold, "similarity")


@kind(
    "number",
    Phrase("a number, or nothing: the expected answer of the case", "asks_expected_number"),
    lambda v: v is None or is_number(v) or is_text(v),
)
def number(given: Given, value: Any, threshold: float | None) -> Outcome:
    """The last number of the answer, within the threshold (relative, 1e-6 unless given). 1,234.5 and 3.2万 are understood."""
    right, found = last_number(wanted(given, value)), last_number(given.answer)
    if right is None:
        raise ValueError("what to compare with is no number")
    if found is None:
        return Outcome(0.0, False, "the answer holds no number")
    near = math.isclose(found, right, rel_tol=1e-6 if threshold is None else threshold, abs_tol=1e-12)
    return judged(near, f"{found:g}", f"{found:g}, not {right:g}")


@kind("word-count", LIMIT, is_limit)
def word_count(given: Given, value: Any, _: float | None) -> Outcome:
    """Words; of Chinese, characters."""
    return _within(len(words(given.answer)), value, "words")


@kind("length", LIMIT, is_limit)
def length(given: Given, value: Any, _: float | None) -> Outcome:
    return _within(len(given.answer), value, "characters")


@kind("lines", LIMIT, is_limit)
def lines(given: Given, value: Any, _: float | None) -> Outcome:
    """Lines that are not empty."""
    return _within(sum(bool(line.strip()) for line in given.answer.splitlines()), value, "lines")


@kind("is-refusal")
def is_refusal(given: Given, value: Any, _: float | None) -> Outcome:
    """Holds a phrase with which models decline, in English or Chinese."""
    text = folded(given.answer).replace("\u2019", "'")
    found = next((phrase for phrase in REFUSALS if folded(phrase) in text), None)
    return judged(found is not None or not text, f'"{found}"' if found else "empty", "no refusal")


@kind("finish-reason", TEXT, is_text)
def finish_reason(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(given.finish_reason == value, str(value), f"{given.finish_reason}, not {value}")


@kind(
    "latency",
    Phrase("a number of milliseconds, or a threshold", "asks_milliseconds"),
    lambda v: v is None or is_number(v),
)
def latency(given: Given, value: Any, threshold: float | None) -> Outcome:
    """At most so many milliseconds, by the threshold as promptfoo writes it or by the value."""
    most = threshold if threshold is not None else value
    if most is None:
        raise ValueError("give the most milliseconds as the threshold")
    if given.seconds is None:
        raise ValueError("the engine did not tell how long this took")
    return judged(
        given.seconds * 1000 <= most,
        f"{given.seconds * 1000:.0f} ms",
        f"{given.seconds * 1000:.0f} ms, more than {most:g}",
    )


@kind("tokens", LIMIT, is_limit)
def tokens(given: Given, value: Any, _: float | None) -> Outcome:
    if given.tokens is None:
        raise ValueError("the engine did not tell how many tokens this has")
    return _within(given.tokens, value, "tokens")


@kind("perplexity", Phrase("a number, or a threshold", "asks_number"), lambda v: v is None or is_number(v))
def perplexity(given: Given, value: Any, threshold: float | None) -> Outcome:
    """At most this, of the answer by the model that gave it."""
    most = threshold if threshold is not None else value
    if given.mean_logp is None or most is None:
        raise ValueError(
            "the engine told no log-probabilities" if most is not None else "give the largest as the threshold"
        )
    found = math.exp(-given.mean_logp)
    return judged(found <= most, f"{found:.2f}", f"{found:.2f}, more than {most:g}")


@kind("perplexity-score")
def perplexity_score(given: Given, value: Any, threshold: float | None) -> Outcome:
    """1 / (1 + perplexity)."""
    if given.mean_logp is None:
        raise ValueError("the engine told no log-probabilities")
    return graded(1 / (1 + math.exp(-given.mean_logp)), 0.5 if threshold is None else threshold, "score")


def several(value: Any) -> list[str]:
    """Of a list its texts; of a text what stands between its commas, where "a, b" in double quotes is one."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [part.strip() for part in next(csv.reader([value], skipinitialspace=True), []) if part.strip()]


def words(text: str) -> list[str]:
    """Runs of letters and digits; Chinese, Japanese and Korean characters each for itself."""
    found: list[str] = regex.findall(
        r"\p{Han}|\p{Hiragana}|\p{Katakana}|\p{Hangul}|[\p{L}\p{M}\p{N}_'’]+", folded(text).replace("'", "'")
    )
    return found


_NUMBER = regex.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?)\s*(万|亿|%)?", regex.IGNORECASE)
_TIMES = {"万": 1e4, "亿": 1e8, "%": 0.01, None: 1.0, "": 1.0}


def last_number(text: str) -> float | None:
    found = _NUMBER.findall(plain(str(text)))
    if not found:
        return None
    digits, unit = found[-1]
    return float(digits.replace(",", "")) * _TIMES[unit]


def _any(text: str, of: list[str]) -> Outcome:
    found = next((one for one in of if one in text), None)
    return judged(found is not None, f'holds "{_short(found or "")}"', "holds none of them")


def _all(text: str, of: list[str]) -> Outcome:
    missing = [one for one in of if one not in text]
    return judged(not missing, "holds all of them", f"lacks {', '.join(_short(one) for one in missing)}")


def _within(count: int, limit: Any, what: str) -> Outcome:
    if is_number(limit):
        return judged(count == limit, f"{count} {what}", f"{count} {what}, not {limit:g}")
    least, most = limit.get("min", 0), limit.get("max", math.inf)
    return judged(least <= count <= most, f"{count} {what}", f"{count} {what}, not {least:g} to {most:g}")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
