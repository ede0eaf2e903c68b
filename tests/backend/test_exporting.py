"""Exports: what a model is sent is what the file says, reading it back gives the same, and nobody's text becomes markup."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend import curating, exporting, importing, prompting, starting, testing
from backend.access import Denied
from backend.engines.features import embedder
from backend.engines.kept import SamplingSettings
from backend.exchange import formats, upload
from backend.exchange.out import promptfoo
from backend.exchange.out.sheet import Exported, Sheet, Shown
from backend.exchange.plan import NewDemonstration, Notes, Plan
from backend.exporting import CannotExport, export
from backend.prompts.chat import build_messages
from backend.suites import running, written
from feedback_db import models
from feedback_db.types import Case, Demonstration, Suite, Template

HARD = [  # texts that formats like to change
    "007", "NO", "12:30", "null", "~", "1e3", "{{label}} and {% if %} {# x", "{", "a{{", "}}", "line\nline\n", " padded ", "\ttab", '"q" \'s\'',
    "=1+1", "-x", "a,b", "# c", "|", "包裹在哪里？", "\u2028\x85", "😀", "{{ not_a_variable }}", "- a: b", "a\\b", "%7B", "\r\nx", "file: x", "'", "x\n\n\n",
]  # fmt: skip


def back(made: Exported) -> Plan:
    name = made.name.rsplit(".", 2)
    file = f"{name[-2]}.{name[-1]}"
    return formats.parse(upload.of_bytes(file, {file: made.data}))


def template_of(body: str, system_text: str = "", id: int = 1, name: str = "t", **more) -> Template:
    return Template(id=id, project_id=1, name=name, body=body, system_text=system_text, digest=b"", **more)


def case_of(values=None, expected=None, tags=(), conversation=None) -> Case:
    return Case(
        project_id=1, values=values, conversation=conversation, expected=expected, tags=tags, split="train", digest=b""
    )


def checks_of(text: str):
    return tuple(check.as_row() for check in written.checks_of(text))


def sheet_of(cases, checks, templates=None, threshold=None) -> Sheet:
    shown = templates or (Shown(label="t", template=template_of("Say {{a}}", "Be {{b}}")),)
    rows = tuple(
        {
            one.label: build_messages(one.template, case.values or {}, one.demonstrations or (), "turns")
            for one in shown
            if case.values
        }
        for case in cases
    )
    return Sheet(
        title="s", templates=tuple(shown), cases=tuple(cases), written=rows, checks=checks, threshold=threshold
    )


# ---- export, then import, is the identity

TEXT = st.one_of(st.sampled_from(HARD), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
CHECKS = st.lists(
    st.sampled_from(
        ["equals", "icontains", "not-contains:x", "contains-any:a,b", "levenshtein(3)", "rouge-n(0.5):y", "is-json", "latency(900)", "f1(0.4)",
         "one-of:a,b", '{"type": "contains", "value": "{{a}} {{expected}}", "weight": 2}', '{"type": "is-json", "value": {"type": "object", "minProperties": 1}}',
         '{"type": "contains", "value": "{% x {{ 1"}', "starts-with:{{expected}}", "json-fields", '{"type": "icontains", "metric": "m"}', "regex:^a{2}$"]
    ),
    max_size=5, unique=True,
)  # fmt: skip
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(
    st.lists(
        st.tuples(TEXT, TEXT, st.none() | TEXT.filter(bool), st.lists(TEXT.filter(str.strip), max_size=2)),
        min_size=1,
        max_size=4,
    ),
    CHECKS,
    st.none() | st.sampled_from([0.0, 0.25, 1.0]),
)
def test_a_configuration_read_back_is_the_same(rows, checks, threshold):
    cases = [case_of({"a": a, "b": b}, right, tuple(tags)) for a, b, right, tags in rows if a.strip() or b.strip()]
    sheet = sheet_of(cases, checks_of("\n".join(checks)), threshold=threshold)
    plan = back(promptfoo.configuration(sheet, Notes("suite")))
    assert [(dict(one.values or {}), one.expected, one.tags) for one in plan.cases] == [
        (one.values, one.expected, one.tags) for one in sheet.cases
    ]
    assert [(one.name, one.body, one.system_text) for one in plan.templates] == [("t", "Say {{a}}", "Be {{b}}")]
    if sheet.cases and sheet.checks:
        assert plan.suites[0].checks == sheet.checks and plan.suites[0].threshold == threshold


@MANY
@given(st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT.filter(bool)), min_size=1, max_size=4), CHECKS)
def test_a_table_read_back_is_the_same_but_for_what_was_told(rows, checks):
    cases = [case_of({"a": a, "b": b}, right) for a, b, right in rows if a.strip() or b.strip()]
    if not cases:
        return
    sheet = sheet_of(cases, checks_of("\n".join(checks)))
    notes = Notes("suite")
    made = promptfoo.table(sheet, notes)
    left = {note.field for note in notes.kept if note.fate == "refused"}
    kept = [case for i, case in enumerate(cases, 1) if f"case {i}" not in left]
    plan = back(made)
    assert [(dict(one.values or {}), one.expected) for one in plan.cases] == [
        (one.values, one.expected) for one in kept
    ]
    wanted = tuple(row for i, row in enumerate(sheet.checks, 1) if f"check {i}" not in left)
    if kept and wanted:
        assert plan.suites[0].checks == wanted


@MANY
@given(
    st.lists(st.sampled_from(["{{a}}", "{{input}}", *HARD]), min_size=1, max_size=6),
    st.sampled_from(["", "Be {{a}}.", "{"]),
)
def test_a_template_read_back_asks_the_same(pieces, system_text):
    body = "".join(pieces)
    template = template_of(body, system_text)
    values = {"a": "{{b}}", "input": "x", "label": "L", "not_a_variable": "N", "b": "B"}
    if not body.strip():
        return
    plan = back(
        promptfoo.configuration(sheet_of([case_of(values)], (), (Shown(label="t", template=template),)), Notes("t"))
    )
    (one,) = plan.templates
    again = template_of(one.body, one.system_text, mode=one.mode)
    assert build_messages(again, values, (), "turns") == build_messages(template, values, (), "turns")


def test_checks_and_thresholds_of_single_cases_come_back_as_theirs():
    cases = tuple(case_of({"q": name}, name) for name in ("one", "two", "three"))
    own = (
        {"checks": [{"type": "contains", "value": "{{q}} 100%"}, {"type": "not-equals", "value": "x", "weight": 2.0}]},
        {},
        {"threshold": 0.25},
    )
    made = promptfoo.configuration(Sheet(title="t", cases=cases, checks=({"type": "equals"},), own=own), Notes(""))
    (suite,) = back(made).suites
    assert suite.checks == ({"type": "equals"},) and suite.threshold is None
    assert suite.own == {0: own[0], 2: own[2]}


def test_a_table_has_columns_for_the_checks_of_single_cases():
    cases = tuple(case_of({"q": name}, name) for name in ("one", "two", "three"))
    weighted = {"type": "not-equals", "value": "x", "weight": 2.0}
    own = (
        {"checks": [{"type": "contains", "value": "{{q}} 100%"}, weighted, {"type": "levenshtein", "threshold": 3.0}]},
        {},
        {"checks": [{"type": "icontains", "value": "t"}], "threshold": 0.25},
    )
    notes = Notes("")
    made = promptfoo.table(Sheet(title="t", cases=cases, checks=({"type": "equals"},), threshold=0.75, own=own), notes)
    assert [(note.field, note.values["name"]) for note in notes.kept] == [("case 1", "not-equals")]
    (suite,) = back(made).suites
    assert suite.checks == ({"type": "equals"},)
    told = {place: (row.get("checks"), row.get("threshold", suite.threshold)) for place, row in suite.own.items()}
    kept = [one for one in own[0]["checks"] if one is not weighted]
    assert told[0][0] == kept and told[2] == (own[2]["checks"], 0.25)
    assert told.get(1, (None, suite.threshold))[1] == told[0][1] == 0.75


def test_demonstrations_that_are_always_shown_come_back_as_demonstrations():
    shown = (
        Demonstration(project_id=1, input="{{a}} {", output="{% x", digest=b""),
        Demonstration(project_id=1, input="b", output="c\n", digest=b""),
    )
    one = Shown(label="t", template=template_of("Q: {{input}}\nA:", few_shot={"k": 2}), demonstrations=shown)
    plan = back(promptfoo.configuration(Sheet(title="s", templates=(one,)), Notes("t")))
    assert plan.templates[0].shown == tuple(NewDemonstration(input=d.input, output=d.output) for d in shown)
    assert plan.templates[0].body == "Q: {{input}}\nA:"


# ---- a suite and a run of the sample project


@pytest.fixture
def suite(store, engineer, project) -> Suite:
    rows = [({"input": text}, f"answer {i}") for i, text in enumerate(HARD) if text.strip()]
    cases = prompting.add_cases(store, engineer, project.id, rows)
    return testing.save_suite(
        store,
        engineer,
        project.id,
        name="hard: texts/../x",
        case_ids=[case.id for case in cases],
        checks="icontains\nf1(0.2)",
    )


CHAT = (
    {"role": "system", "text": "Braces {{{ {% stay"},
    {"role": "demonstrations"},
    {"role": "user", "text": "Ready? {# no"},
    {"role": "assistant", "text": "Yes {{"},
    {"role": "turns"},
    {"role": "user", "text": "Say {{input}}\n"},
)


def plain_and_few_shot(store, engineer, project) -> list[int]:
    for i in range(6):
        curating.add_demonstration(
            store, engineer, project.id, input=f"word {i} {{{{x}}}}", output=f"out {i}", scenario="w"
        )
    drafts = [
        prompting.Draft(name="plain", system_text="Braces {{{ {% stay", body="Say {{input}}\n"),
        prompting.Draft(
            name="text",
            body=starting.FEW_SHOT_BODY.replace("{{task}}", "task"),
            scenario="w",
            few_shot={"k": 2, "shape": "text"},
        ),
        prompting.Draft(name="turns", body="Q {{input}}", scenario="w", few_shot={"k": 2}),
        prompting.Draft(
            name="nearest", body="Q {{input}}", scenario="w", few_shot={"k": 3, "choose": "nearest", "shape": "turns"}
        ),
        prompting.Draft(name="logic", body="{% if input %}I: {{ input }}{% endif %}", mode="logic"),
        prompting.Draft(name="chat", rows=CHAT, scenario="w", few_shot={"k": 2}),
    ]
    return [prompting.save_template(store, engineer, project.id, draft).id or 0 for draft in drafts]


def ran(store, engineer, engine, suite, templates) -> int:
    live = models.live(store, "policy")
    run = testing.start(store, engineer, suite.id, [(template, live.id) for template in templates])
    while testing.progress(store, engineer, run.id).run.state == "running":
        running.advance(store, engine)
    return run.id


@pytest.mark.parametrize("format", exporting.FORMATS)
def test_every_format_writes_a_suite_and_a_run(store, engineer, project, engine, suite, format):
    templates = plain_and_few_shot(store, engineer, project)[:2]
    run = ran(store, engineer, engine, suite, templates)
    for what, id in (("suite", suite.id), ("run", run)):
        made = export(store, engineer, what, id, format, template_ids=templates)
        assert made.data and re.fullmatch(r"[\w-]+(\.[\w-]+)+", made.name)
    if format == "promptfoo-csv":
        with pytest.raises(CannotExport, match="no cases"):
            export(store, engineer, "template", templates[0], format)
    else:
        assert export(store, engineer, "template", templates[0], format).data


def test_chat_lines_hold_the_exact_messages_and_come_back_as_cases(store, engineer, project, suite):
    templates = plain_and_few_shot(store, engineer, project)
    made = export(store, engineer, "suite", suite.id, "jsonl", template_ids=templates[:1])
    plan = back(made)
    wanted = [
        build_messages(store.get(Template, templates[0]), store.get(Case, case_id).values, (), "turns")
        for case_id in suite.case_ids
    ]
    assert [one.conversation for one in plan.cases] == wanted
    assert [one.expected for one in plan.cases] == [store.get(Case, case_id).expected for case_id in suite.case_ids]


def test_the_answers_of_a_run_are_written_with_what_the_model_was_sent(store, engineer, project, engine, suite):
    templates = plain_and_few_shot(store, engineer, project)
    run = ran(store, engineer, engine, suite, [templates[3]])
    rows = [json.loads(line) for line in export(store, engineer, "run", run, "jsonl").data.decode().splitlines()]
    assert len(rows) == len(suite.case_ids)
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"] * 4
    assert rows[0]["metadata"]["template"] == "nearest" and rows[0]["metadata"]["passed"] in ("true", "false")


def test_answers_at_several_temperatures_are_told_apart_in_every_format(store, engineer, project, engine, suite):
    template, live = plain_and_few_shot(store, engineer, project)[0], models.live(store, "policy")
    samplings = [SamplingSettings(temperature=one) for one in (0.0, 0.7)]
    run = testing.start(store, engineer, suite.id, [(template, live.id)], samplings=samplings)
    while testing.progress(store, engineer, run.id).run.state == "running":
        running.advance(store, engine)
    for format, told in (
        ("html", f"{live.name} · T = {{}} · 1</h3>"),
        ("text", f"{live.name} · T = {{}} · 1"),
        ("jsonl", '"temperature": "{}"'),
    ):
        written = export(store, engineer, "run", run.id, format).data.decode()
        counts = [written.count(told.format(one)) for one in ("0", "0.7")]
        assert counts == [len(suite.case_ids)] * 2, (format, counts)
    alone = export(store, engineer, "run", ran(store, engineer, engine, suite, [template]), "html").data.decode()
    assert "T = 0" not in alone


def test_a_page_holds_no_script_and_no_markup_of_others(store, engineer, project, engine):
    bad = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"
    (case,) = prompting.add_cases(store, engineer, project.id, [({"input": bad}, bad)])
    suite = testing.save_suite(
        store,
        engineer,
        project.id,
        name=bad[:60],
        case_ids=[case.id],
        checks=json.dumps({"type": "contains", "value": bad}),
    )
    draft = prompting.Draft(name="t" + bad, body=bad + "{{input}}", system_text=bad)
    template = prompting.save_template(store, engineer, project.id, draft)
    run = ran(store, engineer, engine, suite, [template.id])
    for what, id in (("run", run), ("suite", suite.id), ("template", template.id)):
        page = export(store, engineer, what, id, "html", template_ids=[template.id]).data.decode()
        assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
        assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
        assert not re.search(r"(src|href)=", page.replace("&lt;img src=x", ""))


def test_a_cell_that_a_spreadsheet_would_calculate_is_told_and_not_changed(store, engineer, project):
    cases = prompting.add_cases(store, engineer, project.id, [({"input": "=1+1"}, "2"), ({"input": "one"}, "1")])
    suite = testing.save_suite(
        store, engineer, project.id, name="sums", case_ids=[case.id for case in cases], checks="contains"
    )
    made = export(store, engineer, "suite", suite.id, "promptfoo-csv")
    assert "=1+1," in made.data.decode()
    assert [(note.field, note.code) for note in made.remarks] == [("case 1", "formula")]


def test_a_case_whose_value_would_fetch_its_label_in_promptfoo_is_kept_aside(store, engineer, project):
    rows = [({"input": "Say {{expected}}"}, "gold"), ({"input": "file:///etc/passwd"}, "x"), ({"input": "fine"}, "y")]
    cases = prompting.add_cases(store, engineer, project.id, rows)
    suite = testing.save_suite(
        store, engineer, project.id, name="s", case_ids=[case.id for case in cases], checks="contains"
    )
    made = export(store, engineer, "suite", suite.id, "promptfoo")
    assert {note.code for note in made.remarks} == {"case_filled", "case_reference"}
    assert [(one.values, one.expected) for one in back(made).cases] == rows


def test_a_large_suite_is_written_as_json_that_an_import_here_reads():
    cases = [case_of({"a": f"{i} " + "x" * 300, "b": "y"}, "z") for i in range(4000)]
    made = promptfoo.configuration(sheet_of(cases, checks_of("contains")), notes := Notes("s"))
    assert made.name.endswith(".json") and notes.kept[-1].code == "json_instead"
    assert len(back(made).cases) == 4000


def test_an_exported_suite_imports_into_another_project_as_it_was(store, engineer, project, suite, tmp_path):
    templates = plain_and_few_shot(store, engineer, project)[:1]
    made = export(store, engineer, "suite", suite.id, "promptfoo", template_ids=templates)
    path = tmp_path / made.name
    path.write_bytes(made.data)
    other = importing.project_for(store, engineer, "other")
    kept = importing.apply_import(store, engineer, other.id, importing.plan_import(engineer, [path])).kept
    again = store.get(Suite, kept.suites[0])
    assert again.checks == suite.checks and again.threshold == suite.threshold
    digests = [[store.get(Case, id).digest for id in one.case_ids] for one in (suite, again)]
    assert digests[0] == digests[1]
    assert export(store, engineer, "suite", again.id, "promptfoo", template_ids=kept.templates).data == made.data


def test_an_annotator_exports_nothing_and_an_unknown_format_is_refused(store, annotator, engineer, suite):
    with pytest.raises(Denied):
        export(store, annotator, "suite", suite.id, "html")
    with pytest.raises(Denied):
        exporting.choices(store, annotator, 1, "suite")
    with pytest.raises(CannotExport, match="no format"):
        export(store, engineer, "suite", suite.id, "docx")


# ---- the real promptfoo


def command_of_promptfoo() -> list[str]:
    """promptfoo where it is installed: WHETSTONE_PROMPTFOO names the program, else that of make promptfoo or of the path."""
    installed = Path(__file__).parents[2] / ".promptfoo" / "node_modules" / ".bin" / "promptfoo"
    named = (
        os.environ.get("WHETSTONE_PROMPTFOO")
        or (str(installed) if installed.exists() else shutil.which("promptfoo"))
        or ""
    )
    return [named] if named and Path(named).exists() else []


@pytest.mark.slow
@pytest.mark.skipif(
    not command_of_promptfoo(),
    reason="promptfoo is not installed: make promptfoo",
)
def test_promptfoo_loads_our_export_and_sends_the_same_bytes(store, engineer, project, suite, tmp_path):
    templates = plain_and_few_shot(store, engineer, project)
    made = export(store, engineer, "suite", suite.id, "promptfoo", template_ids=templates)
    (tmp_path / "promptfooconfig.yaml").write_bytes(made.data)
    quiet = {
        "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_CONFIG_DIR": str(tmp_path / "home"),
        "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1", "NO_COLOR": "1",
    }  # fmt: skip
    where = {
        "cwd": tmp_path,
        "env": {**os.environ, **quiet},
        "capture_output": True,
        "text": True,
        "timeout": 240,
    }
    valid = subprocess.run([*command_of_promptfoo(), "validate", "-c", "promptfooconfig.yaml"], check=False, **where)
    assert valid.returncode == 0, valid.stdout + valid.stderr
    out = tmp_path / "out.json"
    done = subprocess.run(
        [*command_of_promptfoo(), "eval", "-c", "promptfooconfig.yaml", "--no-cache", "--no-write", "-o", str(out)],
        check=False,
        **where,
    )
    assert out.exists(), done.stdout + done.stderr
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    kept_aside = {note.field for note in made.remarks if note.field.startswith("case ")}
    cases = [store.get(Case, id) for i, id in enumerate(suite.case_ids, 1) if f"case {i}" not in kept_aside]
    sheet = exporting._of_suite(store, embedder(store, None), suite, templates, Notes("suite"))
    labels = [one.label for one in sheet.templates]
    by_case = {case.id: row for case, row in zip(sheet.cases, sheet.written, strict=True)}
    assert len(results["results"]) == len(cases) * len(templates)
    for row in results["results"]:
        sent = json.loads(row["response"]["output"])
        wanted = [dict(turn) for turn in by_case[cases[row["testIdx"]].id][labels[row["promptIdx"]]]]
        assert sent == wanted, (labels[row["promptIdx"]], row["vars"])
    (tmp_path / "tests.csv").write_bytes(export(store, engineer, "suite", suite.id, "promptfoo-csv").data)
    (tmp_path / "csv.yaml").write_text(
        "prompts: ['{{input}}']\nproviders: [echo]\ntests: file://tests.csv\n", encoding="utf-8"
    )
    table = subprocess.run(
        [*command_of_promptfoo(), "eval", "-c", "csv.yaml", "--no-cache", "--no-write", "-o", "csv.json"],
        check=False,
        **where,
    )
    assert (tmp_path / "csv.json").exists(), table.stdout + table.stderr
    rows = json.loads((tmp_path / "csv.json").read_text(encoding="utf-8"))["results"]["results"]
    found = {row["testIdx"]: row["vars"]["input"] for row in rows}
    kept = [found[i].removesuffix("\n") for i in range(len(found))]  # as promptfoo does before it fills a prompt
    assert kept == [(case.values or {})["input"] for case in cases]
