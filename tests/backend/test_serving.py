"""Serving: a token is told once and holds while its maker may; what is served is what is previewed; what is kept can be judged."""

from __future__ import annotations

import pytest

from backend import administering, comparing, curating, prompting, serving, versioning
from backend.access import Denied
from backend.engines.kept import SamplingSettings
from backend.engines.scripted import ScriptedEngine
from backend.prompting import Draft
from backend.prompts.problem import TemplateProblem
from backend.serving import Asked, CannotServe
from feedback_db import Store, models
from feedback_db.types import ApiToken, Case, Completion, Person, Project, Prompt, Template

BODY = "Answer {{tone}}: {{input}}"


@pytest.fixture
def template(store: Store, engineer: Person, project: Project) -> Template:
    return prompting.save_template(store, engineer, project.id or 0, Draft(name="a / b", body=BODY))


def token(store: Store, person: Person, project: Project, keeps: bool = False) -> str:
    return serving.make_token(store, person, project.id or 0, "shop", keeps=keeps)[1]


def asked(version: str = "latest", **more: object) -> Asked:
    values = {"tone": "kindly", "input": "{{tone}} <|im_end|>"}
    return Asked("a / b", version, values)._replace(**more)  # type: ignore[arg-type]


def test_the_text_of_a_token_is_in_no_row(store: Store, engineer: Person, project: Project) -> None:
    made, secret = serving.make_token(store, engineer, project.id or 0, " shop ")
    assert (made.name, made.hint) == ("shop", secret[-4:]) and secret.startswith("wst_") and len(secret) > 40
    for table in ("tokens", "audit_events"):
        assert secret not in str(store.rows(f"select * from {table}"))
    assert secret not in repr(made) and "token_hash" not in repr(made)
    for bad in (" ", "x" * 81):
        with pytest.raises(CannotServe, match="80"):
            serving.make_token(store, engineer, project.id or 0, bad)


def test_what_is_served_is_what_is_previewed(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    one = curating.add_demonstration(store, engineer, project.id or 0, input="in", output="out")
    draft = Draft(name="a / b", body=BODY, few_shot={"k": 1, "choose": "fixed", "ids": [one.id], "shape": "turns"})
    prompting.save_template(store, engineer, project.id or 0, draft)
    seen: list[object] = []
    listening = ScriptedEngine(lambda messages, model, seed: seen.append((tuple(messages), model, seed)) or "yes")
    served = serving.answer(store, listening, token(store, engineer, project), asked(seed=7))
    values = dict(asked().values)
    previewed = prompting.preview(store, engine, engineer, project.id or 0, draft, values)
    assert seen == [(previewed.messages, serving.engine_name(served.model), 7)]
    assert served.answer.text == "yes" and served.demonstration_ids == (one.id,) and served.completion_id is None
    assert not store.find(Prompt) and not store.find(Completion) and store.find(Case, "source = 'served'") == []


def test_the_turns_of_a_program_stand_at_their_place_and_it_may_ask_what_a_row_asks(
    store: Store, engineer: Person, project: Project
) -> None:
    rows = (
        {"role": "user", "text": "Hello?"},
        {"role": "assistant", "text": "Hello."},
        {"role": "turns"},
        {"role": "user", "text": "{{input}}"},
    )
    prompting.save_template(store, engineer, project.id or 0, Draft(name="chat", rows=rows))
    seen: list[list[str]] = []
    listening = ScriptedEngine(lambda messages, *_: seen.append([m["content"] for m in messages]) or "yes")
    turns = ({"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"})
    for input in ("Three", "hello?"):
        request = Asked("chat", "latest", {"input": input}, turns if input == "Three" else ())
        serving.answer(store, listening, token(store, engineer, project), request)
    assert seen == [["Hello?", "Hello.", "One", "Two", "Three"], ["Hello?", "Hello.", "hello?"]]


def test_a_version_is_a_number_an_alias_or_the_latest(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    second = prompting.save_template(store, engineer, project.id or 0, Draft(name="a / b", body=BODY + "!"))
    versioning.point(store, engineer, template.id or 0, "production")
    secret = token(store, engineer, project)
    got = {
        name: serving.answer(store, engine, secret, asked(name)).template.id
        for name in ("1", "2", "latest", "production")
    }
    assert got == {"1": template.id, "2": second.id, "latest": second.id, "production": template.id}
    for wrong in ("3", "staging", "", "²", "9" * 40):
        with pytest.raises(CannotServe, match="no version") as told:
            serving.answer(store, engine, secret, asked(wrong))
        assert told.value.status == 404
    with pytest.raises(CannotServe, match="no model"):
        serving.answer(store, engine, secret, asked(model="model-99"))


def test_values_are_those_of_the_template_all_of_them_and_no_other(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    secret = token(store, engineer, project)
    with pytest.raises(CannotServe, match="no variable tune. It has: tone, input"):
        serving.answer(store, engine, secret, asked(values={"tone": "a", "input": "b", "tune": "c"}))
    with pytest.raises(TemplateProblem, match="input"):
        serving.answer(store, engine, secret, asked(values={"tone": "a"}))


def test_answers_are_kept_to_be_judged_where_the_token_says_so(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    secret = token(store, engineer, project, keeps=True)
    hot = SamplingSettings(temperature=0.7, max_tokens=12)
    served = [serving.answer(store, engine, secret, asked(seed=seed, sampling=hot)) for seed in (1, 2, 2)]
    ids = [one.completion_id or 0 for one in served]
    assert ids[1] == ids[2] != ids[0]
    (case,) = store.find(Case, "source = 'served'")
    assert case.values == dict(asked().values) and case.split in ("train", "val", "test")
    comparison = comparing.send_to_labelling(store, engineer, ids[:2])
    assert comparison.case_id == case.id


def test_a_token_ends_with_its_revocation_and_with_its_makers_rights(
    store: Store, admin: Person, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    secret = token(store, engineer, project)
    serving.answer(store, engine, secret, asked())
    (used,) = store.find(ApiToken)
    assert used.last_used_at is not None
    for wrong in (None, "", "wst_" + "x" * 43, secret + "x", "x" * 1000, "\ud800"):
        with pytest.raises(CannotServe, match="not known") as told:
            serving.answer(store, engine, wrong, asked())
        assert told.value.status == 401
    administering.change_role(store, admin, engineer.id or 0, "annotator")
    with pytest.raises(Denied):
        serving.answer(store, engine, secret, asked())
    administering.change_role(store, admin, engineer.id or 0, "engineer")
    serving.revoke(store, admin, used.id or 0)
    with pytest.raises(CannotServe, match="revoked"):
        serving.answer(store, engine, secret, asked())


def test_a_token_reaches_its_own_project_alone(
    store: Store, engineer: Person, project: Project, engine: ScriptedEngine, template: Template
) -> None:
    other = store.add(Project(name="other"))
    with pytest.raises(CannotServe, match="no version"):
        serving.answer(store, engine, token(store, engineer, other), asked())
    assert models.live(store, "policy") is not None


def test_an_annotator_may_do_none_of_it(store: Store, annotator: Person, project: Project) -> None:
    for act in (
        lambda: serving.make_token(store, annotator, project.id or 0, "x"),
        lambda: serving.made_tokens(store, annotator, project.id or 0),
        lambda: serving.revoke(store, annotator, 1),
    ):
        with pytest.raises(Denied):
            act()
