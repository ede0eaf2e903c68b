"""Administering people: adding, inviting, changing roles, disabling. Every act is on record and ends old sessions."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from backend.access import RANK, require
from backend.problem import Problem
from feedback_db import Store, audit
from feedback_db import people as people_table
from feedback_db.people import Seen
from feedback_db.types import Person

NAME_MAX = 80


class AdministeringProblem(Problem):
    """Something about people that the admin can put right."""


class Invited(NamedTuple):
    person: Person
    token: str  # shown once, as a link


def people(store: Store, person: Person) -> list[Seen]:
    require(person, "administer")
    return people_table.everyone(store)


def add_person(store: Store, person: Person, name: str, role: str) -> Invited:
    """A new person and the one-time link with which they set their password."""
    require(person, "administer")
    name = _clean_name(name)
    _check_role(role)

    def act() -> Invited:
        if people_table.by_name(store, name) is not None:
            raise AdministeringProblem(
                f"There is already a person named {name}. Choose another name.", "name_taken", name=name
            )
        added = store.add(Person(pseudonym=people_table.new_pseudonym(), name=name, role=role))  # type: ignore[arg-type]
        audit.record(store, person, "add_person", "person", added.id, {"role": role})
        return Invited(added, people_table.invite(store, added, person))

    return store.commit(act)


def new_invite(store: Store, person: Person, person_id: int) -> Invited:
    """A new link for somebody who lost the link or the password. The old password works until the link is used."""
    require(person, "administer")

    def act() -> Invited:
        whom = _somebody(store, person_id)
        if whom.status != "active":
            raise AdministeringProblem(
                f"{whom.name} is disabled. Enable the account first.", "person_disabled", name=whom.name
            )
        return Invited(whom, people_table.invite(store, whom, person))

    return store.commit(act)


def change_role(store: Store, person: Person, person_id: int, role: str) -> Person:
    """Give somebody another role; they sign in again with it."""
    require(person, "administer")
    _check_role(role)

    def act() -> Person:
        whom = _somebody(store, person_id)
        if whom.role == role:
            return whom
        if role != "admin":
            _keep_an_admin(store, whom)
        changed = people_table.change(store, person_id, role=role)
        people_table.end_sessions(store, person_id)
        audit.record(store, person, "change_role", "person", person_id, {"from": whom.role, "to": role})
        return changed

    return store.commit(act)


def disable(store: Store, person: Person, person_id: int) -> Person:
    """Sign somebody out and keep them out. What they judged stays."""
    return _set_status(store, person, person_id, "disabled")


def enable(store: Store, person: Person, person_id: int) -> Person:
    return _set_status(store, person, person_id, "active")


def _set_status(store: Store, person: Person, person_id: int, status: str) -> Person:
    require(person, "administer")

    def act() -> Person:
        whom = _somebody(store, person_id)
        if whom.status == status:
            return whom
        if status == "disabled":
            _keep_an_admin(store, whom)
        changed = people_table.change(store, person_id, status=status)
        people_table.end_sessions(store, person_id)
        audit.record(store, person, "change_status", "person", person_id, {"from": whom.status, "to": status})
        return changed

    return store.commit(act)


def _somebody(store: Store, person_id: int) -> Person:
    found = store.find(Person, "id = ? and source is null and status <> 'erased'", [person_id])
    if not found:
        raise AdministeringProblem("Choose a person from the list first.", "no_person")
    return found[0]


def _keep_an_admin(store: Store, whom: Person) -> None:
    if [admin.id for admin in people_table.active_admins(store)] == [whom.id]:
        raise AdministeringProblem(
            f"{whom.name} is the last active admin. Make somebody else an admin first.", "last_admin", name=whom.name
        )


def _check_role(role: str) -> None:
    if role not in RANK:
        raise AdministeringProblem(f"Choose a role: {', '.join(RANK)}.", "no_role")


def _clean_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else ""
    if not name or len(name) > NAME_MAX or any(unicodedata.category(c)[0] == "C" for c in name):
        raise AdministeringProblem(
            f"A name has 1 to {NAME_MAX} visible characters. It is what the person types to sign in.",
            "bad_name",
            most=NAME_MAX,
        )
    return name
