"""Label words: scored behind the prompt that is sent, and what a case is when it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.engines.scripted import ScriptedEngine
from backend.prompts.assemble import assemble
from backend.prompts.labelwords import asked, saying, score, stub_of, truth_of
from backend.starting import ensure_sample
from feedback_db import Store, prompts
from feedback_db.types import Case, Template


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "feedback.db")


def template(**given: object) -> Template:
    return Template(**{"project_id": 1, "name": "t", "body": "{{input}}", "digest": b"", **given})  # type: ignore[arg-type]


def case(**given: object) -> Case:
    return Case(**{"project_id": 1, "split": "val", "digest": b"", **given})  # type: ignore[arg-type]


def test_what_is_scored_is_what_is_sent(store: Store) -> None:
    project = ensure_sample(store)
    client = ScriptedEngine(lambda *_: "")
    for one in prompts.templates(store, project.id or 0):
        for asks in prompts.cases(store, project.id or 0, scenario=one.scenario, language=one.language)[:5]:
            sent = assemble(store, one, asks, tokenize=lambda m: client.tokenize(m, "base"))
            shown = prompts.demonstrations_by_id(store, sent.demonstration_ids)
            assert asked(one, asks, shown) == sent.messages
    store.close()


def test_a_conversation_is_asked_with_all_of_its_turns() -> None:
    turns = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"})
    asks = case(conversation=(*turns, {"role": "user", "content": "where"}))
    assert [one["content"] for one in asked(template(body=""), asks, ())] == ["hello", "good day", "where"]


def test_scores_are_means_over_the_tokens_of_each_label_in_requests_of_a_few_conversations() -> None:
    client = ScriptedEngine(lambda *_: "")
    conversations = [({"role": "user", "content": "good" * (n % 3)},) for n in range(150)]
    found = score(client, conversations, ["good", "not so good"], "base")
    assert found.logps == [[-5.0 + n % 3, -5.0] for n in range(150)] and found.straddling == []


def test_a_case_says_another_text_in_the_place_of_its_own() -> None:
    assert saying(case(values={"task": "x", "input": "y"}), "").values == {"task": "x", "input": ""}
    assert saying(case(values={"a": "x", "b": "y"}), "N/A").values == {"a": "N/A", "b": "N/A"}
    turns = ({"role": "user", "content": "hello"}, {"role": "user", "content": "where"})
    assert saying(case(conversation=turns), "N/A").conversation == (turns[0], {"role": "user", "content": "N/A"})


def test_the_stub_is_what_stands_between_the_case_and_the_answer() -> None:
    assert stub_of(template(body="Input: {{input}}\nOutput:")) == "Output:"
    assert stub_of(template(body="{% if input %}{{input}}{% endif %} Label: ")) == "Label:"
    assert stub_of(template(body="{{input}}")) == ""
    rows = ({"role": "user", "text": "Ready? {{a}} no"}, {"role": "assistant", "text": "Yes"}, {"role": "user", "text": "{{input}} Label:"})  # fmt: skip
    assert (
        stub_of(template(body="", rows=rows)) == "Label:"
        and stub_of(template(body="", rows=({"role": "turns"},))) == ""
    )


def test_the_right_label_is_found_whatever_its_case_and_0_is_one() -> None:
    assert truth_of(case(expected=" Positive "), ["negative", "positive"]) == 1
    assert truth_of(case(expected="0"), ["0", "1"]) == 0
    assert truth_of(case(expected="other"), ["0", "1"]) is None and truth_of(case(), ["0", "1"]) is None
