"""Chats of other tools: earlier turns are rows, demonstrations or the case's own, and what we write of rows comes back as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend import exporting, importing, prompting, testing
from backend.exchange import formats, upload
from backend.exchange.out import html, jsonl, promptfoo, text
from backend.exchange.out.sheet import Sheet, Shown
from backend.exchange.plan import NewDemonstration, Notes
from backend.prompts.chat import build_messages
from backend.prompts.rows import check_rows
from feedback_db.types import Demonstration, Template
from tests.backend.exchange.test_formats import plan_from, told
from tests.backend.test_exporting import HARD, back, case_of

SHOWN = (
    Demonstration(id=1, project_id=1, input="{{a}} {", output="{% x", digest=b""),
    Demonstration(id=2, project_id=1, input="b", output="c\n", digest=b""),
)
MANY = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
SAID = st.one_of(st.sampled_from([one for one in HARD if one.strip()]), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip))  # fmt: skip


@st.composite
def chats(draw: st.DrawFn) -> tuple[dict[str, str], ...]:
    """Rows of a plain chat template, with places anywhere but at the end."""
    rows = [
        {"role": draw(st.sampled_from(["user", "assistant"])), "text": draw(SAID)}
        for _ in range(draw(st.integers(0, 4)))
    ]
    rows.append({"role": "user", "text": draw(SAID.map(lambda said: said + " {{input}}"))})
    for place in draw(st.lists(st.sampled_from(["demonstrations", "turns"]), unique=True)):
        rows.insert(draw(st.integers(0, len(rows) - 1)), {"role": place})
    system = draw(st.none() | SAID)
    return (({"role": "system", "text": system},) if system else ()) + tuple(rows)


def template_of(rows, mode="plain", **more) -> Template:
    return Template(id=1, project_id=1, name="t", body="", rows=check_rows(rows, mode), mode=mode, digest=b"", **more)


@MANY
@given(chats(), st.booleans())
def test_rows_written_for_promptfoo_come_back_as_they_were(rows, is_shown):
    shown = SHOWN if is_shown else ()
    one = Shown(label="t", template=template_of(rows, few_shot={"k": 2} if is_shown else {}), demonstrations=shown)
    (again,) = back(promptfoo.configuration(Sheet(title="s", templates=(one,)), Notes("t"))).templates
    assert again.rows == one.template.rows and again.mode == "plain"
    assert again.shown == tuple(NewDemonstration(input=d.input, output=d.output) for d in shown)


@MANY
@given(chats())
def test_rows_written_as_chat_lines_come_back_as_they_were(rows):
    one = Shown(label="t", template=template_of(rows, labels=("a, b", "c")))
    (again,) = back(jsonl.lines(Sheet(title="s", templates=(one,)), Notes("t"))).templates
    assert (again.rows, again.labels, again.name) == (one.template.rows, ("a, b", "c"), "t")


@pytest.mark.parametrize("mode", ["plain", "logic"])
def test_a_text_template_written_as_a_chat_line_is_that_template_again(mode):
    one = Template(
        id=1, project_id=1, name="t", body="Say {{ input }}\n", system_text="Be kind.", mode=mode, digest=b""
    )
    plan = back(jsonl.lines(Sheet(title="s", templates=(Shown(label="t", template=one),)), Notes("t")))
    (again,) = plan.templates
    assert (again.body, again.system_text, again.mode, again.rows) == (
        one.body,
        "Be kind.",
        mode,
        (),
    ) and not plan.cases


def test_what_promptfoo_is_sent_of_rows_is_what_is_sent_here():
    rows = ({"role": "system", "text": "Be {{tone}}."}, {"role": "user", "text": "Once {"}, {"role": "assistant", "text": "{% ok"}, {"role": "user", "text": "Q {{input}}"})  # fmt: skip
    one = Shown(label="t", template=template_of(rows, few_shot={"k": 2}), demonstrations=SHOWN)
    case = case_of({"tone": "kind", "input": "x"})
    written = {"t": build_messages(one.template, case.values, SHOWN, "turns")}
    made = promptfoo.configuration(Sheet(title="s", templates=(one,), cases=(case,), written=(written,)), Notes("t"))
    plan = back(made)
    (again,) = plan.templates
    shown = [Demonstration(project_id=1, input=d.input, output=d.output, digest=b"") for d in again.shown]
    assert build_messages(template_of(again.rows, again.mode), case.values, shown, "turns") == written["t"]
    assert [dict(one.values) for one in plan.cases] == [case.values]


def test_a_prompt_that_somebody_changed_is_read_as_it_stands():
    rows = ({"role": "user", "text": "A"}, {"role": "assistant", "text": "B"}, {"role": "demonstrations"}, {"role": "user", "text": "{{input}}"})  # fmt: skip
    made = promptfoo.configuration(
        Sheet(title="s", templates=(Shown(label="t", template=template_of(rows)),)), Notes("t")
    )
    changed = made._replace(data=made.data.replace(b'"content": "A"', b'"content": "Z"').replace(b'\\"content\\": \\"A\\"', b'\\"content\\": \\"Z\\"'))  # fmt: skip
    assert changed.data != made.data
    (again,) = back(changed).templates
    assert [row.get("text") for row in again.rows] == ["Z", "B", "{{input}}"]


def test_a_damaged_entry_is_refused_with_its_reason():
    rows = ({"role": "user", "text": "A"}, {"role": "demonstrations"}, {"role": "user", "text": "{{input}}"})
    made = promptfoo.configuration(
        Sheet(title="s", templates=(Shown(label="t", template=template_of(rows)),)), Notes("t")
    )
    broken = made._replace(data=made.data.replace(b'"demonstrations"', b'"nobody"'))
    plan = back(broken)
    assert "template_problem" in [code for *_, code in told(plan, "refused")]


def test_for_reading_rows_stand_with_their_places():
    rows = ({"role": "user", "text": "<b>A"}, {"role": "turns"}, {"role": "user", "text": "{{input}}"})
    sheet = Sheet(title="s", templates=(Shown(label="t", template=template_of(rows)),))
    assert "[user]\n<b>A\n\n[turns]\n...\n\n[user]\n{{input}}" in text.text(sheet, Notes("t")).data.decode()
    page = html.page(sheet, Notes("t")).data.decode()
    assert "<dt>turns</dt>" in page and "&lt;b&gt;A" in page


# ---- what others write


def test_earlier_turns_are_rows_unless_the_question_has_a_form_that_they_share():
    chat = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, {{name}}."}, {"role": "user", "content": "{{input}}"},
    ]  # fmt: skip
    plan = plan_from("p.yaml", "prompts: ['file://chat.json']\n", chat__json=json.dumps(chat))
    (one,) = plan.templates
    assert one.shown == () and [row["text"] for row in one.rows] == [
        "Be kind.",
        "Hello",
        "Hello, {{name}}.",
        "{{input}}",
    ]
    assert ("chat.json", 1, "prompt", "turns_rows") in told(plan, "mapped")
    bare = [*chat[:2], {"role": "assistant", "content": "Hi"}, chat[3]]
    (one,) = plan_from("p.yaml", "prompts: ['file://chat.json']\n", chat__json=json.dumps(bare)).templates
    assert len(one.rows) == 4, "a bare {{input}} says nothing of what the turns before it are"
    formed = [*chat[:1], {"role": "user", "content": "Q: Hello"}, bare[2], {"role": "user", "content": "Q: {{input}}"}]
    (one,) = plan_from("p.yaml", "prompts: ['file://chat.json']\n", chat__json=json.dumps(formed)).templates
    assert one.shown == (NewDemonstration(input="Hello", output="Hi"),) and one.body == "Q: {{input}}" and not one.rows


def test_a_loop_over_the_conversation_is_the_place_of_the_cases_turns():
    source = (
        '[{"role": "system", "content": "Be kind."},\n{% for completion in _conversation %}\n'
        '{"role": "user", "content": "{{ completion.input }}"},\n{"role": "assistant", "content": "{{ completion.output }}"},\n'
        '{% endfor %}\n{"role": "user", "content": "{{ question }}"}]'
    )
    plan = plan_from("p.yaml", "prompts: ['file://chat.json']\n", chat__json=source)
    (one,) = plan.templates
    assert one.rows == (
        {"role": "system", "text": "Be kind."}, {"role": "turns"}, {"role": "user", "text": "{{question}}"},
    )  # fmt: skip
    assert ("chat.json", 1, "prompt", "turns_place") in told(plan, "mapped")


@pytest.mark.parametrize(
    ("loop", "history"),
    [
        ("{% for item in chat_history %}\n{{item.role}}:\n{{item.content}}\n{% endfor %}",
         '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]'),
        ("{% for item in chat_history %}\nuser:\n{{item.inputs.question}}\nassistant:\n{{item.outputs.answer}}\n{% endfor %}",
         '[{"inputs": {"question": "Hi"}, "outputs": {"answer": "Yes?"}}]'),
    ],
)  # fmt: skip
def test_a_prompty_history_becomes_the_earlier_turns_of_its_case(loop, history):
    source = f"---\nname: n\nsample:\n  question: When?\n  chat_history: {history}\n---\nsystem:\nBe kind.\n{loop}\nuser:\n{{{{question}}}}\n"
    plan = plan_from("n.prompty", source)
    (one,), (case,) = plan.templates, plan.cases
    assert [row["role"] for row in one.rows] == ["system", "turns", "user"]
    assert case.values == {"question": "When?"} and [turn["content"] for turn in case.conversation] == ["Hi", "Yes?"]
    template = template_of(one.rows, one.mode)
    said = build_messages(template, case.values, (), "turns", conversation=case.conversation)
    assert [turn["content"] for turn in said] == ["Be kind.", "Hi", "Yes?", "When?"]


def test_prompty_turns_become_rows_and_the_word_turns_is_no_role_of_a_file():
    plan = plan_from("n.prompty", "---\nname: n\n---\nuser:\nA\nturns:\nassistant:\nB\nuser:\n{{q}}\n")
    (one,) = plan.templates
    assert [row["text"] for row in one.rows] == ["A\nturns:", "B", "{{q}}"]


def test_an_empty_turn_in_the_middle_is_refused_by_its_row():
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "{{q}}"},
    ]
    plan = plan_from("p.yaml", "prompts: ['file://chat.json']\n", chat__json=json.dumps(chat))
    (note,) = [note for note in plan.notes if note.fate == "refused"]
    assert not plan.templates and "Row 2: the assistant row is empty" in note.reason


def test_the_answers_that_a_chainforge_chat_goes_on_from_are_the_earlier_turns_of_its_cases():
    flow = {
        "flow": {
            "nodes": [
                {"id": "p", "type": "prompt", "data": {"prompt": "Name a {kind}."}},
                {"id": "c", "type": "chat", "data": {"prompt": "Why {this} one?"}},
                {"id": "t", "type": "textfields", "data": {"fields": {"a": "very"}}},
                {"id": "k", "type": "textfields", "data": {"fields": {"a": "bird", "b": "fish"}}},
            ],
            "edges": [
                {"source": "k", "sourceHandle": "output", "target": "p", "targetHandle": "kind"},
                {"source": "p", "sourceHandle": "prompt", "target": "c", "targetHandle": "__past_chats"},
                {"source": "t", "sourceHandle": "output", "target": "c", "targetHandle": "this"},
            ],
        },
        "cache": {
            "__s": ["Name a bird.", "A wren.", "Because."],
            "p.json": {"responses_last_run": [{"uid": "u", "prompt": 0, "vars": {"kind": "bird"}, "responses": [1, "x"]}]},
            "c.json": {"responses_last_run": [{"uid": "w", "prompt": "Why very one?", "responses": ["Because.", "No."],
                       "chat_history": [{"role": "user", "content": 0}, {"role": "assistant", "content": 1}]}]},
            "r.w.grade": {"0": True, "1": False},
        },
    }  # fmt: skip
    plan = plan_from("f.cforge", json.dumps(flow))
    turns = ({"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A wren."})
    (case,) = [one for one in plan.cases if one.conversation]
    assert (case.values, case.conversation) == ({"this": "very"}, turns)
    assert len(plan.cases) == 3 and ("f.cforge", 0, "c.past_chats", "history_taken") in told(plan, "mapped")
    (pair,) = plan.pairs
    assert pair.messages == (*turns, {"role": "user", "content": "Why very one?"})
    del flow["cache"]["p.json"]
    plan = plan_from("f.cforge", json.dumps(flow))
    assert ("f.cforge", 0, "c.past_chats", "chained") in told(plan, "refused")


def test_samples_of_a_harness_task_that_asks_with_other_columns_are_rows():
    task = (
        "task: nli\ndescription: Judge.\ndoc_to_text: 'P: {{premise}} H: {{hypothesis}}'\ndoc_to_target: label\n"
        "doc_to_choice: [no, yes]\nfewshot_config:\n  samples:\n  - {premise: 'a {', hypothesis: b, label: 1}\n"
        "  - {premise: c, hypothesis: d, label: 0}\n"
    )
    plan = plan_from("nli.yaml", task)
    (one,) = plan.templates
    assert one.labels == ("no", "yes") and one.name == "nli" and not one.shown
    said = build_messages(template_of(one.rows, one.mode), {"premise": "x", "hypothesis": "y"}, (), "turns")
    assert [(turn["role"], turn["content"]) for turn in said] == [
        ("system", "Judge."), ("user", "P: a { H: b"), ("assistant", "yes"), ("user", "P: c H: d"), ("assistant", "no"),
        ("user", "P: x H: y"),
    ]  # fmt: skip
    assert "samples_rows" in [code for *_, code in told(plan, "mapped")]
    with_one = plan_from("nli.yaml", task + "num_fewshot: 1\n")
    assert len(with_one.templates[0].rows) == 4


def test_turns_beside_values_survive_the_way_through_promptfoo():
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"})
    case = case_of({"q": "When?"}, "Now", conversation=turns)
    made = promptfoo.configuration(Sheet(title="s", cases=(case,), written=({},)), Notes("s"))
    (again,) = back(made).cases
    assert (again.values, again.conversation, again.expected) == ({"q": "When?"}, turns, "Now")


# ---- through the house


def test_a_chat_template_goes_to_another_project_and_back_as_it_was(store, engineer, project, tmp_path):
    rows = ({"role": "system", "text": "Kind."}, {"role": "user", "text": "A {"}, {"role": "assistant", "text": "B"}, {"role": "turns"}, {"role": "user", "text": "{{input}}"})  # fmt: skip
    template = prompting.save_template(
        store, engineer, project.id, prompting.Draft(name="c", rows=rows, labels=("x", "y"))
    )
    cases = prompting.add_cases(store, engineer, project.id, [({"input": "one"}, "x"), ({"input": "A {"}, "y")])
    suite = testing.save_suite(
        store, engineer, project.id, name="s", case_ids=[case.id for case in cases], checks="equals"
    )
    for what, id, format in (
        ("suite", suite.id, "promptfoo"),
        ("template", template.id, "promptfoo"),
        ("template", template.id, "jsonl"),
    ):
        made = exporting.export(
            store, engineer, what, id, format, template_ids=[template.id] if what == "suite" else ()
        )
        if what == "suite":
            assert "case_unbuilt" in [note.code for note in made.remarks], "a row gives this case away"
        path = tmp_path / f"{what}.{made.name}"
        path.write_bytes(made.data)
        other = importing.project_for(store, engineer, f"other {what} {format}")
        kept = importing.apply_import(store, engineer, other.id, importing.plan_import(engineer, [path])).kept
        again = store.get(Template, kept.templates[0])
        assert (again.rows, again.digest, again.labels, again.variables) == (
            template.rows, template.digest, template.labels, template.variables,
        )  # fmt: skip


def test_the_formats_of_chats_are_told_by_themselves():
    line = json.dumps({"messages": [{"role": "user", "content": "{{x}}"}], "metadata": {"template": "t"}})
    plan = formats.parse(upload.of_bytes("c.jsonl", {"c.jsonl": line.encode()}))
    assert not plan.templates and plan.cases[0].conversation == ({"role": "user", "content": "{{x}}"},)
