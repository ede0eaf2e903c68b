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
from backend.problem import Problem
from backend.prompts.digest import case_digest, messages_digest
from feedback_db import Store, audit, comparisons, judgements, models, prompts, turns
from feedback_db.types import Assignment, Case, Comparison, Judgement, Message, Model, Person, Project, Prompt

TURNS_MOST = 12  # messages of a user in one conversation
SAID_MOST = 4000  # characters of one message
TRIES = 3  # seeds, while both answers are the same text


class CannotGoOn(Problem):
    """The conversation cannot go on from here; the message says why and what to do."""


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
    follows: tuple[Message, ...] = (
        {"role": "assistant", "content": chosen.text},
        {"role": "user", "content": _said(text)},
    )
    conversation = (*judgements.conversation_of(before), *follows)
    if sum(message["role"] == "user" for message in conversation) > TURNS_MOST:
        raise CannotGoOn(f"A conversation has at most {TURNS_MOST} turns. Submit, and take the next one.", "many_turns")
    key = case_digest(conversation=conversation)
    case = prompts.case_with(store, project.id or 0, key)
    made = turns.comparison_of(store, case.id or 0) if case else None
    if made is None:
        made = _answered_twice(
            store, engine, person, said, before, key, conversation, (*asked.messages, *follows), asked
        )
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


def _said(text: str) -> str:
    if not text.strip() or len(text) > SAID_MOST:
        raise CannotGoOn(f"Say what comes next, in at most {SAID_MOST} characters.", "nothing_said", most=SAID_MOST)
    return text.strip()


def _answered_twice(
    store: Store,
    engine: Engine | None,
    person: Person,
    said: Judgement,
    before: Case,
    key: bytes,
    conversation: tuple[Message, ...],
    messages: tuple[Message, ...],
    asked: Prompt,
) -> Comparison:
    """The next turn's comparison. The model reads the prompt of the turn before, scaffolding and all, and what followed."""
    model = models.live(store, "policy")
    if engine is None or model is None:
        raise CannotGoOn("No policy is live that could answer. Ask an admin to promote one.", "no_policy")
    sampling = SamplingSettings()
    seed, answers = _two_answers(engine.client_for(model), model, messages, sampling)
    with store.write():
        case = prompts.case_with(store, before.project_id, key) or store.add(
            Case(
                project_id=before.project_id, conversation=conversation, scenario=before.scenario, tags=before.tags,
                split=before.split,  # of the conversation it goes on with: what was held out stays held out, turn by turn
                digest=key, source="turn", person_id=person.id, judgement_id=said.id,
            )
        )  # fmt: skip
        prompt = prompts.keep_prompt(
            store,
            Prompt(
                project_id=before.project_id, template_id=asked.template_id, case_id=case.id or 0, messages=messages,
                tokens=answers[0].prompt_tokens or None, digest=messages_digest(messages), person_id=person.id,
            ),
            (),
        )  # fmt: skip
        kept = keep_sampling(store, sampling)
        ids = [
            keep_answer(store, prompt, model, kept, answer, seed=seed, repeat=repeat).id or 0
            for repeat, answer in enumerate(answers)
        ]
        made = add_comparison(
            store,
            before.project_id,
            case.id or 0,
            ids,
            overlap=1,
            reason="the next turn of a conversation",
            arm="priority",
        )
        audit.record(store, person, "go_on", "comparison", made.id, {"judgement": said.id})
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
