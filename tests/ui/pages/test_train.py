"""The train page: readiness, forms made of settings, one job per click, curves that survive a closed tab."""

from __future__ import annotations

import shlex
import uuid
from typing import Any

import gradio as gr
import pytest

from backend import cli
from backend.retraining import Curves
from backend.training.settings import KINDS, make, options
from feedback_db.types import Job
from tests.ui.house import token_for
from tests.ui.pages.studio import HOSTILE, Studio, Tab, parts
from ui.pages import train_form
from ui.pages.train_form import changes, command_of
from ui.pages.train_view import groups_of


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    opened = Tab(studio_app, "/admin", token_for(studio, studio.admin))  # type: ignore[arg-type]
    opened.call("train_open")
    return opened


def shown(outputs: list[Any], kind: str) -> list[dict[str, Any]]:
    return [part for value in outputs if isinstance(value, dict) and "parts" in value for part in parts(value, kind)]


def visible(buttons: list[Any]) -> list[bool]:
    return [button["visible"] for button in buttons]


def test_a_page_that_is_opened_anew_finds_jobs_curves_and_readiness(tab: Tab, studio: Studio) -> None:
    outputs = tab.call("train_open")
    cards = {card["label"]: card for card in shown(outputs, "cards")[0]["items"]}
    assert cards["Reward model"]["value"] == "81 %"
    assert "73–87 %, n = 120" in cards["Reward model"]["hint"]
    assert "47–65 %, n = 120" in cards["Length alone"]["hint"]
    rows = shown(outputs, "table")[0]["rows"]
    assert [row["cells"][0].split(" · ")[1] for row in rows[-4:]] == ["reward", "ppo", "ppo", "reward"]
    assert sum(row["chosen"] for row in rows) == 1
    plots = [
        value
        for value in outputs
        if isinstance(value, dict) and isinstance(value.get("value"), dict) and "columns" in value["value"]
    ]
    assert [len(plot["value"]["data"]) for plot in plots] == [18, 18]  # 17 steps and one held-out point each


def test_sample_answers_of_a_chosen_job_are_text(tab: Tab, studio: Studio) -> None:
    job = studio.store.find(Job, "kind = 'ppo'")[0]
    outputs = tab.call("train_job", studio.project.id, event={"id": job.id})
    assert shown(outputs, "messages")[0]["items"][0]["text"].endswith(HOSTILE)


def test_a_double_click_is_one_job_that_is_paused_resumed_and_stopped(tab: Tab, studio: Studio) -> None:
    defaults = [option.default for option in options(KINDS["reward"])]
    before = studio.store.value("select count(*) from jobs")
    for _ in range(2):
        outputs = tab.call("start_reward", studio.project.id, "a" * 32, 5, "", *defaults)
    assert studio.store.value("select count(*) from jobs") == before + 1
    job = studio.store.find(Job, order_by="id desc")[0]
    assert f"Job {job.id} (reward) is queued" in parts(outputs[0], "note")[0]["text"]
    assert (job.seed, job.settings) == (5, {**job.settings, "learning_rate": defaults[0]})
    tab.call("train_job", studio.project.id, event={"id": job.id})
    paused = tab.call("pause_job", studio.project.id, None)
    assert studio.store.get(Job, job.id or 0).state == "paused"
    assert "asked to pause" in parts(paused[0], "note")[0]["text"]
    assert visible(paused[-4:-1]) == [False, True, True]  # pause, resume, stop
    resumed = tab.call("resume_job", studio.project.id, None)
    assert studio.store.get(Job, job.id or 0).state == "queued"
    assert "queued again" in parts(resumed[0], "note")[0]["text"] and visible(resumed[-4:-1]) == [True, False, True]
    stopped = tab.call("stop_job", studio.project.id, None)
    assert visible(stopped[-4:-1]) == [False, False, False]
    assert studio.store.get(Job, job.id or 0).state == "cancelled"
    assert "asked to stop" in parts(stopped[0], "note")[0]["text"]


def test_a_setting_out_of_range_is_refused_by_name(tab: Tab, studio: Studio) -> None:
    values = [option.default for option in options(KINDS["reward"])]
    values[0] = 7.0
    with pytest.raises(gr.Error, match="learning_rate.*between 0 and 1"):
        tab.call("start_reward", studio.project.id, "b" * 32, 0, "", *values)


def test_weights_of_people_are_a_text_that_reaches_the_job(tab: Tab, studio: Studio) -> None:
    names = [option.name for option in options(KINDS["reward"])]
    values = [option.default for option in options(KINDS["reward"])]
    values[names.index("annotator_weights")] = "nobody at all 0.5"
    with pytest.raises(gr.Error, match="names nobody at all, and nobody has that name"):
        tab.call("start_reward", studio.project.id, "c" * 32, 0, "", *values)
    values[names.index("annotator_weights")] = f"{studio.admin.name} 0.5"
    tab.call("start_reward", studio.project.id, "d" * 32, 0, "", *values)
    job = max(studio.store.find(Job), key=lambda job: job.id or 0)
    assert job.settings["annotator_weights"] == f"{studio.admin.pseudonym} 0.5"
    assert "--annotator-weights 'ann 0.5, bob 0'" in command_of(
        "reward", "x", {"annotator_weights": "ann 0.5, bob 0"}, 0, ""
    )


def test_the_command_says_only_what_differs_and_the_same_settings_come_of_it() -> None:
    values = [option.default for option in options(KINDS["ppo"])]
    place = [option.name for option in options(KINDS["ppo"])].index("kl_coef")
    values[place] = 0.2
    changed = changes("ppo", values)
    assert make(KINDS["ppo"], changed) == make(KINDS["ppo"], {"kl_coef": 0.2})
    assert command_of("ppo", "it's mine", changed, 3, "") == (
        "python app.py train ppo --project 'it'\"'\"'s mine' --kl-coef 0.2 --seed 3"
    )


@pytest.mark.parametrize("is_on", [True, False])
def test_a_switch_becomes_a_flag_that_the_command_line_reads_back(is_on: bool) -> None:
    words = shlex.split(command_of("ppo", "Sample", {"whiten_rewards": is_on}, 0, ""))
    assert words[-1] == ("--whiten-rewards" if is_on else "--no-whiten-rewards")
    given = cli._parser().parse_args(words[2:])
    assert cli.changes_of(given) == {"whiten_rewards": is_on}


def test_a_switch_is_a_checkbox(studio: Studio) -> None:
    (option,) = [option for option in options(KINDS["ppo"]) if option.type is bool]
    box = train_form._field(studio.ui, "ppo", option)
    assert isinstance(box, gr.Checkbox) and box.value is False and box.elem_id == "ppo-whiten-rewards"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_it_learns_from_and_starts(tab: Tab, studio: Studio, kind: str) -> None:
    told = [note["text"] for note in shown(tab.call("train_open"), "note")]
    about = studio.ui.text.strings[f"train.about.{kind}"][0].split("{")[0].split(":")[0]
    assert sum(text.startswith(about) for text in told) == 1
    defaults = [option.default for option in options(KINDS[kind])]
    outputs = tab.call(f"start_{kind}", studio.project.id, uuid.uuid4().hex, 0, "", *defaults)
    job = studio.store.find(Job, order_by="id desc")[0]
    assert (job.kind, job.state) == (kind, "queued")
    assert f"Job {job.id} ({kind}) is queued" in parts(outputs[0], "note")[0]["text"]
    assert (job.reward_model_id is None) is (kind not in ("ppo", "ift"))
    tab.call("train_job", studio.project.id, event={"id": job.id})
    tab.call("stop_job", studio.project.id, job.id)


def test_a_picture_of_one_step_comes_behind_those_that_show_a_line() -> None:
    points = [
        {"name": "held_out/accuracy", "step": 9, "value": 0.7, "at": ""},
        *(
            {"name": name, "step": step, "value": 0.5, "at": ""}
            for name in ("loss", "rewards/margins")
            for step in (1, 9)
        ),
    ]
    found = Curves(job=None, points=points, events=[], seconds_left=None)  # type: ignore[arg-type]
    assert groups_of(found) == ["loss", "margin", "accuracy"]
    assert groups_of(found._replace(points=points[:1])) == ["accuracy"]
