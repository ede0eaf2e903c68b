"""Answers of a run go to labelling, and what a comparison speaks for is never forgotten."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from backend import comparing, labelling, sending, testing
from backend.access import Denied
from backend.engines.scripted import ScriptedEngine
from backend.sending import CannotSend
from backend.suites.sending import Pick
from feedback_db import Store, comparisons, snapshots
from feedback_db.types import Comparison, Completion, Model, Person, Project, Prompt, SuiteRun
from tests.backend.suites.house import finished, pasted, started, words

BOTH = ("Say {{word}}", "Sing {{word}}")


def run_of(
    store: Store,
    engineer: Person,
    project: Project,
    checks: str = "contains",
    n: int = 4,
    script: Any = None,
    **more: Any,
) -> SuiteRun:
    engine = ScriptedEngine(script or (lambda messages, model, seed: f"{messages[-1]['content']} {seed}"))
    suite = pasted(store, engineer, project, words(n), checks)
    return finished(store, engine, started(store, engineer, project, suite, **more))


def made(store: Store) -> list[Comparison]:
    return store.find(Comparison, "reason like '%run %'")


def cases_of(store: Store, engineer: Person, run: SuiteRun) -> list[int]:
    return testing.case_ids(store, engineer, run.id or 0)


def test_repeats_of_one_prompt_make_pairs_that_train(
    store: Store, engineer: Person, annotator: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, bodies=BOTH, repeats=2)
    sent = sending.send_picked(store, engineer, run.id or 0, [Pick(cases_of(store, engineer, run)[0])])
    assert (sent.training, sent.votes, sent.alone) == (2, 0, 0)
    for comparison in made(store):
        prompts = {
            store.get(Prompt, one.prompt_id).digest for one in comparisons.completions_of(store, comparison.id or 0)
        }
        assert comparison.basis == "prompt" and len(prompts) == 1
    judge(store, annotator, project, 2)
    assert snapshots.trainable_count(store, project.id or 0) == 2


def judge(store: Store, annotator: Person, project: Project, n: int) -> None:
    for _ in range(n):
        desk = labelling.next_desk(store, annotator, project.id or 0)
        assert desk is not None
        ranks = tuple(range(1, len(desk.answers) + 1))
        labelling.submit(
            store,
            annotator,
            desk.assignment,
            uuid.uuid4().bytes,
            labelling.Answer(ranks=ranks, strength=1, seconds=1.0),
        )


def test_across_templates_it_is_a_vote_and_no_reward_model_learns_from_it(
    store: Store, engineer: Person, annotator: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, bodies=BOTH)
    sent = sending.send_shown(store, engineer, run.id or 0, "all")
    assert (sent.training, sent.votes) == (0, 4) and {one.basis for one in made(store)} == {"template"}
    judge(store, annotator, project, 4)
    assert snapshots.trainable_count(store, project.id or 0) == 0
    frozen = snapshots.freeze_preferences(store, project.id or 0, "x", engineer.id)
    assert frozen.n == 0


def test_the_compare_page_says_what_its_comparisons_speak_for_too(
    store: Store, engineer: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, bodies=BOTH)
    first = [one.id or 0 for one in store.find(Completion)][:2]
    assert comparing.send_to_labelling(store, engineer, first).basis == "template"
    assert run.done == 8


def test_marked_cells_alone_are_sent(store: Store, engineer: Person, project: Project) -> None:
    run = run_of(
        store,
        engineer,
        project,
        bodies=(*BOTH, "Hum {{word}}"),
        script=lambda messages, model, seed: messages[-1]["content"][:3],
    )
    case, other, *_ = cases_of(store, engineer, run)
    sent = sending.send_picked(
        store, engineer, run.id or 0, [Pick(case, frozenset((0, 2))), Pick(other, frozenset((1,)))]
    )
    assert (sent.votes, sent.alone) == (1, 1)
    (comparison,) = made(store)
    texts = [one.text for one in comparisons.completions_of(store, comparison.id or 0)]
    assert sorted(texts) == ["Hum", "Say"] and comparison.case_id == case
    again = sending.send_picked(store, engineer, run.id or 0, [Pick(case, frozenset((0, 2)))])
    assert (again.known, again.votes) == (1, 0)


def test_answers_of_one_text_are_nothing_to_choose_between(store: Store, engineer: Person, project: Project) -> None:
    run = run_of(store, engineer, project, bodies=BOTH, repeats=2, script=lambda messages, model, seed: "the same")
    for mode in ("same", "across"):
        sent = sending.send_shown(store, engineer, run.id or 0, "all", mode=mode)  # type: ignore[arg-type]
        assert (sent.training, sent.votes, sent.alone) == (0, 0, 4)
    assert made(store) == []


def test_what_a_rule_chose_is_asked_first_and_stands_in_no_fair_sample(
    store: Store, engineer: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, "contains:w1", bodies=BOTH)
    sent = sending.send_shown(store, engineer, run.id or 0, "failed")
    assert sent.votes == 3 and {one.arm for one in made(store)} == {"priority"}
    assert {one.reason for one in made(store)} == {f"a check failed · run {run.id}"}
    with pytest.raises(CannotSend, match="1 to 2,000 cases, not 0"):
        sending.send_shown(store, engineer, run.id or 0, "differ")
    with pytest.raises(CannotSend, match="Mark rows"):
        sending.send_picked(store, engineer, run.id or 0, [])


def test_a_run_sends_failures_and_disagreements_by_itself_once(
    store: Store, engineer: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, "starts-with:Say\nnot-contains:w3", bodies=BOTH, sends=("failed", "differ"))
    assert (run.state, run.sent) == ("done", 4)
    assert {one.reason.split(" · ")[0] for one in made(store)} == {"a check failed"}, "all four failed in a column"
    testing.go_on(store, engineer, run.id or 0)
    assert finished(store, ScriptedEngine(lambda *_: "x"), run).sent == 4 and len(made(store)) == 4


def test_a_run_sends_what_the_reward_model_hardly_tells_apart(store: Store, engineer: Person, project: Project) -> None:
    store.add(
        Model(
            project_id=project.id, name="kind-1", kind="reward", base="tiny", adapter="r", source="test", digest=b"r" * 32, stage="live"
        )
    )  # fmt: skip

    class Halves(ScriptedEngine):
        """A letter is worth a tenth, so that w1's answers are near each other and the others' are not."""

        def rewards(self, messages: Any, answers: Any, *, model: str) -> list[float]:
            return [len(answer) / 10 for answer in answers]

    engine = Halves(
        lambda messages, model, seed: (
            "a"
            * (
                30
                if "Sing" in messages[-1]["content"] and "w1" not in messages[-1]["content"]
                else 10 + seed + ("Sing" in messages[-1]["content"])
            )
        )
    )
    suite = pasted(store, engineer, project, words(4), "reward")
    run = finished(store, engine, started(store, engineer, project, suite, BOTH, sends=("close",)))
    (comparison,) = made(store)
    assert run.sent == 1 and comparison.reason.startswith("the reward model hardly")
    assert store.rows('select "values" from cases where id = ?', [comparison.case_id])[0]["values"] == '{"word":"w1"}'


def test_from_a_comparison_one_reaches_template_seed_and_model(
    store: Store, engineer: Person, project: Project
) -> None:
    run = run_of(store, engineer, project, bodies=BOTH, repeats=2)
    sending.send_shown(store, engineer, run.id or 0, "all")
    for comparison in made(store):
        for answer in comparisons.completions_of(store, comparison.id or 0):
            prompt = store.get(Prompt, answer.prompt_id)
            assert (prompt.template_id, answer.model_id) in {(arm["template"], arm["model"]) for arm in run.arms}
            assert answer.seed == answer.repeat and prompt.case_id == comparison.case_id


def test_annotators_send_nothing(store: Store, annotator: Person) -> None:
    with pytest.raises(Denied):
        sending.send_picked(store, annotator, 1, [Pick(1)])
    with pytest.raises(Denied):
        sending.send_shown(store, annotator, 1, "all")
