"""Who may do what: one table, asked first by every activity, by the guard of the pages and by the gate."""

from __future__ import annotations

from backend.problem import Problem
from feedback_db.types import Person

ANYONE = frozenset({"annotator", "engineer", "admin"})
BUILDERS = frozenset({"engineer", "admin"})
ADMINS = frozenset({"admin"})

MAY: dict[str, frozenset[str]] = {
    "label": ANYONE,
    "build": BUILDERS,
    "compare": BUILDERS,
    "serve": BUILDERS,
    "review": BUILDERS,
    "import": BUILDERS,
    "see_models": BUILDERS,
    "retrain": ADMINS,
    "promote": ADMINS,
    "administer": ADMINS,
}
RANK = ("annotator", "engineer", "admin")  # each may do what the one before may


class Denied(Problem):
    """Somebody asked for what their role, or their status, does not allow."""


def require(person: Person | None, action: str) -> None:
    """Raise Denied unless this person may do this now."""
    require_active(person)
    allowed = MAY[action]
    if person is not None and person.role not in allowed:
        raise _denied(person, allowed)


def require_role(person: Person | None, role: str) -> None:
    """Raise Denied unless this person has this role or one that may do more."""
    require_active(person)
    if person is not None and not has_role(person, role):
        raise _denied(person, frozenset(RANK[RANK.index(role) :]))


def require_active(person: Person | None) -> None:
    if person is None:
        raise Denied("Your session has ended. Sign in again.", "signed_out")
    if person.status != "active" or person.source is not None:
        raise Denied("This account is disabled. Ask an admin to enable it again.", "disabled")


def has_role(person: Person, role: str) -> bool:
    return RANK.index(person.role) >= RANK.index(role)


def may(person: Person, action: str) -> bool:
    return person.status == "active" and person.role in MAY[action]


def _denied(person: Person, allowed: frozenset[str]) -> Denied:
    roles = " or ".join(role for role in RANK if role in allowed)
    return Denied(
        f"Your role is {person.role}; this needs the role {roles}. Ask an admin if you should have it.",
        "denied",
        role=person.role,
        roles=roles,
    )
