"""What the prompts measurement asks both sides, and when it refuses to time them."""

import pytest

from bench import prompts, workload
from bench.training import PeerFailed


def fake(monkeypatch, off=0.0):
    """Sides that score at once: a prompt's length over its number of labels; what each was asked is kept."""
    asked = []

    def run(command, order, way):
        asked.append((way, order))
        every = order["prompts"] if way != "ours" else [one for group in order["groups"] for one in group]
        scores = [[len(one) / 1000 + (off if way != "ours" else 0.0)] * len(order["labels"]) for one in every]
        return {
            "scores": scores,
            "cpu_seconds": len(every) * (0.01 if way == "ours" else 0.1),
            "seconds": 1.0,
            "peak_mb": 7,
        }

    monkeypatch.setattr(prompts, "run", run)
    return asked


WORK = prompts.Work([[f"{group} {case}" * 9 for case in range(10)] for group in range(3)], ["a", "b"])


def test_both_sides_score_the_same_prompts_in_turn_and_are_told_by_case(monkeypatch, tmp_path):
    asked = fake(monkeypatch)
    found = prompts.scoring(tmp_path, "6M", ["per_label", "per_case"], 2, WORK)
    assert [way for way, _ in asked] == ["ours", "per_label", "per_case"] * 2
    assert asked[0][1]["groups"] == WORK.groups and set(asked[1][1]["prompts"]) <= set(WORK.prompts)
    assert found["ours"]["cases"] == 30 and found["per_case"]["cases"] == prompts.TIMED
    assert found["ours"]["cpu_seconds_a_case"] == pytest.approx([0.01] * 2)
    assert found["per_label"]["cpu_seconds_a_case"] == pytest.approx([0.1] * 2)


def test_nothing_is_timed_where_scores_differ(monkeypatch, tmp_path):
    fake(monkeypatch, off=1e-3)
    with pytest.raises(PeerFailed, match="scores differ"):
        prompts.scoring(tmp_path, "6M", ["per_label"], 1, WORK)


def test_every_order_stands_before_the_same_cases_and_labels_are_one_token(tmp_path):
    folder = workload.prepare(tmp_path, None, [])
    work = prompts.orders_work(folder)
    assert len(work.groups) == 24 and {len(group) for group in work.groups} == {30}
    ends = [{prompt.rpartition("\n\n")[2] for prompt in group} for group in work.groups]
    assert all(end == ends[0] and len(end) == 30 for end in ends)
    assert len({group[0] for group in work.groups}) == 24
    tokenizer = workload.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    for label in work.labels:
        text = work.prompts[0]
        before, after = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (text, text + label))
        assert after[:-1] == before
