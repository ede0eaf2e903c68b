"""Files of other tools as plans: what is taken, mapped and refused, with file, line and reason. The files are of our own making."""

import json
from pathlib import Path

import pytest

from backend.exchange import formats, upload
from backend.exchange.braces import CannotConvert, from_nunjucks, to_nunjucks
from backend.exchange.plan import NewDemonstration
from backend.prompts.template import compile_template, render

FILES = Path(__file__).parent / "files"


def plan_of(*names: str, format: str = ""):
    return formats.parse(upload.gather([FILES / name for name in names]), format)


def plan_from(name: str, text: str, **others: str):
    files = {name: text.encode(), **{other.replace("__", "."): content.encode() for other, content in others.items()}}
    return formats.parse(upload.of_bytes(name, files))


def told(plan, fate: str) -> list[tuple[str, int, str, str]]:
    return [(note.file, note.line, note.field, note.code) for note in plan.notes if note.fate == fate]


# ---- promptfoo


def test_a_promptfoo_configuration_becomes_templates_cases_and_a_suite():
    plan = plan_of("refunds.promptfoo.yaml", "few_shot.json")
    assert [one.name for one in plan.templates] == ["refunds.promptfoo 1", "polite", "few_shot"]
    assert plan.templates[1].system_text == "You are polite. Answer in {{language}}."
    assert plan.templates[2].shown == (NewDemonstration(input="It works well.", output="glad"),)
    assert [case.expected for case in plan.cases] == ["refund", "parcel", "parcel", "sorry"]
    assert plan.cases[1].values == {"language": "English", "message": "Where is it?", "code": "12:30"}
    (suite,) = plan.suites
    assert suite.checks == (
        {"type": "not-icontains", "value": "as an AI"},
        {"type": "latency", "threshold": 2000.0},
        {"type": "icontains"},
    )
    assert suite.cases == (0, 1, 2, 3)


def test_code_is_shown_with_its_line_and_never_run():
    plan = plan_of("refunds.promptfoo.yaml", "few_shot.json")
    refused = told(plan, "refused")
    assert ("refunds.promptfoo.yaml", 14, "prompts[4]", "code") in refused
    assert ("refunds.promptfoo.yaml", 30, "tests[1].assert[2]", "assert_code") in refused
    assert ("refunds.promptfoo.yaml", 38, "tests[2].assert[2]", "assert_own") in told(plan, "mapped")
    shown = next(note.shown for note in plan.notes if note.code == "assert_code")
    assert "output.length < 200" in shown


def test_the_code_of_a_prompt_that_lies_in_the_upload_is_shown():
    plan = plan_from("p.yaml", "prompts: ['file://make.py:go']\ntests: []\n", make__py="import os; os.abort()")
    (note,) = [note for note in plan.notes if note.code == "code"]
    assert note.shown == "import os; os.abort()" and not plan.templates


def test_values_stay_as_they_are_written_in_yaml():
    plan = plan_from("p.yaml", "tests:\n- vars: {a: 007, b: NO, c: 12:30, d: 1.10, e: ~}\n")
    assert plan.cases[0].values == {"a": "007", "b": "NO", "c": "12:30", "d": "1.10", "e": "~"}


def test_a_promptfoo_table_follows_its_grammar():
    rows = {
        "icontains:a": {"type": "icontains", "value": "a"},
        "not-contains: a b ": {"type": "not-contains", "value": "a b"},
        "levenshtein(3):kitten": {"type": "levenshtein", "value": "kitten", "threshold": 3.0},
        "levenshtein:kitten": {"type": "levenshtein", "value": "kitten", "threshold": 0.75},
        "starts-with:x:y": {"type": "starts-with", "value": "x:y", "threshold": 0.75},
        "rouge-n(0.5):a": {"type": "rouge-n", "value": "a", "threshold": 0.5},
        'contains-any:a,"b,c", d ': {"type": "contains-any", "value": ["a", "b,c", "d"]},
        "latency(500)": {"type": "latency", "threshold": 500.0},
        "is-json": {"type": "is-json"},
        'is-json:{"type": "object"}': {"type": "is-json", "value": {"type": "object"}},
        "contains:": {"type": "contains"},
        "the answer": {"type": "equals", "value": "the answer"},
        "Note: contains:x": {"type": "equals", "value": "Note: contains:x"},
        "equals:1": {"type": "equals", "value": "1"},
    }
    for cell, wanted in rows.items():
        quoted = '"' + cell.replace('"', '""') + '"'
        plan = plan_from("t.csv", f"q,__expected\nx,{quoted}\n")
        assert plan.suites[0].checks == (wanted,), cell


def test_an_unknown_prefix_is_reported_and_compared_as_promptfoo_does():
    plan = plan_from("t.csv", "q,__expected\nx,contains-some:a\n")
    assert ("t.csv", 2, "__expected", "csv_prefix") in told(plan, "mapped")
    assert plan.suites[0].checks == ({"type": "equals", "value": "contains-some:a"},)


@pytest.mark.parametrize(
    ("cell", "is_told"),
    [("contain:x", True), ("startswith:x", True), ("Contains: x", True), ("not-equal:x", True), ("moonshine:x", True),
     ("Note: contains:x", False), ("https://a.b", False), ("the answer", False), ("12:30", False), ("answer: yes", False)],
)  # fmt: skip
def test_what_may_have_been_meant_as_a_check_is_told(cell: str, is_told: bool) -> None:
    plan = plan_from("t.csv", f"q,__expected\nx,{cell}\n")
    assert (("t.csv", 2, "__expected", "csv_prefix") in told(plan, "mapped")) == is_told
    assert plan.suites[0].checks == ({"type": "equals", "value": cell},)


def test_columns_with_two_underscores_mean_what_they_mean_in_promptfoo():
    plan = plan_of("refunds.csv")
    (suite,) = plan.suites
    assert suite.threshold == 0.5
    assert suite.checks == (
        {"type": "icontains", "metric": "helpful"},
        {"type": "not-contains", "value": "sorry", "metric": "helpful"},
    )
    assert [case.expected for case in plan.cases] == ["parcel", "包裹", "en"]
    assert plan.cases[2].tags == ("area:tricks, mostly",)
    configured = plan_from("t.csv", "q,__expected,__config:__expected:threshold\nx,levenshtein:a,4\n")
    assert configured.suites[0].checks == ({"type": "levenshtein", "value": "a", "threshold": 4.0},)
    lone = plan_from("t.csv", "q,_expected\nx,icontains:a\n")
    assert ("t.csv", 1, "_expected", "csv_underscore") in told(lone, "mapped") and not lone.suites


def test_a_cell_cannot_fetch_the_expected_answer_of_its_row():
    plan = plan_from("t.csv", "q,label,__expected\nSay {{label}} and {{expected}},gold,equals:gold\n")
    (case,) = plan.cases
    asked = compile_template("{{q}}")
    assert render(asked, case.values or {}) == "Say {{label}} and {{expected}}"
    assert ("t.csv", 2, "vars.q", "value_is_text") in told(plan, "mapped")


def test_a_variable_named_expected_is_the_answer_and_no_input():
    text = "prompts: ['{{q}}']\ntests:\n- vars: {q: one, expected: '1'}\n  assert: [{type: equals, value: '{{expected}}'}]\n"
    plan = plan_from("p.yaml", text)
    assert plan.cases[0].values == {"q": "one"} and plan.cases[0].expected == "1"
    assert plan.suites[0].checks == ({"type": "equals"},)
    used = plan_from("p.yaml", text.replace("{{q}}", "{{q}} {{expected}}", 1))
    assert used.cases[0].values == {"q": "one", "expected": "1"}


def test_an_assertion_that_only_some_tests_have_is_theirs_and_not_asked_of_the_others():
    text = "tests:\n- vars: {q: a}\n  assert: [{type: contains, value: x}, {type: is-json}]\n- vars: {q: b}\n  assert: [{type: is-json}]\n"
    plan = plan_from("p.yaml", text)
    assert plan.suites[0].checks == ({"type": "is-json"},)
    assert plan.suites[0].own == {0: {"checks": [{"type": "contains", "value": "x"}]}}
    assert ("p.yaml", 3, "tests[1].assert[1]", "assert_own") in told(plan, "mapped")


def test_thresholds_that_differ_are_those_of_their_cases():
    text = "tests:\n- vars: {q: a}\n  threshold: .5\n  assert: [{type: is-json}]\n- vars: {q: b}\n  assert: [{type: is-json}]\n"
    suite = plan_from("p.yaml", text).suites[0]
    assert (suite.threshold, suite.own) == (None, {0: {"threshold": 0.5}})
    both = plan_from("p.yaml", text.replace("{q: b}", "{q: b}\n  threshold: .5")).suites[0]
    assert (both.threshold, both.own) == (0.5, {})


def test_numbers_of_a_schema_are_numbers():
    text = "tests:\n- vars: {q: a}\n  assert:\n  - type: is-json\n    value: {type: object, required: [n], properties: {n: {minimum: 3}}}\n"
    (check,) = plan_from("p.yaml", text).suites[0].checks
    assert check["value"] == {"type": "object", "required": ["n"], "properties": {"n": {"minimum": 3}}}


def test_scenarios_and_lists_are_multiplied_and_counted():
    text = (
        "prompts: ['{{a}}{{b}}']\nscenarios:\n- config:\n  - vars: {a: '1'}\n  - vars: {a: '2'}\n"
        "  tests:\n  - vars: {b: [x, y, z]}\n"
    )
    plan = plan_from("p.yaml", text)
    assert len(plan.cases) == 6 and {case.values["a"] for case in plan.cases} == {"1", "2"}  # type: ignore[index]
    assert "product" in [note.code for note in plan.notes] and "scenario" in [note.code for note in plan.notes]


def test_results_of_promptfoo_bring_their_prompts_tests_and_thumbs():
    def row(test: int, prompt: int, output: str, thumb: bool | None) -> dict:
        human = [{"pass": thumb, "score": int(bool(thumb)), "reason": "", "assertion": {"type": "human"}}]
        return {
            "testIdx": test, "promptIdx": prompt, "prompt": {"raw": f"Say {test}", "label": "say"}, "vars": {"n": str(test)},
            "response": {"output": output}, "success": True, "score": 1,
            "gradingResult": {"pass": True, "comment": "better" if thumb else "", "componentResults": [] if thumb is None else human},
            "testCase": {"vars": {"n": str(test)}, "assert": [{"type": "contains", "value": str(test)}]},
        }  # fmt: skip

    rows = [row(1, 0, "one", None), row(0, 1, "zero!", False), row(0, 0, "zero", True)]
    results = {"version": 3, "prompts": [{"raw": "Say {{n}}", "label": "say", "provider": "echo"}], "results": rows}
    plan = plan_from("r.json", json.dumps({"evalId": "x", "results": results, "config": {"providers": ["echo"]}}))
    assert plan.format == "promptfoo-results" and [one.body for one in plan.templates] == ["Say {{n}}"]
    assert [(case.values, case.expected) for case in plan.cases] == [({"n": "0"}, "0"), ({"n": "1"}, "1")]
    (pair,) = plan.pairs
    assert (pair.messages[0]["content"], pair.better, pair.worse, pair.rationale) == (
        "Say 0",
        "zero",
        "zero!",
        "better",
    )


# ---- the others


def test_a_chainforge_flow_brings_its_prompt_table_evaluators_and_grades():
    plan = plan_of("colours.cforge")
    (template,) = plan.templates
    assert template.body == "What colour is {{thing}}? Answer with one word. {no variable}"
    assert template.system_text == "You know colours."
    assert [(case.values, case.expected) for case in plan.cases] == [
        ({"thing": "snow"}, "white"),
        ({"thing": "grass {really}"}, "green"),
    ]
    assert plan.suites[0].checks == ({"type": "starts-with", "value": "{{expected}}"},)
    (pair,) = plan.pairs
    assert (pair.better, pair.worse) == ("white", "Snow can be many things.")
    assert pair.messages[0]["content"].startswith("What colour is snow?")
    assert ("colours.cforge", 0, "e2", "code") in told(plan, "refused")


def test_a_chainforge_archive_is_read_without_unpacking_it():
    import io
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("flow.json", (FILES / "colours.cforge").read_text(encoding="utf-8"))
    plan = formats.parse(upload.of_bytes("colours.cfzip", {"colours.cfzip": held.getvalue()}))
    assert len(plan.cases) == 2 and plan.name == "ChainForge flow"


def test_promptsource_templates_bring_their_labels_and_refuse_what_logic_cannot_say():
    plan = plan_of("templates.yaml")
    (template,) = plan.templates
    assert template.labels == ("bad", "good") and template.mode == "logic"
    assert render(compile_template(template.body, "logic"), {"text": "Fine."}) == "Is this review bad or good? Fine."
    assert ("templates.yaml", 24, "templates.22222222-bbbb.jinja", "template_problem") in told(plan, "refused")


def test_a_harness_task_follows_includes_and_rows_of_the_upload_only():
    plan = plan_of("reviews.lm-eval.yaml", "base.yaml", "reviews.jsonl")
    (template,) = plan.templates
    assert template.labels == ("bad", "good") and len(template.shown) == 2 and template.shape == "text"
    assert template.body.startswith("Tell good reviews from bad ones.\n\n{{demonstrations}}\n")
    assert [case.expected for case in plan.cases] == ["bad", "good"]
    assert ("reviews.lm-eval.yaml", 13, "process_results", "code") in told(plan, "refused")
    alone = plan_of("reviews.lm-eval.yaml")
    assert ("reviews.lm-eval.yaml", 1, "include", "file_outside") in told(alone, "refused") and not alone.cases


def test_a_prompty_file_brings_its_turns_and_its_sample():
    plan = plan_of("greeting.prompty")
    (template,) = plan.templates
    values = plan.cases[0].values or {}
    assert template.mode == "logic" and values == {"name": "Ada", "topic": "parcels"}
    assert render(compile_template(template.body, "logic"), values) == "Hello, I am Ada. Where is mine?"
    assert ("greeting.prompty", 5, "model", "run_setting") in told(plan, "refused")


def test_chat_lines_become_cases_and_preferences_pairs():
    plan = plan_of("chats.openai.jsonl")
    assert [case.expected for case in plan.cases] == ["In Leeds.", None]
    assert plan.cases[0].conversation[0] == {"role": "system", "content": "Be brief."}  # type: ignore[index]
    (pair,) = plan.pairs
    assert (pair.better, pair.worse) == ("Yes, by a day.", "Who knows.")
    assert ("chats.openai.jsonl", 4, "messages", "not_a_chat") in told(plan, "refused")


# ---- braces


@pytest.mark.parametrize(
    "body",
    [
        '{"a": {{x}}}',
        "{{{x}}}",
        "{% if %} {{x}} {# no",
        "{{ not a name }} {{x}}",
        "a { b } {{x}} }}",
        "{{{{x}}}}",
        "{{x}}{{y}}",
        "{{%{{x}}",
    ],
)
def test_a_plain_template_goes_to_nunjucks_and_back(body):
    back = from_nunjucks(to_nunjucks(body), of_promptfoo=False)
    values = {"x": "{{y}}", "y": "1"}
    assert render(compile_template(*back), values) == render(compile_template(body), values)


def test_what_nunjucks_and_jinja_share_becomes_logic_and_the_rest_is_refused():
    assert from_nunjucks("{% if a %}x{% elseif b %}y{% endif %}") == ("{% if a %}x{% elif b %}y{% endif %}", "logic")
    assert from_nunjucks("{{ a | dump }}") == ("{{ a | tojson }}", "logic")
    assert from_nunjucks("{% raw %}{{x}}{% endraw %} {{y}}").mode == "logic"
    with pytest.raises(CannotConvert, match="Line 1"):
        from_nunjucks("{{ range(9) }}")


def test_a_prompt_with_half_a_brace_is_text_as_in_promptfoo():
    body, mode = from_nunjucks("Complete: {{ name and {% if")
    assert render(compile_template(body, mode), {}) == "Complete: {{ name and {% if"


def flow_with(*evaluators: dict[str, object]) -> str:
    """A flow of one prompt, asked of two colours, and these evaluators behind it."""
    nodes = [
        {"id": "t", "type": "textfields", "data": {"fields": {"f0": "red", "f1": "blue"}}},
        {"id": "p", "type": "prompt", "data": {"prompt": "Describe {colour}."}},
        *({"id": f"e{at}", **one} for at, one in enumerate(evaluators)),
    ]
    edges = [{"source": "t", "sourceHandle": "output", "target": "p", "targetHandle": "colour"}]
    edges += [{"source": "p", "target": f"e{at}"} for at in range(len(evaluators))]
    return json.dumps({"flow": {"nodes": nodes, "edges": edges}})


def test_chainforge_questions_to_a_judge_and_nodes_of_several_evaluators_are_checks():
    code = "function evaluate(r) {\n\treturn !r.text.includes('#');\n}"
    plan = plan_from(
        "f.cforge",
        flow_with(
            {"type": "llmeval", "data": {"prompt": "Respond with true if {#colour} is named.", "format": "bin"}},
            {"type": "llmeval", "data": {"prompt": "Which mood?", "format": "cat"}},
            {
                "type": "multieval",
                "data": {
                    "evaluators": [
                        {"name": "tags", "type": "javascript", "state": {"code": code}},
                        {"name": "kind", "type": "llm", "state": {"prompt": "Is it kind?"}},
                        {"name": "long", "type": "python", "state": {"code": "def evaluate(r):\n  return len(r.text)"}},
                    ]
                },
            },
        ),
    )
    assert plan.suites[0].checks == (
        {"type": "llm-rubric", "value": "Respond with true if {{colour}} is named."},
        {"type": "not-contains", "value": "#"},
        {"type": "llm-rubric", "value": "Is it kind?"},
    )
    refused = told(plan, "refused")
    assert ("f.cforge", 0, "e1", "rubric_kind") in refused and ("f.cforge", 0, "e2.long", "code") in refused


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ('function evaluate(response) {\n  return response.text.startsWith(\n    "[[TOOLS]]"\n  );\n}', ("starts-with", "[[TOOLS]]")),
        ("def evaluate(r):\n  return r.text.endswith('.')", ("ends-with", ".")),
        ("def evaluate(r):\n  return not r.text.startswith('No')", ("not-starts-with", "No")),
        ("function evaluate(r) { return r.text === 'yes'; }", ("equals", "yes")),
        ("function evaluate(r) { return r.text.includes('a') && steal(); }", None),
        ("function evaluate(r) { return r.text.includes('a\\n'); }", None),
    ],
)  # fmt: skip
def test_a_chainforge_evaluator_that_compares_with_its_own_text_is_that_check(code, check):
    plan = plan_from("f.cforge", flow_with({"type": "evaluator", "data": {"code": code}}))
    checks = [(one["type"], one["value"]) for suite in plan.suites for one in suite.checks]
    assert checks == ([check] if check else [])
