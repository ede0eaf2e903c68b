"""Documents: plain texts of a project that a model may learn the language of."""

from __future__ import annotations

from typing import Any

from .store import Store
from .types import Document


def keep(store: Store, document: Document) -> bool:
    """Add a document; False when its project has the same text already."""
    with store.write():
        if store.find(Document, "project_id = ? and digest = ?", [document.project_id, document.digest]):
            return False
        store.add(document)
        return True


def count(store: Store, project_id: int, split: str | None = None) -> int:
    """How many there are, of one split or of all."""
    return store.value(
        "select count(*) from documents where project_id = ? and (split = ? or ? is null)", [project_id, split, split]
    )


def newest(store: Store, project_id: int) -> int:
    """The id of the newest one; 0 when there is none."""
    return store.value("select coalesce(max(id), 0) from documents where project_id = ?", [project_id])


def rows(store: Store, project_id: int, last: int) -> list[dict[str, Any]]:
    """Those up to the id ``last``, as a snapshot has them."""
    return store.rows(
        "select id as document, split, text from documents where project_id = ? and id <= ? order by id",
        [project_id, last],
    )
