"""Tokens of programs that ask the prompt endpoint."""

from __future__ import annotations

from .store import Store
from .types import ApiToken

MINUTE = 60_000_000


def tokens(store: Store, project_id: int) -> list[ApiToken]:
    """Newest first, revoked ones too."""
    return store.find(ApiToken, "project_id = ?", [project_id], "id desc")


def with_hash(store: Store, token_hash: bytes) -> ApiToken | None:
    """The token with this hash, unless it was revoked."""
    return next(iter(store.find(ApiToken, "token_hash = ? and revoked_at is null", [token_hash])), None)


def revoke(store: Store, token_id: int) -> None:
    with store.write() as db:
        db.conn.execute("update tokens set revoked_at = ? where id = ? and revoked_at is null", [store.now(), token_id])


def touch(store: Store, token: ApiToken) -> None:
    """Note that it was used; once a minute is enough."""
    now = store.now()
    if now - (token.last_used_at or 0) < MINUTE:
        return
    with store.write() as db:
        db.conn.execute("update tokens set last_used_at = ? where id = ?", [now, token.id])
