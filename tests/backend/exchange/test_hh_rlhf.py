"""Reading HH-RLHF: what is taken, what is refused and why."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.exchange.hh_rlhf import Pair, as_row, parse_file, parse_lines, parse_row
from backend.exchange.reading import FileProblem

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

CONTEXT = "\n\nHuman: Where is my parcel?\n\nAssistant: Which one?\n\nHuman: The red one."


def row(chosen="On its way.", rejected="No idea.", context=CONTEXT, other=None):
    return {
        "chosen": f"{context}\n\nAssistant: {chosen}",
        "rejected": f"{other if other is not None else context}\n\nAssistant: {rejected}",
    }


def lines(*rows):
    return [json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in rows]


def refusals(*rows):
    return [(refusal.line, refusal.field, refusal.reason) for refusal in parse_lines(lines(*rows)).refused]


def test_a_row_becomes_a_conversation_and_two_answers():
    pair = parse_lines(lines(row())).pairs[0]
    assert [(m["role"], m["content"]) for m in pair.messages] == [
        ("user", "Where is my parcel?"),
        ("assistant", "Which one?"),
        ("user", "The red one."),
    ]
    assert (pair.line, pair.chosen, pair.rejected) == (1, "On its way.", "No idea.")


@pytest.mark.parametrize(
    ("broken", "field", "said"),
    [
        (row(other=CONTEXT + "!"), "rejected", "conversations differ"),
        (row(chosen=" "), "chosen", "answer is empty"),
        (row(rejected=""), "rejected", "answer is empty"),
        (row(rejected="On its way. "), "rejected", "both answers are the same"),
        (row(chosen="Yes.\n\nHuman: Thanks.", rejected="No."), "chosen", "goes on after the answer"),
        ({"chosen": CONTEXT + "\n\nAssistant: x"}, "rejected", "missing"),
        ({**row(), "rejected": None}, "rejected", "not a text"),
        ({**row(), "chosen": "Human: hello"}, "chosen", "no answer"),
        ({**row(), "chosen": "\ud800"}, "chosen", "half of a character pair"),
        (row(context="Hello"), "chosen", "does not begin with"),
        (row(context=""), "chosen", "does not begin with"),
        (row(context="\n\nHuman: "), "chosen", "turn of the conversation is empty"),
        (row(context="\n\nHuman: a\n\nAssistant: b"), "chosen", "does not end with a human turn"),
        ([1], "line", "not a JSON object"),
    ],
)
def test_a_row_that_cannot_be_a_pair_is_refused_with_line_field_and_reason(broken, field, said):
    text = [json.dumps(one).encode() for one in (row(), broken)]
    refusal = parse_lines(text).refused[0]
    assert (refusal.line, refusal.field) == (2, field)
    assert said in refusal.reason


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[" * 100_000, b"NaN", b'{"chosen": 1'])
def test_a_line_that_is_no_json_object_is_refused_and_the_rest_is_taken(line):
    parsed = parse_lines([line, *lines(row())])
    assert [refusal.line for refusal in parsed.refused] == [1]
    assert len(parsed.pairs) == 1


def test_a_repeated_row_is_a_duplicate_and_an_empty_line_is_nothing():
    parsed = parse_lines([*lines(row()), b"\n", *lines(row(), row(chosen="Tomorrow."))])
    assert (parsed.rows, len(parsed.pairs), parsed.duplicates) == (3, 2, (3,))


def test_the_last_marker_begins_the_answer():
    context = "\n\nHuman: Say 'Assistant:'\n\nAssistant: Assistant:\n\nHuman: Again"
    pair = parse_lines(lines(row("Assistant: x", "y", context))).pairs[0]
    assert pair.chosen == "Assistant: x"


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_plain_and_packed_files_read_the_same(tmp_path, name):
    content = b"".join(lines(row()))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert parse_file(tmp_path / name) == parse_lines(lines(row()))


@pytest.mark.parametrize("content", [b"not packed", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"x" * (2 << 20))])
def test_a_broken_or_boundless_file_is_refused_whole_and_without_its_folder(tmp_path, content):
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        parse_file(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_is_named_without_its_folder(tmp_path):
    with pytest.raises(FileProblem, match="no file nowhere.jsonl") as caught:
        parse_file(tmp_path / "nowhere.jsonl")
    assert str(tmp_path) not in str(caught.value)


turn = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).map(str.strip).filter(bool)


@UNTIMED
@given(st.lists(turn, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2), turn, turn)
def test_export_then_import_is_the_identity(turns, chosen, rejected):
    messages = tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns))
    pair = Pair(1, messages, chosen, rejected)
    if chosen != rejected:
        assert parse_row(1, json.loads(json.dumps(as_row(pair)))) == pair


def test_a_text_that_holds_a_marker_cannot_be_written():
    for text in ("a\n\nHuman: b", "Assistant: b"):
        if text.startswith("Assistant"):
            pair = Pair(1, ({"role": "user", "content": "q"},), text, "x")
            assert parse_row(1, as_row(pair)).chosen == text
        else:
            with pytest.raises(ValueError, match="marker"):
                as_row(Pair(1, ({"role": "user", "content": "q"},), text, "x"))
