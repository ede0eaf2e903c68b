"""Embeddings of texts, each kept by the base that made it and the text, so that a text is read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from .store import Store

AT_ONCE = 10_000  # digests of one query; SQLite takes 32,766 parameters


def key_of(fingerprint: bytes, text: str) -> bytes:
    """By which a text's embedding by the base with this fingerprint is kept."""
    return hashlib.sha256(fingerprint + text.encode("utf-8")).digest()


def known(store: Store, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    """The vectors that are kept, by digest: 32-bit floats, little-endian."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(digests), AT_ONCE):
        some = digests[start : start + AT_ONCE]
        sql = f"select digest, vector from features where digest in ({','.join('?' * len(some))})"
        found.update(store.db.conn.execute(sql, list(some)).fetchall())
    return found


def keep(store: Store, vectors: Mapping[bytes, bytes]) -> None:
    """One that is there stays, so that a choice that was made by it stays the same."""
    now = store.now()
    with store.write() as db:
        db.conn.executemany(
            "insert into features (digest, vector, created_at) values (?, ?, ?) on conflict (digest) do nothing",
            [(digest, vector, now) for digest, vector in vectors.items()],
        )
