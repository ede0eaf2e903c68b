"""Checks that measure how far two texts share words: ROUGE, BLEU, chrF, and SQuAD's exact match and F1."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any

from rapidfuzz.distance import LCSseq

from backend.suites.kinds import Given, Outcome, graded, is_text_or_nothing, judged, kind, wanted
from backend.suites.texts import EXPECTED, MATCHES, folded, is_not, words

ROUGE, BLEU, CHRF = 0.75, 0.5, 0.5  # what passes unless a threshold is given; the first two are promptfoo's
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation + "，。！？；：、（）《》“”‘’【】…"), None)


def ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def f1(shared: float, ours: float, right: float) -> float:
    return 2 * shared / (ours + right) if ours + right else 0.0


def rouge(answer: str, right: str, n: int) -> float:
    """ROUGE-n F1 (Lin 2004): shared n-grams over both texts'; words as ``words`` cuts them, so Chinese by character."""
    a, b = ngrams(words(answer), n), ngrams(words(right), n)
    return f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def rouge_l(answer: str, right: str) -> float:
    """ROUGE-L F1 (Lin 2004): the longest common subsequence of words."""
    a, b = words(answer), words(right)
    return f1(LCSseq.similarity(a, b), len(a), len(b))


def gleu(answer: str, right: str) -> float:
    """Sentence GLEU (Wu et al. 2016, section 4.3): the smaller of precision and recall over n-grams of one to four words."""
    a, b = words(answer), words(right)
    every = [(ngrams(a, n), ngrams(b, n)) for n in range(1, 5)]
    shared = sum(sum((x & y).values()) for x, y in every)
    most = max(sum(sum(x.values()) for x, _ in every), sum(sum(y.values()) for _, y in every))
    return shared / most if most else 0.0


def squad(text: str) -> list[str]:
    """As SQuAD's scorer reads an answer: lower case, no punctuation, no articles; Chinese by character (Rajpurkar et al. 2016)."""
    bare = folded(text).translate(_PUNCTUATION)
    return words(_ARTICLES.sub(" ", bare))


@kind("rouge-n", EXPECTED, is_text_or_nothing)
def rouge_n(given: Given, value: Any, threshold: float | None) -> Outcome:
    """ROUGE-1."""
    score = rouge(given.answer, wanted(given, value), 1)
    return graded(score, ROUGE if threshold is None else threshold, "ROUGE-1")


@kind("rouge-2", EXPECTED, is_text_or_nothing)
def rouge_2(given: Given, value: Any, threshold: float | None) -> Outcome:
    score = rouge(given.answer, wanted(given, value), 2)
    return graded(score, ROUGE if threshold is None else threshold, "ROUGE-2")


@kind("rouge-l", EXPECTED, is_text_or_nothing)
def rouge_longest(given: Given, value: Any, threshold: float | None) -> Outcome:
    score = rouge_l(given.answer, wanted(given, value))
    return graded(score, ROUGE if threshold is None else threshold, "ROUGE-L")


@kind("bleu", EXPECTED, is_text_or_nothing)
def bleu(given: Given, value: Any, threshold: float | None) -> Outcome:
    """Sentence BLEU-4 with exponential smoothing, by sacrebleu; Chinese by its own tokeniser."""
    import sacrebleu  # a third of a second: only suites that ask for it pay it

    right = wanted(given, value)
    cut = "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in right) else "13a"
    score = sacrebleu.sentence_bleu(given.answer, [right], tokenize=cut).score / 100
    return graded(score, BLEU if threshold is None else threshold, "BLEU")


@kind("gleu", EXPECTED, is_text_or_nothing)
def sentence_gleu(given: Given, value: Any, threshold: float | None) -> Outcome:
    return graded(gleu(given.answer, wanted(given, value)), BLEU if threshold is None else threshold, "GLEU")


@kind("chrf", EXPECTED, is_text_or_nothing)
def chrf(given: Given, value: Any, threshold: float | None) -> Outcome:
    """Sentence chrF by sacrebleu (Popović 2015): n-grams of letters, which need no words."""
    import sacrebleu

    score = sacrebleu.sentence_chrf(given.answer, [wanted(given, value)]).score / 100
    return graded(score, CHRF if threshold is None else threshold, "chrF")


@kind("exact-match", EXPECTED, is_text_or_nothing)
def exact_match(given: Given, value: Any, _: float | None) -> Outcome:
    """Equal as SQuAD's scorer reads texts."""
    right = wanted(given, value)
    return judged(squad(given.answer) == squad(right), MATCHES, is_not(right))


@kind("f1", EXPECTED, is_text_or_nothing)
def squad_f1(given: Given, value: Any, threshold: float | None) -> Outcome:
    """F1 over words as SQuAD's scorer reads texts."""
    a, b = Counter(squad(given.answer)), Counter(squad(wanted(given, value)))
    score = f1(sum((a & b).values()), sum(a.values()), sum(b.values())) if a or b else 1.0
    return graded(score, 0.5 if threshold is None else threshold, "F1")
