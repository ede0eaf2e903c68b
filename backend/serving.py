"""Serving: a template version as an endpoint. Values go in, a completion comes out; programs show a token for it.

The answer is that of the same code that previews, compares and tests, so that what is served is what was measured.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from backend import access
from backend.engines.client import Answer, Client
from backend.engines.features import embedder
from backend.engines.kept import SamplingSettings, engine_name, keep_answer, keep_prompt, keep_sampling
from backend.problem import Problem
from backend.prompts.assemble import SERVED, assemble
from backend.prompts.digest import case_digest, split_of
from feedback_db import Store, audit, engines, models, prompts, tokens
from feedback_db.types import ApiToken, Case, Message, Model, Person, Template

PREFIX = "wst_"
LONGEST_NAME = 80  # characters of a token's name
LONGEST_TOKEN = 200


class CannotServe(Problem):
    """A request of a program that cannot be answered; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, code: str, **values: object):
        super().__init__(message, code, **values)
        self.status = status


class Engine(Protocol):
    def client(self) -> Any: ...

    def client_for(self, model: Model) -> Client: ...


class Asked(NamedTuple):
    """What a program asks for. ``version`` is a number, an alias or "latest"."""

    template: str
    version: str
    values: Mapping[str, str]
    conversation: Sequence[Message] = ()
    model: str = "live"
    sampling: SamplingSettings = SamplingSettings(temperature=0.0)
    seed: int = 0


class Served(NamedTuple):
    answer: Answer
    template: Template
    model: Model
    demonstration_ids: tuple[int, ...]
    dropped_ids: tuple[int, ...]
    completion_id: int | None  # of the stored answer, where the token keeps them


# ---- tokens


def make_token(
    store: Store, person: Person, project_id: int, name: str, *, keeps: bool = False
) -> tuple[ApiToken, str]:
    """A new token, and its text: that is told here once, and never stored. Raises CannotServe."""
    access.require(person, "serve")
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise CannotServe(
            422, f"A token needs a name of 1 to {LONGEST_NAME} characters.", "token_name", most=LONGEST_NAME
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    with store.write():
        made = store.add(
            ApiToken(
                project_id=project_id, name=name, token_hash=_hash(secret), hint=secret[-4:], keeps=keeps,
                person_id=person.id or 0,
            )
        )  # fmt: skip
        audit.record(store, person, "make_token", "token", made.id, {"keeps": keeps})
        return made, secret


def remote_models(store: Store, person: Person) -> list[Model]:
    """The models of remote engines, by name: a program asks for one as ``model-`` and its id."""
    access.require(person, "serve")
    return engines.answering(store)


def made_tokens(store: Store, person: Person, project_id: int) -> list[ApiToken]:
    """Newest first, revoked ones too."""
    access.require(person, "serve")
    return tokens.tokens(store, project_id)


def revoke(store: Store, person: Person, token_id: int) -> None:
    """It stops working with the next request."""
    access.require(person, "serve")
    with store.write():
        store.get(ApiToken, token_id)
        tokens.revoke(store, token_id)
        audit.record(store, person, "revoke_token", "token", token_id, {})


def admitted(store: Store, secret: str | None) -> tuple[ApiToken, Person]:
    """The token of a request and the person it acts for. Raises CannotServe, and Denied once that person may no longer serve."""
    token = tokens.with_hash(store, _hash(secret)) if secret and len(secret) <= LONGEST_TOKEN else None
    if token is None:
        raise CannotServe(
            401, "This token is not known here, or was revoked. Send a header: Authorization: Bearer wst_…", "bad_token"
        )
    person = store.get(Person, token.person_id)
    access.require(person, "serve")
    return token, person


# ---- answers


def answer(store: Store, engine: Engine, secret: str | None, asked: Asked) -> Served:
    """One completion. Raises CannotServe, Denied, EngineError, the problems of templates and budgets, and of a remote engine Refused
    (its host is not allowed, or it was removed) and NoKey."""
    token, person = admitted(store, secret)
    tokens.touch(store, token)
    template = prompts.version_called(store, token.project_id, asked.template, asked.version)
    if template is None:
        raise CannotServe(
            404,
            f'There is no version "{asked.version}" of a template "{asked.template}" in this project. '
            "A version is its number, an alias, or latest.",
            "no_version",
            name=asked.template,
            version=asked.version,
        )
    model = _model(store, asked.model)
    unknown = sorted(set(asked.values) - set(template.variables))
    if unknown:
        raise CannotServe(
            422,
            f"The template has no variable {', '.join(unknown)}. It has: {', '.join(template.variables) or 'none'}.",
            "unknown_values",
            names=", ".join(unknown),
            known=", ".join(template.variables),
        )
    case = _case(token, person, template, asked)
    client = engine.client_for(model)
    return (_kept if token.keeps else _plain)(store, engine, client, person, template, model, case, asked)


def _model(store: Store, name: str) -> Model:
    """A policy, or a model of a remote engine: whatever the Compare page offers. Raises CannotServe."""
    model = models.resolve(store, name) or models.resolve_external(store, name)
    if model is None:
        raise CannotServe(
            404, f'There is no model "{name}". Use live, base, or model- with its number.', "no_model", name=name
        )
    if model.kind == "external" and model.engine_id is None:
        raise CannotServe(
            404,
            f'"{name}" stands for answers that were imported: no engine answers for it. Use another model.',
            "no_engine_of_model",
            name=name,
        )
    return model


def _plain(
    store: Store,
    engine: Engine,
    client: Client,
    person: Person,
    template: Template,
    model: Model,
    case: Case,
    asked: Asked,
) -> Served:
    found = assemble(
        store, template, case, tokenize=lambda m: client.tokenize(m, model="base"),
        answer_tokens=asked.sampling.max_tokens, embed=embedder(store, engine),
    )  # fmt: skip
    said = _complete(client, found.messages, model, asked)
    return Served(said, template, model, found.demonstration_ids, found.dropped_ids, None)


def _kept(
    store: Store,
    engine: Engine,
    client: Client,
    person: Person,
    template: Template,
    model: Model,
    case: Case,
    asked: Asked,
) -> Served:
    with store.write():
        case = prompts.case_with(store, case.project_id, case.digest) or store.add(case)
    prompt = keep_prompt(store, engine, client, template, case, asked.sampling.max_tokens, person.id)
    said = _complete(client, prompt.messages, model, asked)
    kept = keep_answer(store, prompt, model, keep_sampling(store, asked.sampling), said, seed=asked.seed, repeat=0)
    shown = prompts.shown_in(store, prompt.id or 0)
    return Served(said, template, model, shown, tuple(prompt.dropped_ids), kept.id)


def _complete(client: Client, messages: Sequence[Message], model: Model, asked: Asked) -> Answer:
    return client.complete(
        messages, model=engine_name(model), seed=asked.seed, temperature=asked.sampling.temperature,
        top_p=asked.sampling.top_p, max_tokens=asked.sampling.max_tokens,
    )[0]  # fmt: skip


def _case(token: ApiToken, person: Person, template: Template, asked: Asked) -> Case:
    values, turns = dict(asked.values), tuple(asked.conversation) or None
    key = case_digest(values=values, conversation=turns)
    return Case(
        project_id=token.project_id, values=values, conversation=turns, scenario=template.scenario,
        tags=(f"lang:{template.language}",) if template.language else (), split=split_of(key), digest=key, source=SERVED,
        person_id=person.id,
    )  # fmt: skip


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
