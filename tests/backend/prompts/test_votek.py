"""Vote-k: which cases stand for many that nothing labelled is near."""

from __future__ import annotations

import subprocess
import sys
import time

from backend.prompts.votek import vote_in_groups, vote_k

PARCELS = [f"where is my parcel number {n}, it has not come" for n in range(12)]
FILMS = [f"the film was slow and the story number {n} poor" for n in range(9)]
ODD = ["zq", "xw"]


def plain(texts: list[str], count: int, labelled: list[int], near: list[list[int]]) -> list[int]:
    """The paper's formula as it is written: score(u) = sum over open v with u in N(v) of 10 ** -|N(v) and labelled|."""
    taken, chosen = list(labelled), []
    for _ in range(count):
        left = [u for u in range(len(texts)) if u not in taken]
        scores = {
            u: sum(
                10.0 ** -len(set(near[v]) & set(taken)) for v in range(len(texts)) if v not in taken and u in near[v]
            )
            for u in left
        }
        best = max(left, key=lambda u: (round(scores[u], 9), -u))
        taken.append(best)
        chosen.append(best)
    return chosen


def test_the_first_two_stand_for_different_kinds_and_not_for_themselves_alone() -> None:
    texts = [*ODD, *FILMS, *PARCELS]
    first, second = vote_k(texts, 2)
    kinds = [next(kind for kind in (FILMS, PARCELS, ODD) if texts[one.place] in kind) for one in (first, second)]
    assert kinds in ([FILMS, PARCELS], [PARCELS, FILMS])
    assert first.stands_for > 0 and first.score >= second.score


def test_what_is_labelled_already_counts_for_its_kind_and_is_not_named_again() -> None:
    texts = [*FILMS, *PARCELS, *ODD]
    labelled = list(range(len(FILMS), len(FILMS) + 6))  # half of the parcels
    found = vote_k(texts, len(texts), labelled)
    assert texts[found[0].place] in FILMS
    assert sorted(vote.place for vote in found) == [place for place in range(len(texts)) if place not in labelled]


def test_votes_are_those_of_the_formula() -> None:
    from backend.prompts.votek import _neighbours

    texts = [*FILMS, *PARCELS, *ODD]
    near = _neighbours(texts).tolist()
    assert all(place not in row for place, row in enumerate(near))
    for labelled in ([], [0, 12]):
        assert [vote.place for vote in vote_k(texts, 8, labelled)] == plain(texts, 8, labelled, near)


def test_of_each_group_the_most_voted_is_taken_and_counts_as_labelled_for_the_next() -> None:
    texts = [*FILMS, *PARCELS, *ODD]
    films, parcels = range(len(FILMS)), range(len(FILMS), len(FILMS) + len(PARCELS))
    found = vote_in_groups(texts, [parcels, films, parcels])
    assert [vote.place in group for vote, group in zip(found, (parcels, films, parcels), strict=True)] == [True] * 3
    assert found[0].place != found[2].place and found[2].score < found[0].score
    alone = vote_k(texts, 1)[0]
    assert vote_in_groups(texts, [range(len(texts))]) == [alone]


def test_few_texts_or_none_are_no_problem() -> None:
    assert vote_k([], 3) == []
    assert [(vote.place, vote.score) for vote in vote_k(["only one"], 3)] == [(0, 0)]  # nobody else points at it
    assert [vote.place for vote in vote_k(["one", "two"], 3, [1])] == [0]


def test_another_process_chooses_equally() -> None:
    script = (
        "from tests.backend.prompts.test_votek import FILMS, PARCELS, ODD\n"
        "from backend.prompts.votek import vote_k\n"
        "print([vote.place for vote in vote_k([*FILMS, *PARCELS, *ODD], 9)])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "7", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str([vote.place for vote in vote_k([*FILMS, *PARCELS, *ODD], 9)])


def test_a_thousand_texts_are_ranked_while_one_waits() -> None:
    texts = [f"{PARCELS[n % 12]} {n * n} {FILMS[n % 9]}" for n in range(1000)]
    began = time.process_time()
    assert len(vote_k(texts, 100)) == 100
    assert time.process_time() - began < 2
