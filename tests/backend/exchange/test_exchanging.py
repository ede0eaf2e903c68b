"""Importing a file: rows, person, judgements, and that doing it twice adds nothing."""

import json

import pytest

from backend.access import Denied
from backend.exchanging import ImportProblem, import_file
from backend.prompts.digest import split_of
from feedback_db import audit, snapshots
from feedback_db.types import (
    Assignment,
    Case,
    Comparison,
    Completion,
    Judgement,
    Model,
    Person,
    Project,
    Prompt,
    Sampling,
)

NOUNS = (Project, Person, Model, Sampling, Case, Prompt, Completion, Comparison, Assignment, Judgement)


def written(tmp_path, rows, name="pairs.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(n, start=0):
    return [
        {
            "chosen": f"\n\nHuman: Question {i}?\n\nAssistant: Good answer {i}",
            "rejected": f"\n\nHuman: Question {i}?\n\nAssistant: Bad answer {i}",
        }
        for i in range(start, start + n)
    ]


def counts(store):
    return {noun.__name__: len(store.find(noun)) for noun in NOUNS}


def test_a_file_becomes_comparisons_with_judgements_of_a_person_named_after_it(store, engineer, tmp_path):
    report = import_file(store, engineer, written(tmp_path, rows(40)), format="hh-rlhf", project="hh")
    assert (report.rows, report.taken, report.duplicates, report.refused) == (40, 40, 0, ())
    source = store.find(Person, "source is not null")[0]
    assert (source.source, source.role, source.status, source.password_hash) == (
        "pairs.jsonl",
        "annotator",
        "active",
        None,
    )
    assert "pairs.jsonl" in source.name
    model = store.find(Model)[0]
    assert (model.name, model.kind, model.stage) == ("imported:pairs.jsonl", "external", "retired")
    for comparison in store.find(Comparison):
        assert (comparison.kind, comparison.status, comparison.judged, comparison.slots_left) == ("pair", "done", 1, 0)
    assert all(one.state == "submitted" and one.head_judgement_id for one in store.find(Assignment))
    assert all(one.person_id == source.id and one.seconds == 0 for one in store.find(Judgement))
    assert all(one.template_id is None for one in store.find(Prompt))
    assert {one.finish_reason for one in store.find(Completion)} == {"imported"}
    assert audit.first_broken(store) is None


def test_the_preferred_answer_wins_and_stands_on_both_sides(store, engineer, tmp_path):
    report = import_file(store, engineer, written(tmp_path, rows(40)), format="hh-rlhf", project="hh")
    verdicts = [judgement.verdict for judgement in store.find(Judgement)]
    assert {"a", "b"} == set(verdicts)
    snapshot = snapshots.freeze_preferences(store, report.project_id, "s", engineer.id)
    frozen = [json.loads(line) for line in snapshots.rows_text(store, snapshot).splitlines()]
    assert len(frozen) == 40
    for row in frozen:
        best, worst = sorted(zip(row["ranks"], row["answers"], strict=True), key=lambda pair: pair[0])
        assert best[1]["text"].startswith("Good")
        assert worst[1]["text"].startswith("Bad")


def test_a_case_has_the_split_of_its_digest_and_no_other(store, engineer, tmp_path):
    import_file(store, engineer, written(tmp_path, rows(60)), format="hh-rlhf", project="hh")
    cases = store.find(Case)
    assert [case.split for case in cases] == [split_of(case.digest) for case in cases]
    assert {case.split for case in cases} == {"train", "val", "test"}


def test_the_same_file_again_adds_nothing(store, engineer, tmp_path):
    path = written(tmp_path, rows(10))
    import_file(store, engineer, path, format="hh-rlhf", project="hh")
    before = counts(store)
    again = import_file(store, engineer, path, format="hh-rlhf", project="hh")
    assert (again.taken, again.duplicates) == (0, 10)
    assert counts(store) == before


def test_a_longer_file_adds_only_what_is_new(store, engineer, tmp_path):
    import_file(store, engineer, written(tmp_path, rows(10)), format="hh-rlhf", project="hh")
    more = import_file(store, engineer, written(tmp_path, rows(15)), format="hh-rlhf", project="hh")
    assert (more.taken, more.duplicates) == (5, 10)
    assert len(store.find(Judgement)) == 15


def test_two_projects_take_the_same_file_each(store, engineer, tmp_path):
    path = written(tmp_path, rows(5))
    reports = [import_file(store, engineer, path, format="hh-rlhf", project=name) for name in ("one", "two")]
    assert [report.taken for report in reports] == [5, 5]
    assert len(store.find(Person, "source is not null")) == 1


def test_one_question_with_several_answers_is_one_case(store, engineer, tmp_path):
    question = "\n\nHuman: Q?\n\nAssistant: "
    pairs = [("a", "b"), ("b", "c"), ("b", "a")]
    path = written(tmp_path, [{"chosen": question + x, "rejected": question + y} for x, y in pairs])
    assert import_file(store, engineer, path, format="hh-rlhf", project="hh").taken == 3
    found = counts(store)
    assert (found["Case"], found["Prompt"], found["Completion"], found["Comparison"]) == (1, 1, 3, 3)


def test_refused_rows_are_reported_and_the_others_taken(store, engineer, tmp_path):
    path = written(tmp_path, [*rows(2), {"chosen": "x"}, *rows(1)])
    report = import_file(store, engineer, path, format="hh-rlhf", project="hh")
    assert (report.rows, report.taken, report.duplicates) == (4, 2, 1)
    assert [(refusal.line, refusal.field) for refusal in report.refused] == [(3, "chosen")]


def test_an_error_half_way_leaves_nothing(store, engineer, tmp_path, monkeypatch):
    before = counts(store)
    calls = []

    def break_at_the_fifth(*_args):
        calls.append(1)
        if len(calls) == 5:
            raise OSError("the disk is full")

    monkeypatch.setattr("backend.exchange.judged.judgements.by_key", break_at_the_fifth)
    with pytest.raises(OSError, match="disk"):
        import_file(store, engineer, written(tmp_path, rows(9)), format="hh-rlhf", project="hh")
    assert counts(store) == before


@pytest.mark.parametrize(("format", "project", "said"), [("csv", "hh", "no format"), ("hh-rlhf", " ", "needs a name")])
def test_what_cannot_be_used_is_said(store, engineer, tmp_path, format, project, said):
    with pytest.raises(ImportProblem, match=said):
        import_file(store, engineer, written(tmp_path, rows(1)), format=format, project=project)


def test_an_empty_or_missing_file_makes_no_project(store, engineer, tmp_path):
    for path in (written(tmp_path, []), tmp_path / "none.jsonl"):
        with pytest.raises(ImportProblem):
            import_file(store, engineer, path, format="hh-rlhf", project="hh")
    assert store.find(Project) == []


def test_an_annotator_may_not_import(store, annotator, tmp_path):
    with pytest.raises(Denied):
        import_file(store, annotator, written(tmp_path, rows(1)), format="hh-rlhf", project="hh")
