"""Guiding: a version is a row, what changed can be read word by word, and each version has its own agreement."""

from __future__ import annotations

import pytest

from backend import guiding, labelling
from backend.access import Denied
from backend.guiding import BadGuideline
from backend.prompts.word_diff import Piece
from feedback_db.types import Assignment, Guideline, Judgement
from tests.feedback_db.test_queue import Clock, answer, key
from tests.ui.house import build


@pytest.fixture
def house(tmp_path):
    made = build(tmp_path, comparisons=12, overlap=2, clock=Clock())
    yield made
    made.store.close()


def judge(house, person, number: int, position: int) -> None:
    for _ in range(number):
        desk = labelling.next_desk(house.store, person, house.project.id)
        left = house.store.get(Assignment, desk.assignment).shown[0]
        labelling.submit(house.store, person, desk.assignment, key(), answer(*((1, 2) if left == position else (2, 1))))


def test_judgements_keep_their_version_and_each_version_has_its_own_agreement(house):
    for person in (house.ann, house.eve):
        judge(house, person, 6, 0)
    second = guiding.save(house.store, house.bob, house.project.id, "Choose the answer that helps less.")
    assert second.version == 2
    judge(house, house.ann, 6, 0)
    judge(house, house.eve, 6, 1)
    newest, oldest = guiding.versions(house.store, house.bob, house.project.id)
    assert (newest.guideline.version, newest.by, newest.judged) == (2, "bob", 12) and oldest.judged == 12
    assert oldest.alpha.value == 1.0 and newest.alpha.value < 0 and newest.alpha.n == oldest.alpha.n == 6
    given_by = {one.guideline_id for one in house.store.find(Judgement)}
    assert given_by == {one.id for one in house.store.find(Guideline)}
    assert labelling.next_desk(house.store, house.bob, house.project.id) is None


def test_what_changed_is_told_word_by_word(house):
    guiding.save(house.store, house.bob, house.project.id, "Choose the answer that helps most.\nThen the shorter one.")
    newest = guiding.versions(house.store, house.bob, house.project.id)[0]
    assert [piece for piece in newest.changed if piece.kind != "same"] == [Piece("gone", "more"), Piece("new", "most")]


def test_the_same_text_makes_no_version_and_nothing_is_no_text(house):
    before = guiding.versions(house.store, house.bob, house.project.id)
    guiding.save(house.store, house.bob, house.project.id, f"  {before[0].guideline.body}\n")
    assert len(guiding.versions(house.store, house.bob, house.project.id)) == len(before) == 1
    for wrong in ("  ", "x" * 20_001):
        with pytest.raises(BadGuideline, match="1 to 20000"):
            guiding.save(house.store, house.bob, house.project.id, wrong)
    with pytest.raises(Denied):
        guiding.save(house.store, house.ann, house.project.id, "no")
    with pytest.raises(Denied):
        guiding.versions(house.store, house.ann, house.project.id)
