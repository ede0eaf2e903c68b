"""Baking: what was answered under the long prompt is learnt under the short one, of training cases alone, and tested on others."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend import baking, curating, prompting, testing
from backend.access import Denied
from backend.baking import CannotBake
from backend.engines.answers import EngineError
from backend.engines.scripted import ScriptedEngine
from backend.suites import running
from feedback_db import Store, bakes, models, suites
from feedback_db.snapshot_rows import rows_text
from feedback_db.types import (
    Bake,
    Case,
    Cell,
    Completion,
    Job,
    Model,
    Person,
    Project,
    Prompt,
    Snapshot,
    Suite,
    SuiteRun,
    Template,
)

LABELS = ("odd", "even")
SMALL = {"min_answers": 5, "num_train_epochs": 1}


class Knowing(ScriptedEngine):
    """Answers right where the prompt holds demonstrations, and "odd" without; a model that is not ignorant needs none."""

    gone = False

    def __init__(self) -> None:
        self.ignorant = {"base"}  # without demonstrations
        super().__init__(self._say, models=["base", "live", *(f"model-{n}" for n in range(1, 20))])

    def _say(self, messages: object, model: str, seed: int) -> str:
        if self.gone:
            raise EngineError("The engine is gone.")
        number = messages[-1]["content"].rpartition(" ")[2]  # type: ignore[index]
        knows = len(messages) > 1 or model not in self.ignorant  # type: ignore[arg-type]
        return LABELS[int(number) % 2 == 0] if knows else "odd"


@pytest.fixture
def knowing() -> Knowing:
    return Knowing()


@pytest.fixture
def long(store: Store, engineer: Person, project: Project) -> Template:
    for word, label in (("9001", "odd"), ("9002", "even")):
        curating.add_demonstration(
            store, engineer, project.id or 0, input=f"number {word}", output=label, label=label, scenario="parity"
        )
    few = {"k": 2, "choose": "seeded"}
    draft = prompting.Draft(name="long", body="{{input}}", few_shot=few, labels=LABELS, scenario="parity")
    return prompting.save_template(store, engineer, project.id or 0, draft)


@pytest.fixture
def short(store: Store, engineer: Person, project: Project) -> Template:
    draft = prompting.Draft(name="short", body="Q {{input}}", labels=LABELS, scenario="parity")
    return prompting.save_template(store, engineer, project.id or 0, draft)


def suite_of(store: Store, person: Person, project: Project, count: int = 120, wrong: str = "") -> Suite:
    rows = [({"input": f"number {n}"}, wrong or LABELS[n % 2 == 0]) for n in range(count)]
    cases = prompting.add_cases(store, person, project.id or 0, rows, scenario="parity")
    return testing.save_suite(
        store, person, project.id or 0, name="parity", case_ids=[case.id or 0 for case in cases], checks="equals"
    )


def advanced(store: Store, engine: ScriptedEngine, bake: Bake, state: str) -> Bake:
    for _ in range(60):
        running.advance(store, engine)
        baking.advance(store, engine)
        now = store.get(Bake, bake.id or 0)
        if now.state == state:
            return now
    raise AssertionError((now.state, now.why))


def trained(store: Store, bake: Bake) -> Model:
    """What the supervisor does when the worker is done."""
    base = models.resolve(store, "base")
    assert base is not None
    made = store.add(
        Model(
            name="model-baked", kind="policy", base=base.base, base_fingerprint=base.base_fingerprint, adapter="f",
            digest=bytes(32), source="trained", job_id=bake.job_id, project_id=bake.project_id,
        )
    )  # fmt: skip
    with store.write() as db:
        db.conn.execute("update jobs set state = 'running' where id = ?", [bake.job_id])
        db.conn.execute("update jobs set state = 'done', output_model_id = ? where id = ?", [made.id, bake.job_id])
    return made


def test_a_bake_goes_from_answers_to_an_adapter_to_a_test(
    store: Store, admin: Person, engineer: Person, project: Project, knowing: Knowing, long: Template, short: Template
) -> None:
    suite = suite_of(store, engineer, project)
    bake = baking.start(store, admin, suite.id or 0, long.id or 0, short.id or 0, changes=SMALL)
    bake = advanced(store, knowing, bake, "training")
    job = store.get(Job, bake.job_id or 0)
    frozen = store.get(Snapshot, job.snapshot_id or 0)
    rows = [json.loads(line) for line in rows_text(store, frozen).splitlines()]
    assert (job.kind, frozen.kind, frozen.n, len(rows)) == ("sft", "sft", len(rows), frozen.n)
    learnt = {id for id in suite.case_ids if store.get(Case, id).split != "test"}
    assert {row["case"] for row in rows} == learnt and {row["split"] for row in rows} == {"train", "val"}
    for row in rows:
        case = store.get(Case, row["case"])
        assert row["messages"] == [{"role": "user", "content": f"Q {(case.values or {})['input']}"}]
        assert (row["answer"]["text"], row["source"]) == (case.expected, "baked")
    model = trained(store, bake)
    bake = advanced(store, knowing, bake, "done")
    (told,) = baking.told(store, admin, project.id or 0)
    base = models.resolve(store, "base")
    assert [(t.name, m.id) for t, m in told.arms] == [("long", base.id), ("short", base.id), ("short", model.id)]  # type: ignore[union-attr]
    assert told.baked is not None and told.baked.id == model.id
    columns = testing.summary(store, admin, bake.test_run_id or 0).columns
    assert [round(column.passed.value, 2) for column in columns] == [1.0, pytest.approx(0.5, abs=0.3), 1.0]
    assert columns[0].prompt_tokens > columns[2].prompt_tokens
    tested = {id for id in suite.case_ids if store.get(Case, id).split == "test"}
    assert set(store.get(Suite, bake.suite_id).case_ids) == tested
    assert bake.facts["probe"]["n"] == len(tested) and bake.facts["probe"]["learnt"] == len(learnt)
    assert (
        testing.newest(store, engineer, project.id or 0) == suite.id
    )  # its parts are the bake's, not what somebody saved
    assert baking.advance(store, knowing) is None and store.get(Bake, bake.id or 0) == bake


def test_a_chat_template_is_baked_into_one_that_is_none_and_the_other_way_round(
    store: Store, admin: Person, engineer: Person, project: Project, knowing: Knowing, long: Template
) -> None:
    rows = (
        {"role": "system", "text": "Odd or even?"}, {"role": "demonstrations"}, {"role": "user", "text": "{{input}}"},
    )  # fmt: skip
    chat = replace(prompting.draft_of(long), name="chat", body="", rows=rows)
    brief = prompting.Draft(
        name="brief", rows=({"role": "user", "text": "Which is {{input}}"},), labels=LABELS, scenario="parity"
    )
    from_chat = prompting.save_template(store, engineer, project.id or 0, chat)
    to_chat = prompting.save_template(store, engineer, project.id or 0, brief)
    suite = suite_of(store, engineer, project)
    bake = baking.start(store, admin, suite.id or 0, from_chat.id or 0, to_chat.id or 0, changes=SMALL)
    bake = advanced(store, knowing, bake, "training")
    frozen = store.get(Snapshot, store.get(Job, bake.job_id or 0).snapshot_id or 0)
    learnt = [json.loads(line) for line in rows_text(store, frozen).splitlines()]
    for row in learnt:
        case = store.get(Case, row["case"])
        assert row["messages"] == [{"role": "user", "content": f"Which is {(case.values or {})['input']}"}]
    answers = [
        store.get(Completion, cell.completion_id or 0)
        for cell in store.find(Cell, "run_id = ?", [bake.run_id], "case_id")
    ]
    (answered,) = {len(store.get(Prompt, one.prompt_id).messages) for one in answers}
    assert answered == 6 and len(learnt) > 50  # the system row, two demonstrations of two turns, and the question
    trained(store, bake)
    bake = advanced(store, knowing, bake, "done")
    (told,) = baking.told(store, admin, project.id or 0)
    assert [template.name for template, _ in told.arms] == ["chat", "brief", "brief"]


def test_only_answers_that_pass_are_learnt_unless_it_is_asked_otherwise(
    store: Store, admin: Person, engineer: Person, project: Project, knowing: Knowing, long: Template, short: Template
) -> None:
    suite = suite_of(store, engineer, project, wrong="odd")
    first = baking.start(store, admin, suite.id or 0, long.id or 0, short.id or 0, changes=SMALL)
    first = advanced(store, knowing, first, "training")
    answered = store.find(Cell, "run_id = ?", [first.run_id], "case_id")
    passed = {cell.case_id for cell in answered if cell.passed}
    assert 0 < len(passed) < len(answered)
    frozen = store.get(Snapshot, store.get(Job, first.job_id or 0).snapshot_id or 0)
    texts = {store.get(Completion, id).text for _, id in frozen.filters["baked"]}
    assert frozen.n == len(passed) and texts == {"odd"}
    all_of_them = baking.start(
        store, admin, suite.id or 0, long.id or 0, short.id or 0, changes=SMALL, passed=False, seed=1
    )
    all_of_them = advanced(store, knowing, all_of_them, "training")
    assert store.get(Snapshot, store.get(Job, all_of_them.job_id or 0).snapshot_id or 0).n == len(answered)


def test_what_fails_on_the_way_ends_the_bake_with_its_reason(
    store: Store, admin: Person, engineer: Person, project: Project, knowing: Knowing, long: Template, short: Template
) -> None:
    suite = suite_of(store, engineer, project)
    ids = suite.id or 0, long.id or 0, short.id or 0
    few = baking.start(store, admin, *ids, changes={**SMALL, "min_answers": 90})
    with store.write() as db:
        db.conn.execute("update bakes set settings = json_set(settings, '$.sft.min_answers', 5000)")
    assert "5000 are needed" in advanced(store, knowing, few, "failed").why
    job_fails = advanced(store, knowing, baking.start(store, admin, *ids, changes=SMALL), "training")
    with store.write() as db:
        db.conn.execute("update jobs set state = 'running' where id = ?", [job_fails.job_id])
        db.conn.execute("update jobs set state = 'failed', error = 'out of memory' where id = ?", [job_fails.job_id])
    assert advanced(store, knowing, job_fails, "failed").why == "out of memory"
    again = baking.start(store, admin, *ids, changes=SMALL, seed=3)
    knowing.gone = True
    running.advance(store, knowing)
    baking.advance(store, knowing)
    assert "gone" in store.get(Bake, again.id or 0).why and store.get(SuiteRun, again.run_id).state == "stopped"
    knowing.gone = False
    stopped = baking.start(store, admin, *ids, changes=SMALL, seed=4)
    assert baking.stop(store, admin, stopped.id or 0).state == "stopped"
    assert store.get(SuiteRun, stopped.run_id).state == "stopped"
    (waiting,) = bakes.under_way(store)
    assert waiting.id == again.id and "gone" in waiting.why  # its run can go on, and the bake with it
    suites.set_state(store, again.run_id, "stopped", problem="")
    assert advanced(store, knowing, again, "failed").why == "the run was stopped"


def test_what_cannot_be_baked_says_what_is_missing(
    store: Store, admin: Person, engineer: Person, project: Project, long: Template, short: Template
) -> None:
    suite = suite_of(store, engineer, project, count=12)
    with pytest.raises(CannotBake, match="20 cases to learn from"):
        baking.start(store, admin, suite.id or 0, long.id or 0, short.id or 0)
    with pytest.raises(CannotBake, match="two different templates"):
        baking.start(store, admin, suite.id or 0, long.id or 0, long.id or 0)
    judged = testing.save_suite(
        store, engineer, project.id or 0, name="judged", case_ids=suite.case_ids, checks="llm-rubric:is it kind?"
    )
    with pytest.raises(CannotBake, match="asks a model"):
        baking.start(store, admin, judged.id or 0, long.id or 0, short.id or 0)
    assert store.find(SuiteRun) == [] and store.find(Bake) == []
    for person in (engineer,):
        with pytest.raises(Denied):
            baking.start(store, person, suite.id or 0, long.id or 0, short.id or 0)
        with pytest.raises(Denied):
            baking.told(store, person, project.id or 0)
        with pytest.raises(Denied):
            baking.stop(store, person, 1)
