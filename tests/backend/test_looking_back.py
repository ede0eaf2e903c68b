"""Looking back: own judgements seen and corrected by their author alone, and what is told after the vote."""

from __future__ import annotations

import dataclasses
import json

import pytest

from backend import labelling, looking_back
from backend.engines.answers import EngineError
from backend.engines.scripted import ScriptedEngine
from backend.labelling import LabellingProblem
from backend.labels import form as forms
from backend.labels.form import Form
from feedback_db import models, snapshots
from feedback_db.types import Assignment, Judgement, Model
from tests.feedback_db.test_queue import SECOND, Clock, answer, counters_equal_assignments, key
from tests.ui.house import SECRET_MODEL, build

DAY = 86_400 * SECOND


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=30, overlap=3, clock=clock)
    yield made
    made.store.close()


def judged(house, person, *ranks: int) -> int:
    desk = labelling.next_desk(house.store, person, house.project.id)
    return labelling.submit(house.store, person, desk.assignment, key(), answer(*(ranks or (1, 2)))).judgement


def asks(house, **form) -> None:
    text = json.dumps(forms.stored(Form(**form)))
    with house.store.write() as db:
        db.conn.execute("update projects set label_form = ? where id = ?", [text, house.project.id])


def reward_model(house) -> Model:
    model = house.store.add(
        Model(project_id=house.project.id, name="judge", kind="reward", base="x", adapter="f", digest=bytes(32), source="test", base_fingerprint=bytes(32))
    )  # fmt: skip
    with house.store.write():
        return models.move(house.store, model, "live", reason="test", person_id=None)


# ---- history and corrections


def test_history_holds_ones_own_newest_first_and_page_by_page(house, clock):
    mine = []
    for _ in range(25):
        mine.append(judged(house, house.ann))
        clock.now += SECOND * (len(mine) % 3 == 0)  # some in the same instant
    judged(house, house.eve)
    first = looking_back.history(house.store, house.ann, house.project.id)
    rest = looking_back.history(house.store, house.ann, house.project.id, first.before)
    assert [one.judgement for one in first.past + rest.past] == mine[::-1] and rest.before is None
    assert first.past[0].asked.startswith("Question") and first.past[0].ranks == (1, 2)
    told = json.dumps([dataclasses.asdict(labelling.next_desk(house.store, house.ann, house.project.id))], default=str)
    told += json.dumps(first, default=str)
    for word in (SECRET_MODEL, "gold", "purpose", "completion", "seed"):
        assert word not in told


def test_a_correction_supersedes_and_counts_once(house, clock):
    old = judged(house, house.ann)
    before = labelling.projects(house.store, house.ann)[0].counts
    clock.now += 2 * DAY
    desk = looking_back.open_again(house.store, house.ann, old)
    assert desk.corrects == old and desk.draft["ranks"] == [1, 2]
    once = key()
    new = looking_back.correct(house.store, house.ann, old, once, answer(2, 1))
    assert looking_back.correct(house.store, house.ann, old, once, answer(2, 1)) == new
    kept = house.store.get(Judgement, new)
    assert (kept.act, kept.supersedes, kept.revision, kept.ranks, kept.after_reveal) == (
        "correct",
        old,
        1,
        (2, 1),
        False,
    )
    after = labelling.projects(house.store, house.ann)[0].counts
    assert after.mine == before.mine == 1 and counters_equal_assignments(house.store)
    assert [one.judgement for one in looking_back.history(house.store, house.ann, house.project.id).past] == [new]
    assert snapshots.trainable_count(house.store, house.project.id) == 1


def test_what_was_corrected_on_another_day_can_still_be_taken_back(house, clock):
    clock.now += DAY - clock.now % DAY - 60 * SECOND
    old = judged(house, house.ann)
    clock.now += 120 * SECOND  # past midnight, where the tally of the day begins anew
    looking_back.correct(house.store, house.ann, old, key(), answer(2, 1))
    desk = labelling.undo(house.store, house.ann, house.project.id, key())
    assert desk.draft["ranks"] == [2, 1] and labelling.projects(house.store, house.ann)[0].counts.mine == 0


def test_of_two_tabs_that_correct_one_judgement_the_second_is_refused(house):
    old = judged(house, house.ann)
    looking_back.correct(house.store, house.ann, old, key(), answer(2, 1))
    with pytest.raises(LabellingProblem, match="changed meanwhile"):
        looking_back.correct(house.store, house.ann, old, key(), answer(1, 1))
    with pytest.raises(LabellingProblem, match="changed meanwhile"):
        looking_back.open_again(house.store, house.ann, old)


def test_nobody_sees_or_corrects_what_somebody_else_judged(house):
    old = judged(house, house.ann)
    for act in (
        lambda: looking_back.open_again(house.store, house.eve, old),
        lambda: looking_back.correct(house.store, house.eve, old, key(), answer(2, 1)),
        lambda: looking_back.reveal(house.store, None, house.eve, old),
    ):
        with pytest.raises(LabellingProblem, match="not one of yours"):
            act()
    assert looking_back.history(house.store, house.eve, house.project.id).past == []


# ---- what is told after the vote


def test_others_are_told_only_once_all_have_judged_and_by_place(house):
    asks(house, reveal="others", reveal_holdout=0.0)
    mine = [judged(house, house.ann, 1, 2) for _ in range(6)]
    for _ in mine:
        judged(house, house.eve, 1, 2)
    assert looking_back.reveal(house.store, None, house.ann, mine[0]) is None, "somebody is still to come"
    for _ in mine:
        judged(house, house.bob, 1, 1)
    orders = set()
    for one in mine:
        told = looking_back.reveal(house.store, None, house.ann, one)
        of = "comparison_id = (select comparison_id from judgements where id = ?)"
        seats = {seat.person_id: seat.shown for seat in house.store.find(Assignment, of, [one])}
        orders.add(seats[house.ann.id])
        expected = [0, 0]
        expected[seats[house.ann.id].index(seats[house.eve.id][0])] += 1  # eve chose her left answer, bob neither
        assert told is not None and (told.n, list(told.first)) == (2, expected)
    assert len(orders) == 2, "by canonical position would have been wrong for some"


def test_a_correction_after_the_reveal_is_marked_and_never_trained_on(house):
    asks(house, reveal="margin", reveal_holdout=0.0)
    reward_model(house)
    old = judged(house, house.ann)
    told = looking_back.reveal(house.store, ScriptedEngine(lambda *_: ""), house.ann, old)
    assert told is not None and len(told.scores) == 2 and told.scores[0] != told.scores[1]
    assert snapshots.trainable_count(house.store, house.project.id) == 1, "what was said before it counts"
    new = looking_back.correct(house.store, house.ann, old, key(), answer(2, 1))
    assert house.store.get(Judgement, new).after_reveal is True
    assert snapshots.trainable_count(house.store, house.project.id) == 0


def test_a_share_is_told_nothing_and_it_is_always_the_same_share(house):
    asks(house, reveal="margin", reveal_holdout=0.5)
    reward_model(house)
    engine = ScriptedEngine(lambda *_: "")
    given = [judged(house, house.ann) for _ in range(24)]
    told = [looking_back.reveal(house.store, engine, house.ann, one) is not None for one in given]
    assert told == [looking_back.reveal(house.store, engine, house.ann, one) is not None for one in given]
    assert 3 < sum(told) < 21
    marked = house.store.value("select count(*) from assignments where revealed_at is not null")
    assert marked == sum(told), "who was told nothing is not marked"
    asked = [looking_back.is_held_out(house.project, n, m, 0.3) for n in range(40) for m in range(50)]
    assert 0.25 < sum(asked) / len(asked) < 0.35


def test_nothing_is_told_where_it_is_off_or_the_reward_model_cannot_be_asked(house):
    given = judged(house, house.ann)
    engine = ScriptedEngine(lambda *_: "")
    assert looking_back.reveal(house.store, engine, house.ann, given) is None
    asks(house, reveal="margin", reveal_holdout=0.0)
    assert looking_back.reveal(house.store, engine, house.ann, given) is None, "no reward model yet"
    reward_model(house)

    class Busy(ScriptedEngine):
        def rewards(self, *_: object, **__: object) -> list[float]:
            raise EngineError("busy")

    assert looking_back.reveal(house.store, Busy(lambda *_: ""), house.ann, given) is None
    assert house.store.value("select count(*) from assignments where revealed_at is not null") == 0
