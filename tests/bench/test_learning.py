"""What the learning measurement computes: pairs and judgements, best-of-n, and intervals over seeds and cases."""

import math
from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from backend import starting
from bench import gain, judged, learning, overoptimised, report
from bench.judged import Written
from feedback_db import prompts

ORDER = {"noise": 0.1, "seed": 0, "cases": 9, "scored": 1, "steps": 20, "every": 5, "batch_size": 32}
ORDER |= {"learning_rate": 1e-3, "uwo_coef": 1.0, "reports": ""}


def written(*texts: str) -> list[Written]:
    return [Written(text, True, [1]) for text in texts]


def test_an_answer_is_in_one_pair_and_equal_texts_are_no_comparison():
    found = judged.pairs(written("a", "b", "c", "c", "d", "a"))
    assert [(first.text, second.text) for first, second in found] == [("a", "b"), ("d", "a")]


def test_without_noise_the_judgement_is_the_rules_and_with_full_noise_it_is_turned_round():
    rng = Random(0)
    assert [judged.ranks(a, b, 0.0, rng) for a, b in ((2, 1), (0, 1), (1, 1))] == [[1, 2], [2, 1], [1, 1]]
    assert [judged.ranks(a, b, 1.0, rng) for a, b in ((2, 1), (0, 1))] == [[2, 1], [1, 2]]
    turned_ties = [judged.ranks(1, 1, 1.0, rng) for _ in range(50)]
    assert sorted({tuple(ranks) for ranks in turned_ties}) == [(1, 2), (2, 1)]


def test_about_the_asked_share_is_turned_round():
    rng = Random(1)
    turned = sum(judged.ranks(2, 0, 0.25, rng) == [2, 1] for _ in range(4000))
    assert turned / 4000 == pytest.approx(0.25, abs=0.03)


def test_the_cases_are_those_of_the_sample_project_each_in_its_split(store, project):
    found = judged.cases()
    kept = prompts.cases(store, project.id, scenario=starting.SERVICE)
    assert {(case.question, case.split) for case in found} == {(case.values["input"], case.split) for case in kept}
    assert len(found) == len(kept)
    assert {judged.points(case, "") for case in found} == {0}  # the rule knows every question


def test_the_prompt_is_the_plain_templates(store, project):
    plain = {t.language: t for t in prompts.templates(store, project.id) if not t.few_shot and not t.labels}
    for case in (judged.cases(1)[0], judged.cases(1)[1]):
        assert case.messages[0] == {"role": "system", "content": plain[case.language].system_text}
        assert case.messages[1:] == case.conversation == [{"role": "user", "content": case.question}]


def test_sft_learns_from_the_answer_that_won_and_from_no_tie():
    case = judged.cases(1)[0]
    rows = [
        judged.judged(case, pair, 0.0, Random(0))
        for pair in [tuple(written("Thank you, of course.", "?")), tuple(written("?", "!"))]
    ]
    assert [row.answer.text for row in judged.winners(rows)] == ["Thank you, of course."]


def test_best_of_n_is_the_mean_over_all_choices_of_n():
    rng = Random(0)
    values, scores = [rng.random() for _ in range(7)], [rng.random() for _ in range(7)]
    for n in (1, 2, 3, 7):
        best = [values[max(some, key=lambda i: scores[i])] for some in combinations(range(7), n)]
        assert gain.expected_best(n, values, scores) == pytest.approx(sum(best) / len(best), abs=1e-12)


def test_answers_of_equal_score_are_chosen_alike_often():
    assert gain.expected_best(2, [0.0, 2.0, 1.0], [5.0, 5.0, 1.0]) == pytest.approx(1.0, abs=1e-12)
    assert gain.expected_best(3, [0.0, 2.0, 1.0], [5.0, 1.0, 5.0]) == pytest.approx(0.5, abs=1e-12)


def test_the_best_of_more_than_were_drawn_is_refused():
    with pytest.raises(ValueError, match="best of 4"):
        gain.expected_best(4, [0.0] * 3, [0.0] * 3)


def test_the_kl_of_best_of_n_starts_at_nothing():
    assert gain.best_of_kl(1) == 0
    assert gain.best_of_kl(8) == pytest.approx(math.log(8) - 7 / 8, abs=1e-12)


def test_the_interval_widens_with_what_differs_between_seeds_and_between_cases():
    same = learning.interval([[1.0] * 20] * 5)
    assert same == (1.0, 1.0, 1.0)
    by_seed = learning.interval([[float(seed)] * 20 for seed in range(5)])
    by_case = learning.interval([[case / 19 * 4 for case in range(20)]] * 5)
    assert by_seed.value == by_case.value == pytest.approx(2.0, abs=1e-12)
    assert by_seed.high - by_seed.low > 2 * (by_case.high - by_case.low) > 1


def runs_of(**points: list[float]) -> list[dict]:
    policies = {
        name: {"points": values, "kl": values, "scores": values, "tokens": values} for name, values in points.items()
    }
    return [{"best_of": {"8": policies.pop("best_of_8", None)}, **policies}]


def test_a_difference_is_paired_by_case():
    runs = runs_of(base=[0.0, 2.0], ppo=[0.5, 2.5], best_of_8=[0.0, 2.0])
    assert learning.above("ppo", "base", runs) == (0.5, 0.5, 0.5)
    assert learning.above("ppo", "best_of_8", runs) == (0.5, 0.5, 0.5)


def test_a_method_is_held_against_every_baseline_that_stands_before_it():
    runs = runs_of(base=[0.0], sft=[1.0], best_of_8=[1.5], ppo=[1.2])
    assert [row.against for row in learning.compared("sft", 0.1, runs)] == ["the base"]
    rows = learning.compared("ppo", 0.1, runs)
    assert [(row.against, row.difference, row.ok) for row in rows] == [
        ("the base", 1.2, True),
        ("SFT on winners", 0.2, True),
        ("best of 8", -0.3, False),
    ]


def test_what_was_computed_is_not_computed_again(tmp_path):
    (tmp_path / "gain-0.1-3.json").write_text('{"seed": 3}', encoding="utf-8")
    assert learning.run(learning.Plan(), 0.1, 3, tmp_path) == {"seed": 3}


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(learning.RunFailed, match="bench.absent"):
        learning.computed("bench.absent", {"reports": str(tmp_path / "absent.json")})


def test_other_amounts_have_a_folder_of_their_own_and_other_seeds_have_not(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "CACHE", tmp_path)
    whole = learning.folder_of(learning.Plan())
    assert learning.folder_of(learning.Plan(seeds=(7,))) == whole
    assert learning.folder_of(learning.QUICK) != whole


def test_a_table_of_differences_says_so():
    rows = [report.Difference("work", "peer", 0.25, -0.1, 0.6, "> 0", False)]
    head, line = report.table(rows).splitlines()
    assert "difference" in head
    assert "-0.10 to 0.60" in line
    assert "MISSED" in line


def test_a_watched_run_looks_every_few_steps(tmp_path):
    looked: list[int] = []
    run = overoptimised.Watched(tmp_path, 3, looked.append)
    for step in range(1, 8):
        run.metrics(step, 7, {})
    assert looked == [3, 6]


def test_all_curves_follow_the_score_at_no_price_and_only_one_minds_disagreement():
    order = overoptimised.Order(**{**ORDER, "uwo_coef": 2.0})
    made = {name: overoptimised.settings_of(order, name) for name in overoptimised.MEMBERS}
    assert set(made) == set(learning.CURVES)
    assert {(s.kl_coef, s.total_episodes, s.batch_size) for s in made.values()} == {(0.0, 640, 32)}
    assert {name: s.ensemble for name, s in made.items()} == {"single": "mean", "mean": "mean", "uwo": "uwo"}
    assert made["uwo"].uwo_coef == 2.0


def test_curves_are_averaged_as_far_as_all_of_them_came():
    look = {"step": 0.0, "kl": 1.0, "scores": 0.5, "points": 1.0, "tokens": 9.0}
    short, long = {"points": [look]}, {"points": [{**look, "points": 2.0}, look]}
    lines = learning.curve_table([short, long]).splitlines()[1:]
    assert len(lines) == 1
    assert lines[0].split() == ["0", "1.00", "+0.50", "1.50", "1.00", "2.00", "9.0"]


def test_a_report_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "one.json"
    with monkeypatch.context() as cut_off:
        cut_off.setattr(Path, "replace", lambda self, other: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gain.write(str(target), {"kl": 1.0})
    assert not target.exists()
    with pytest.raises(TypeError):
        gain.write(str(target), {"no": object()})
    assert not target.exists()
    gain.write(str(target), {"kl": 1.5})
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
