"""ROUGE, GLEU and SQuAD's scores are those of their papers' formulas, worked out by hand."""

import pytest

from backend.suites.overlap import gleu, rouge, rouge_l, squad


def test_rouge_counts_shared_ngrams_of_both() -> None:
    answer, right = "police kill the gunman", "police killed the gunman"
    assert rouge(answer, right, 1) == pytest.approx(3 / 4)
    assert rouge(answer, right, 2) == pytest.approx(1 / 3)
    assert rouge_l(answer, right) == pytest.approx(3 / 4)
    assert rouge_l("the gunman police killed", right) == pytest.approx(2 / 4)
    assert rouge("the the the", "the cat", 1) == pytest.approx(2 * 1 / 5)  # clipped


def test_of_different_lengths_precision_and_recall_differ() -> None:
    assert rouge("a b", "a b c d", 1) == pytest.approx(2 * (1.0 * 0.5) / 1.5)


def test_chinese_is_read_by_character() -> None:
    assert rouge("三天退款", "三天内退款", 1) == pytest.approx(2 * 4 / 9)


def test_gleu_is_the_smaller_of_precision_and_recall() -> None:
    # of "a b c" against "a b c d": 6 n-grams shared (3 + 2 + 1), 10 in the longer text (4 + 3 + 2 + 1)
    assert gleu("a b c", "a b c d") == gleu("a b c d", "a b c") == pytest.approx(0.6)
    assert gleu("", "a") == 0.0


def test_nothing_shares_nothing() -> None:
    assert rouge("", "", 1) == rouge_l("", "a") == 0.0


def test_squad_leaves_out_case_punctuation_and_articles() -> None:
    assert squad("The  Eiffel-Tower!") == ["eiffeltower"]
    assert squad("an apple, a day") == ["apple", "day"]
    assert squad("退款，三天。") == ["退", "款", "三", "天"]
