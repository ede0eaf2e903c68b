"""OpenAI's shapes: what a request may say, and how answers and errors are written."""

from __future__ import annotations

import base64
import codecs
import json
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from .asking import Piece, TokenLogp
from .resolver import Resolved
from .text import token_bytes, token_text

Body = TypeVar("Body", bound=BaseModel)
JSON: TypeAdapter[Any] = TypeAdapter(Any)
MOST_CONVERSATIONS = 256  # in one request
Tokens = Annotated[list[int], Field(min_length=1)]
Several = Field(min_length=1, max_length=256)
Texts = (
    str | Tokens | Annotated[list[str], Several] | Annotated[list[list[int]], Several]
)  # one text or several, or their tokens
Stop = str | Annotated[list[str], Field(max_length=16)] | None
# Settings of OpenAI's that are not built here, with what asks for nothing: clients send it whether anybody set it or not.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}


class ApiProblem(Exception):
    """An answer that is an error, in OpenAI's format."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = error_body(status, message, code, param)


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        """An answer goes back as it came: with a refusal, tool calls and more that are null or empty lists."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if name == "content" or value not in (None, [])}

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Generation(_Strict):
    """What both routes take. Settings that would change the answer and are not built are refused, not ignored."""

    model: str
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        listed = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in listed if stop)


class ChatBody(_Generation):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None


class CompletionBody(_Generation):
    prompt: Texts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class RestBody(_Strict):
    pid: Annotated[int, Field(ge=1)]  # the process that needs the memory


class TokenizeBody(_Strict):
    model: str
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    prompt: str | None = None
    add_generation_prompt: bool = True


class RewardBody(_Strict):
    """An addition to OpenAI's protocol: a conversation and one or more answers to be scored by a reward model."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    answer: str | Annotated[list[str], Field(min_length=1, max_length=64)]
    has_ended: bool | list[bool] = True
    credit: bool = False

    @property
    def answers(self) -> list[tuple[str, bool]]:
        """Each answer with whether its end token was written. Raises ApiProblem."""
        texts = [self.answer] if isinstance(self.answer, str) else self.answer
        ended = [self.has_ended] * len(texts) if isinstance(self.has_ended, bool) else self.has_ended
        if len(ended) != len(texts):
            raise ApiProblem(
                400, f"has_ended: {len(ended)} values for {len(texts)} answers.", "invalid_value", param="has_ended"
            )
        return list(zip(texts, ended, strict=True))


class LikelihoodBody(_Strict):
    """An addition to OpenAI's protocol: how likely each of these answers is after each of these conversations."""

    model: str
    conversations: Annotated[
        list[Annotated[list[Message], Field(min_length=1)]], Field(min_length=1, max_length=MOST_CONVERSATIONS)
    ]
    answers: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=64)]


class EmbeddingBody(_Strict):
    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


def parse(kind: type[Body], raw: bytes) -> Body:
    """Raises ApiProblem. A setting that is null was not given."""
    try:
        values = JSON.validate_json(raw)
    except ValidationError as problem:
        raise ApiProblem(400, "The body is not valid JSON.", "invalid_json") from problem
    if not isinstance(values, dict):
        raise ApiProblem(400, "The body is not a JSON object.", "invalid_value")
    try:
        return kind.model_validate({name: value for name, value in values.items() if not _asks_nothing(name, value)})
    except ValidationError as problem:
        first = _most_telling(problem.errors(include_url=False, include_context=False, include_input=False))
    param = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise ApiProblem(
            400, f"Unrecognized request argument supplied: {first['loc'][-1]}", "unknown_parameter", param=param
        )
    where = ".".join(_path(values, first["loc"], is_missing=first["type"] == "missing"))
    raise ApiProblem(400, f"{where}: {first['msg']}", "invalid_value", param=param)


def _asks_nothing(name: str, value: Any) -> bool:
    return value is None or any(type(value) is type(one) and value == one for one in NEUTRAL.get(name, ()))


def _path(values: Any, steps: Sequence[str | int], *, is_missing: bool) -> list[str]:
    """The steps through what was sent: without the names of kinds that a field may be of. The last one may be missing."""
    found = []
    for at, step in enumerate(steps, 1):
        is_there = step in values if isinstance(values, dict) else isinstance(values, list) and isinstance(step, int)
        if is_there:
            values = values[step]
        if is_there or (is_missing and at == len(steps)):
            found.append(str(step))
    return found


def _most_telling(errors: list[Any]) -> Any:
    """Of a field that may be of several kinds each kind complains: rather what is wrong within one than that it is another."""
    same = [error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]]
    return min(same, key=lambda error: error["type"].endswith("_type"))  # the first of them


# answers


class Envelope:
    """What every chunk and answer of one request carries."""

    def __init__(self, *, is_chat: bool, model: Resolved, base_digest: str) -> None:
        self.is_chat = is_chat
        self._head = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model.name,
            **digests_of(model, base_digest),
        }

    def answer(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": usage}

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": usage}


def digests_of(model: Resolved, base_digest: str) -> dict[str, str | None]:
    """Exactly which model: OpenAI's field, and the two digests it is made of (an addition to OpenAI's shape)."""
    adapter = model.digest if model.adapter is not None else None
    return {"system_fingerprint": model.digest, "adapter_digest": adapter, "base_digest": base_digest}


def model_card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "whetstone"}


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def listed(model: Resolved, base_digest: str, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """A list of what was read, and which model read it."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model.name, **digests_of(model, base_digest), "data": data, "usage": usage}


def reward_data(
    tokenizer: Any, index: int, score: float, members: list[float], credit: list[tuple[int, float]] | None
) -> dict[str, Any]:
    """One answer's score; an ensemble adds its members, credit the head's value at every token of the answer."""
    data: dict[str, Any] = {"object": "reward", "index": index, "score": score}
    if len(members) > 1:
        data["members"] = members
    if credit is not None:
        data["credit"] = [
            {"token": token_text(tokenizer, token), "bytes": list(token_bytes(tokenizer, token)), "value": value}
            for token, value in credit
        ]
    return data


def likelihood_data(
    tokenizer: Any, index: int, answers: list[list[int]], logps: list[list[float]], straddles: list[bool]
) -> dict[str, Any]:
    """One conversation's answers: each one's tokens with their log-probabilities, and whether a tokenizer that is given the
    whole text would have joined its first letters with what stands before them."""
    told = [
        {"tokens": [token_text(tokenizer, token) for token in own], "logprobs": said, "straddles": joins}
        for own, said, joins in zip(answers, logps, straddles, strict=True)
    ]
    return {"object": "likelihood", "index": index, "answers": told}


def embedding_data(index: int, embedding: list[float], encoding_format: str) -> dict[str, Any]:
    """As OpenAI's: numbers, or their 32-bit floats in little-endian order as base64."""
    packed = base64.b64encode(struct.pack(f"<{len(embedding)}f", *embedding)).decode("ascii")
    return {"object": "embedding", "index": index, "embedding": packed if encoding_format == "base64" else embedding}


def timing_of(piece: Piece) -> dict[str, float]:
    """An addition to OpenAI's shape: seconds since the request arrived, waiting included."""
    return {"seconds": round(piece.seconds, 6), "first_token_seconds": round(piece.first_token_seconds, 6)}


def chat_logprobs(tokenizer: Any, tokens: list[TokenLogp]) -> dict[str, Any]:
    """One entry per token of the answer, the end token included: it is a part of the answer's probability."""

    def entry(token: int, logp: float | None) -> dict[str, Any]:
        return {"token": token_text(tokenizer, token), "logprob": logp, "bytes": list(token_bytes(tokenizer, token))}

    content = [
        {**entry(item.token, item.logp), "top_logprobs": [entry(token, logp) for token, logp in item.top]}
        for item in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokenizer: Any, tokens: list[TokenLogp], offset: int) -> dict[str, Any]:
    """The older shape: parallel lists. Text offsets count characters from `offset` on; tokens that share a character begin
    where it does. The token itself is among the likeliest ones, as OpenAI has it, so that there may be one more of them."""
    texts = [token_text(tokenizer, item.token) for item in tokens]
    offsets = [offset + at for at in _places(tokenizer, tokens)][:-1]
    tops = [
        {token_text(tokenizer, token): logp for token, logp in [*item.top, (item.token, item.logp)]}
        if item.top
        else None
        for item in tokens
    ]
    return {
        "tokens": texts,
        "token_logprobs": [item.logp for item in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def width_of(tokenizer: Any, tokens: list[TokenLogp]) -> int:
    """How many characters these tokens come to."""
    return _places(tokenizer, tokens)[-1]


def _places(tokenizer: Any, tokens: list[TokenLogp]) -> list[int]:
    """How many whole characters stand before each token, and before what comes behind the last one."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    return [0, *accumulate(len(decoder.decode(token_bytes(tokenizer, item.token))) for item in tokens)]


def server_sent(data: dict[str, Any] | str) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
