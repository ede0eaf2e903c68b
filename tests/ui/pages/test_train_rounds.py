"""Rounds on the train page: one click is one series, the page says what it waits for, and the log says what came of it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import gradio as gr
import pytest

from backend import alternating
from backend.cli import _parser, changes_of
from backend.training.settings import IFTSettings, RewardSettings, RoundsSettings, options
from feedback_db import rounds
from feedback_db.types import Job, Round
from tests.ui.house import token_for
from tests.ui.pages.studio import GAIN, REPORT, Studio, Tab, parts, run_job
from ui.strings.rounds import STRINGS

FIELDS = [option for kind in (RoundsSettings, RewardSettings, IFTSettings) for option in options(kind)]
APART = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/admin", token_for(studio, studio.admin))  # type: ignore[arg-type]
    opened.call("train_open")
    alternating.stop_rounds(studio.store, studio.jobs, studio.admin, studio.project.id or 0)
    for job in studio.store.find(Job, "state = 'running'"):
        studio.store.db.conn.execute("update jobs set state = 'interrupted' where id = ?", [job.id])
    for job in studio.store.find(Job, "state in ('queued', 'interrupted')"):  # other tests left them
        studio.jobs.stop(job)
    return opened


def values(**changed: Any) -> list[Any]:
    return [changed.get(option.name, option.default) for option in FIELDS]


def notes(drawn: Any) -> str:
    return " ".join(note["text"] for note in parts(drawn, "note"))


def rows(drawn: Any) -> list[list[Any]]:
    return [row["cells"] for row in parts(drawn, "table")[0]["rows"]]


def test_a_double_click_is_one_series_that_says_what_it_waits_for_until_it_is_stopped(tab: Tab, studio: Studio) -> None:
    for _ in range(2):
        told, about, log, start, stop, _ = tab.call(
            "start_rounds", studio.project.id, "c" * 32, 3, "a trial", *values(rounds=2, total_episodes=64)
        )
    series = studio.store.find(Round, "series = ?", ["c" * 32])
    job = studio.store.get(Job, series[0].reward_job_id)
    assert len(series) == 1 and (series[0].wanted, series[0].seed) == (2, 3)
    assert series[0].settings["ift"]["total_episodes"] == 64 and series[0].settings["despite"] == "a trial"
    assert f"job {job.id} trains the first reward model" in notes(told)
    assert f"Round 1 of 2: job {job.id} trains the reward model (queued)" in notes(about)
    assert rows(log)[0][:2] == ["1 of 2", "adversarial"] and rows(log)[0][2]["text"] == "training reward model"
    assert (start["interactive"], stop["visible"]) == (False, True)
    studio.jobs.pause(job)
    _, about, *_ = tab.call("rounds_open")
    assert f"job {job.id} is paused. Resume it above" in notes(about)
    with pytest.raises(gr.Error, match="under way"):
        tab.call("start_rounds", studio.project.id, "d" * 32, 0, "", *values())
    told, about, log, start, stop, _ = tab.call("stop_rounds", studio.project.id)
    assert "stopped in round 1" in notes(told) and (start["interactive"], stop["visible"]) == (True, False)
    assert rows(log)[0][2]["text"] == "stopped" and rows(log)[0][-1] == "stopped by a person"
    assert studio.store.get(Job, job.id or 0).state == "cancelled"
    assert "No rounds are under way" in notes(tab.call("stop_rounds", studio.project.id)[0])


def test_the_log_shows_what_each_round_came_to_and_leads_to_its_models(tab: Tab, studio: Studio) -> None:
    told = {"separation": APART, "separation_before": {**APART, "value": 0.7}}
    tab.call("start_rounds", studio.project.id, "e" * 32, 0, "", *values(kind="cooperative", rounds=2))
    for kind, said in (("reward", {**REPORT, "adversarial": told, "n": 119}), ("policy", {**GAIN, "n": 38})):
        last = rounds.of_series(studio.store, "e" * 32)[-1]
        job = studio.store.get(Job, last.reward_job_id if kind == "reward" else last.policy_job_id or 0)
        run_job(studio, job, 3, said)
        alternating.advance(studio.store)
    _, about, log, *_ = tab.call("rounds_open")
    assert "waits for people: 50 more judgements" in notes(about)
    row = rows(log)[0]
    assert row[2]["badge"] == "warn" and row[4].startswith("81 % (73–87, n = 120)") and row[5].startswith("1.06 (")
    last = rounds.of_series(studio.store, "e" * 32)[-1]
    models = [studio.store.get(Job, id or 0).output_model_id for id in (last.reward_job_id, last.policy_job_id)]
    assert [cell["href"] for cell in row[7:9]] == [f"/admin/models?model={id}" for id in models]
    outputs = tab.call("models_choose", event={"id": models[0]})
    told_of = [row for part in parts(outputs[2], "facts") for row in part["rows"]]
    assert ["Good answers told from the policy's own", "90 % (80–95, n = 40)"] in [list(row) for row in told_of]
    (against,) = [cell for name, cell in told_of if name == "Looked at the answers of"]
    assert against["href"] == f"/admin/models?model={studio.store.get(Job, last.reward_job_id).policy_model_id}"
    assert not [name for name, _ in told_of if name == "Followed the reward model"]
    assert all("parts" not in drawn for drawn in tab.call("rounds_tick", studio.project.id, None)[:4])  # nothing is new
    alternating.stop_rounds(studio.store, studio.jobs, studio.admin, studio.project.id or 0)
    assert rows(tab.call("rounds_tick", studio.project.id, None)[1])[0][2]["text"] == "stopped"


def test_the_command_holds_the_settings_of_all_three_forms_and_the_program_reads_them(tab: Tab, studio: Studio) -> None:
    place = tab.call(
        "command_rounds", studio.project.id, 2, "", *values(kind="cooperative", adv_generations=2, total_episodes=64)
    )[0]
    text = parts(place, "command")[0]["text"]
    assert text.endswith("--kind cooperative --reward-adv-generations 2 --ift-total-episodes 64 --seed 2")
    args = _parser().parse_args(["train", "rounds", *text.split("--project ")[1].split(" ")[-8:]])
    assert changes_of(args) == {"kind": "cooperative", "reward_adv_generations": 2, "ift_total_episodes": 64}


def test_a_setting_out_of_range_is_refused_by_name(tab: Tab, studio: Studio) -> None:
    with pytest.raises(gr.Error, match="rounds.* must be between 1 and 20"):
        tab.call("start_rounds", studio.project.id, "f" * 32, 0, "", *values(rounds=99))


def test_every_reason_a_series_can_end_for_has_a_sentence() -> None:
    code = inspect.getsource(alternating)
    named = set(re.findall(r'"((?:no|job|stopped|starter|cannot|all|accuracy|weak)_\w+)"', code)) - {"no_prompts"}
    assert len(named) >= 9 and {f"rounds.reason.{name}" for name in named} <= set(STRINGS)
