"""Battles: what is drawn can be asked, and where nothing can be it says what is missing."""

from __future__ import annotations

import pytest

from backend import battling, prompting
from backend.battling import CannotBattle
from feedback_db import Store, prompts
from feedback_db.types import Case, Model, Person, Project, Template


@pytest.fixture
def rivals(store: Store, project: Project) -> None:
    base = store.find(Model, "kind = 'policy'")[0]
    print_of = base.base_fingerprint
    store.add(Model(name="second", kind="policy", base=base.base, source="test", base_fingerprint=print_of))


def chat(text: str) -> prompting.Draft:
    rows = ({"role": "system", "text": text}, {"role": "turns"}, {"role": "user", "text": "{{input}}"})
    return prompting.Draft(name=f"chat {text}", rows=rows)


def retire_all(store: Store, project: Project) -> None:
    for one in prompts.templates(store, project.id or 0):
        prompts.retire_template(store, one.id or 0)


def test_only_templates_that_a_case_fills_are_drawn(
    store: Store, engineer: Person, project: Project, rivals: None
) -> None:
    for n in range(6):
        prompting.save_template(store, engineer, project.id or 0, chat(f"Speak in a {{{{tone}}}} tone. {n}"))
    drawn = [battling.draw(store, engineer, project.id or 0, seed) for seed in range(40)]
    assert len({one.template_id for one in drawn}) > 1 and len({one.case_id for one in drawn}) > 10
    assert not any("chat" in store.get(Template, one.template_id).name for one in drawn)


def test_the_one_case_that_fills_a_template_is_found_among_many(
    store: Store, engineer: Person, project: Project, rivals: None
) -> None:
    retire_all(store, project)
    prompting.save_template(store, engineer, project.id or 0, chat("Speak in a {{tone}} tone."))
    only = store.add(
        Case(
            project_id=project.id or 0, values={"input": "Where is it?", "tone": "dry"}, split="train", digest=b"y" * 32
        )
    )
    assert {battling.draw(store, engineer, project.id or 0, seed).case_id for seed in range(9)} == {only.id}


def test_where_no_case_fits_it_says_what_is_missing_and_what_to_do(
    store: Store, engineer: Person, project: Project, rivals: None
) -> None:
    retire_all(store, project)
    prompting.save_template(store, engineer, project.id or 0, chat("Speak in a {{tone}} tone to a {{listener}}."))
    with pytest.raises(
        CannotBattle, match="asks for tone, listener too. Add a case with that value on the Build"
    ) as told:
        battling.draw(store, engineer, project.id or 0, 0)
    assert told.value.values["names"] == "tone, listener"
