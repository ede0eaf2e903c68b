"""Signing in: sessions, passwords, one-time links. A browser holds a token; the store holds only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
import threading
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from backend.problem import Problem
from feedback_db import BusyOrFull, Store, audit, people
from feedback_db.types import Person

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
IDLE = {"admin": 30 * MINUTE, "engineer": 8 * HOUR, "annotator": 8 * HOUR}
ENDS = {"admin": 8 * HOUR, "engineer": 12 * HOUR, "annotator": 12 * HOUR}
PASSWORD_MIN, PASSWORD_MAX = 15, 256  # NIST SP 800-63B-4: 15 when the password is the only factor, no composition rules
FREE_FAILURES, LONGEST_WAIT = 5, 15 * MINUTE
PER_IP_MINUTE, PER_IP_HOUR = 20, 100

HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)  # OWASP's argon2id parameters
SLOTS = threading.BoundedSemaphore(2)  # hashes at a time: each takes a core and 19 MiB


class SigningInProblem(Problem):
    """What stands between somebody and their session. ``wait_seconds`` is set when trying later helps."""

    def __init__(self, message: str, code: str, wait_seconds: int = 0, **values: object):
        super().__init__(message, code, **values)
        self.wait_seconds = wait_seconds


class SignedIn(NamedTuple):
    token: str  # for the cookie; it is nowhere else
    person: Person
    seconds: int  # until the session ends at the latest


def sign_in(store: Store, name: str, password: str, ip: str = "") -> SignedIn:
    """Check a password. A name that nobody has costs the same time and gets the same answer."""
    account = _account(name)
    attempt_id = store.commit(lambda: _admit(store, account, ip))
    person = people.by_name(store, name.strip())
    usable = person is not None and person.status == "active" and person.password_hash is not None
    right = _verify(person.password_hash if usable and person else None, password)
    if person is None or not usable or not right:
        raise SigningInProblem("The name or the password is not right.", "wrong_password")
    new_hash = _rehashed(person, password)

    def act() -> SignedIn:
        people.attempt_succeeded(store, attempt_id)
        if new_hash:
            people.change(store, person.id or 0, password_hash=new_hash)
        return _open_session(store, person, ip)

    return store.commit(act)


def session(store: Store, token: str | None) -> people.Session | None:
    """The live session of this token, or None. Only reads."""
    if not token or len(token) > 200:
        return None
    return people.session(store, people.digest(token), store.now())


def is_due(store: Store, found: people.Session) -> bool:
    """Whether the idle limit should be moved; once a minute is enough."""
    return store.now() - found.last_seen_at > MINUTE


def stay(store: Store, token: str, found: people.Session) -> None:
    """Move the idle limit of a session in use."""
    now, token_hash = store.now(), people.digest(token)
    try:
        store.commit(lambda: people.touch_session(store, token_hash, now, IDLE[found.person.role]))
    except BusyOrFull:  # a full disk must not sign people out; reading still works
        pass


def sign_out(store: Store, token: str | None) -> None:
    if token:
        token_hash = people.digest(token)
        store.commit(lambda: people.end_session(store, token_hash))


# ---- one-time links


def first_admin_token(store: Store) -> str | None:
    """A link token for the first admin while no admin has a password yet; None afterwards.

    Called by the one who starts the server, and printed there: there is no default password.
    """
    with store.write():
        admins = people.active_admins(store)
        if any(admin.password_hash for admin in admins):
            return None
        admin = admins[0] if admins else _new_admin(store)
        return people.invite(store, admin, None)


def invited(store: Store, token: str) -> Person | None:
    """Whom an unused link invites. Looking does not use it up: chat programs fetch links for a preview."""
    return people.invited(store, people.digest(token), store.now()) if 0 < len(token) <= 200 else None


def accept(store: Store, token: str, password: str | None, ip: str = "") -> SignedIn:
    """Use a link up: set the password, end other sessions, sign in.

    ``password=None`` signs in without setting one; web offers that only to an admin on the server's own machine.
    """
    found = invited(store, token)
    if found is None:
        raise _used_up()
    person = found
    if password is not None:
        check_password(password, person.name or "")
    new_hash = _hash(password) if password is not None else None

    def act() -> SignedIn:
        if not people.use_invite(store, people.digest(token), store.now()):
            raise _used_up()
        people.end_sessions(store, person.id or 0)
        values = {"password_hash": new_hash} if new_hash else {"status": "active"}
        changed = people.change(store, person.id or 0, **values)
        audit.record(store, changed, "accept_invite", "person", person.id, {"password": new_hash is not None}, ip=ip)
        return _open_session(store, changed, ip)

    return store.commit(act)


def check_password(password: str, name: str) -> None:
    """Long enough and not one of the guesses that length alone lets through. Raises SigningInProblem."""
    if len(password) < PASSWORD_MIN:
        raise SigningInProblem(
            f"The password needs at least {PASSWORD_MIN} characters; this one has {len(password)}. "
            "Four unrelated words are easy to remember.",
            "short_password",
            least=PASSWORD_MIN,
            found=len(password),
        )
    if len(password) > PASSWORD_MAX:
        raise SigningInProblem(
            f"The password may have at most {PASSWORD_MAX} characters.", "long_password", most=PASSWORD_MAX
        )
    plain = password.casefold().replace(name.casefold(), "") if name else password.casefold()
    if len(set(plain)) < 6:
        raise SigningInProblem(
            "This password repeats a few characters or your name and is easy to guess. Choose another one.",
            "weak_password",
        )


# ---- inside


def _admit(store: Store, account: str, ip: str) -> int:
    """Count this attempt, or refuse it. One transaction: two guesses at once cannot both read the old count."""
    now = store.now()
    found = people.attempts(store, account, ip, now)
    over = found.failures - FREE_FAILURES
    wait = min(LONGEST_WAIT, SECOND << min(over, 20)) if over >= 0 else 0
    left = found.last_failure_at + wait - now
    if left > 0:
        raise _too_many(-(-left // SECOND))
    if ip and found.from_ip_minute >= PER_IP_MINUTE:
        raise _too_many(60)
    if ip and found.from_ip_hour >= PER_IP_HOUR:
        raise _too_many(900)
    return people.add_attempt(store, account, ip, now)


def _too_many(seconds: int) -> SigningInProblem:
    return SigningInProblem(
        f"Too many attempts to sign in. Try again in {seconds} seconds.", "too_many_attempts", seconds, seconds=seconds
    )


def _used_up() -> SigningInProblem:
    return SigningInProblem(
        "This link has been used or is older than 72 hours. Ask an admin for a new one.", "link_used"
    )


def _open_session(store: Store, person: Person, ip: str) -> SignedIn:
    token = secrets.token_urlsafe(32)
    now = store.now()
    people.add_session(store, people.digest(token), person, now, IDLE[person.role], now + ENDS[person.role], ip)
    audit.record(store, person, "sign_in", "person", person.id, ip=ip)
    return SignedIn(token, person, ENDS[person.role] // SECOND)


def _new_admin(store: Store) -> Person:
    return store.add(Person(pseudonym=people.new_pseudonym(), name="admin", role="admin"))


def _account(name: str) -> str:
    """Attempts are counted by a digest: a password typed into the name field must not stand in the database."""
    return hashlib.sha256(b"account:" + name.strip().casefold().encode("utf-8", "replace")).hexdigest()[:32]


def _hash(password: str) -> str:
    with SLOTS:
        return HASHER.hash(password)


def _verify(stored: str | None, password: str) -> bool:
    dummy = stored is None
    with SLOTS:
        try:
            HASHER.verify(stored or DUMMY, password[: PASSWORD_MAX + 1])
        except (VerificationError, InvalidHashError):
            return False
    return not dummy


def _rehashed(person: Person, password: str) -> str | None:
    return _hash(password) if HASHER.check_needs_rehash(person.password_hash or "") else None


DUMMY = HASHER.hash(secrets.token_urlsafe(32))  # verified for names that nobody has
