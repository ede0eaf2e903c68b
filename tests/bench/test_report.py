"""What measurements report."""

import json

import pytest

from bench import report


def test_a_ratio_is_of_medians_and_lies_in_its_interval():
    row = report.row("work", "peer", [2.0, 2.2, 9.0], [1.0, 1.1, 1.2], at_most=2.5)
    assert row.ratio == 2.0
    assert row.low <= row.ratio <= row.high
    assert (row.reach, row.ok) == ("<= 2.5", True)
    assert not report.row("work", "limit", [6.0], 5.0, at_most=1).ok


def test_a_speed_should_be_large():
    row = report.at_least("work", "peer", [4.0, 5.0, 6.0], [1.0, 2.0, 2.0], reach=2.5)
    assert (row.ratio, row.reach, row.ok) == (2.5, ">= 2.5", True)
    assert row.low <= row.ratio <= row.high
    assert not report.at_least("work", "peer", [2.0], [1.0], reach=2.5).ok


def test_the_last_line_is_the_contract_and_a_dated_copy_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    rows = [report.row("work", "peer", [1.0], [2.0], at_most=1)]
    assert report.publish("start", rows) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"rows", "machine", "versions"}
    assert set(last["rows"][0]) == {"work", "against", "ratio", "low", "high", "reach", "ok"}
    kept = list((tmp_path / "results").glob("*-start.json"))
    assert json.loads(kept[0].read_text(encoding="utf-8")) == last


@pytest.mark.parametrize("ok", [True, False])
def test_the_table_says_what_was_missed(ok):
    table = report.table([report.Row("work", "peer", 1.0, 0.5, 1.5, "<= 1", ok)])
    assert ("MISSED" in table) is not ok


def test_a_documents_table_has_a_cell_for_every_column():
    lines = report.markdown([report.Row("work", "peer", 1.0, 0.5, 1.5, "<= 1", True)]).splitlines()
    assert lines[0].startswith("| work | against | ratio |") and lines[2].endswith("| 0.50 to 1.50 | <= 1 | ok |")
    assert len({line.count("|") for line in lines}) == 1 and set(lines[1]) == set("|- ")
