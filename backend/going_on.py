"""Going on from a judgement: the better answer becomes part of the conversation, somebody says more, and the live policy answers
twice, so that every turn is a comparison."""

from __future__ import annotations

import secrets
from typing import Protocol

from backend import access
from backend.engines.answers import Answer, Client
from backend.engines.kept import SamplingSettings, engine_name, keep_answer, keep_sampling
from backend.labels import form as forms
from backend.labels.making import add_comparison
from backend.labels.turns import CannotGoOn, follows, keep_turn, next_case
from feedback_db import Store, audit, comparisons, models, prompts, turns
from feedback_db.types import Assignment, Case, Comparison, Judgement, Message, Model, Person, Project, Prompt

TRIES = 3  # seeds, while both answers are the same text


class Engine(Protocol):
    def client_for(self, model: Model) -> Client: ...


def go_on(store: Store, engine: Engine | None, person: Person, judgement_id: int, place: int, text: str) -> Comparison:
    """Put the next turn on this person's desk: ``text`` is said after the answer at ``place``, one of those they ranked best.

    The same text again gives the same comparison. Raises CannotGoOn.
    """
    access.require(person, "label")
    said, project, before = _from(store, person, judgement_id)
    if not forms.parse(project.label_form).continues:
        raise CannotGoOn("This project does not go on with conversations.", "does_not_go_on")
    if not 0 <= place < len(said.shown) or (said.ranks or ())[place : place + 1] != (1,):
        raise CannotGoOn("Go on from the answer you judged best.", "not_the_best")
    chosen = comparisons.completions_of(store, said.comparison_id)[said.shown[place]]
    asked = comparisons.prompt_of(store, chosen.id or 0)
    then = follows(chosen, text)
    case = next_case(store, person, before, said, then)
    made = turns.comparison_of(store, case.id) if case.id else None
    if made is None:
        made = _answered_twice(store, engine, person, case, asked, then)
    with store.write():
        if store.find(
            Assignment, "comparison_id = ? and person_id = ? and state = 'submitted'", [made.id, person.id], limit=1
        ):
            raise CannotGoOn("You have judged this turn already. Say something else.", "turn_judged")
        turns.put_on_desk(store, person.id or 0, project, made, store.now())
        return made


def _from(store: Store, person: Person, judgement_id: int) -> tuple[Judgement, Project, Case]:
    found = store.find(Judgement, "id = ? and person_id = ? and act <> 'retract'", [judgement_id, person.id])
    if not found:
        raise CannotGoOn("This judgement is not one of yours. Reload the page.", "not_your_judgement")
    comparison = store.get(Comparison, found[0].comparison_id)
    return found[0], store.get(Project, comparison.project_id), store.get(Case, comparison.case_id)


def _answered_twice(
    store: Store, engine: Engine | None, person: Person, case: Case, asked: Prompt, then: tuple[Message, ...]
) -> Comparison:
    model = models.live(store, "policy")
    if engine is None or model is None:
        raise CannotGoOn("No policy is live that could answer. Ask an admin to promote one.", "no_policy")
    sampling = SamplingSettings()
    seed, answers = _two_answers(engine.client_for(model), model, (*asked.messages, *then), sampling)
    with store.write():
        case = prompts.case_with(store, case.project_id, case.digest) or store.add(case)
        prompt = keep_turn(store, person, case, asked, then, answers[0].prompt_tokens or None)
        kept = keep_sampling(store, sampling)
        ids = [
            keep_answer(store, prompt, model, kept, answer, seed=seed, repeat=repeat).id or 0
            for repeat, answer in enumerate(answers)
        ]
        reason = "the next turn of a conversation"
        made = add_comparison(store, case.project_id, case.id or 0, ids, overlap=1, reason=reason, arm="priority")
        audit.record(store, person, "go_on", "comparison", made.id, {"judgement": case.judgement_id})
        return made


def _two_answers(
    client: Client, model: Model, messages: tuple[Message, ...], sampling: SamplingSettings
) -> tuple[int, list[Answer]]:
    counted = client.tokenize(list(messages), model="base")
    if counted.count + sampling.max_tokens > counted.max_model_len:
        raise CannotGoOn(
            f"The conversation has grown to {counted.count} tokens; the model takes {counted.max_model_len}. Submit, and take "
            "the next one.",
            "long_conversation",
            count=counted.count,
            most=counted.max_model_len,
        )
    for _ in range(TRIES):
        seed = secrets.randbelow(2**31)
        answers = client.complete(
            list(messages), model=engine_name(model), n=2, seed=seed, temperature=sampling.temperature,
            top_p=sampling.top_p, max_tokens=sampling.max_tokens,
        )  # fmt: skip
        if answers[0].text != answers[1].text:
            return seed, answers
    raise CannotGoOn("Both answers came out the same. Say it in other words.", "alike_answers")
