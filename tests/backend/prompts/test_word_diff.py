"""What changed between two texts: every piece of either is there, word by word, in Chinese sign by sign."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from backend.prompts import word_diff
from backend.prompts.word_diff import Piece


def test_chinese_is_compared_sign_by_sign() -> None:
    found = word_diff.difference("选择更有帮助的回答。", "选择更简短的回答。")
    assert Piece("gone", "有帮助") in found and Piece("new", "简短") in found


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_both_texts(before: str, after: str) -> None:
    found = word_diff.difference(before, after)
    assert "".join(piece.text for piece in found if piece.kind != "new") == before
    assert "".join(piece.text for piece in found if piece.kind != "gone") == after


def test_a_long_text_is_compared_by_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_diff, "MOST_WORDS", 10)
    found = word_diff.difference("one line\nanother line\n", "one line\nanother, changed line\n")
    assert found == [
        Piece("same", "one line\n"),
        Piece("gone", "another line\n"),
        Piece("new", "another, changed line\n"),
    ]
