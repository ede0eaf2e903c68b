"""Reliability: who was planted as careless is found, gold holds the tables down, and what is probable follows Bayes' rule."""

from __future__ import annotations

import time

import numpy as np
import pytest

from backend.stats import reliability
from backend.stats.reliability import FIRST, SECOND, TIE, Said
from feedback_db import soft


def planted(units: int, skills: list[float], each: int, seed: int = 0, ties: float = 0.0):
    """Columns of judgements of ``each`` people per unit, and the truths; a skill is the chance to name the true side."""
    draw = np.random.default_rng(seed)
    truths = np.where(draw.random(units) < ties, TIE, draw.integers(0, 2, units))
    rows = []
    for unit, truth in enumerate(truths):
        for person in draw.choice(len(skills), each, replace=False):
            wrong = draw.choice([c for c in range(3) if c != truth])
            rows.append((unit, int(person), int(truth if draw.random() < skills[person] else wrong)))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns, truths


def test_the_careless_are_told_from_the_careful_and_truths_are_found_better_than_by_majority():
    skills = [0.9, 0.9, 0.85, 0.4, 0.35, 0.33]
    (units, people, said), truths = planted(2000, skills, 3, ties=0.1)
    found = reliability.dawid_skene(Said(*map(np.array, (units, people, said))), 3)
    counts = np.zeros((2000, 3))
    np.add.at(counts, (units, said), 1)
    decided = counts.max(1) > 1
    majority = (counts.argmax(1) == truths)[decided].mean() * decided.mean() + (1 - decided.mean()) / 3
    assert (found.posterior.argmax(1) == truths).mean() > majority + 0.03
    diagonal = found.confusion[:, range(3), range(3)].mean(1)
    assert np.abs(diagonal - skills).max() < 0.08
    right = reliability.of_pairs(units, people, said).right
    assert max(abs(right[person].value - skill) for person, skill in enumerate(skills)) < 0.12
    assert max(right[person].high for person in (3, 4, 5)) < min(right[person].low for person in (0, 1, 2))


def test_who_always_says_the_same_teaches_nothing():
    (units, people, said), _ = planted(600, [0.85, 0.85, 0.85, 0.85], 2, seed=2)
    clicker = [(unit, 9, FIRST) for unit in range(600)]
    for unit, person, side in clicker:
        units.append(unit), people.append(person), said.append(side)
    table = np.array(reliability.of_pairs(units, people, said).tables[9])
    assert table[:, FIRST].min() > 0.4 and np.abs(table[FIRST] - table[SECOND][[1, 0, 2]]).max() < 1e-9
    prior, tables = [0.5, 0.5, 0.0], {"9": np.full((3, 3), 1 / 3).tolist()}
    assert soft.share({"prior": prior, "people": tables}, [(9, FIRST)]) == 0.5


def test_first_and_second_are_chance_so_turning_all_round_changes_nothing():
    (units, people, said), _ = planted(300, [0.9, 0.7, 0.5], 2, seed=3, ties=0.2)
    turned = [{FIRST: SECOND, SECOND: FIRST, TIE: TIE}[one] for one in said]
    one, other = reliability.of_pairs(units, people, said), reliability.of_pairs(units, people, turned)
    for person in range(3):
        assert np.allclose(one.tables[person], other.tables[person], atol=1e-9)
        assert one.right[person].value == pytest.approx(other.right[person].value, abs=1e-9)


def test_gold_tells_a_majority_that_is_wrong():
    units, people, said = [], [], []
    for unit in range(60):  # two who are always wrong together, one who is right
        for person, is_right in ((0, True), (1, False), (2, False)):
            units.append(unit), people.append(person), said.append(FIRST if is_right else SECOND)
    without = reliability.of_pairs(units, people, said)
    assert without.right[0].value < without.right[1].value
    for unit in range(60, 100):
        for person, is_right in ((0, True), (1, False), (2, False)):
            units.append(unit), people.append(person), said.append(FIRST if is_right else SECOND)
    found = reliability.of_pairs(units, people, said, dict.fromkeys(range(60, 100), FIRST))
    assert found.right[0].value > 0.9 and found.right[1].value < 0.1 and found.comparisons == 100


def test_what_is_known_holds_also_where_nobody_named_it():
    (units, people, said), truths = planted(120, [0.9, 0.8, 0.7], 2, seed=4)
    sided = [side if side != TIE else FIRST for side in said]
    known = {0: TIE, 1: 1 - int(truths[1]), **{unit: int(truths[unit]) for unit in range(2, 20)}}
    judged = Said(*map(np.array, (units, people, sided)))
    assert not reliability._converged(judged, 120, 3, known)[0].any(), "what was said of it moves no other table"
    found = reliability.dawid_skene(judged, 3, known=known)
    assert (found.posterior[list(known)] == np.eye(3)[list(known.values())]).all()
    assert np.isfinite(found.confusion).all() and found.prior.sum() == pytest.approx(1) and found.prior[TIE] == 1 / 120
    assert found.posterior[20:, TIE].max() < 0.2 and found.confusion[0, FIRST, FIRST] > found.confusion[2, FIRST, FIRST]
    nothing_else = reliability.of_pairs([1, 1], [5, 6], [FIRST, FIRST], {1: TIE})
    assert nothing_else.comparisons == 1 and nothing_else.prior == [0.0, 0.0, 1.0]


def test_what_somebody_said_alone_tells_nothing_about_them():
    found = reliability.of_pairs([1, 2, 3], [5, 5, 6], [0, 1, 0])
    assert found.comparisons == 0 and found.tables == {}
    (units, people, said), _ = planted(100, [0.9, 0.7, 0.6], 2, seed=5)
    alone = reliability.of_pairs([*units, *range(1000, 1400)], [*people, *[0] * 400], [*said, *[TIE] * 400])
    assert alone.right == reliability.of_pairs(units, people, said).right


def test_few_judgements_are_drawn_to_the_average_person():
    (units, people, said), _ = planted(400, [0.9] * 4, 2, seed=6)
    units += [0, 0]
    people += [8, 9]
    said += [said[0], TIE]
    table = reliability.of_pairs(units, people, said).tables[9]
    assert table[FIRST][FIRST] > 0.6, "one judgement does not make somebody careless"


def test_three_hundred_thousand_judgements_take_seconds():
    (units, people, said), truths = planted(1000, [0.9, 0.8, 0.7, 0.6], 3, seed=1)
    many = 100
    block = Said(
        *(
            np.concatenate([np.array(part) + step * turn for turn in range(many)])
            for part, step in ((units, 1000), (people, 0), (said, 0))
        )
    )
    began = time.process_time()
    found = reliability.dawid_skene(block, 3)
    assert time.process_time() - began < 15
    assert (found.posterior.argmax(1) == np.tile(truths, many)).mean() > 0.85


# ---- soft labels, without numpy


def test_a_soft_label_is_bayes_rule_with_a_tie_as_half():
    careful, careless = (
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]],
        [[0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.4, 0.4, 0.2]],
    )
    told = {"prior": [0.4, 0.4, 0.2], "people": {"1": careful, "2": careless}}
    joint = [0.4 * 0.8 * 0.4, 0.4 * 0.1 * 0.5, 0.2 * 0.2 * 0.4]
    assert soft.share(told, [(1, FIRST), (2, SECOND)]) == pytest.approx(
        (joint[0] + joint[2] / 2) / sum(joint), abs=1e-6
    )
    assert soft.share(told, [(1, FIRST)]) > soft.share(told, [(2, FIRST)]) > 0.5
    assert soft.share(told, [(3, FIRST)]) == pytest.approx(
        soft.share({**told, "people": {"3": soft.average(told["people"])}}, [(3, FIRST)])
    )
    assert soft.share(told, [(1, TIE)]) == 0.5 and soft.average({}) == [[1 / 3] * 3] * 3


def test_a_table_with_a_zero_lets_nobody_decide_for_ever():
    sure = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    told = {"prior": [0.5, 0.5, 0.0], "people": {"1": sure, "2": sure}}
    assert soft.share(told, [(1, FIRST), (2, SECOND)]) == pytest.approx(0.5, abs=1e-6)
