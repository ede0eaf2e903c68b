"""The prompt endpoint over HTTP, and the tab that shows how to ask it: the requests it offers run as they stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import httpx
import pytest

from backend.engines.address import Refused
from backend.engines.answers import EngineError
from backend.engines.keys import NoKey
from feedback_db import engines
from feedback_db.types import Completion, Model, RemoteEngine, Template
from tests.ui.house import token_for
from tests.ui.pages.studio import Studio, Tab, parts
from tests.ui.pages.test_build import NO_VALUES, form, variables
from ui.api.prompts import AT_ONCE

VALUES = {"input": 'Where\'s my "parcel"? $HOME 在哪里?'}


@pytest.fixture
def tab(studio: Studio, studio_app: Any) -> Tab:
    return Tab(studio_app, "/studio", token_for(studio, studio.engineer))  # type: ignore[arg-type]


@pytest.fixture
def template(studio: Studio) -> Template:
    return studio.store.find(Template, "name = 'customer service'", order_by="version desc")[0]


@pytest.fixture
def secret(tab: Tab, studio: Studio) -> str:
    return str(tab.call("make_token", studio.project.id, "shop", False)[0]["value"])


@pytest.fixture
def asking(studio_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio_url, timeout=60) as client:
        yield client


def ask(
    client: httpx.Client, secret: str | None, body: Any, where: str = "customer%20service/latest"
) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return client.post(f"/v1/prompts/{where}", headers=headers, json=body)


def test_values_in_a_completion_out(asking: httpx.Client, secret: str, template: Template, studio: Studio) -> None:
    reply = ask(asking, secret, {"values": VALUES, "seed": 3})
    said = reply.json()
    assert reply.status_code == 200, said
    assert VALUES["input"][:20] in said["completion"] and "order 103" in said["completion"]
    assert said["template"] == {"name": template.name, "version": template.version, "digest": template.digest.hex()}
    assert said["usage"]["prompt_tokens"] > 0 and said["completion_id"] is None
    keeping = ask(asking, secret, {"values": VALUES})
    assert keeping.status_code == 200 and not studio.store.find(
        Completion,
        "prompt_id in (select id from prompts where case_id in (select id from cases where source = 'served'))",
    )


def test_a_kept_answer_names_its_row(asking: httpx.Client, tab: Tab, studio: Studio) -> None:
    secret = tab.call("make_token", studio.project.id, "keeps", True)[0]["value"]
    said = ask(asking, secret, {"values": VALUES}).json()
    assert studio.store.get(Completion, said["completion_id"]).text == said["completion"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"values": {"input": 7}}, 422, "values.input"),
        ({"values": VALUES, "temprature": 0}, 422, "temprature"),
        ({"values": VALUES, "temperature": 9}, 422, "temperature"),
        ({"values": VALUES, "seed": -1}, 422, "seed"),
        ({"values": {}}, 422, "input"),
        ({"values": {**VALUES, "other": "x"}}, 422, "no variable other"),
        ({"values": VALUES, "model": "gpt-9"}, 404, "no model"),
        ([], 422, "body"),
    ],
)
def test_what_is_wrong_is_named(asking: httpx.Client, secret: str, body: Any, status: int, says: str) -> None:
    reply = ask(asking, secret, body)
    assert reply.status_code == status and says in reply.json()["error"]["message"], reply.text


@pytest.fixture
def remote(studio: Studio) -> Iterator[Model]:
    """A model of a remote engine that is not there; it is taken back afterwards."""
    store = studio.store
    engine = store.add(
        RemoteEngine(name="box", base_url="https://box.example/v1", context_tokens=8192, person_id=studio.admin.id)
    )
    yield store.add(Model(name=f"box/big #{engine.id}", kind="external", base="big", source="box", engine_id=engine.id))
    engines.remove(store, store.get(RemoteEngine, engine.id), studio.admin.id)


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (Refused("box.example:443 is not among the hosts", "engine_host"), 502, "engine_host"),
        (Refused("The engine box was removed.", "engine_gone"), 404, "engine_gone"),
        (NoKey("There is no key in BOX_API_KEY.", "no_key"), 502, "no_key"),
        (EngineError("The engine refused the key.", "refused_key", status=401), 502, "refused_key"),
        (EngineError("Slow down.", status=429), 429, "engine"),
    ],
)
def test_why_a_remote_engine_does_not_answer_is_no_fault_of_the_program(
    asking: httpx.Client, secret: str, studio: Studio, remote: Model, monkeypatch: Any, problem: Any, status: int, code: str
) -> None:  # fmt: skip
    def client_for(model: Model) -> Any:
        assert model.id == remote.id
        raise problem

    monkeypatch.setattr(studio.engine, "client_for", client_for)
    reply = ask(asking, secret, {"values": VALUES, "model": f"model-{remote.id}"})
    assert (reply.status_code, reply.json()["error"]) == (status, {"message": str(problem), "code": code})


def test_the_tab_tells_the_numbers_of_remote_models(
    tab: Tab, studio: Studio, template: Template, remote: Model
) -> None:
    _, requests, _ = tab.call("build_serve", studio.project.id, template.id, "latest", None, *NO_VALUES)
    assert f"Models of remote engines: model-{remote.id} ({remote.name})." in str(requests)


def test_answers_that_take_long_leave_threads_to_others(
    studio: Studio, studio_url: str, secret: str, monkeypatch: Any
) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)
    client = studio.engine.client()

    def client_for(model: Model) -> Any:
        begun.release()
        go_on.wait(60)
        return client

    monkeypatch.setattr(studio.engine, "client_for", client_for)
    limits = httpx.Limits(max_connections=80)
    with httpx.Client(base_url=studio_url, timeout=60, limits=limits) as many, ThreadPoolExecutor(48) as pool:
        try:
            under_way = [pool.submit(ask, many, secret, {"values": VALUES, "seed": seed}) for seed in range(48)]
            for _ in range(AT_ONCE):
                assert begun.acquire(timeout=60)
            reply = ask(many, None, {"values": VALUES})  # needs a thread of the same pool to be refused
            assert reply.status_code == 401 and not begun.acquire(timeout=0.2)
        finally:
            go_on.set()
        assert [one.result().status_code for one in under_way] == [200] * 48, "the others waited in line"


def test_without_a_token_that_holds_nothing_is_told(
    asking: httpx.Client, secret: str, tab: Tab, studio: Studio
) -> None:
    for wrong in (None, "wst_no", secret[:-1]):
        reply = ask(asking, wrong, {"values": VALUES})
        assert reply.status_code == 401 and "Bearer" in reply.json()["error"]["message"]
    assert ask(asking, secret, {"values": VALUES}, "nothing/latest").status_code == 404
    assert asking.get("/v1/prompts/customer%20service/latest").status_code in (404, 405)
    cookie = {"cookie": f"whetstone={token_for(studio, studio.admin)}"}  # type: ignore[arg-type]
    signed_in = asking.post("/v1/prompts/customer%20service/latest", json={"values": VALUES}, headers=cookie)
    assert signed_in.status_code == 401, "a session is no token"
    foreign = {"authorization": f"Bearer {secret}", "origin": "https://elsewhere.example"}
    assert asking.post("/v1/prompts/a/b", json={}, headers=foreign).status_code == 403
    id = next(row["id"] for row in parts(tab.call("make_token", studio.project.id, "x", False)[3], "table")[0]["rows"])
    tab.call("revoke_token", studio.project.id, event={"id": id})


def test_the_requests_on_the_page_run_as_they_stand(
    tab: Tab, studio: Studio, studio_url: str, secret: str, template: Template
) -> None:
    variables(tab, form(name=template.name))
    tab.request.request.headers["host"] = studio_url.removeprefix("http://")
    given = [studio.project.id, template.id, "latest", None, VALUES["input"], *NO_VALUES[1:]]
    picker, requests, tokens = tab.call("build_serve", *given)
    assert picker["choices"][-1][0] == str(template.version) and picker["value"] == "latest"
    assert "shop" in str(tokens) and secret not in str(tokens)
    curl, python = (part["text"] for part in parts(requests, "command"))
    environment = {"WHETSTONE_TOKEN": secret, "PATH": "/usr/bin:/bin"}
    asked = [[sys.executable, "-c", python]]
    if shutil.which("curl"):
        asked.append(["sh", "-c", curl])
    for command in asked:
        done = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=60, encoding="utf-8"
        )
        assert done.returncode == 0 and VALUES["input"][:12] in done.stdout.replace('\\"', '"'), done.stderr


def test_a_token_is_told_once_and_an_annotator_makes_none(tab: Tab, studio: Studio, studio_app: Any) -> None:
    shown, name, _, tokens = tab.call("make_token", studio.project.id, "told once", False)
    assert shown["visible"] and shown["value"].startswith("wst_") and name == ""
    row = parts(tokens, "table")[0]["rows"][0]
    assert row["cells"][1:3] == ["told once", f"…{shown['value'][-4:]}"]
    hidden, _, after = tab.call("revoke_token", studio.project.id, event={"id": row["id"]})
    assert not hidden["visible"] and hidden["value"] == ""
    assert all(one["cells"][1] != "told once" for part in parts(after, "table") for one in part["rows"])
    annotator = Tab(studio_app, "/studio", token_for(studio, studio.annotator))  # type: ignore[arg-type]
    for call in (("make_token", studio.project.id, "x", False), ("build_serve", 1, 1, "latest", None, *NO_VALUES)):
        with pytest.raises(gr.Error):
            annotator.call(*call)
