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
from backend.suites.structured import SAME_JSON, read

REGEX_SECONDS = 0.2
TEXT = Phrase("a text", "asks_text")
EXPECTED = Phrase("a text, or nothing: the expected answer of the case", "asks_expected")
SEVERAL = Phrase("a list of texts, or texts with commas between", "asks_several")
LIMIT = Phrase('a number, or {"min": ..., "max": ...}', "asks_limit")
NO_LOGPS = Phrase("the engine told no log-probabilities", "found_no_logps")
EMPTY = Phrase("empty", "found_empty")
EQUAL, MATCHES = Phrase("equal", "found_equal"), Phrase("matches", "found_matches")
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
        return judged(read(given.answer) == value, SAME_JSON, Phrase("another JSON, or none", "found_other_json"))
    right = wanted(given, value)
    return judged(plain(given.answer) == plain(right), EQUAL, is_not(right))


@kind("iequals", EXPECTED, is_text_or_nothing)
def iequals(given: Given, value: Any, _: float | None) -> Outcome:
    """Equal but for upper and lower case."""
    right = wanted(given, value)
    return judged(folded(given.answer) == folded(right), EQUAL, is_not(right))


@kind("one-of", SEVERAL, is_some)
def one_of(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(
        folded(given.answer) in map(folded, several(value)),
        Phrase("one of them", "found_one_of"),
        Phrase("none of them", "found_none_of"),
    )


@kind("contains", EXPECTED, is_text_or_nothing)
def contains(given: Given, value: Any, _: float | None) -> Outcome:
    right = wanted(given, value)
    return judged(plain(right) in plain(given.answer), holds(right), lacks(right))


@kind("icontains", EXPECTED, is_text_or_nothing)
def icontains(given: Given, value: Any, _: float | None) -> Outcome:
    right = wanted(given, value)
    return judged(folded(right) in folded(given.answer), holds(right), lacks(right))


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
    return judged(
        plain(given.answer).startswith(plain(str(value))),
        Phrase("begins so", "found_begins"),
        Phrase("begins otherwise", "found_begins_not"),
    )


@kind("ends-with", TEXT, is_text)
def ends_with(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(
        plain(given.answer).endswith(plain(str(value))),
        Phrase("ends so", "found_ends"),
        Phrase("ends otherwise", "found_ends_not"),
    )


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
            Phrase(
                f"the expression took longer than {REGEX_SECONDS} s; write it so that it cannot backtrack",
                "found_slow_pattern",
                seconds=REGEX_SECONDS,
            )
        ) from None
    return judged(found is not None, MATCHES, Phrase("does not match", "found_matches_not"))


@kind("levenshtein", EXPECTED, is_text_or_nothing)
def levenshtein(given: Given, value: Any, threshold: float | None) -> Outcome:
    """Letters to insert, delete or change; passes up to the threshold, which is 5 unless given."""
    most = 5.0 if threshold is None else threshold
    right = plain(wanted(given, value))
    distance = Levenshtein.distance(plain(given.answer), right)
    apart = Phrase(f"{distance} letters apart", "found_apart", n=distance)
    return judged(distance <= most, apart, _more(apart, most))


@kind("similarity", EXPECTED, is_text_or_nothing)
def similarity(given: Given, value: Any, threshold: float | None) -> Outcome:
    """1 less the share of letters to change."""
    score = Levenshtein.normalized_similarity(folded(given.answer), folded(wanted(given, value)))
    return graded(score, 0.75 if threshold is None else threshold, Phrase("similarity", "found_similarity"))


@kind(
    "number",
    Phrase("a number, or nothing: the expected answer of the case", "asks_expected_number"),
    lambda v: v is None or is_number(v) or is_text(v),
)
def number(given: Given, value: Any, threshold: float | None) -> Outcome:
    """The last number of the answer, within the threshold (relative, 1e-6 unless given). 1,234.5 and 3.2万 are understood."""
    right, found = last_number(wanted(given, value)), last_number(given.answer)
    if right is None:
        raise ValueError(Phrase("what to compare with is no number", "found_no_number_asked"))
    if found is None:
        return Outcome(0.0, False, Phrase("the answer holds no number", "found_no_number"))
    near = math.isclose(found, right, rel_tol=1e-6 if threshold is None else threshold, abs_tol=1e-12)
    return judged(near, f"{found:g}", _other(f"{found:g}", f"{right:g}"))


@kind("word-count", LIMIT, is_limit)
def word_count(given: Given, value: Any, _: float | None) -> Outcome:
    """Words; of Chinese, characters."""
    return _within(len(words(given.answer)), value, Phrase("words", "found_words"))


@kind("length", LIMIT, is_limit)
def length(given: Given, value: Any, _: float | None) -> Outcome:
    return _within(len(given.answer), value, Phrase("characters", "found_characters"))


@kind("lines", LIMIT, is_limit)
def lines(given: Given, value: Any, _: float | None) -> Outcome:
    """Lines that are not empty."""
    return _within(sum(bool(line.strip()) for line in given.answer.splitlines()), value, Phrase("lines", "found_lines"))


@kind("is-refusal")
def is_refusal(given: Given, value: Any, _: float | None) -> Outcome:
    """Holds a phrase with which models decline, in English or Chinese."""
    text = folded(given.answer).replace("\u2019", "'")
    found = next((phrase for phrase in REFUSALS if folded(phrase) in text), None)
    return judged(
        found is not None or not text, f'"{found}"' if found else EMPTY, Phrase("no refusal", "found_no_refusal")
    )


@kind("finish-reason", TEXT, is_text)
def finish_reason(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(given.finish_reason == value, str(value), _other(given.finish_reason, str(value)))


@kind(
    "latency",
    Phrase("a number of milliseconds, or a threshold", "asks_milliseconds"),
    lambda v: v is None or is_number(v),
)
def latency(given: Given, value: Any, threshold: float | None) -> Outcome:
    """At most so many milliseconds, by the threshold as promptfoo writes it or by the value."""
    most = threshold if threshold is not None else value
    if most is None:
        raise ValueError(Phrase("give the most milliseconds as the threshold", "found_no_most"))
    if given.seconds is None:
        raise ValueError(Phrase("the engine did not tell how long this took", "found_no_seconds"))
    took = f"{given.seconds * 1000:.0f} ms"
    return judged(given.seconds * 1000 <= most, took, _more(took, most))


@kind("tokens", LIMIT, is_limit)
def tokens(given: Given, value: Any, _: float | None) -> Outcome:
    if given.tokens is None:
        raise ValueError(Phrase("the engine did not tell how many tokens this has", "found_no_tokens"))
    return _within(given.tokens, value, Phrase("tokens", "found_tokens"))


@kind("perplexity", Phrase("a number, or a threshold", "asks_number"), lambda v: v is None or is_number(v))
def perplexity(given: Given, value: Any, threshold: float | None) -> Outcome:
    """At most this, of the answer by the model that gave it."""
    most = threshold if threshold is not None else value
    if given.mean_logp is None or most is None:
        largest = Phrase("give the largest as the threshold", "found_no_largest")
        raise ValueError(NO_LOGPS if most is not None else largest)
    found = math.exp(-given.mean_logp)
    return judged(found <= most, f"{found:.2f}", _more(f"{found:.2f}", most))


@kind("perplexity-score")
def perplexity_score(given: Given, value: Any, threshold: float | None) -> Outcome:
    """1 / (1 + perplexity)."""
    if given.mean_logp is None:
        raise ValueError(NO_LOGPS)
    return graded(
        1 / (1 + math.exp(-given.mean_logp)), 0.5 if threshold is None else threshold, Phrase("score", "found_score")
    )


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
    return judged(found is not None, holds(found or ""), Phrase("holds none of them", "found_holds_none"))


def _all(text: str, of: list[str]) -> Outcome:
    missing = [one for one in of if one not in text]
    names = ", ".join(_short(one) for one in missing)
    return judged(
        not missing, Phrase("holds all of them", "found_holds_all"), Phrase(f"lacks {names}", "found_lacks", text=names)
    )


def _within(count: int, limit: Any, what: str) -> Outcome:
    found = Phrase(f"{count} {what}", "found_count", n=count, what=what)
    if is_number(limit):
        return judged(count == limit, found, _other(found, f"{limit:g}"))
    least, most = limit.get("min", 0), limit.get("max", math.inf)
    wanted = Phrase(f"{least:g} to {most:g}", "found_range", least=f"{least:g}", most=f"{most:g}")
    return judged(least <= count <= most, found, _other(found, wanted))


def is_not(right: str) -> Phrase:
    return Phrase(f'not "{_short(right)}"', "found_is_not", text=_short(right))


def holds(text: str) -> Phrase:
    return Phrase(f'holds "{_short(text)}"', "found_holds", text=_short(text))


def lacks(text: str) -> Phrase:
    return Phrase(f'lacks "{_short(text)}"', "found_lacks_text", text=_short(text))


def _other(found: str, wanted: str) -> Phrase:
    return Phrase(f"{found}, not {wanted}", "found_other", found=found, wanted=wanted)


def _more(found: str, most: float) -> Phrase:
    return Phrase(f"{found}, more than {most:g}", "found_more", found=found, most=f"{most:g}")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
