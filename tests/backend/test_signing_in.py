"""Signing in and administering people: guesses are slowed, links work once, rights end at once."""

from __future__ import annotations

import pytest

from backend import administering, signing_in
from backend.access import MAY, Denied, require
from backend.administering import AdministeringProblem
from backend.signing_in import SigningInProblem
from feedback_db import audit, people
from tests.feedback_db.test_queue import SECOND, Clock
from tests.ui.house import PASSWORD, build

MINUTE = 60 * SECOND


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path, clock):
    made = build(tmp_path, comparisons=0, clock=clock)
    yield made
    made.store.close()


def with_password(house, person):
    with house.store.write():
        token = people.invite(house.store, person, None)
    return signing_in.accept(house.store, token, PASSWORD)


def test_the_store_never_holds_a_token_or_a_password(house):
    signed = with_password(house, house.ann)
    dump = "\n".join(house.store.db.conn.iterdump())
    assert signed.token not in dump and PASSWORD not in dump and "$argon2id$v=19$m=19456,t=2,p=1$" in dump


def test_a_link_works_once_and_for_three_days(house, clock):
    with house.store.write():
        token = people.invite(house.store, house.ann, house.admin)
    clock.now += 72 * 60 * MINUTE - SECOND
    assert signing_in.invited(house.store, token).name == "ann"
    signing_in.accept(house.store, token, PASSWORD)
    assert signing_in.invited(house.store, token) is None
    with pytest.raises(SigningInProblem, match="used or is older"):
        signing_in.accept(house.store, token, PASSWORD)
    with house.store.write():
        token = people.invite(house.store, house.ann, house.admin)
    clock.now += 72 * 60 * MINUTE
    assert signing_in.invited(house.store, token) is None


@pytest.mark.parametrize(
    "password", ["short", "x" * 14, "aaaaaaaaaaaaaaaaaaaa", "annannannannann", "x" * 257, "ababababababababab"]
)
def test_a_weak_password_is_refused_with_the_reason(house, password):
    with house.store.write():
        token = people.invite(house.store, house.ann, None)
    with pytest.raises(SigningInProblem, match="characters|easy to guess"):
        signing_in.accept(house.store, token, password)
    assert signing_in.invited(house.store, token) is not None


def test_guesses_are_slowed_and_the_right_password_is_not_locked_out_for_ever(house, clock):
    with_password(house, house.ann)
    tried = 0
    for _ in range(24 * 60):  # one guess a minute for a day, from many addresses
        clock.now += MINUTE
        try:
            signing_in._admit(house.store, signing_in._account("ann"), f"10.0.0.{tried}")
            tried += 1
        except SigningInProblem as problem:
            assert 0 < problem.wait_seconds <= 15 * 60
    assert tried <= 200
    clock.now += 15 * MINUTE
    assert signing_in.sign_in(house.store, "ANN", PASSWORD).person.id == house.ann.id


def test_one_address_cannot_try_many_names(house):
    for n in range(20):
        signing_in._admit(house.store, signing_in._account(f"name {n}"), "10.0.0.1")
    with pytest.raises(SigningInProblem, match="Too many"):
        signing_in.sign_in(house.store, "somebody", PASSWORD, "10.0.0.1")
    with pytest.raises(SigningInProblem, match="not right"):
        signing_in.sign_in(house.store, "somebody", PASSWORD, "10.0.0.2")


def test_an_unknown_name_and_a_wrong_password_get_the_same_answer(house):
    with_password(house, house.ann)
    answers = set()
    for name in ("ann", "nobody", "eve"):  # eve has no password yet
        with pytest.raises(SigningInProblem) as refused:
            signing_in.sign_in(house.store, name, "x" * 20)
        answers.add(str(refused.value))
    assert len(answers) == 1


def test_a_session_ends_when_idle_and_at_its_limit(house, clock):
    token = with_password(house, house.admin).token
    clock.now += 29 * MINUTE
    found = signing_in.session(house.store, token)
    signing_in.stay(house.store, token, found)
    clock.now += 29 * MINUTE
    assert signing_in.session(house.store, token) is not None
    clock.now += 2 * MINUTE
    assert signing_in.session(house.store, token) is None
    token = with_password(house, house.ann).token
    for _ in range(13):
        if (found := signing_in.session(house.store, token)) is not None:
            signing_in.stay(house.store, token, found)
        clock.now += 60 * MINUTE
    assert signing_in.session(house.store, token) is None


@pytest.mark.parametrize("act", ["sign_out", "role", "disable", "new_password", "epoch"])
def test_a_session_ends_at_once(house, act):
    token = with_password(house, house.ann).token
    assert signing_in.session(house.store, token).person.id == house.ann.id
    if act == "sign_out":
        signing_in.sign_out(house.store, token)
    elif act == "role":
        administering.change_role(house.store, house.admin, house.ann.id, "engineer")
    elif act == "disable":
        administering.disable(house.store, house.admin, house.ann.id)
    elif act == "epoch":
        people.change(house.store, house.ann.id, session_epoch=house.ann.session_epoch + 2)
    else:
        with_password(house, house.ann)
    assert signing_in.session(house.store, token) is None


def test_the_last_active_admin_stays(house):
    for act in (administering.disable, lambda s, p, i: administering.change_role(s, p, i, "annotator")):
        with pytest.raises(AdministeringProblem, match="last active admin"):
            act(house.store, house.admin, house.admin.id)
    administering.change_role(house.store, house.admin, house.bob.id, "admin")
    assert administering.disable(house.store, house.admin, house.admin.id).status == "disabled"


def test_every_act_on_people_is_on_record_in_one_chain(house):
    added = administering.add_person(house.store, house.admin, "  dora ", "annotator").person
    administering.change_role(house.store, house.admin, added.id, "engineer")
    administering.disable(house.store, house.admin, added.id)
    administering.enable(house.store, house.admin, added.id)
    administering.new_invite(house.store, house.admin, added.id)
    actions = [
        row["action"] for row in house.store.rows("select action from audit_events where object_id = ?", [added.id])
    ]
    assert actions == ["add_person", "invite", "change_role", "change_status", "change_status", "invite"]
    assert audit.first_broken(house.store) is None
    house.store.db.conn.execute("drop trigger audit_events_no_update")
    house.store.db.conn.execute("update audit_events set facts = '{}' where action = 'change_role'")
    assert audit.first_broken(house.store) is not None


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\nb", "a\x00b", "ANN"])
def test_a_name_that_cannot_be_typed_or_is_taken_is_refused(house, name):
    with pytest.raises(AdministeringProblem):
        administering.add_person(house.store, house.admin, name, "annotator")


def test_only_admins_administer_and_the_table_is_what_we_promise(house):
    for person in (house.ann, house.bob):
        with pytest.raises(Denied, match="needs the role admin"):
            administering.add_person(house.store, person, "x", "admin")
    allowed = {
        role: {action for action, roles in MAY.items() if role in roles} for role in ("annotator", "engineer", "admin")
    }
    assert allowed["annotator"] == {"label"}
    assert allowed["engineer"] == {"label", "build", "compare", "import", "review", "see_models", "serve"}
    assert allowed["admin"] == set(MAY)
    with pytest.raises(Denied, match="session has ended"):
        require(None, "label")


def test_the_first_admin_link_is_given_until_an_admin_has_a_password(house):
    first = signing_in.first_admin_token(house.store)
    second = signing_in.first_admin_token(house.store)
    assert signing_in.invited(house.store, first) is None  # the newer link replaces it
    signing_in.accept(house.store, second, PASSWORD)
    assert signing_in.first_admin_token(house.store) is None
