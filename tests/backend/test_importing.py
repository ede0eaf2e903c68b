"""Importing from other tools: the plan changes nothing, carrying it out adds all or nothing, and once only."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend import importing, testing
from backend.access import Denied
from backend.importing import CannotImport, apply_import, plan_import, project_for
from backend.prompts.assemble import assemble
from feedback_db import audit, suites
from feedback_db.types import Case, Comparison, Demonstration, Judgement, Person, Project, Suite, Template

FILES = Path(__file__).parent / "exchange" / "files"
NOUNS = (Template, Demonstration, Case, Suite, Comparison, Judgement)
ALL = [
    ["refunds.promptfoo.yaml", "few_shot.json"],
    ["refunds.csv"],
    ["colours.cforge"],
    ["templates.yaml"],
    ["reviews.lm-eval.yaml", "base.yaml", "reviews.jsonl"],
    ["greeting.prompty"],
    ["chats.openai.jsonl"],
]


def plan_of(person, names):
    return plan_import(person, [FILES / name for name in names])


def counts(store):
    return {noun.__name__: len(store.find(noun)) for noun in NOUNS}


@pytest.mark.parametrize("names", ALL, ids=lambda names: names[0])
def test_a_plan_changes_nothing_and_is_carried_out_once(store, engineer, names):
    project = project_for(store, engineer, "imports")
    before = counts(store)
    plan = plan_of(engineer, names)
    assert counts(store) == before and plan.notes
    apply_import(store, engineer, project.id, plan)
    after = counts(store)
    assert after != before
    again = apply_import(store, engineer, project.id, plan_of(engineer, names)).kept
    assert counts(store) == after
    assert not any((again.new_templates, again.new_cases, again.new_suites, again.new_demonstrations, again.new_pairs))


def test_an_import_that_breaks_half_way_leaves_nothing(store, engineer, monkeypatch):
    project = project_for(store, engineer, "imports")
    before = counts(store)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("backend.exchange.judged._judge", broken)
    with pytest.raises(OSError, match="disk full"):
        apply_import(store, engineer, project.id, plan_of(engineer, ["colours.cforge"]))
    assert counts(store) == before


def test_grades_belong_to_a_person_named_after_the_file_who_cannot_sign_in(store, engineer):
    project = project_for(store, engineer, "imports")
    apply_import(store, engineer, project.id, plan_of(engineer, ["colours.cforge"]))
    (judgement,) = store.find(Judgement)
    source = store.get(Person, judgement.person_id)
    assert (source.source, source.password_hash, source.display_name) == ("colours.cforge", None, "colours.cforge")
    assert judgement.rationale == "one word was asked for" and judgement.client == "import"
    (case,) = [case for case in store.find(Case) if case.conversation]
    assert case.source == "colours.cforge"


def test_an_imported_template_shows_its_demonstrations(store, engineer, engine):
    project = project_for(store, engineer, "imports")
    kept = apply_import(
        store, engineer, project.id, plan_of(engineer, ["refunds.promptfoo.yaml", "few_shot.json"])
    ).kept
    template = store.get(Template, kept.templates[2])
    case = store.add(Case(project_id=project.id, values={"input": "It broke."}, split="train", digest=b"x" * 32))
    made = assemble(store, template, case, tokenize=lambda m: engine.tokenize(m, model="base"))
    assert [message["content"] for message in made.messages] == [
        "Say how the customer feels.",
        "Message: It works well.",
        "glad",
        "Message: It broke.",
    ]


def test_a_demonstration_that_another_scenario_has_is_shown_all_the_same(store, engineer, engine):
    project = project_for(store, engineer, "imports")
    plan = plan_of(engineer, ["refunds.promptfoo.yaml", "few_shot.json"])
    first = plan.templates[2].shown[0]
    from backend import curating

    curating.add_demonstration(store, engineer, project.id, input=first.input, output=first.output, scenario="mood")
    kept = apply_import(store, engineer, project.id, plan).kept
    case = store.add(Case(project_id=project.id, values={"input": "It broke."}, split="train", digest=b"x" * 32))
    template = store.get(Template, kept.templates[2])
    assert len(assemble(store, template, case, tokenize=lambda m: engine.tokenize(m, model="base")).messages) == 4


def test_an_imported_suite_is_one_that_can_be_run(store, engineer):
    project = project_for(store, engineer, "imports")
    kept = apply_import(store, engineer, project.id, plan_of(engineer, ["refunds.csv"])).kept
    suite = suites.newest(store, project.id, "refunds")
    assert suite is not None and suite.id == kept.suites[0] and suite.case_ids == kept.cases
    assert testing.checks_as_text(suite).splitlines()[0].startswith('{"type": "icontains"')


def test_an_import_is_on_record(store, engineer):
    project = project_for(store, engineer, "imports")
    apply_import(store, engineer, project.id, plan_of(engineer, ["refunds.csv"]))
    facts = audit.newest_facts(store, ("import_file",), "project", project.id)
    assert (facts["format"], facts["cases"], facts["suites"]) == ("promptfoo-csv", 3, 1)


def test_nothing_is_imported_into_a_closed_project_or_from_an_empty_plan(store, engineer):
    closed = store.add(Project(name="closed", archived_at=1))
    with pytest.raises(CannotImport, match="closed"):
        apply_import(store, engineer, closed.id, plan_of(engineer, ["refunds.csv"]))
    path_plan = importing.Plan(format="x", source="x.csv", name="x")
    with pytest.raises(CannotImport, match="nothing"):
        apply_import(store, engineer, project_for(store, engineer, "imports").id, path_plan)


def test_a_bad_file_is_refused_with_a_code_for_other_languages(engineer, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n", encoding="utf-8")
    with pytest.raises(CannotImport, match=r"t\.csv, line 2") as raised:
        plan_import(engineer, [tmp_path / "t.csv"])
    assert raised.value.code == "csv_ragged" and raised.value.values["line"] == 2


def test_an_annotator_is_refused_all_of_it(store, annotator, engineer):
    plan = plan_of(engineer, ["refunds.csv"])
    project = project_for(store, engineer, "imports")
    with pytest.raises(Denied):
        plan_of(annotator, ["refunds.csv"])
    with pytest.raises(Denied):
        apply_import(store, annotator, project.id, plan)
    with pytest.raises(Denied):
        project_for(store, annotator, "other")
