"""From rows to tokens: nothing crosses a border, nothing is cut without a count."""

import json
from itertools import pairwise, product
from pathlib import Path

import pytest

from backend.training.data import (
    GPU,
    PROCESSOR,
    BadRows,
    Tokens,
    lines,
    microbatches,
    pad_left,
    pairs_of,
    read_comparisons,
    read_prompts,
)
from tests.backend.training import tiny


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_read_as_they_were_frozen(tmp_path: Path) -> None:
    rows = read_comparisons(written(tmp_path / "rows", [tiny.reward_row(3, "good", "bad", weight=0.5)]))
    assert (rows[0].case, rows[0].split, rows[0].weight) == (3, "val", 0.5)
    assert [a.text for a in rows[0].answers] == ["bad", "good"] and rows[0].ranks == [2, 1]
    assert read_prompts(written(tmp_path / "prompts", [tiny.prompt_row(1)]))[0].messages[0]["role"] == "system"


@pytest.mark.parametrize("change", [{"ranks": [1]}, {"answers": []}, {"answers": None}])
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, change: dict) -> None:
    rows = [tiny.reward_row(1, "good", "bad"), {**tiny.reward_row(2, "good", "bad"), **change}]
    with pytest.raises(BadRows, match="Line 2"):
        read_comparisons(written(tmp_path / "rows", rows))


def test_k_answers_give_all_pairs_and_equal_ranks_are_half(tmp_path: Path) -> None:
    answers = [{"completion": i, "text": f"w{i}", "ended": True} for i in range(3)]
    path = written(tmp_path / "rows", [tiny.reward_row(0, "", "", answers=answers, ranks=[2, 1, 2])])
    row = read_comparisons(path)[0]
    assert pairs_of(row) == [(0, 1, 0.0), (0, 2, 0.5), (1, 2, 1.0)]


def test_both_bad_without_a_winner_gives_no_pair_and_with_one_it_does(tmp_path: Path) -> None:
    rows = [
        tiny.reward_row(0, "good", "bad", is_tie=True, both_bad=True),
        tiny.reward_row(2, "good", "bad", both_bad=True),
    ]
    tied, won = read_comparisons(written(tmp_path / "rows", rows))
    assert pairs_of(tied) == [] and pairs_of(won) == [(0, 1, 1.0)]


def test_an_answer_that_was_cut_off_has_no_end_token() -> None:
    tokens = Tokens(tiny.tokenizer(), 96)
    assert tokens.answer("good w1", True) == [*tokens.answer("good w1", False), 1]
    prefix = tokens.prefix([{"role": "user", "content": "hello"}])
    assert tokens.tokenizer.convert_ids_to_tokens(prefix) == ["<user>", "hello", "<assistant>"]


def test_a_long_case_loses_its_front_equally_for_all_answers() -> None:
    tokens = Tokens(tiny.tokenizer(), 8)
    joined = tokens.joined(list(range(10, 20)), [[6, 1], [7, 7, 7, 1]])
    assert joined == [[16, 17, 18, 19, 6, 1], [16, 17, 18, 19, 7, 7, 7, 1]]
    assert tokens.counts["cases_cut"] == 2
    assert tokens.joined([10], [[6] * 8]) is None and tokens.counts["answers_too_long"] == 1


def test_every_place_is_in_one_microbatch_within_the_budget() -> None:
    lengths = [3, 50, 7, 7, 2, 30, 9, 11]
    parts = microbatches(lengths, tokens=40, seed=1, step=2)
    assert sorted(i for part in parts for i in part) == list(range(8))
    assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= 40 for part in parts)
    assert parts == microbatches(lengths, tokens=40, seed=1, step=2)


def test_the_cut_computes_the_least_of_all_cuts() -> None:
    for lengths in ([400, 90, 80, 70, 10, 9], [5] * 6, [300, 290, 20, 20], [64, 1, 1, 1]):
        order = sorted(lengths, reverse=True)
        prices = []
        for cuts in product((False, True), repeat=len(order) - 1):
            starts = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(order)]
            parts = [order[a:b] for a, b in pairwise(starts)]
            if all(len(part) == 1 or len(part) * part[0] <= 600 for part in parts):
                prices.append(sum(PROCESSOR.price + len(part) * part[0] for part in parts))
        found = [[lengths[i] for i in part] for part in microbatches(lengths, tokens=600, seed=0, step=0)]
        assert sum(PROCESSOR.price + len(part) * max(part) for part in found) == min(prices)
    assert len(microbatches([400, 90, 80, 70, 10, 9], tokens=4096, seed=0, step=0)) == 3
    assert len(microbatches([400, 90, 80, 70, 10, 9], tokens=4096, seed=0, step=0, price=GPU.price)) == 1


def test_padding_stands_on_the_left() -> None:
    padded = pad_left([[5], [6, 7, 8]], pad_id=0)
    assert padded.tokens.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert padded.is_real.tolist() == [[False, False, True], [True, True, True]]


def test_a_line_holds_neighbours_and_no_more_than_the_limit_where_one_does() -> None:
    lengths = [30, 50, 20, 90, 10, 40, 60]
    cut = lines(lengths, 100)
    assert [place for some in cut for place in some] == list(range(7)), "each once, in order"
    assert all(sum(lengths[place] for place in some) <= 100 for some in cut) and len(cut) == 3
    assert lines(lengths, 1000) == [list(range(7))] and lines([], 100) == []
    assert lines([300, 10], 100) == [[0], [1]], "a text that is too long stands alone"


def test_a_soft_label_takes_the_place_of_the_ranks_and_is_of_two_answers(tmp_path: Path) -> None:
    plain = {"case": 1, "split": "train", "conversation": [], "answers": [{"completion": 1, "text": "a"}, {"completion": 2, "text": "b"}],
             "ranks": [1, 2]}  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**plain, "share": 0.7}) + "\n" + json.dumps(plain) + "\n")
    assert [pairs_of(row)[0].share for row in read_comparisons(file)] == [0.7, 1.0]
    for wrong in (
        {**plain, "share": 1.1},
        {**plain, "answers": plain["answers"] * 2, "ranks": [1, 2, 3, 4], "share": 0.5},
    ):
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(BadRows, match="share"):
            read_comparisons(file)
