"""Plain texts: what is taken, what is refused and why, and that a file read twice adds nothing."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.access import Denied
from backend.exchange.reading import FileProblem
from backend.exchange.texts import parse_jsonl, parse_paragraphs
from backend.exchanging import ImportProblem, import_file
from backend.prompts.digest import split_of
from feedback_db import audit
from feedback_db.types import Document, Model, Person, Project

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1).filter(str.strip)


def written(tmp_path, content, name="corpus.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_paragraphs_are_separated_by_blank_lines_and_keep_their_lines(tmp_path):
    path = written(tmp_path, "\ufeff\n\nOne line.  \nAnother.\r\n   \n\n  今天好。\n\nOne line.\nAnother.\n")
    found = parse_paragraphs(path)
    assert [(one.line, one.text) for one in found.texts] == [(3, "One line.\nAnother."), (7, "今天好。")]
    assert (found.rows, found.refused, found.duplicates) == (3, (), (9,))


def test_a_packed_file_is_read(tmp_path):
    assert len(parse_paragraphs(written(tmp_path, gzip.compress(b"a\n\nb"), "corpus.txt.gz")).texts) == 2


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        (b"{", "line", "not JSON"),
        (b"[1]", "line", "not a JSON object"),
        (b"\xff", "line", "not UTF-8"),
        (b"{}", "text", "missing"),
        (b'{"text": 3}', "text", "not a text"),
        (b'{"text": " "}', "text", "empty"),
        (b'{"text": "a\\u0000"}', "text", "zero byte"),
        (b'{"text": "\\ud800"}', "text", "half of a character pair"),
    ],
)
def test_a_row_without_a_text_is_refused_by_line_field_and_reason(tmp_path, line, field, said):
    found = parse_jsonl(written(tmp_path, b'{"text": "fine"}\n\n' + line + b"\n", "corpus.jsonl"))
    assert [one.text for one in found.texts] == ["fine"] and found.rows == 2
    (refusal,) = found.refused
    assert (refusal.line, refusal.field) == (3, field) and said in refusal.reason


def test_a_paragraph_that_is_not_utf8_is_refused_at_its_first_line(tmp_path):
    found = parse_paragraphs(written(tmp_path, b"fine\n\nbegins\n\xff ends\n"))
    assert [(refusal.line, refusal.reason) for refusal in found.refused] == [(3, "it is not UTF-8")]


def test_a_damaged_or_missing_file_says_so(tmp_path):
    with pytest.raises(FileProblem, match="no file nowhere.txt"):
        parse_paragraphs(tmp_path / "nowhere.txt")
    with pytest.raises(FileProblem, match="cannot be read"):
        parse_jsonl(written(tmp_path, b"no gzip", "a.jsonl.gz"))
    with pytest.raises(FileProblem, match="more than 1 MB"):
        parse_paragraphs(written(tmp_path, b"a" * ((1 << 20) + 1)))


@given(st.lists(WORDS, max_size=8))
@UNTIMED
def test_what_is_written_is_read_again(tmp_path, texts):
    once = list(dict.fromkeys(text.strip() for text in texts))
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    assert [one.text for one in parse_jsonl(written(tmp_path, rows, "a.jsonl")).texts] == once


# ---- into a project


def test_texts_become_documents_with_the_split_of_their_content(store, engineer, tmp_path):
    path = written(tmp_path, "\n\n".join(f"text {i}" for i in range(60)))
    report = import_file(store, engineer, path, format="text", project="books")
    assert (report.rows, report.taken, report.duplicates, report.refused) == (60, 60, 0, ())
    found = store.find(Document)
    assert [one.text for one in found] == [f"text {i}" for i in range(60)]
    assert all(one.split == split_of(one.digest) and one.source == "corpus.txt" for one in found)
    assert {one.split for one in found} == {"train", "val", "test"}
    assert store.find(Project)[0].id == report.project_id == found[0].project_id
    assert store.find(Person, "source is not null") == [] and store.find(Model) == []  # nobody judged, no model wrote
    assert audit.first_broken(store) is None


def test_repeats_are_counted_and_the_same_texts_in_another_format_add_nothing(store, engineer, tmp_path):
    import_file(store, engineer, written(tmp_path, "a\n\nb\n\na"), format="text", project="books")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("b", "c", "a", "c"))
    report = import_file(
        store, engineer, written(tmp_path, rows + "{}\n", "more.jsonl"), format="text-jsonl", project="books"
    )
    assert (report.rows, report.taken, report.duplicates, len(report.refused)) == (5, 1, 3, 1)
    assert [one.text for one in store.find(Document)] == ["a", "b", "c"]
    import_file(store, engineer, written(tmp_path, "a"), format="text", project="other")
    assert len(store.find(Document)) == 4


def test_an_empty_file_makes_no_project_and_an_annotator_may_not_import(store, engineer, annotator, tmp_path):
    with pytest.raises(ImportProblem, match="holds no rows"):
        import_file(store, engineer, written(tmp_path, "\n \n"), format="text", project="books")
    with pytest.raises(Denied):
        import_file(store, annotator, written(tmp_path, "a"), format="text", project="books")
    assert store.find(Project) == []
