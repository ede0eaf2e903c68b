"""From a parsed body to a request for the scheduler: names, tokens and limits are checked here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from backend.training.chat_ids import part_ids, spelt, text_ids

from . import asking as work
from . import wire
from .likelihoods import Text, log_probabilities, shared_by, turns
from .model import Base, ModelProblem
from .reading import Asked, Reader, Reward, of_answers, parts, to_read
from .reply import Reply, refusal_problem
from .resolver import Resolved, Resolver
from .sampling import Sampling
from .scheduler import Scheduler
from .wire import ApiProblem

T = TypeVar("T")


class Service:
    """From a parsed body to a request for the scheduler, and from its events to an answer."""

    def __init__(self, base: Base, scheduler: Scheduler, resolver: Resolver) -> None:
        self._base = base
        self._scheduler = scheduler
        self._resolver = resolver
        self._reader = Reader(base)

    async def resolve(self, name: str) -> Resolved:
        return await run_in_threadpool(self._find, name)

    def _find(self, name: str) -> Resolved:
        found = self._resolver.resolve(name)
        if found is None:
            raise ApiProblem(404, f"There is no model named {name!r} here.", "model_not_found", param="model")
        return found

    async def _with_tokens(self, name: str, read: Callable[[], T]) -> tuple[Resolved, T]:
        """The model of this name, and texts as tokens: a million letters take a second, in which all streams would stand still."""
        return await run_in_threadpool(lambda: (self._find(name), read()))

    async def tokenize(self, body: wire.TokenizeBody) -> dict[str, Any]:
        await self.resolve(body.model)
        if (body.messages is None) == (body.prompt is None):
            raise ApiProblem(400, "Give either messages or prompt.", "invalid_value", param="messages")
        tokens, names = await run_in_threadpool(self._tokenized, body)
        return {"count": len(tokens), "max_model_len": self._base.context, "tokens": tokens, "token_strs": names}

    def _tokenized(self, body: wire.TokenizeBody) -> tuple[list[int], list[str]]:
        if body.messages is not None:
            tokens = self._chat_tokens(body.messages, body.add_generation_prompt)
        else:
            tokens = self._base.text_tokens(body.prompt or "")
        return tokens, self._base.tokenizer.convert_ids_to_tokens(tokens)

    async def chat(self, body: wire.ChatBody) -> Response:
        model, tokens = await self._with_tokens(body.model, lambda: self._chat_tokens(body.messages))
        if body.top_logprobs and not body.logprobs:
            raise ApiProblem(400, "top_logprobs needs logprobs: true.", "invalid_value", param="top_logprobs")
        asked = body.max_completion_tokens or body.max_tokens
        if body.max_tokens == 0:
            raise ApiProblem(
                400, "max_tokens: a chat answer needs at least 1 token.", "invalid_value", param="max_tokens"
            )
        top = (body.top_logprobs or 0) if body.logprobs else None
        request = self._request(body, model, [tokens], asked, top, wants_prompt_scores=False)
        return Reply(self._base, self._scheduler, request, body, is_chat=True, echo=None)

    async def complete(self, body: wire.CompletionBody) -> Response:
        model, (prompts, echo) = await self._with_tokens(body.model, lambda: self._prompts(body))
        asked = 16 if body.max_tokens is None else body.max_tokens
        scores = bool(body.echo) and body.logprobs is not None
        if scores and self._base.is_encoder_decoder:
            message = (
                "This base is an encoder-decoder: its encoder reads the prompt whole and says nothing of how likely its "
                "tokens are. Leave out echo or logprobs; the logprobs of an answer can be had."
            )
            raise ApiProblem(400, message, "unsupported_for_model", param="echo")
        request = self._request(body, model, prompts, asked, body.logprobs, wants_prompt_scores=scores)
        return Reply(self._base, self._scheduler, request, body, is_chat=False, echo=echo)

    async def rewards(self, body: wire.RewardBody) -> dict[str, Any]:
        found = await run_in_threadpool(self._resolver.resolve_reward, body.model)
        if found is None:
            raise ApiProblem(
                404, f"There is no reward model named {body.model!r} here.", "model_not_found", param="model"
            )
        answers, messages = body.answers, [message.plain() for message in body.messages]
        model = await self._do(lambda _: self._reader.open(found))
        try:
            asked = await run_in_threadpool(self._reader.ask, model, messages, answers)
            texts = to_read(self._base, asked, body.credit)
        except ModelProblem as problem:
            raise ApiProblem(400, str(problem), "invalid_messages", param="messages") from problem
        found_of: dict[int, Reward] = {}
        for part in parts([len(sequence) for sequence in texts.sequences]):
            some = Asked([texts.sequences[at] for at in part], [texts.answer_tokens[at] for at in part], 0)
            scored = await self._do(partial(self._reader.rewards, model, some))
            found_of.update(zip(part, scored, strict=True))
        rewards = of_answers([found_of[at] for at in range(len(texts.sequences))], asked)
        data = []
        for at in range(len(answers)):
            own = asked.sequences[at][-asked.answer_tokens[at] :]
            credit = list(zip(own, rewards[at].values, strict=True)) if body.credit else None
            data.append(wire.reward_data(self._base.tokenizer, at, rewards[at].score, rewards[at].members, credit))
        head = wire.listed(found, self._base.digest, data, sum(map(len, asked.sequences)))
        return {**head, "cut_tokens": asked.cut_tokens}

    async def likelihoods(self, body: wire.LikelihoodBody) -> dict[str, Any]:
        model = await self.resolve(body.model)
        if self._base.is_encoder_decoder:
            message = "This base is an encoder-decoder, of which no likelihood of a given answer can be had here. Use a decoder."
            raise ApiProblem(400, message, "unsupported_for_model", param="model")
        texts, straddles = await run_in_threadpool(self._answered, body)
        longest = max(len(text.context) + max(map(len, text.answers)) for text in texts)
        if longest > self._base.context:
            message = f"{_room_of(self._base)}; a conversation with its answer has {longest}. Shorten it."
            raise ApiProblem(400, message, "context_length_exceeded", param="conversations")
        shared = shared_by(texts)
        found: dict[int, list[list[float]]] = {}
        for part in turns(self._base, texts, shared):
            read = await self._do(partial(self._likely, model, [texts[at] for at in part], shared))
            found.update(zip(part, read, strict=True))
        data = [
            wire.likelihood_data(self._base.tokenizer, at, text.answers, found[at], joins)
            for at, (text, joins) in enumerate(zip(texts, straddles, strict=True))
        ]
        return wire.listed(model, self._base.digest, data, sum(len(text.context) for text in texts))

    def _likely(
        self, model: Resolved, texts: list[Text], shared: int, keep: Collection[str]
    ) -> list[list[list[float]]]:
        engine = self._scheduler
        return log_probabilities(self._base, engine.prefixes, engine.fewest, model, texts, shared, keep)

    def _answered(self, body: wire.LikelihoodBody) -> tuple[list[Text], list[list[bool]]]:
        """The tokens of every conversation and of the answers behind it, and of each answer whether it straddles the border."""
        tokenizer = self._base.tokenizer
        try:
            begun = [self._base.chat_parts([one.plain() for one in messages]) for messages in body.conversations]
        except ModelProblem as problem:
            raise ApiProblem(400, str(problem), "invalid_messages", param="conversations") from problem
        ends = ["" if pieces[-1].is_data else pieces[-1].text for pieces in begun]  # what an answer may join with
        written = [end + answer for end in ends for answer in body.answers]
        every = tokenizer([*ends, *written], add_special_tokens=False)["input_ids"]
        border, whole = every[: len(ends)], every[len(ends) :]
        alone = [text_ids(tokenizer, answer) for answer in body.answers]
        is_data = [spelt(tokenizer, answer) is not None for answer in body.answers]  # stands apart, as a message would
        texts, straddles = [], []
        for at, (pieces, end) in enumerate(zip(begun, border, strict=True)):
            own = whole[at * len(alone) :][: len(alone)]
            joins = [
                not apart and (one[: len(end)] != end or len(one) == len(end))
                for one, apart in zip(own, is_data, strict=True)
            ]
            after = [
                one if joined or apart else together[len(end) :]
                for one, together, joined, apart in zip(alone, own, joins, is_data, strict=True)
            ]
            texts.append(Text([*part_ids(tokenizer, pieces if pieces[-1].is_data else pieces[:-1]), *end], after))
            straddles.append(joins)
        return texts, straddles

    async def embeddings(self, body: wire.EmbeddingBody) -> dict[str, Any]:
        model, rows = await self._with_tokens(body.model, lambda: self._prompt_tokens(body.input, "input"))
        if model.adapter is not None:
            raise ApiProblem(
                400, "Embeddings are made by the bare base: ask for the model base.", "invalid_value", param="model"
            )
        longest = max(map(len, rows))
        if longest > self._base.longest_prompt:
            message = f"{_room_of(self._base)}; a text has {longest}. Shorten it."
            raise ApiProblem(400, message, "context_length_exceeded", param="input")
        found: dict[int, list[float]] = {}
        for part in parts([len(row) for row in rows]):
            read = await self._do(partial(self._reader.embeddings, [rows[at] for at in part]))
            found.update(zip(part, read, strict=True))
        data = [wire.embedding_data(at, found[at], body.encoding_format) for at in range(len(rows))]
        return wire.listed(model, self._base.digest, data, sum(map(len, rows)))

    async def _do(self, act: Callable[[Collection[str]], Any]) -> Any:
        """Done by the model's thread between two steps."""
        try:
            return await asyncio.wrap_future(self._scheduler.do(act))
        except (work.QueueFull, work.Resting) as refusal:
            raise refusal_problem(refusal) from refusal
        except ModelProblem as problem:
            raise ApiProblem(500, str(problem), "model_unusable", param="model") from problem

    def _request(
        self,
        body: wire.ChatBody | wire.CompletionBody,
        model: Resolved,
        prompts: list[list[int]],
        asked: int | None,
        top_logps: int | None,
        *,
        wants_prompt_scores: bool,
    ) -> work.Request:
        longest = max(len(tokens) for tokens in prompts)
        left = self._base.left_beside(longest)
        samples = body.n or 1
        max_tokens = min(left, self._scheduler.room.fair_length(longest, samples)) if asked is None else asked
        if max_tokens > left or (asked is None and max_tokens < 1):
            wish = f"{longest} prompt tokens" + (f" and {asked} new ones" if asked else " and at least 1 new one")
            message = f"{_room_of(self._base)}; the request needs {wish}. Shorten the prompt or lower max_tokens."
            param = "messages" if isinstance(body, wire.ChatBody) else "prompt"
            raise ApiProblem(400, message, "context_length_exceeded", param=param)
        if samples > self._scheduler.row_limit:
            message = f"n: this engine answers with at most {self._scheduler.row_limit} samples at once."
            raise ApiProblem(400, message, "invalid_value", param="n")
        if self._scheduler.room.never_fits(longest, samples, max_tokens):
            message = (
                f"n, max_tokens: {samples} answers of {max_tokens} tokens need more memory than this engine has for keys and "
                "values. Lower one of them."
            )
            raise ApiProblem(400, message, "invalid_value", param="max_tokens")
        return work.Request(
            model=model,
            prompts=prompts,
            max_tokens=max_tokens,
            seed=body.seed if body.seed is not None else secrets.randbits(62),
            n=samples,
            sampling=Sampling(
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=1.0 if body.top_p is None else body.top_p,
                top_k=max(0, body.top_k or 0),
                min_p=body.min_p or 0.0,
                repetition_penalty=body.repetition_penalty or 1.0,
            ),
            stop=body.stops,
            top_logps=top_logps,
            wants_prompt_scores=wants_prompt_scores,
            is_streamed=bool(body.stream),
        )

    def _chat_tokens(self, messages: Sequence[wire.Message], add_generation_prompt: bool = True) -> list[int]:
        try:
            return self._base.chat_tokens(
                [message.plain() for message in messages], add_generation_prompt=add_generation_prompt
            )
        except ModelProblem as problem:
            raise ApiProblem(400, str(problem), "invalid_messages", param="messages") from problem

    def _prompts(self, body: wire.CompletionBody) -> tuple[list[list[int]], list[str] | None]:
        """The tokens of each prompt, and its text where that is to stand before the answer."""
        rows = self._prompt_tokens(body.prompt)
        echo = [_decoded(self._base, tokens, body.prompt, at) for at, tokens in enumerate(rows)] if body.echo else None
        return rows, echo

    def _prompt_tokens(
        self, prompt: str | list[str] | list[int] | list[list[int]], param: str = "prompt"
    ) -> list[list[int]]:
        if isinstance(prompt, str):
            rows = [self._base.text_tokens(prompt)]
        elif isinstance(prompt[0], int):
            rows = [prompt]
        else:
            rows = [self._base.text_tokens(item) if isinstance(item, str) else item for item in prompt]
        rows = [self._base.open_ended(row) for row in rows]
        if not all(rows):
            raise ApiProblem(400, f"{param}: an empty text has no tokens to go on from.", "invalid_value", param=param)
        if not all(0 <= token < self._base.vocabulary for row in rows for token in row):
            raise ApiProblem(400, f"Token ids go from 0 to {self._base.vocabulary - 1}.", "invalid_value", param=param)
        return rows


def _room_of(base: Base) -> str:
    if base.is_encoder_decoder:
        return f"This model reads prompts of up to {base.longest_prompt} tokens and writes up to {base.context}"
    return f"This model's context holds {base.context} tokens"


def _decoded(base: Base, tokens: list[int], prompt: Any, at: int) -> str:
    given = prompt if isinstance(prompt, str) else prompt[at]
    return given if isinstance(given, str) else base.tokenizer.decode(tokens)
