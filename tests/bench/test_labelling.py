"""The labelling measurement: what it sums up, and that both sides are given the same texts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench import labelling, potato
from feedback_db import Store


def test_what_was_acknowledged_is_held_against_what_is_stored():
    run = labelling.Run(
        clients=2, judged=[1, 2, 3], errors=[503], seconds=1.5, both_ms=[1.0, 2.0, 3.0], stored=2, doubled=1
    )
    told = labelling.summary(run)
    assert (told["per_second"], told["lost"], told["doubled"], told["errors"]) == (2.0, 1, 1, 1)
    assert told["next_and_save_ms"] == {"p50": 2.0, "p95": 3.0, "p99": 3.0}


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.95, 96), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share, value):
    assert labelling.percentile([float(n) for n in range(1, 101)], share) == value
    assert labelling.percentile([], share) == 0.0


def test_texts_are_the_same_on_both_sides_and_differ_from_pair_to_pair():
    assert labelling.texts(3) == labelling.texts(3) != labelling.texts(4)
    question, left, right = labelling.texts(3)
    assert question.startswith("Question 3") and left != right


def test_a_prepared_folder_has_pairs_that_wait_and_a_session_for_each_client(tmp_path):
    tokens, project_id = labelling.prepare(tmp_path / "data", 3, 20)
    store = Store(tmp_path / "data" / "feedback.db")
    assert len(set(tokens)) == 3
    assert store.value("select count(*) from comparisons where project_id = ? and slots_left = 1", [project_id]) == 20
    store.close()


def test_what_potato_keeps_is_counted_by_pair_and_what_warmed_it_up_is_not(tmp_path):
    for name, said in (("c0", {"1": {"x": 1}, "2": {}}), ("c1", {"1": {"x": 1}}), ("warm", {"3": {"x": 1}})):
        (tmp_path / name).mkdir()
        state = {"instance_id_to_label_to_value": said}
        (tmp_path / name / "user_state.json").write_text(json.dumps(state), encoding="utf-8")
    assert potato.stored(tmp_path) == {"1": 2}


def test_the_clients_need_nothing_but_the_standard_library():
    code = "import sys; sys.modules['httpx'] = None; import bench.peers.label_clients"
    subprocess.run([sys.executable, "-c", code], cwd=labelling.ROOT, check=True)
