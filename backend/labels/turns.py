"""The next turn of a conversation: what was asked, the answer somebody chose, and what they say then."""

from __future__ import annotations

from backend.problem import Problem
from backend.prompts.digest import case_digest, messages_digest
from feedback_db import Store, judgements, prompts
from feedback_db.types import Case, Completion, Judgement, Message, Person, Prompt

TURNS_MOST = 12  # messages of a user in one conversation
SAID_MOST = 4000  # characters of one message


class CannotGoOn(Problem):
    """The conversation cannot go on from here; the message says why and what to do."""


def follows(chosen: Completion, text: str) -> tuple[Message, Message]:
    """The answer that was chosen and what is said to it. Raises CannotGoOn."""
    if not text.strip() or len(text) > SAID_MOST:
        raise CannotGoOn(f"Say what comes next, in at most {SAID_MOST} characters.", "nothing_said", most=SAID_MOST)
    return {"role": "assistant", "content": chosen.text}, {"role": "user", "content": text.strip()}


def next_case(store: Store, person: Person, before: Case, said: Judgement, then: tuple[Message, ...]) -> Case:
    """The case of the next turn, stored or only made: the same words again are the same case. Raises CannotGoOn."""
    conversation = (*judgements.conversation_of(before), *then)
    if sum(message["role"] == "user" for message in conversation) > TURNS_MOST:
        raise CannotGoOn(f"A conversation has at most {TURNS_MOST} turns. Submit, and take the next one.", "many_turns")
    key = case_digest(conversation=conversation)
    return prompts.case_with(store, before.project_id, key) or Case(
        project_id=before.project_id,
        conversation=conversation,
        scenario=before.scenario,
        tags=before.tags,
        split=before.split,  # of the conversation it goes on with: what was held out stays held out, turn by turn
        digest=key,
        source="turn",
        person_id=person.id,
        judgement_id=said.id,
    )


def keep_turn(
    store: Store, person: Person, case: Case, asked: Prompt, then: tuple[Message, ...], tokens: int | None = None
) -> Prompt:
    """What a model reads at the next turn: the prompt of the turn before, scaffolding and all, and what followed."""
    messages = (*asked.messages, *then)
    prompt = Prompt(
        project_id=case.project_id,
        template_id=asked.template_id,
        case_id=case.id or 0,
        messages=messages,
        tokens=tokens,
        digest=messages_digest(messages),
        person_id=person.id,
    )
    return prompts.keep_prompt(store, prompt, ())
