"""Whatever people do, in whatever order: the queue's promises, held against a plain model of it by hypothesis."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backend import labelling
from backend.labelling import Answer, LabellingProblem
from feedback_db import priorities, queue
from feedback_db.types import Assignment, Comparison, Job, Person, Project
from tests.feedback_db.test_queue import SECOND, Clock, counters_equal_assignments
from tests.ui.house import add_comparisons, build

OPEN_TO = (  # what the queue owes a person: written anew here, so that one mistake is not made twice
    "select c.id from comparisons c where c.project_id = ? and c.status = 'open' and c.gold is null and c.slots_left > 0"
    " and not exists (select 1 from assignments a where a.comparison_id = c.id and a.person_id = ?"
    " and a.state in ('leased', 'submitted', 'skipped'))"
)


class People(RuleBasedStateMachine):
    """Four people on one project, with overlap, gold and repeats; every act goes through the activity."""

    @initialize(overlap=st.integers(1, 3), count=st.integers(1, 6), gold=st.integers(0, 2), seed=st.integers(0, 9))
    def open_house(self, overlap: int, count: int, gold: int, seed: int) -> None:
        self.repeat_after, queue.REPEAT_AFTER = queue.REPEAT_AFTER, 1
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.house = build(Path(self.folder.name), comparisons=0, clock=self.clock)
        store = self.house.store
        self.project = store.add(
            Project(
                name="p", overlap=overlap, gold_every=3, settings={"repeat_share": 0.3, "random_share": 0.5, "order_seed": str(seed)}
            )
        )  # fmt: skip
        self.added, self.overlap = 0, overlap
        self.add(count, 0)
        for one in self._make(gold):
            with store.write() as db:
                db.conn.execute("update comparisons set gold = '[1,2]' where id = ?", [one.id])
        self.people = [store.add(Person(pseudonym=f"m{n}", name=f"m{n}", role="annotator")) for n in range(4)]
        self.desks: dict[int, labelling.Desk | None] = {}
        self.keys: list[tuple[Person, int, bytes, int]] = []  # whose, of which assignment, and the row it became
        self.acknowledged = 0

    def _make(self, count: int) -> list[Comparison]:
        made = add_comparisons(self.house.store, self.project, count, self.overlap, first=self.added)
        self.added += count
        return made

    @rule(count=st.integers(1, 2), urgency=st.integers(-3, 3))
    def add(self, count: int, urgency: int) -> None:
        """New work, anywhere in the order."""
        for one in self._make(count):
            with self.house.store.write() as db:
                db.conn.execute("update comparisons set queue_key = ? where id = ?", [urgency, one.id])

    @rule(data=st.data())
    def order(self, data: st.DataObject) -> None:
        """A new order comes while people work; what somebody has begun keeps its arm."""
        every = self.house.store.find(Comparison, "gold is null and project_id = ?", [self.project.id])
        begun = {
            one.comparison_id: one for one in self.house.store.find(Assignment, "state in ('leased', 'submitted')")
        }
        before = {one.id: one.arm for one in every}
        chosen = (
            data.draw(st.lists(st.sampled_from([one.id for one in every]), max_size=4, unique=True)) if every else []
        )
        job = Job(project_id=self.project.id, kind="score", settings={}, settings_digest=b"")
        priorities.apply(
            self.house.store, job, [{"comparison": id, "score": 1.0 + id, "reason": "coverage 0.50"} for id in chosen]
        )
        assert all(self.house.store.get(Comparison, id).arm == before[id] for id in begun if id in before)

    @rule(who=st.integers(0, 3))
    def take(self, who: int) -> None:
        person = self.people[who]
        with self.house.store.write():
            queue.give_back_expired(self.house.store, self.clock.now)
        owed = {row["id"] for row in self.house.store.rows(OPEN_TO, [self.project.id, person.id])}
        held = self._live(person)
        desk = labelling.next_desk(self.house.store, person, self.project.id or 0)
        self.desks[who] = desk
        if desk is None:
            assert not held and not owed, "the queue said it was empty"
        else:
            found = self.house.store.get(Assignment, desk.assignment)
            assert found.state == "leased" and found.person_id == person.id
            if not held and found.purpose == "label":
                assert found.comparison_id in owed

    @rule(who=st.integers(0, 3))
    def take_ahead(self, who: int) -> None:
        labelling.ahead(self.house.store, self.people[who], self.project.id or 0)
        assert len(self._live(self.people[who])) <= 3  # two, and one that was taken back

    @precondition(lambda self: any(self.desks.values()))
    @rule(who=st.integers(0, 3), ranks=st.sampled_from([(1, 2), (2, 1), (1, 1)]))
    def submit(self, who: int, ranks: tuple[int, int]) -> None:
        desk = self.desks.get(who)
        if desk is None:
            return
        key = uuid.uuid4().bytes
        try:
            done = labelling.submit(
                self.house.store, self.people[who], desk.assignment, key, Answer(ranks=ranks, seconds=1.0)
            )
        except LabellingProblem as problem:
            assert problem.code == "judged_already"
            return
        self.acknowledged += 1
        self.keys.append((self.people[who], desk.assignment, key, done.judgement))
        self.desks[who] = done.desk

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        """A reply that was lost: the same key comes a second time."""
        person, assignment, key, row = data.draw(st.sampled_from(self.keys))
        done = labelling.submit(self.house.store, person, assignment, key, Answer(ranks=(2, 1), seconds=9.0))
        assert done.judgement == row

    @rule(who=st.integers(0, 3), act=st.sampled_from(["skip", "release", "heartbeat", "draft"]))
    def leave(self, who: int, act: str) -> None:
        desk = self.desks.get(who)
        if desk is None:
            return
        store, person = self.house.store, self.people[who]
        try:
            if act == "skip":
                self.desks[who] = labelling.skip(store, person, desk.assignment)
            elif act == "release":
                labelling.release(store, person, desk.assignment, desk.lease)
            elif act == "draft":
                labelling.save_draft(store, person, desk.assignment, {"rationale": "half a thought"})
            else:
                labelling.heartbeat(store, person, desk.assignment)
        except LabellingProblem as problem:
            assert problem.code in ("judged_already", "lease_lost")

    @rule(who=st.integers(0, 3))
    def undo(self, who: int) -> None:
        try:
            self.desks[who] = labelling.undo(
                self.house.store, self.people[who], self.project.id or 0, uuid.uuid4().bytes
            )
            self.acknowledged += 1
        except LabellingProblem as problem:
            assert problem.code == "nothing_to_undo"

    @rule(seconds=st.sampled_from([1, 100, 301, 90_000]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds * SECOND

    def _live(self, person: Person) -> list[Assignment]:
        return queue.live_leases(self.house.store, person.id or 0, self.project, self.clock.now)

    @invariant()
    def counters_are_those_of_the_assignments(self) -> None:
        if not hasattr(self, "keys"):
            return
        store = self.house.store
        assert counters_equal_assignments(store)
        over = "select id from comparisons where gold is null and judged > overlap"
        assert not store.rows(over)
        assert store.value("select count(*) from judgements") == self.acknowledged
        tallied = store.value("select coalesce(sum(judged), 0) from tallies")
        assert tallied == store.value("select count(*) from assignments where state = 'submitted'")

    @invariant()
    def nobody_judges_a_comparison_twice_for_one_purpose(self) -> None:
        if hasattr(self, "keys"):
            twice = "select 1 from current_judgements group by comparison_id, person_id, purpose having count(*) > 1"
            assert not self.house.store.rows(twice)

    def teardown(self) -> None:
        if hasattr(self, "repeat_after"):
            queue.REPEAT_AFTER = self.repeat_after
            self.house.store.close()
            self.folder.cleanup()


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
