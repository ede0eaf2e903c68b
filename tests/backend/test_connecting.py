"""Remote engines as admins add them and as engineers use them, against a server that answers from a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import access, administering, comparing, connecting, prompting, serving, streaming
from backend.connecting import CannotConnect
from backend.engines.address import Refused
from backend.engines.answers import EngineError
from backend.engines.choosing import Engines
from backend.engines.keys import NoKey
from backend.engines.process import EngineProcess
from backend.engines.scripted import ScriptedEngine
from backend.streaming import Column
from feedback_db import Store, audit, comparisons
from feedback_db.types import Case, Completion, Model, Person, Project, Prompt, RemoteEngine, Template
from tests.backend.engines.stub import Stub, chat, deltas, events, reply, stub

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub(reply({"data": [{"id": "big-1"}, {"id": "org/small:7b"}]})) as made:
        yield made


@pytest.fixture
def engines(store: Store, tmp_path: Path, server: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    monkeypatch.setenv("BIG_API_KEY", KEY)
    local = EngineProcess(tmp_path, "nowhere")
    made = Engines(local, store, tmp_path, ("api.example.com", f"127.0.0.1:{server.port}"))
    yield made
    made.stop()


def added(store: Store, engines: Engines, admin: Person, server: Stub, **more: Any) -> RemoteEngine:
    given = {
        "name": "box",
        "base_url": f"http://127.0.0.1:{server.port}/v1/",
        "key_reference": "env:BIG_API_KEY",
        **more,
    }
    return connecting.add_engine(store, engines, admin, **given)


def test_an_admin_adds_an_engine_sees_what_it_offers_and_takes_a_model(
    store: Store, engines: Engines, admin: Person, server: Stub
):
    engine = added(store, engines, admin, server)
    assert connecting.offered(store, engines, admin, engine.id) == ["big-1", "org/small:7b"]
    assert server.requests[0].line == "GET /v1/models HTTP/1.1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    model = connecting.take_model(store, admin, engine.id, "org/small:7b")
    assert (model.name, model.kind, model.base, model.engine_id) == (
        "box/org/small:7b",
        "external",
        "org/small:7b",
        engine.id,
    )
    assert connecting.take_model(store, admin, engine.id, "org/small:7b") == model
    (shown,) = connecting.engines(store, engines, admin)
    assert (shown.engine, shown.models, shown.trouble) == (engine, [model], None)
    assert [row["action"] for row in store.rows("select action from audit_events order by id")][-2:] == [
        "add_engine",
        "take_model",
    ]
    assert audit.first_broken(store) is None


def test_the_key_is_nowhere_in_the_data_folder(
    store: Store, engines: Engines, admin: Person, server: Stub, tmp_path: Path
):
    engine = added(store, engines, admin, server)
    connecting.offered(store, engines, admin, engine.id)
    connecting.take_model(store, admin, engine.id, "big-1")
    store.db.conn.execute("pragma wal_checkpoint(full)")
    held = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert held == []
    assert any(b"env:BIG_API_KEY" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_only_admins_may_see_or_change_engines(
    store: Store, engines: Engines, admin: Person, server: Stub, engineer: Person
):
    engine = added(store, engines, admin, server)
    acts: list[Any] = [
        lambda: connecting.engines(store, engines, engineer),
        lambda: added(store, engines, engineer, server, name="mine"),
        lambda: connecting.offered(store, engines, engineer, engine.id),
        lambda: connecting.take_model(store, engineer, engine.id, "big-1"),
        lambda: connecting.remove_engine(store, engines, engineer, engine.id),
    ]
    for act in acts:
        with pytest.raises(access.Denied):
            act()
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"base_url": "https://evil.org/v1"}, Refused, "not among the hosts"),
        ({"base_url": "http://127.0.0.1:9/v1"}, Refused, "engine_hosts"),
        ({"base_url": "http://user:x@127.0.0.1/v1"}, Refused, "no base URL"),
        ({"key_reference": KEY}, NoKey, "not the key itself"),
        ({"key_reference": "env:SECRET_TOKEN"}, NoKey, "_API_KEY"),
        ({"name": ""}, CannotConnect, "A name has"),
        ({"name": "<b>"}, CannotConnect, "A name has"),
        ({"name": "box"}, CannotConnect, "already an engine named box"),
        ({"context_tokens": 10}, CannotConnect, "between 256"),
    ],
)
def test_what_cannot_be_an_engine_is_refused_and_nothing_is_stored_or_called(
    store: Store, engines: Engines, admin: Person, server: Stub, given: dict[str, Any], error: Any, says: str
):
    added(store, engines, admin, server)
    with pytest.raises(error, match=says) as refused:
        added(store, engines, admin, server, **{"name": "other", **given})
    assert KEY not in str(refused.value)
    assert len(store.find(RemoteEngine)) == 1 and server.requests == []


def test_an_engine_whose_host_is_no_longer_listed_or_whose_key_is_gone_is_not_called(
    store: Store, engines: Engines, admin: Person, server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = added(store, engines, admin, server)
    stricter = Engines(engines.local, store, tmp_path, ())
    with pytest.raises(Refused, match="engine_hosts"):
        connecting.offered(store, stricter, admin, engine.id)
    assert connecting.engines(store, stricter, admin)[0].trouble.code == "engine_host"
    monkeypatch.delenv("BIG_API_KEY")
    with pytest.raises(NoKey, match="BIG_API_KEY holds no key"):
        connecting.offered(store, engines, admin, engine.id)
    assert connecting.engines(store, engines, admin)[0].trouble.code == "no_key"
    assert server.requests == []


def test_a_removed_engine_keeps_its_answers_and_gives_its_name_free(
    store: Store, engines: Engines, admin: Person, server: Stub, engineer: Person
):
    engine = added(store, engines, admin, server)
    connecting.offered(store, engines, admin, engine.id)
    model = connecting.take_model(store, admin, engine.id, "big-1")
    assert model.id in [one.id for one in streaming.policies(store, engineer)]
    connecting.remove_engine(store, engines, admin, engine.id)
    connecting.remove_engine(store, engines, admin, engine.id)
    assert connecting.engines(store, engines, admin) == []
    assert streaming.policies(store, engineer) == []
    with pytest.raises(Refused, match="was removed"):
        engines.client_for(store.get(type(model), model.id))
    with pytest.raises(CannotConnect, match="was removed"):
        connecting.take_model(store, admin, engine.id, "big-1")
    again = added(store, engines, admin, server)
    assert connecting.take_model(store, admin, again.id, "big-1").name == f"box/big-1 #{again.id}"
    actions = [row["action"] for row in store.rows("select action from audit_events")]
    assert actions.count("remove_engine") == 1


class Both:
    """The scripted engine for the models of this machine, remote ones for their own."""

    def __init__(self, engines: Engines, local: ScriptedEngine) -> None:
        self.engines, self.local = engines, local

    def client_for(self, model: Any) -> Any:
        return self.local if model.engine_id is None else self.engines.client_for(model)


def test_a_remote_model_is_compared_side_by_side_with_our_own_and_sent_to_labelling(
    store: Store,
    engines: Engines,
    admin: Person,
    engineer: Person,
    server: Stub,
    project: Project,
    engine: ScriptedEngine,
):
    remote = added(store, engines, admin, server)
    model = connecting.take_model(store, admin, remote.id, "big-1")
    server.script[:] = [events(deltas("It is ", "on its way."))]
    own = next(one for one in streaming.policies(store, engineer) if one.engine_id is None)
    template = store.find(Template, "name = 'customer service'")[0]
    case = store.find(Case, "scenario = 'customer service'")[0]
    columns = [Column(template_id=template.id, model_id=one.id) for one in (own, model)]
    panes = list(
        streaming.side_by_side(store, Both(engines, engine), engineer, case_id=case.id, columns=columns, seed=3)
    )[-1]
    assert [pane.state for pane in panes] == ["done", "done"]
    assert panes[1].text == "It is on its way."
    kept = store.get(Completion, panes[1].completion_id)
    assert (kept.model_id, kept.seed, kept.finish_reason, kept.mean_logp) == (model.id, 3, "stop", None)
    asked = server.requests[-1].body
    assert asked["model"] == "big-1"
    prompt = store.get(Prompt, kept.prompt_id)
    assert asked["messages"] == list(prompt.messages)
    assert prompt.tokens is not None, "our own engine counted it"
    made = comparing.send_to_labelling(store, engineer, [pane.completion_id for pane in panes])
    assert comparisons.open_count(store, project.id) == 1 and made.size == 2


def test_comparisons_are_made_of_two_answers_of_a_remote_model(
    store: Store, engines: Engines, admin: Person, engineer: Person, server: Stub, project: Project
):
    remote = added(store, engines, admin, server)
    model = connecting.take_model(store, admin, remote.id, "big-1")
    server.script[:] = [reply(chat("one")), reply(chat("two"))]
    template = store.find(Template, "name = 'customer service'")[0]
    case = store.find(Case, "scenario = 'customer service'")[0]
    made = comparing.make_comparisons(store, engines, engineer, requests=[(template.id, case.id)], model_id=model.id)
    assert len(made.comparisons) == 1
    assert {one.text for one in store.find(Completion, "model_id = ?", [model.id])} == {"one", "two"}
    assert store.find(Prompt)[0].tokens is None, "an estimate is not kept as a count"


def test_a_remote_engine_in_trouble_fails_its_own_column_only(
    store: Store,
    engines: Engines,
    admin: Person,
    engineer: Person,
    server: Stub,
    project: Project,
    engine: ScriptedEngine,
):
    remote = added(store, engines, admin, server)
    model = connecting.take_model(store, admin, remote.id, "big-1")
    server.script[:] = [reply({"error": {"message": "Your budget is spent."}}, 402)]
    own = next(one for one in streaming.policies(store, engineer) if one.engine_id is None)
    template = store.find(Template, "name = 'customer service'")[0]
    case = store.find(Case, "scenario = 'customer service'")[0]
    columns = [Column(template_id=template.id, model_id=one.id) for one in (own, model)]
    panes = list(
        streaming.side_by_side(store, Both(engines, engine), engineer, case_id=case.id, columns=columns, seed=3)
    )[-1]
    assert [pane.state for pane in panes] == ["done", "failed"]
    assert str(panes[1].problem) == "Your budget is spent."
    with pytest.raises(EngineError, match="budget"):
        comparing.make_comparisons(store, engines, engineer, requests=[(template.id, case.id)], model_id=model.id)


def test_a_program_asks_a_remote_engines_model_by_its_number_and_with_its_makers_rights(
    store: Store, engines: Engines, admin: Person, server: Stub, engineer: Person, project: Project
):
    model = connecting.take_model(store, admin, added(store, engines, admin, server).id, "big-1")
    prompting.save_template(store, engineer, project.id, prompting.Draft(name="ask", body="Answer: {{input}}"))
    _, secret = serving.make_token(store, engineer, project.id, "shop", keeps=True)
    assert serving.remote_models(store, engineer) == [model]
    server.script[:] = [reply(chat("It is on its way."))]
    asked = serving.Asked("ask", "latest", {"input": "Where is it?"}, model=f"model-{model.id}")
    served = serving.answer(store, engines, secret, asked)
    body = server.requests[-1].body
    assert (served.answer.text, served.model, body["model"]) == ("It is on its way.", model, "big-1")
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"][-1]["content"] == "Answer: Where is it?" and body["temperature"] == 0
    assert store.get(Completion, served.completion_id).model_id == model.id, "kept as its own"
    server.script[:] = [reply({"error": {"message": f"no credit left for {KEY}"}}, 402)]
    with pytest.raises(EngineError, match="no credit left") as told:
        serving.answer(store, engines, secret, asked._replace(seed=1))
    assert KEY not in str(told.value)
    annotator = administering.change_role(store, admin, engineer.id, "annotator")
    calls = len(server.requests)
    for act in (
        lambda: serving.answer(store, engines, secret, asked),
        lambda: serving.remote_models(store, annotator),
    ):
        with pytest.raises(access.Denied):
            act()
    assert len(server.requests) == calls


def test_a_program_is_told_why_an_external_model_does_not_answer(
    store: Store, engines: Engines, admin: Person, server: Stub, project: Project, tmp_path: Path
):
    engine = added(store, engines, admin, server)
    model = connecting.take_model(store, admin, engine.id, "big-1")
    prompting.save_template(store, admin, project.id, prompting.Draft(name="ask", body="{{input}}"))
    _, secret = serving.make_token(store, admin, project.id, "shop")
    asked = serving.Asked("ask", "latest", {"input": "x"}, model=f"model-{model.id}")
    stricter = Engines(engines.local, store, tmp_path, ())
    with pytest.raises(Refused, match="engine_hosts"):
        serving.answer(store, stricter, secret, asked)
    imported = store.add(Model(name="theirs", kind="external", base="theirs", source="import"))
    with pytest.raises(serving.CannotServe, match="imported: no engine answers") as told:
        serving.answer(store, engines, secret, asked._replace(model=f"model-{imported.id}"))
    assert told.value.status == 404
    connecting.remove_engine(store, engines, admin, engine.id)
    assert serving.remote_models(store, admin) == []
    with pytest.raises(Refused, match="engine box was removed"):
        serving.answer(store, engines, secret, asked)
    assert server.requests == []
