"""Embeddings of texts by a base, from the engine process; each text is read once and then kept in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from backend.engines.answers import EngineError
from backend.prompts.fewshot import Embed, FewShotProblem, Matrix
from feedback_db import Store, features, models

TOO_LONG = "context_length_exceeded"


class Engine(Protocol):
    def client(self) -> Any: ...  # of the engine process: it has ``embeddings``


def current_base(store: Store) -> str:
    """The fingerprint of the base that the engine process runs, in hexadecimal; empty before there is one."""
    live = models.live(store, "policy")
    return live.base_fingerprint.hex() if live and live.base_fingerprint else ""


def embedder(store: Store, engine: Engine | None) -> Embed:
    """Gives embeddings of texts by the base with a fingerprint, (N, D) of length 1; without an engine those that are kept.

    What it gives raises EngineError while the engine is away, and FewShotProblem where it runs another base.
    """

    def embed(texts: Sequence[str], base: str) -> Matrix:
        keys = [features.key_of(bytes.fromhex(base), text) for text in texts]
        vectors = features.known(store, list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            features.keep(store, _read(engine, missing, base))
            vectors |= features.known(store, list(missing))  # another thread may have been first
        return np.stack([np.frombuffer(vectors[key], dtype="<f4") for key in keys]).astype(np.float64)

    return embed


def _read(engine: Engine | None, texts: Mapping[bytes, str], base: str) -> dict[bytes, bytes]:
    if engine is None:
        raise FewShotProblem(
            f"{len(texts)} texts have no embedding yet, and no engine is at hand to read them. Do it in the running app.",
            "no_embeddings",
            n=len(texts),
        )
    client = engine.client()
    vectors = _asked(client, [text or " " for text in texts.values()], base)  # nothing at all has no tokens to read
    return {key: np.asarray(vector, dtype="<f4").tobytes() for key, vector in zip(texts, vectors, strict=True)}


def _asked(client: Any, texts: Sequence[str], base: str) -> list[Sequence[float]]:
    """Of a text that the base's context does not hold the beginning is read."""
    try:
        said = client.embeddings(texts)
    except EngineError as problem:
        if problem.code != TOO_LONG:
            raise
        if len(texts) == 1:
            return _asked(client, [texts[0][: len(texts[0]) // 2]], base)
        return [vector for text in texts for vector in _asked(client, [text], base)]
    if said.base is not None and said.base != base:
        raise FewShotProblem(
            f"This version chooses by embeddings of the base {base[:8]}; the engine runs {said.base[:8]}. Save the template again "
            "to choose by that one.",
            "other_embeddings",
            wanted=base[:8],
            found=said.base[:8],
        )
    return list(said.vectors)
