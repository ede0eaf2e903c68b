"""Versions: what changed is told in words and in flips, an alias points at one version, nothing that was is undone."""

from __future__ import annotations

import pytest

from backend import prompting, testing, versioning
from backend.access import Denied
from backend.engines.scripted import ScriptedEngine
from backend.prompting import Draft
from backend.versioning import CannotVersion
from feedback_db import Store, models, prompts
from feedback_db.types import Person, Project, Template
from tests.backend.test_testing import finished


def saved(store: Store, person: Person, project: Project, body: str, **more: object) -> Template:
    return prompting.save_template(store, person, project.id or 0, Draft(name="t", body=body, **more))  # type: ignore[arg-type]


def test_an_alias_points_at_one_version_and_its_moves_are_recorded(
    store: Store, engineer: Person, project: Project
) -> None:
    first, second = (saved(store, engineer, project, body).id or 0 for body in ("{{a}}", "Say {{a}}"))
    versioning.point(store, engineer, first, " Production ")
    versioning.point(store, engineer, second, "production")
    versioning.point(store, engineer, second, "staging")
    assert versioning.aliases(store, engineer, project.id or 0, "t") == {second: ["production", "staging"]}
    versioning.unpoint(store, engineer, first, "production")
    assert versioning.aliases(store, engineer, project.id or 0, "t")[second] == ["production", "staging"]
    versioning.unpoint(store, engineer, second, "staging")
    resolved = {
        name: found and found.id
        for name in ("production", "staging", "latest", "1", "3")
        for found in [prompts.version_called(store, project.id or 0, "t", name)]
    }
    assert resolved == {"production": second, "staging": None, "latest": second, "1": first, "3": None}
    moves = [row for row in store.rows("select * from audit_events order by id") if row["action"] == "point_alias"]
    assert len(moves) == 3
    for bad in ("", "with blank", "Ä", "x" * 41, "-x", "7", "latest"):
        with pytest.raises(CannotVersion, match="alias"):
            versioning.point(store, engineer, first, bad)


def test_reverting_adds_a_version_and_keeps_the_others(store: Store, engineer: Person, project: Project) -> None:
    first = saved(store, engineer, project, "{{a}}", system_text="Kind.", labels=("x", "y"))
    second = saved(store, engineer, project, "Say {{a}}")
    third = prompting.revert(store, engineer, first.id or 0)
    assert (third.version, third.parent_id, third.note) == (3, second.id, "= v1")
    assert third.digest == first.digest and third.labels == ("x", "y")
    assert prompting.revert(store, engineer, first.id or 0).id == third.id
    assert store.get(Template, second.id or 0).retired_at is None


def test_what_changed_is_told_field_by_field(store: Store, engineer: Person, project: Project) -> None:
    first = saved(store, engineer, project, "Answer {{a}} kindly", few_shot={"k": 2, "choose": "seeded"})
    second = saved(store, engineer, project, "Answer {{a}} briefly", few_shot={"k": 4, "choose": "seeded"})
    found = versioning.changes(store, engineer, first.id or 0, second.id or 0)
    assert found == [("body", "Answer {{a}} kindly", "Answer {{a}} briefly"), ("few_shot.k", "2", "4")]
    third = saved(store, engineer, project, "Answer {{a}} briefly")
    last = versioning.changes(store, engineer, second.id or 0, third.id or 0)
    assert ("few_shot.k", "4", "0") in last and ("few_shot.choose", "seeded", "") in last
    assert versioning.changes(store, engineer, first.id or 0, first.id or 0) == []


ROWS = (
    {"role": "system", "text": "Kind."},
    {"role": "user", "text": "Ready?"},
    {"role": "assistant", "text": "Yes."},
    {"role": "user", "text": "Answer {{a}}"},
)


def test_a_chat_template_is_a_version_like_any_other(store: Store, engineer: Person, project: Project) -> None:
    first = saved(store, engineer, project, "Answer {{a}}", system_text="Kind.")
    second = saved(store, engineer, project, "left over", rows=ROWS)
    assert (second.version, second.body, second.system_text, second.variables) == (2, "", "", ("a",))
    assert saved(store, engineer, project, "", rows=ROWS).id == second.id
    assert second.digest != first.digest
    (told,) = versioning.changes(store, engineer, first.id or 0, second.id or 0)
    assert (told.field, told.before) == ("rows", "[system]\nKind.\n\n[user]\nAnswer {{a}}")
    assert told.after == "[system]\nKind.\n\n[user]\nReady?\n\n[assistant]\nYes.\n\n[user]\nAnswer {{a}}"
    moved = saved(store, engineer, project, "", rows=(*ROWS[:3], {"role": "demonstrations"}, ROWS[3]))
    (told,) = versioning.changes(store, engineer, second.id or 0, moved.id or 0)
    assert told.after.replace("[demonstrations]\n\n", "") == told.before
    assert prompting.revert(store, engineer, second.id or 0).rows == second.rows
    versioning.point(store, engineer, second.id or 0, "production")
    assert prompts.version_called(store, project.id or 0, "t", "production") == second


SHAPES: tuple[tuple[dict[str, object], dict[str, object]], ...] = (
    ({"body": "Say {{word}}"}, {"body": "LOUD {{word}}"}),
    ({"body": "Say {{word}}"}, {"rows": ({"role": "user", "text": "Ready?"}, {"role": "assistant", "text": "Yes."}, {"role": "user", "text": "LOUD {{word}}"})}),
    (
        {"rows": ({"role": "system", "text": "Be kind."}, {"role": "user", "text": "Say {{word}}"})},
        {"rows": ({"role": "user", "text": "LOUD {{word}}"},)},
    ),
)  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SHAPES, ids=["texts", "text to chat", "chats"])
def test_behaviour_is_told_by_the_cases_that_flipped(
    store: Store, engineer: Person, project: Project, before: dict[str, object], after: dict[str, object]
) -> None:
    def say(messages: object, model: str, seed: int) -> str:
        text = messages[-1]["content"]  # type: ignore[index]
        return "no" if ("LOUD" in text and "b" in text) or ("LOUD" not in text and "c" in text) else text

    first, second = (
        saved(store, engineer, project, str(fields.get("body", "")), rows=fields.get("rows", ()))
        for fields in (before, after)
    )
    rows = [({"word": word}, word) for word in ("alpha", "beta", "gamac", "delta", "cc")]
    cases = prompting.add_cases(store, engineer, project.id or 0, rows)
    suite = testing.save_suite(
        store,
        engineer,
        project.id or 0,
        name="words",
        case_ids=[case.id or 0 for case in cases],
        checks="contains:{{word}}",
    )
    live = models.live(store, "policy")
    assert live is not None and live.id is not None
    runs = []
    for template in (first, second):  # two runs: what they share is the suite, the model and the sampling
        run = testing.start(store, engineer, suite.id or 0, [(template.id or 0, live.id)])
        finished(store, ScriptedEngine(say), run)
        runs.append(run.id)
    never_run = saved(store, engineer, project, "Whisper {{word}}")
    assert versioning.behaviours(store, engineer, first.id or 0, never_run.id or 0) == []
    (told,) = versioning.behaviours(store, engineer, first.id or 0, second.id or 0)
    assert (told.suite.id, told.model.id, told.runs, told.n, told.passed) == (suite.id, live.id, tuple(runs), 5, (3, 4))
    assert (told.flips.lost, told.flips.gained, told.flips.p) == (1, 2, 1.0)
    flipped = [(one.case.values["word"], one.gained, one.before, one.after) for one in told.flipped if one.case.values]
    assert flipped == [
        ("beta", False, "Say beta", "no"), ("gamac", True, "no", "LOUD gamac"), ("cc", True, "no", "LOUD cc"),
    ]  # fmt: skip


def test_comments_are_their_authors(store: Store, engineer: Person, admin: Person, project: Project) -> None:
    template = saved(store, engineer, project, "{{a}}")
    mine = versioning.comment(store, engineer, template.id or 0, "  Better on dates.  ")
    theirs = versioning.comment(store, admin, template.id or 0, "Is it?")
    said = versioning.comments(store, engineer, template.id or 0)
    assert [(one.comment.text, one.own) for one in said] == [("Better on dates.", True), ("Is it?", False)]
    with pytest.raises(CannotVersion, match="somebody else"):
        versioning.take_back(store, engineer, theirs.id or 0)
    versioning.take_back(store, admin, mine.id or 0)
    assert [one.comment.id for one in versioning.comments(store, engineer, template.id or 0)] == [theirs.id]
    for bad in ("  ", "x" * 4001):
        with pytest.raises(CannotVersion, match="4,000"):
            versioning.comment(store, engineer, template.id or 0, bad)


def test_an_annotator_may_do_none_of_it(store: Store, engineer: Person, annotator: Person, project: Project) -> None:
    id = saved(store, engineer, project, "{{a}}").id or 0
    for act in (
        lambda: versioning.aliases(store, annotator, 1, "t"),
        lambda: versioning.point(store, annotator, id, "production"),
        lambda: versioning.unpoint(store, annotator, id, "production"),
        lambda: versioning.comments(store, annotator, id),
        lambda: versioning.comment(store, annotator, id, "x"),
        lambda: versioning.take_back(store, annotator, 1),
        lambda: prompting.revert(store, annotator, id),
        lambda: versioning.changes(store, annotator, id, id),
        lambda: versioning.behaviours(store, annotator, id, id),
    ):
        with pytest.raises(Denied):
            act()
