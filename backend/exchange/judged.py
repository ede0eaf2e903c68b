"""Judgements that a file brings: the rows they hang on, and the comparison with its judgement, as if somebody had submitted it.

Unlike its neighbours this file writes to the database; activities call it inside their transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from backend.prompts.digest import case_digest, messages_digest, sampling_digest, split_of
from feedback_db import Store, comparisons, judgements, people, prompts
from feedback_db.store import as_json
from feedback_db.types import (
    Assignment,
    Case,
    Comparison,
    Completion,
    Judgement,
    Message,
    Model,
    Person,
    Prompt,
    Sampling,
)

SAMPLING: dict[str, Any] = {"imported": True}  # how the answers were sampled is not known


class Target(NamedTuple):
    """The rows that everything imported from one file hangs on."""

    project_id: int
    person_id: int
    model_id: int
    sampling_id: int
    source: str


def target(store: Store, project_id: int, source: str) -> Target:
    sampling = Sampling(digest=sampling_digest(SAMPLING), settings=SAMPLING)
    return Target(
        project_id=project_id,
        person_id=_id(_source_person(store, source)),
        model_id=_id(_maker(store, source)),
        sampling_id=_id(comparisons.keep_sampling(store, sampling)),
        source=source,
    )


def pair_digest(messages: Sequence[Message], better: str, worse: str) -> bytes:
    """Equal digests mean the same conversation and the same two answers, in the same order of preference."""
    return hashlib.sha256(as_json([list(messages), better, worse]).encode("utf-8")).digest()


def add_pair(
    store: Store, target: Target, messages: tuple[Message, ...], better: str, worse: str, rationale: str = ""
) -> bool:
    """Add a pair with its judgement; False when this project has it already."""
    digest = pair_digest(messages, better, worse)
    key = hashlib.sha256(target.project_id.to_bytes(8, "big") + digest).digest()[:16]
    if judgements.by_key(store, key) is not None:
        return False
    case = _case(store, target, messages)
    prompt = prompts.keep_prompt(
        store,
        Prompt(project_id=target.project_id, case_id=_id(case), messages=messages, digest=messages_digest(messages)),
        (),
    )
    answers = [_completion(store, target, _id(prompt), text) for text in (better, worse)]
    better_first = key[0] % 2 == 0  # by hash, so that the preferred answer does not always stand on the left
    comparison = comparisons.add_comparison(
        store,
        Comparison(project_id=target.project_id, case_id=_id(case), reason="imported", batch=target.source),
        answers if better_first else answers[::-1],
    )
    _judge(store, target, _id(comparison), key, (1, 2) if better_first else (2, 1), rationale)
    return True


def _source_person(store: Store, source: str) -> Person:
    """Whom imported judgements belong to: named after the file, without a password, so nobody can sign in as them."""
    known = store.find(Person, "source = ?", [source])
    if known:
        return known[0]
    return store.add(
        Person(
            pseudonym=people.new_pseudonym(),
            name=_imported(source),
            display_name=source,
            role="annotator",
            source=source,
        )
    )


def _maker(store: Store, source: str) -> Model:
    """The unknown model, or models, that wrote the answers of a file."""
    known = store.find(Model, "name = ?", [_imported(source)])
    if known:
        return known[0]
    return store.add(Model(name=_imported(source), kind="external", base="unknown", source=source, stage="retired"))


def _imported(source: str) -> str:
    return f"imported:{source}"


def _case(store: Store, target: Target, messages: tuple[Message, ...]) -> Case:
    digest = case_digest(conversation=messages)
    return prompts.case_with(store, target.project_id, digest) or store.add(
        Case(
            project_id=target.project_id,
            conversation=messages,
            split=split_of(digest),
            digest=digest,
            source=target.source,
            person_id=target.person_id,
        )
    )


def _completion(store: Store, target: Target, prompt_id: int, text: str) -> int:
    """The seed stands for the text: equal answers to one prompt are one completion."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big")
    completion = Completion(
        prompt_id=prompt_id,
        model_id=target.model_id,
        sampling_id=target.sampling_id,
        seed=seed,
        text=text,
        finish_reason="imported",
    )
    return _id(comparisons.keep_completion(store, completion))


def _judge(
    store: Store, target: Target, comparison_id: int, key: bytes, ranks: tuple[int, int], rationale: str
) -> None:
    """The judgement the file holds: leased, judged and submitted at once, so that the counters of the schema follow."""
    now = store.now()
    assignment = store.add(
        Assignment(
            comparison_id=comparison_id,
            person_id=target.person_id,
            project_id=target.project_id,
            shown=(0, 1),
            leased_at=now,
            expires_at=now,
        )
    )
    judgements.add(
        store,
        Judgement(
            key=key,
            assignment_id=_id(assignment),
            comparison_id=comparison_id,
            person_id=target.person_id,
            shown=(0, 1),
            ranks=ranks,
            rationale=rationale or None,
            seconds=0.0,
            client="import",
            created_at=now,
        ),
    )


def _id(record: Any) -> int:
    assert record.id is not None
    return int(record.id)
