"""An engine that answers from a function: for tests, demos and documentation. Same interface as EngineClient."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from feedback_db.types import Model

from .client import Answer, Embedded, EngineError, Likelihood, Messages, Piece, TokenCount

Script = Callable[[Messages, str, int], str]  # conversation, model, seed of the sample -> answer


class ScriptedEngine:
    """`script(messages, model, seed)` gives the text; sample i is asked with seed + i. A word counts as a token.

    `likely(messages, answer)`: nats of each word of a given answer; without it a word costs a nat less for every time the last
    message holds the answer.
    """

    def __init__(
        self,
        script: Script,
        *,
        models: Sequence[str] = ("base", "live"),
        max_model_len: int = 4096,
        likely: Callable[[Messages, str], float] | None = None,
    ) -> None:
        self._script = script
        self._likely = likely or (lambda messages, answer: -5.0 + messages[-1]["content"].count(answer))
        self._models = list(models)
        self._max_model_len = max_model_len

    def client(self) -> ScriptedEngine:
        """Stands in for an EngineProcess as well."""
        return self

    def client_for(self, model: Model) -> ScriptedEngine:
        """Answers for every model, as a remote engine would for its own."""
        return self

    def health(self) -> dict[str, Any] | None:
        """Nothing runs that could say something."""
        return None

    allowed: tuple[str, ...] = ()  # no remote engine may be called
    secrets = Path("nowhere")

    def stop(self) -> None:
        """Nothing runs."""

    last_event: str | None = None

    def models(self) -> list[str]:
        return list(self._models)

    def tokenize(self, messages: Messages, model: str) -> TokenCount:
        self._check(model)
        return TokenCount(sum(len(message["content"].split()) for message in messages), self._max_model_len)

    def rewards(self, messages: Messages, answers: Sequence[str], *, model: str) -> list[float]:
        """A word is worth a point: tests know what to expect."""
        return [float(len(answer.split())) for answer in answers]

    def embeddings(self, texts: Sequence[str]) -> Embedded:
        """How often each letter stands in a text, scaled to length 1."""
        counts = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
        return Embedded(None, [[one / (math.hypot(*own) or 1.0) for one in own] for own in counts])

    def likelihoods(
        self, conversations: Sequence[Messages], answers: Sequence[str], *, model: str
    ) -> list[list[Likelihood]]:
        self._check(model)
        return [
            [
                Likelihood(tuple(answer.split()), tuple(self._likely(messages, answer) for _ in answer.split()), False)
                for answer in answers
            ]
            for messages in conversations
        ]

    def complete(
        self,
        messages: Messages,
        *,
        model: str,
        n: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> list[Answer]:
        self._check(model)
        return [self._answer(messages, model, (seed or 0) + at, max_tokens, stop) for at in range(n)]

    def stream(
        self,
        messages: Messages,
        *,
        model: str,
        n: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]:
        answers = self.complete(messages, model=model, n=n, seed=seed, max_tokens=max_tokens, stop=stop)
        parts = [answer.text.split(" ") for answer in answers]
        for at in range(max(len(words) for words in parts)):
            for index, words in enumerate(parts):
                if at < len(words):
                    yield Piece(index, words[at] if at == 0 else " " + words[at])
        yield from (Piece(index, "", answer) for index, answer in enumerate(answers))

    def _check(self, model: str) -> None:
        if model not in self._models:
            raise EngineError(f"There is no model named {model!r} here.", status=404, code="model_not_found")

    def _answer(self, messages: Messages, model: str, seed: int, max_tokens: int | None, stop: Sequence[str]) -> Answer:
        text = self._script(messages, model, seed)
        cuts = [at for at in (text.find(item) for item in stop) if at >= 0]
        text = text[: min(cuts)] if cuts else text
        words = text.split(" ")
        is_cut = max_tokens is not None and len(words) > max_tokens
        return Answer(
            text=" ".join(words[:max_tokens]) if is_cut else text,
            finish_reason="length" if is_cut else "stop",
            tokens=min(len(words), max_tokens) if max_tokens is not None else len(words),
            prompt_tokens=sum(len(message["content"].split()) for message in messages),
            seconds=0.0,
            first_token_seconds=0.0,
            mean_logp=-1.0,
            model=model,
            fingerprint=hashlib.sha256(model.encode()).hexdigest(),
            token_logps=tuple((f" {word}" if at else word, -1.0) for at, word in enumerate(words[:max_tokens])),
        )
