"""Chat templates: rows in their order, places for demonstrations and turns, refusals that name the row."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.prompts.chat import PromptProblem, build_messages, refuse_given_away, variables_of
from backend.prompts.problem import MAX_OUTPUT, TemplateProblem
from backend.prompts.rows import MOST_ROWS, ask_of, check_rows, given_away, rows_of
from backend.prompts.segments import segments
from feedback_db.types import Case, Demonstration, Template

SHOTS = [
    Demonstration(id=7, project_id=1, input="good film", output="positive", digest=bytes(32)),
    Demonstration(id=8, project_id=1, input="dull film", output="negative", digest=bytes(32)),
]
EARLIER = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"})
ROWS = (
    ("system", "Be {{tone}}."),
    ("user", "Do you know films?"),
    ("assistant", "I do."),
    ("user", "Rate: {{input}}"),
)
VALUES = {"tone": "kind", "input": "odd film"}


def chat(*rows, mode="plain", **more):
    told = [{"role": role, "text": text} for role, text in (row if len(row) == 2 else (*row, "") for row in rows)]
    return Template(
        project_id=1, name="t", body="", rows=check_rows(told, mode), mode=mode, digest=bytes(32), **more
    )  # fmt: skip


def said(template, values=VALUES, shots=(), shape="turns", turns=()):
    built = build_messages(template, values, shots, shape, conversation=turns)
    return [(message["role"], message["content"]) for message in built]


def case(values=None, conversation=None):
    return Case(project_id=1, values=values, conversation=conversation, split="test", digest=bytes(32))


def test_rows_are_sent_in_their_order():
    assert said(chat(*ROWS)) == [
        ("system", "Be kind."), ("user", "Do you know films?"), ("assistant", "I do."), ("user", "Rate: odd film"),
    ]  # fmt: skip
    assert variables_of(chat(*ROWS)) == ("tone", "input") and ask_of(chat(*ROWS)) == "Rate: {{input}}"


def test_demonstrations_and_turns_stand_before_the_last_row_unless_the_rows_have_a_place_for_them():
    shots = [
        ("user", "Rate: good film"),
        ("assistant", "positive"),
        ("user", "Rate: dull film"),
        ("assistant", "negative"),
    ]
    turns = [("user", "Hi"), ("assistant", "Yes?")]
    before, ask = said(chat(*ROWS))[:-1], said(chat(*ROWS))[-1:]
    assert said(chat(*ROWS), shots=SHOTS, turns=EARLIER) == [*before, *shots, *turns, *ask]
    early = chat(ROWS[0], ("demonstrations",), *ROWS[1:])
    assert said(early, shots=SHOTS, turns=EARLIER) == [before[0], *shots, *before[1:], *turns, *ask]
    only_turns = chat(ROWS[0], ("turns",), *ROWS[1:])
    assert said(only_turns, shots=SHOTS, turns=EARLIER) == [before[0], *shots, *turns, *before[1:], *ask]
    both = chat(ROWS[0], ("turns",), *ROWS[1:3], ("demonstrations",), ROWS[3])
    assert said(both, shots=SHOTS, turns=EARLIER) == [before[0], *turns, *before[1:], *shots, *ask]


def test_as_text_demonstrations_stand_in_the_last_row():
    built = said(
        chat(ROWS[0], ("user", "Look.\n{{demonstrations}}\nFilm: {{input}}\nVerdict:")), shots=SHOTS, shape="text"
    )
    assert built[-1][1] == (
        "Look.\nFilm: good film\nVerdict: positive\n\nFilm: dull film\nVerdict: negative\n\nFilm: odd film\nVerdict:"
    )


def test_where_the_cases_turns_come_last_they_ask():
    template = chat(("system", "Be kind."), ("demonstrations",), ("turns",))
    turns = ({"role": "user", "content": "Where is it?"},)
    asked = said(template, {}, SHOTS[:1], turns=turns)
    assert asked == [
        ("system", "Be kind."), ("user", "good film"), ("assistant", "positive"), ("user", "Where is it?"),
    ]  # fmt: skip
    with pytest.raises(PromptProblem, match="user row at the end"):
        said(template, {}, SHOTS[:1], shape="text", turns=turns)
    with pytest.raises(PromptProblem, match="asks nothing"):
        said(template, {})


@pytest.mark.parametrize(
    ("rows", "row", "what"),
    [
        ([("system", "a"), ("system", "b"), ("user", "c")], 2, "one system row"),
        ([("user", "a"), ("system", "b"), ("user", "c")], 2, "stands first"),
        ([("user", "a"), ("assistant", "b")], 2, "answers the last row"),
        ([("user", "a"), ("demonstrations",)], 2, "answers the last row"),
        ([("system", "a")], 1, "answers the last row"),
        ([], 1, "answers the last row"),
        ([("user", "a"), ("assistant", " \n"), ("user", "b")], 2, "is empty"),
        ([("demonstrations",), ("user", "a"), ("demonstrations",), ("user", "b")], 3, "is row 1 already"),
        ([("user", "a"), ("tool", "b"), ("user", "c")], 2, "no role"),
        ([("user", "a\n{{demonstrations}}\nb"), ("user", "c")], 1, "last row only"),
        ([("user", "a"), ("user", "b\n{{demonstrations}} {{input}}")], 2, "line 2"),
        ([("user", "a")] * (MOST_ROWS + 1), MOST_ROWS + 1, f"{MOST_ROWS} rows"),
    ],
)
def test_a_row_that_cannot_be_is_named(rows, row, what):
    with pytest.raises(TemplateProblem, match=what) as refused:
        chat(*rows)
    assert refused.value.row == row and str(refused.value).startswith(f"Row {row}")


def test_a_bad_line_and_a_missing_value_name_row_and_line():
    with pytest.raises(TemplateProblem, match=r"^Row 2, line 3: "):
        chat(("system", "a"), ("user", "b\n\n{% x %}"), mode="logic")
    with pytest.raises(TemplateProblem, match=r'^Row 2, line 2: the variable "other" has no value'):
        said(chat(("system", "a"), ("user", "b\n{{other}}")))
    with pytest.raises(TemplateProblem, match="64 KB|65,536"):
        chat(("system", "x" * 40_000), ("user", "x" * 40_000))


def test_a_row_without_text_is_left_out_but_something_must_be_asked():
    assert said(chat(("system", "{{tone}}"), ("user", "q")), {"tone": ""}) == [("user", "q")]
    with pytest.raises(PromptProblem, match="came out empty"):
        said(chat(("user", "a"), ("assistant", "b"), ("user", "{{input}}")), {"input": ""})


def test_all_rows_share_one_measure_of_work_and_of_length():
    loop = "{% for a in words %}{% for b in words %}x{% endfor %}{% endfor %}"
    words = {"words": ["w"] * 100}
    assert said(chat(("user", loop), mode="logic"), words)
    with pytest.raises(TemplateProblem, match="steps"):
        said(chat(*[("user", loop)] * 3, mode="logic"), words)
    with pytest.raises(TemplateProblem, match="rows come to more"):
        said(chat(*[("user", "{{x}}")] * 3), {"x": "y" * (MAX_OUTPUT // 2)})


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.integers(0, 2),
    st.sampled_from(["turns", "text"]),
)
def test_a_text_template_written_as_rows_sends_the_same(value, count, shape):
    text = Template(project_id=1, name="t", body="Rate: {{input}}\n", system_text="Be {{tone}}.", digest=bytes(32))
    rows = replace(text, body="", system_text="", rows=check_rows(rows_of(text), "plain"))
    values = {"input": value, "tone": "kind"}
    assert said(rows, values, SHOTS[:count], shape, EARLIER) == said(text, values, SHOTS[:count], shape, EARLIER)


def test_a_row_that_gives_the_answer_away_is_found_and_named():
    template = chat(("user", "What is  the CAPITAL of France?"), ("assistant", "Paris"), ("user", "{{input}}"))
    assert given_away(template, "what is the capital of France?") == 1
    assert given_away(template, "What is the capital of Spain, and of Portugal, and of Andorra?") is None
    with pytest.raises(PromptProblem, match="Row 1 asks what this case asks"):
        refuse_given_away(template, case({"input": "What is the capital of France?"}))
    own = chat(("user", "{{input}}"), ("assistant", "Sure?"), ("user", "Yes: {{input}}"))
    refuse_given_away(own, case({"input": "{{input}}"}))  # what a case fills in is its own


def test_each_part_is_counted_and_earlier_rows_are_instruction():
    def count(messages):
        return sum(len(message["content"]) for message in messages)

    parts = segments(chat(*ROWS), VALUES, EARLIER, SHOTS[:1], SHOTS[1:], "turns", count)
    told = [(part.kind, part.tokens, part.demonstration_id) for part in parts]
    assert told == [
        ("system", len("Be kind."), None),
        ("instruction", len("Do you know films?I do.Rate: "), None),
        ("demonstration", len("Rate: good filmpositive"), 7),
        ("case", len("odd film") + len("HiYes?"), None),
        ("dropped", len("Rate: dull filmnegative"), 8),
    ]
