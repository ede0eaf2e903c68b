"""The gallery: what it holds is sound, and taking it into a project is whole, repeatable and allowed to builders."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from backend import comparing, labelling, prompting, scenarios, testing
from backend.access import Denied
from backend.engines.scripted import ScriptedEngine
from backend.exchange import scenario as files
from backend.exchange.scenario import BadScenario, Scenario
from backend.prompts.fewshot import FewShot, leaks
from backend.scenarios import NoScenario
from backend.suites import running
from backend.suites.checks import parse
from backend.suites.kinds import Given
from backend.suites.scoring import scored
from feedback_db import Store, audit, models, prompts, suites
from feedback_db.cases import conversation
from feedback_db.types import Case, Demonstration, Guideline, Person, Project, Template

PATHS = files.files(scenarios.FOLDER)
LEAST_CASES, LEAST_TEST, DEMONSTRATIONS = 65, 20, 16


@pytest.fixture(params=PATHS, ids=lambda path: path.name)
def found(request: pytest.FixtureRequest) -> Scenario:
    return files.read(request.param)


def asked(one: Scenario) -> list[str]:
    return [conversation(case.values, case.conversation)[-1]["content"] for case in one.cases]


def test_both_languages_have_the_same_scenarios() -> None:
    read = [files.read(path) for path in PATHS]
    by_language = [{(one.area, one.key) for one in read if one.language == lang} for lang in files.LANGUAGES]
    assert by_language[0] == by_language[1]
    assert [f"{one.key.replace(' ', '-')}.{one.language}.json" for one in read] == [path.name for path in PATHS]


def test_a_scenario_is_whole(found: Scenario) -> None:
    assert len(found.templates) >= 2 and len({one.name for one in found.templates}) == 1
    assert FewShot.parse(found.templates[0].few_shot).k == 0 < FewShot.parse(found.templates[-1].few_shot).k
    assert len(found.demonstrations) == DEMONSTRATIONS and len(found.cases) >= LEAST_CASES
    assert scenarios.splits(found)["test"] >= LEAST_TEST
    assert sum("hard" in case.tags for case in found.cases) * 10 >= len(found.cases) - 10
    assert {name for one in found.templates for name in one.variables} <= set(found.cases[0].values or {})


def test_the_expected_answers_pass_their_own_suite_with_the_full_score(found: Scenario) -> None:
    checks = parse(found.checks)
    for case in found.cases:
        given = Given(answer=case.expected or "", expected=case.expected, values=dict(case.values or {}))
        came = scored(checks, given, found.threshold)
        assert came.passed and came.score > 1 - 1e-9, f"{case.expected}: {[r.reason for r in came.results]}"


def test_an_answer_of_another_case_does_not_pass(found: Scenario) -> None:
    checks, case = parse(found.checks), found.cases[0]
    other = next(one for one in found.cases if one.expected != case.expected)
    given = Given(answer=other.expected or "", expected=case.expected, values=dict(case.values or {}))
    assert not scored(checks, given, found.threshold).passed


def test_no_demonstration_leaks_into_a_case(found: Scenario) -> None:
    for text in asked(found):
        assert not [one.input for one in found.demonstrations if leaks(one.input, text)], text


def test_no_case_stands_in_it_twice(found: Scenario) -> None:
    every = Counter(json.dumps([case.values, case.conversation], ensure_ascii=False) for case in found.cases)
    assert every.most_common(1)[0][1] == 1


def test_labels_are_those_of_the_template(found: Scenario) -> None:
    labels = found.templates[-1].labels
    if labels is None:
        return
    assert {case.expected for case in found.cases} == set(labels)
    assert {one.label for one in found.demonstrations} <= set(labels)


def test_a_new_project_gets_everything_and_a_second_time_nothing(
    store: Store, engineer: Person, project: Project, found: Scenario
) -> None:
    added = scenarios.add_to_new(store, engineer, found, f"  {found.title} ")
    new = added.project.id or 0
    assert (added.project.name, added.project.label_form) == (found.title, found.label_form)
    assert prompts.guideline(store, new).body == found.guideline  # type: ignore[union-attr]
    assert (added.templates, added.demonstrations, added.cases) == (
        len(found.templates),
        DEMONSTRATIONS,
        len(found.cases),
    )
    assert added.suite.case_ids == tuple(case.id for case in store.find(Case, "project_id = ?", [new]))
    again = scenarios.add(store, engineer, found, new)
    assert (again.templates, again.demonstrations, again.cases) == (0, 0, 0)
    assert (again.template, again.suite) == (added.template, added.suite)
    assert len(store.find(Guideline, "project_id = ?", [new])) == 1
    assert audit.first_broken(store) is None
    facts = audit.newest_facts(store, ("add_scenario",), "project", new)
    assert facts == {"scenario": found.key, "language": found.language, "cases": 0}


def test_a_project_that_is_there_keeps_its_form_and_guideline(store: Store, engineer: Person, project: Project) -> None:
    first = files.read(PATHS[0])
    before = prompts.guideline(store, project.id or 0)
    added = scenarios.add(store, engineer, first, project.id or 0)
    assert added.cases == len(first.cases)
    assert prompts.guideline(store, project.id or 0) == before
    assert store.get(Project, project.id or 0).label_form == project.label_form


def test_a_template_that_went_on_keeps_its_newer_versions(store: Store, engineer: Person, project: Project) -> None:
    first = files.read(PATHS[0])
    project_id = scenarios.add_to_new(store, engineer, first, "mine").project.id or 0
    changed = first.templates[-1]._replace(body=first.templates[-1].body + "\n")
    went_on = scenarios.add(store, engineer, first._replace(templates=(changed,)), project_id)
    assert (went_on.templates, went_on.template.version) == (1, len(first.templates) + 1)
    assert scenarios.add(store, engineer, first, project_id).templates == 0


def test_annotators_may_neither_look_nor_add(store: Store, annotator: Person, project: Project) -> None:
    first = files.read(PATHS[0])
    for act in (
        lambda: scenarios.gallery(annotator),
        lambda: scenarios.scenario(annotator, first.key, "en"),
        lambda: scenarios.add(store, annotator, first, project.id or 0),
        lambda: scenarios.add_to_new(store, annotator, first, "mine"),
    ):
        with pytest.raises(Denied):
            act()


def test_what_fails_half_way_leaves_nothing(store: Store, engineer: Person, project: Project) -> None:
    first = files.read(PATHS[0])
    broken = first._replace(checks=(object(),))  # type: ignore[arg-type]
    before = [store.value(f"select count(*) from {table}") for table in ("projects", "templates", "cases")]
    with pytest.raises(TypeError):
        scenarios.add_to_new(store, engineer, broken, "mine")
    assert [store.value(f"select count(*) from {table}") for table in ("projects", "templates", "cases")] == before


def test_a_name_that_is_taken_or_empty_and_a_scenario_that_is_not_there_are_refused(
    store: Store, engineer: Person, project: Project
) -> None:
    first = files.read(PATHS[0])
    with pytest.raises(NoScenario, match="already. Choose another name"):
        scenarios.add_to_new(store, engineer, first, project.name)
    with pytest.raises(NoScenario, match="at most 120"):
        scenarios.add_to_new(store, engineer, first, "  ")
    with pytest.raises(NoScenario, match='no scenario "weather" in "en". It has service'):
        scenarios.scenario(engineer, "weather", "en")


def test_a_first_run_of_its_suite_goes_through(
    store: Store, engineer: Person, project: Project, found: Scenario
) -> None:
    """An engine that answers as expected passes every case: prompts can be built, and nothing is lost on the way."""
    added = scenarios.add_to_new(store, engineer, found, "mine")
    right = {text: case.expected or "" for text, case in zip(asked(found), found.cases, strict=True)}
    longest_first = sorted(right, key=len, reverse=True)

    def answer(messages: object, model: str, seed: int) -> str:
        said = messages[-1]["content"]  # type: ignore[index]
        return next(right[text] for text in longest_first if said.endswith(text) or f"{text}\n" in said)

    live = models.live(store, "policy")
    assert live is not None
    run = testing.start(store, engineer, added.suite.id or 0, [(added.template.id or 0, live.id or 0)])
    while testing.progress(store, engineer, run.id or 0).run.state == "running":
        running.advance(store, ScriptedEngine(answer, max_model_len=100_000))
    cells = suites.cells(store, run.id or 0)
    assert len(cells) == len(found.cases)
    assert [cell.problem for cell in cells if cell.problem] == []
    assert all(cell.passed for cell in cells)


# ---- files


def changed(tmp_path: Path, **fields: object) -> Path:
    row = json.loads(PATHS[0].read_text(encoding="utf-8")) | fields
    path = tmp_path / "mine.en.json"
    path.write_text(json.dumps({name: value for name, value in row.items() if value is not None}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"synthetic": False}, "synthetic must be true"),
        ({"area": "weather"}, "area is 'weather'; it must be one of service"),
        ({"colour": "red"}, "there is no field colour"),
        ({"guideline": None}, "guideline is missing"),
        ({"guideline": " "}, "guideline is ' '; it must be a text"),
        ({"cases": [{"expected": "x"}]}, "neither values nor a conversation"),
        ({"cases": [{"conversation": [{"role": "system", "content": "x"}], "expected": ""}]}, "role is 'system'"),
        ({"templates": [{"name": "x", "body": "{{input}}", "few_shot": {"ids": [1]}}]}, "few_shot names ids"),
        ({"templates": [{"name": "x", "body": "{% if %}", "mode": "logic"}]}, "mine.en.json: Line 1"),
        ({"suite": {"name": "x", "checks": [{"type": "contain"}]}}, 'there is no check "contain"'),
        ({"suite": {"name": "x", "checks": [{"type": "equals"}], "threshold": 2}}, "threshold is 2"),
        ({"label_form": {"steps": 5}}, "steps, not 5"),
        ({"templates": [{"name": "x", "body": "{{input}}", "rows": [{"role": "user", "text": "{{input}}"}]}]}, "rows or texts"),
        ({"templates": [{"name": "x", "rows": [{"role": "user", "text": "a"}, {"role": "system", "text": "b"}]}]}, "Row 2"),
        ({"cases": 3}, "mine.en.json: "),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    with pytest.raises(BadScenario, match="mine.en.json") as problem:
        files.read(changed(tmp_path, **fields))
    assert said in str(problem.value)


def test_a_file_that_is_no_json_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.en.json"
    path.write_bytes(b"\xff")
    with pytest.raises(BadScenario, match="cannot be read"):
        files.read(path)
    path.write_text("[]")
    with pytest.raises(BadScenario, match="mine.en.json"):
        files.read(path)
    assert files.read(changed(tmp_path)) == files.read(PATHS[0])


def test_a_scenario_may_hold_a_chat_template_which_is_asked_and_added_like_any_other(
    tmp_path: Path, store: Store, engineer: Person, project: Project
) -> None:
    rows = [
        {"role": "system", "text": "Sort messages."},
        {"role": "demonstrations"},
        {"role": "user", "text": "About {{topic}}: {{input}}"},
    ]
    chat = {"name": "sorter", "rows": rows, "few_shot": {"k": 2, "choose": "nearest"}}
    found = files.read(
        changed(tmp_path, templates=[chat], cases=[{"values": {"input": "x", "topic": "y"}, "expected": "z"}])
    )
    assert found.templates[0].variables == ("topic", "input") and found.templates[0].body == ""
    added = scenarios.add_to_new(store, engineer, found, "chats")
    assert [row["role"] for row in added.template.rows] == ["system", "demonstrations", "user"]
    saved = prompting.save_template(store, engineer, added.project.id or 0, prompting.draft_of(added.template))
    assert saved.digest == added.template.digest and saved.id == added.template.id
    assert scenarios.add(store, engineer, found, added.project.id or 0).templates == 0
    sent = prompting.preview(
        store, ScriptedEngine(lambda *_: ""), engineer, added.project.id or 0, prompting.draft_of(added.template),
        {"input": "Where is it?", "topic": "parcels"},
    )  # fmt: skip
    assert [one["role"] for one in sent.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert sent.messages[-1]["content"] == "About parcels: Where is it?"


def test_an_answer_that_is_json_becomes_one_line_of_it(tmp_path: Path) -> None:
    path = changed(tmp_path, cases=[{"values": {"input": "x"}, "expected": {"金额": [1, 2]}}])
    assert files.read(path).cases[0].expected == '{"金额": [1, 2]}'


def test_demonstrations_belong_to_the_scenario_and_its_language(
    store: Store, engineer: Person, project: Project
) -> None:
    first = files.read(PATHS[0])
    added = scenarios.add_to_new(store, engineer, first, "mine")
    bank = prompts.demonstrations(store, added.project.id or 0, scenario=first.key, language=first.language)
    assert len(bank) == DEMONSTRATIONS == len(store.find(Demonstration, "project_id = ?", [added.project.id]))
    newest = store.get(Template, added.template.id or 0)
    assert (newest.scenario, newest.language) == (first.key, first.language)


# ---- gold answers follow from their texts


def rows_of(key: str) -> list[tuple[str, str, str]]:
    """(language, text, answer) of every case and demonstration of a scenario."""
    read = [one for one in map(files.read, PATHS) if one.key == key]
    cases = [(one.language, text, case.expected or "") for one in read for text, case in zip(asked(one), one.cases, strict=True)]  # fmt: skip
    return cases + [(one.language, shown.input, shown.output) for one in read for shown in one.demonstrations]


TIMES = {"亿": 1e8, "万": 1e4, "million": 1e6, "m": 1e6, "": 1.0}
MONTHS = "January February March April May June July August September October November December".split()


def amounts(text: str) -> set[int]:
    found = re.findall(r"(\d[\d,]*(?:\.\d+)?)\s?(亿|万|million|m\b|)", text)
    return {round(float(digits.replace(",", "")) * TIMES[unit]) for digits, unit in found}


def test_company_code_amount_and_date_of_an_announcement_stand_in_it() -> None:
    rows = rows_of("finance announcement")
    assert len(rows) > 100
    for _, text, answer in rows:
        company, code, _, amount, currency, date = json.loads(answer).values()
        assert company in text and code in text, text
        year, month, day = map(int, date.split("-"))
        name = MONTHS[month - 1]
        written = (f"{year}年{month}月{day}日", f"{day} {name} {year}", f"{name} {day}, {year}")
        assert any(one in text for one in written), text
        assert (amount is None) == (currency is None), text
        if amount is not None and not text.startswith("{"):
            assert abs(amount) in amounts(text), text


def test_an_answer_read_from_a_passage_stands_in_it() -> None:
    none = {"en": "unanswerable", "zh": "无法回答"}
    rows = rows_of("reading")
    assert sum(answer == none[lang] for lang, _, answer in rows) * 6 > len(rows)
    for lang, text, answer in rows:
        passage = text.rsplit("\n\n", 1)[0]
        assert answer == none[lang] or answer.casefold() in passage.casefold(), text


def test_the_passage_an_answer_cites_is_there() -> None:
    for _, text, answer in rows_of("service answering"):
        cited = re.search(r"[\[【](\d|none|无)[\]】]$", answer)
        assert cited is not None, answer
        assert cited[0] in text or cited[1] in ("none", "无"), text


def test_the_word_in_question_stands_in_both_sentences() -> None:
    for _, text, _ in rows_of("word in context"):
        word, one, other = re.split(r"\n[12][:：]", text)
        word = re.split(r"[:：]", word)[1].strip()
        assert word.casefold() in one.casefold() and word.casefold() in other.casefold(), text


def test_what_a_medical_answer_names_stands_in_its_text() -> None:
    """Quotations, fields and both ends of a triple are the text's own words: nothing is made up, nothing turned round."""
    rows = rows_of("medical record") + rows_of("medical diagnosis") + rows_of("medical triples")
    assert len(rows) > 200
    for _, text, answer in rows:
        read = json.loads(answer)
        if isinstance(read, list):
            named = [end for head, _, tail in read for end in (head, tail)]
        else:
            named = [one for value in read.values() if value for one in ([value] if isinstance(value, str) else value)]
        assert all(one.casefold() in text.casefold() for one in named), text


def test_no_medical_text_holds_a_dose() -> None:
    dose = re.compile(r"\d\s*(mg|milligram|ml|mcg|microgram|tablet|毫克|毫升|微克|片|粒)", re.IGNORECASE)
    for key in ("medical record", "medical diagnosis", "medical triples"):
        assert [text for _, text, answer in rows_of(key) if dose.search(text + answer)] == []


def test_the_level_of_a_default_risk_follows_its_rule_and_figures_stand_in_the_file() -> None:
    levels = {"en": ("low", "medium", "high"), "zh": ("低", "中", "高")}
    for lang, text, answer in rows_of("finance default risk"):
        level, *_ = json.loads(answer).values()
        drivers = dict(list(json.loads(answer).items())[1:])
        assert all(value in text or value in ("yes", "是") for value in drivers.values()), text
        is_overdue = "overdue" in drivers or "逾期" in drivers
        assert level == levels[lang][2 if is_overdue or len(drivers) >= 4 else 1 if len(drivers) >= 2 else 0], text


def test_macro_factors_are_those_the_template_lists() -> None:
    for one in map(files.read, PATHS):
        if one.key == "finance macro factors":
            listed = one.templates[-1].system_text
            answers = [case.expected or "" for case in one.cases] + [shown.output for shown in one.demonstrations]
            items = [list(item.values()) for answer in answers for item in json.loads(answer)]
            assert all(text in listed for item in items for text in item)


def test_a_dialogue_ends_with_the_customer_and_is_several_turns_long_at_times() -> None:
    for one in map(files.read, PATHS):
        if one.key == "service dialogue":
            turns = [[turn["role"] for turn in case.conversation or ()] for case in one.cases]
            assert all(roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] for roles in turns)
            assert sum(len(roles) >= 3 for roles in turns) * 3 > len(turns)


@pytest.mark.parametrize("key", ["service dialogue", "medical record"])
def test_answers_to_its_cases_wait_for_annotators_with_its_form(
    store: Store, engineer: Person, annotator: Person, project: Project, engine: ScriptedEngine, key: str
) -> None:
    found = scenarios.scenario(engineer, key, "zh")
    new = scenarios.add_to_new(store, engineer, found, "mine").project.id or 0
    assert comparing.refill(store, engine, project_id=new, target=4) == 4
    desk = labelling.next_desk(store, annotator, new)
    assert desk is not None and len(desk.answers) == 2
    shown = [turn["content"] for turn in desk.conversation]
    assert shown in [[turn["content"] for turn in conversation(case.values, case.conversation)] for case in found.cases]
    assert desk.guideline == found.guideline and desk.form["aspects"] == found.label_form["aspects"]
