"""Standing: the better model and the better template lead, what is added is what a new count gives, and nothing confounds them."""

from __future__ import annotations

import hashlib

import pytest

from backend import adjudicating, labelling, standing
from backend.access import Denied
from backend.standing import Boards
from feedback_db import comparisons, votes
from feedback_db.types import Case, Comparison, Completion, Model, Prompt, Sampling, Template
from tests.backend.test_reviewing import by_position, judge_all
from tests.feedback_db.test_queue import Clock, answer, key
from tests.ui.house import House, build


@pytest.fixture
def house(tmp_path):
    made = build(tmp_path, comparisons=0, overlap=2, clock=Clock())
    yield made
    made.store.close()


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def ask(house: House, number: int, sides: list[tuple[str, str, str]], first: int = 0) -> list[int]:
    """Pairs of answers: (model, template, text) for position 0 and 1. Returns the comparisons' ids."""
    store, project_id, made = house.store, house.project.id, []
    sampling = (store.find(Sampling) or [store.add(Sampling(digest=digest("s"), settings={}))])[0]
    for n in range(first, first + number):
        words = ({"role": "user", "content": f"Question {n}"},)
        case = store.add(Case(project_id=project_id, conversation=words, split="train", digest=digest(f"{n}")))
        ids = []
        for model_name, template_name, text in sides:
            model = (
                store.find(Model, "name = ?", [model_name])
                or [store.add(Model(name=model_name, kind="external", base="x", source="t"))]
            )[0]
            template = (
                store.find(Template, "name = ?", [template_name])
                or [
                    store.add(
                        Template(
                            project_id=project_id, name=template_name, body="{{input}}", digest=digest(template_name)
                        )
                    )
                ]
            )[0]
            told = digest(f"{template_name} {n}")
            prompt = (
                store.find(Prompt, "digest = ?", [told])
                or [
                    store.add(
                        Prompt(
                            project_id=project_id, case_id=case.id, template_id=template.id, messages=words, digest=told
                        )
                    )
                ]
            )[0]
            ids.append(
                store.add(
                    Completion(
                        prompt_id=prompt.id,
                        model_id=model.id,
                        sampling_id=sampling.id,
                        seed=len(ids),
                        text=text,
                        finish_reason="stop",
                    )
                ).id
            )
        new = Comparison(project_id=project_id, case_id=case.id, overlap=2, slots_left=2, queue_key=n)
        made.append(comparisons.add_comparison(store, new, ids).id)
    return made


def board(house: House, boards: Boards, what="models"):
    return boards.of(house.store, house.bob, house.project.id, what)


def test_models_are_compared_under_one_template_and_templates_with_one_model(house):
    ask(house, 6, [("strong", "plain", "yes"), ("weak", "plain", "no")])
    ask(house, 4, [("weak", "plain", "no"), ("strong", "plain", "yes")], first=50)
    ask(house, 10, [("weak", "kind", "yes"), ("weak", "plain", "no")], first=100)
    ask(house, 10, [("weak", "kind", "yes"), ("strong", "plain", "no")], first=200)  # both differ: says nothing certain
    for person in (house.ann, house.eve):
        judge_all(house, person, lambda desk, left: (1, 2) if desk.answers[0] == "yes" else (2, 1))
    models, templates = board(house, Boards()), board(house, Boards(), "templates")
    assert [(one.name, one.judged) for one in models.lines] == [("strong", 20), ("weak", 20)] and models.n == 20
    assert [(one.name, one.judged) for one in templates.lines] == [("kind · v1", 20), ("plain · v1", 20)]
    duel = models.lines[0].duel
    assert (duel.share, duel.n) == (1.0, 20) and duel.test.is_decided and models.lines[1].duel is None
    assert models.people == 2 and models.ties == 0.0


def test_what_was_added_is_what_a_new_count_gives(house, monkeypatch):
    monkeypatch.setattr(standing, "AGAIN_AFTER", 4)
    sides = [("one", "t", "a longer text"), ("two", "t", "a text"), ("three", "t", "**bold**")]
    for n, pair in enumerate(((0, 1), (1, 2), (0, 2))):
        ask(house, 8, [sides[i] for i in pair], first=100 * n)
    boards, counted = Boards(), []
    real = standing._counted
    monkeypatch.setattr(standing, "_counted", lambda *given: counted.append(1) or real(*given))
    judge_all(house, house.ann, lambda desk, left: (1, 1) if desk.assignment % 5 == 0 else by_position(0)(desk, left))
    assert board(house, boards).n == 24
    for _ in range(20):
        desk = labelling.next_desk(house.store, house.eve, house.project.id)
        labelling.submit(house.store, house.eve, desk.assignment, key(), answer(1, 2))
        kept = board(house, boards)
    assert counted == [1], "only added to"
    anew = board(house, Boards())
    assert anew.n == kept.n == 44 and anew.people == kept.people == 2 and anew.ties == kept.ties > 0
    for one, other in zip(kept.lines, anew.lines, strict=True):
        assert (one.name, one.judged, one.duel) == (other.name, other.judged, other.duel)
        assert (one.strength, one.low, one.high) == pytest.approx((other.strength, other.low, other.high), abs=1e-8)
        assert one.held == pytest.approx(other.held, abs=1e-8)


def test_what_is_taken_back_or_set_aside_is_not_left_on_the_board(house):
    made = ask(house, 6, [("one", "t", "a"), ("two", "t", "b")])
    judge_all(house, house.ann, by_position(0))
    boards = Boards()
    assert board(house, boards).n == 6
    labelling.undo(house.store, house.ann, house.project.id, key())
    assert board(house, boards).n == 5
    adjudicating.void(house.store, house.bob, made[0], "cut off")
    assert board(house, boards).n in (4, 5) and board(house, boards).n == board(house, Boards()).n


def test_a_model_that_is_new_joins_the_board(house):
    ask(house, 4, [("one", "t", "a"), ("two", "t", "b")])
    judge_all(house, house.ann, by_position(0))
    boards = Boards()
    assert len(board(house, boards).lines) == 2
    ask(house, 4, [("three", "t", "c"), ("two", "t", "b")], first=50)
    judge_all(house, house.ann, by_position(1))
    assert len(board(house, boards).lines) == 3


def test_lengths_and_formats_are_counted_as_markdown_has_them(house):
    text = "# Title\n\n- one\n- two\n* three\n**bold** and **more**\n## Second\nnot # here, nor - here"
    ask(house, 1, [("one", "t", text), ("two", "t", "plain")])
    judge_all(house, house.ann, by_position(0))
    (vote,) = votes.votes(house.store, house.project.id, "models")
    assert vote.length == (len(text), 5) and vote.headings == (2, 0) and vote.lists == (3, 0) and vote.bold == (2, 0)
    assert vote.outcome == 1.0
    styles = standing.columns([vote], {vote.first: 0, vote.second: 1}, with_styles=True).styles
    assert styles[0, 1:].tolist() == [2 / 3, 3 / 4, 2 / 3] and styles[0, 0] > 2


def test_without_two_to_compare_there_is_no_board_and_annotators_see_none(house):
    assert board(house, Boards()) is None and board(house, Boards(), "templates") is None
    with pytest.raises(Denied):
        Boards().of(house.store, house.ann, house.project.id, "models")
