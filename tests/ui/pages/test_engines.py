"""The engines page: the engine's health, and remote engines added, asked, used and removed by admins only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from backend.engines.choosing import Engines
from backend.engines.process import EngineProcess
from feedback_db.types import Model, RemoteEngine
from tests.backend.engines.stub import Stub, reply, stub
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, build, parts
from ui.context import Ui
from ui.text import Text
from ui.web import create_app

KEY = "sk-test-0123456789abcdef"
HEALTH = {
    "loaded": True, "adapters": 3, "tokens_per_second": 812.5, "waiting": 2, "active": 7, "resting": False, "device": "cpu",
    "dtype": "float32", "attention": "sdpa", "quantisation": "none", "memory_bytes": 300 << 20, "gpu_bytes": 0, "batch_fill": 0.75,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub(reply({"data": [{"id": "big-1"}, {"id": "big-2"}]})) as made:
        yield made


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Studio]:
    made = build(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def engines(house: Studio, server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    monkeypatch.setenv("BIG_API_KEY", KEY)
    made = Engines(EngineProcess(tmp_path, "nowhere"), house.store, tmp_path, (f"127.0.0.1:{server.port}",))
    yield made
    made.stop()


@pytest.fixture
def app(house: Studio, engines: Engines) -> Any:
    return create_app(Ui(store=house.store, engine=engines, jobs=house.jobs, settings=house.settings, text=Text()))


@pytest.fixture
def tab(house: Studio, app: Any) -> Tab:
    return Tab(app, "/admin", token_for(house, house.admin))  # type: ignore[arg-type]


def form(server: Stub, **more: Any) -> list[Any]:
    given = {
        "name": "box",
        "url": f"http://127.0.0.1:{server.port}/v1",
        "key": "env:BIG_API_KEY",
        "context": 4096,
        **more,
    }
    return list(given.values())


def test_an_engine_that_does_not_run_is_not_started_by_looking(tab: Tab, server: Stub):
    health, chosen, remote, *_ = tab.call("engines_open")
    assert "does not run" in parts(health, "note")[0]["text"]
    assert chosen is None
    assert parts(remote, "table")[0]["rows"] == []
    assert f"127.0.0.1:{server.port}" in parts(remote, "note")[0]["text"]


def test_the_health_of_the_engine_is_shown_with_what_each_figure_means(
    tab: Tab, engines: Engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines.local, "health", lambda: HEALTH)
    (health,) = tab.call("engines_again")
    shown = {item["label"]: (item["value"], item["hint"]) for item in parts(health, "cards")[0]["items"]}
    assert shown["State"] == ("answering", "cpu, float32, sdpa")
    assert shown["Tokens per second"][0] == "812.5"
    assert shown["Answers being written"] == ("7", "2 requests wait")
    assert shown["Memory"][0] == "300 MB"
    assert shown["Batch fill"][0] == "75 %"
    assert "GPU memory" not in shown
    elsewhere = {"device": "cuda", "dtype": "bfloat16", "quantisation": "4bit", "resting": True, "gpu_bytes": 1 << 30}
    monkeypatch.setattr(engines.local, "health", lambda: {**HEALTH, **elsewhere})
    (health,) = tab.call("engines_again")
    shown = {item["label"]: (item["value"], item["hint"]) for item in parts(health, "cards")[0]["items"]}
    assert shown["State"] == ("resting while a model is trained", "cuda, 4bit / bfloat16, sdpa")
    assert shown["GPU memory"][0] == "1024 MB"
    for state, says in (("starting", "is starting"), ("silent", "runs but does not answer")):
        monkeypatch.setattr(engines.local, "health", lambda state=state: {"loaded": False, "state": state})
        (health,) = tab.call("engines_again")
        assert says in parts(health, "note")[0]["text"]


def test_an_engine_is_added_asked_used_and_removed(tab: Tab, house: Studio, server: Stub, app: Any):
    _, remote, _, ask, *_, status, name, url, key, context = tab.call("add_engine", *form(server))
    kept = house.store.find(RemoteEngine)[0]
    assert "box was added" in parts(status, "note")[0]["text"]
    assert (name, url, key, context) == ("", "", "", 8192)
    assert ask["interactive"] is True
    assert [row["cells"][0] for row in parts(remote, "table")[0]["rows"]] == ["box"]
    assert server.requests == [], "nobody is called before an admin asks"

    model, status = tab.call("ask_engine", kept.id)
    assert [choice[0] for choice in model["choices"]] == ["big-1", "big-2"]
    assert "offers 2 models" in parts(status, "note")[0]["text"]

    *_, status = tab.call("take_model", kept.id, "big-2")
    assert "box/big-2 can now be chosen" in parts(status, "note")[0]["text"]
    taken = house.store.find(Model, "engine_id = ?", [kept.id])[0]
    compare = Tab(app, "/studio", token_for(house, house.engineer))  # type: ignore[arg-type]
    assert "box/big-2" in repr(compare.call("compare_open"))

    *_, status = tab.call("remove_engine", kept.id)
    assert "Its answers stay" in parts(status, "note")[0]["text"]
    assert house.store.get(Model, taken.id or 0).stage == "retired"


def test_the_key_is_on_no_page_and_in_no_error(tab: Tab, house: Studio, server: Stub):
    server.script[:] = [reply({"error": {"message": f"No such key: {KEY}"}}, 404)]
    shown = repr(tab.call("add_engine", *form(server)))
    assert "env:BIG_API_KEY" in shown
    kept = house.store.find(RemoteEngine)[0]
    with pytest.raises(gr.Error, match="No such key: ") as told:
        tab.call("ask_engine", kept.id)
    with pytest.raises(gr.Error, match="where the key stands, not the key itself|Say where") as typed:
        tab.call("add_engine", *form(server, name="other", key=KEY))
    assert KEY not in shown + str(told.value) + str(typed.value) + repr(tab.call("engines_open"))


def test_an_engine_in_trouble_says_so_without_being_called(
    tab: Tab, house: Studio, server: Stub, monkeypatch: pytest.MonkeyPatch
):
    tab.call("add_engine", *form(server))
    monkeypatch.delenv("BIG_API_KEY")
    _, _, remote, detail, *_ = tab.call("engines_open")
    assert parts(remote, "table")[0]["rows"][0]["cells"][3]["text"] == "cannot be called"
    assert "There is no key in BIG_API_KEY" in parts(detail, "note")[0]["text"]
    assert server.requests == []


@pytest.mark.parametrize(
    "event", ["engines_open", "engines_again", "add_engine", "ask_engine", "take_model", "remove_engine"]
)
def test_only_admins_may_use_the_page(house: Studio, app: Any, server: Stub, event: str):
    inputs = {"add_engine": form(server), "ask_engine": [1], "take_model": [1, "big-1"], "remove_engine": [1]}
    for person in (house.engineer, house.annotator):
        tab = Tab(app, "/admin", token_for(house, person))  # type: ignore[arg-type]
        with pytest.raises(gr.Error, match="this needs the role admin"):
            tab.call(event, *inputs.get(event, []))
    assert house.store.find(RemoteEngine) == [] and server.requests == []
