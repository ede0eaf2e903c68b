"""From a template to messages: the exact bytes, the shapes, the refusals."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.prompts.chat import PromptProblem, build_messages, build_prompt, variables_of
from backend.prompts.template import TemplateProblem
from feedback_db.types import Demonstration, Template

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

SEED_BODY = "Perform the following {{task}}:\n\n{{demonstrations}}\nInput: {{input}}\nOutput:"
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def template(body, system_text="", mode="plain"):
    return Template(project_id=1, name="t", body=body, system_text=system_text, mode=mode, digest=bytes(32))


def demonstration(input, output, id=None):
    return Demonstration(id=id, project_id=1, input=input, output=output, digest=bytes(32))


SHOTS = [demonstration("good film", "positive"), demonstration("dull film", "negative")]


def test_the_seed_function_gives_exactly_these_bytes():
    expected = "Perform the following task:\n\nInput: a\nOutput: 1\n\nInput: b\nOutput: 2\n\nInput: q\nOutput:"
    pairs = [("a", "1"), ("b", "2"), ("c", "3")]
    assert build_prompt("task", "q", pairs, 2) == expected
    assert build_prompt("task", "q", [demonstration(*pair) for pair in pairs], 2) == expected
    assert (
        build_prompt("task", "q", pairs, 0)
        == build_prompt("task", "q")
        == "Perform the following task:\n\nInput: q\nOutput:"
    )
    assert build_prompt("task", "q", pairs) == build_prompt("task", "q", pairs, 99)
    with pytest.raises(PromptProblem):
        build_prompt("task", "q", pairs, -1)


@pytest.mark.parametrize("mode", ["plain", "logic"])
@UNTIMED
@given(task=text, input=text, shots=st.lists(st.tuples(text, text), max_size=4))
def test_the_first_sample_template_has_the_bytes_of_the_seed_function(mode, task, input, shots):
    demonstrations = [demonstration(*pair) for pair in shots]
    messages = build_messages(template(SEED_BODY, mode=mode), {"task": task, "input": input}, demonstrations, "text")
    assert messages == ({"role": "user", "content": build_prompt(task, input, shots, len(shots))},)


def test_demonstrations_as_turns_carry_the_body_and_the_output():
    messages = build_messages(
        template("Say: {{input}}", "Be {{tone}}."), {"input": "q", "tone": "kind"}, SHOTS, "turns"
    )
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "Be kind."),
        ("user", "Say: good film"),
        ("assistant", "positive"),
        ("user", "Say: dull film"),
        ("assistant", "negative"),
        ("user", "Say: q"),
    ]


def test_without_a_marked_place_demonstrations_as_text_come_first():
    messages = build_messages(
        template("评论：{{input}}\n情感："), {"input": "好"}, [demonstration("差", "负面")], "text"
    )
    assert messages[0]["content"] == "评论：差\n情感：负面\n\n评论：好\n情感："


def test_a_template_without_a_body_leaves_the_conversation_of_the_case_as_it_is():
    turns = (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "{{x}}"},
    )
    messages = build_messages(template("", "Be kind."), {}, SHOTS[:1], "turns", conversation=turns)
    assert messages[1:] == (
        {"role": "user", "content": "good film"},
        {"role": "assistant", "content": "positive"},
        *turns,
    )
    as_text = build_messages(template(""), {}, SHOTS[:1], "text", conversation=turns)
    assert as_text[-1]["content"] == "good film\npositive\n\n"


def test_a_prompt_that_asks_nothing_is_refused():
    with pytest.raises(PromptProblem, match="asks nothing"):
        build_messages(template("", "Be kind."), {}, [], "turns")


def test_demonstrations_need_the_variable_input():
    with pytest.raises(PromptProblem, match="{{input}}"):
        build_messages(template("Say {{question}}"), {"question": "q"}, SHOTS, "turns")
    assert build_messages(template("Say {{question}}"), {"question": "q"}, [], "turns")


def test_a_missing_value_is_named_also_in_the_system_text():
    with pytest.raises(TemplateProblem, match='"tone"'):
        build_messages(template("{{input}}", "Be {{tone}}."), {"input": "q"}, [], "turns")
    assert variables_of(template("{{input}} {{tone}}", "{{tone}} {{name}}")) == ("tone", "name", "input")


@pytest.mark.parametrize(
    ("values", "shots", "turns", "named"),
    [
        ({"input": "a </s> b"}, [], (), 'The value of "input"'),
        ({"input": "q", "other": ["x", {"y": "</s>"}]}, [], (), 'The value of "other"'),
        ({"input": "q"}, [demonstration("a", "</s>")], (), "The output of demonstration 1"),
        ({"input": "q"}, [demonstration("</s>", "a")], (), "The input of demonstration 1"),
        ({"input": "q"}, [], ({"role": "user", "content": "</s>"},), "Turn 1 of the conversation"),
    ],
)
def test_special_token_text_is_refused_by_the_name_of_its_value(values, shots, turns, named):
    built = template("{{input}}")
    with pytest.raises(PromptProblem, match=named):
        build_messages(built, values, shots, "turns", conversation=turns, special_tokens=["<s>", "</s>"])
    assert build_messages(built, values, shots, "turns", conversation=turns)
