"""Every step of the schema starts from the one before it with rows in it, and loses none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlite_utils import Database

from feedback_db import Store, features, jobs, judgements, measurements, migrations, queue, reviews, rounds, suites
from feedback_db.types import (
    Case,
    Cell,
    Comparison,
    Document,
    Job,
    Judgement,
    MeasuredPart,
    Measurement,
    Model,
    Project,
    RemoteEngine,
    Report,
    Round,
    Snapshot,
    Suite,
    SuiteRun,
    Template,
)


def file_before(path: Path, step: str, version: int) -> None:
    """A file as the program left it before this step, with a job that rows of four tables point at."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("pragma foreign_keys=on")
    migrations.migrations.apply(Database(conn), stop_before=step)
    conn.execute(f"pragma user_version={version}")
    conn.executescript(
        """
        begin;
        insert into projects(id, name, label_form, created_at) values (1, 'p', '{}', 1);
        insert into jobs(id, project_id, kind, state, settings, settings_digest, attempt, step, key, error, created_at)
          values (7, 1, 'reward', 'running', '{"a":1}', x'00', 2, 40, 'click', null, 5),
                 (8, 1, 'ppo', 'failed', '{}', x'01', 3, 9, null, 'no', 6);
        insert into models(id, name, kind, base, base_fingerprint, adapter, digest, job_id, source, stage, created_at)
          values (1, 'm', 'reward', 'b', zeroblob(32), 'f', zeroblob(32), 7, 'trained', 'candidate', 1);
        insert into job_events(job_id, at, kind) values (7, 1, 'started');
        insert into metric_names(id, name) values (1, 'loss');
        insert into metrics(job_id, name_id, step, attempt, value, at) values (7, 1, 1, 1, 0.5, 1);
        insert into evaluations(model_id, job_id, kind, settings, result, n, created_at) values (1, 7, 'reward', '{}', '{}', 0, 1);
        commit;
        """
    )
    conn.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "feedback.db"
    file_before(path, "m002_paused_jobs", 1)
    return path


def test_jobs_and_all_that_points_at_them_survive_the_step_that_allows_a_pause(old: Path) -> None:
    conn = sqlite3.connect(old)
    cursor = conn.execute("select * from jobs order by id")
    names, before = ",".join(column[0] for column in cursor.description), cursor.fetchall()
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("update jobs set state = 'paused' where id = 7")
    conn.close()
    store = Store(old)
    assert store.db.conn.execute(f"select {names} from jobs order by id").fetchall() == before
    assert store.rows("pragma foreign_key_check") == []
    assert [event["kind"] for event in jobs.events(store, 7)] == ["started"] and len(jobs.metrics(store, 7)) == 1
    assert store.get(Job, 8).error == "no" and jobs.with_key(store, "click") is not None
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("delete from jobs where id = 7")  # rows still point at it
    assert jobs.set_state(store, 7, "paused").state == "paused"
    with pytest.raises(sqlite3.IntegrityError, match="illegal job transition"):
        jobs.set_state(store, 7, "running")
    store.close()


def test_a_step_that_breaks_off_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = migrations._statements

    def cut(name: str) -> Iterator[str]:
        for statement in statements(name):
            yield statement
            if "DROP TABLE jobs;" in statement:
                raise OSError("the disk is full")

    monkeypatch.setattr(migrations, "_statements", cut)
    with pytest.raises(OSError, match="full"):
        Store(old)
    conn = sqlite3.connect(old)
    assert conn.execute("select count(*) from jobs").fetchone()[0] == 2
    assert conn.execute("pragma user_version").fetchone()[0] == 1
    conn.close()
    monkeypatch.undo()
    store = Store(old)
    assert store.get(Job, 7).attempt == 2 and store.value("pragma user_version") == migrations.SCHEMA_VERSION
    store.close()


def test_jobs_and_all_that_points_at_them_survive_the_step_that_allows_kto(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m003_kto_jobs", 2)
    conn = sqlite3.connect(path)
    cursor = conn.execute("select * from jobs order by id")
    names, before = ",".join(column[0] for column in cursor.description), cursor.fetchall()
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("update jobs set kind = 'kto' where id = 8")
    conn.close()
    store = Store(path)
    assert store.db.conn.execute(f"select {names} from jobs order by id").fetchall() == before
    assert store.rows("pragma foreign_key_check") == []
    assert len(jobs.events(store, 7)) == len(jobs.metrics(store, 7)) == 1 and jobs.with_key(store, "click") is not None
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("delete from jobs where id = 7")  # rows still point at it
    assert jobs.set_state(store, 7, "paused").state == "paused"
    with pytest.raises(sqlite3.IntegrityError, match="illegal job transition"):
        jobs.set_state(store, 7, "running")
    store.db.conn.execute("update jobs set kind = 'kto' where id = 8")
    assert store.get(Job, 8).kind == "kto"
    store.close()


def test_jobs_name_no_policy_before_rounds_and_a_project_has_one_open_round(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m005_rounds", 4)
    store = Store(path)
    assert [(job.policy_model_id, job.state) for job in store.find(Job)] == [(None, "running"), (None, "failed")]
    assert store.get(Model, 1).job_id == 7 and store.rows("pragma foreign_key_check") == []
    given = {"project_id": 1, "series": "s", "wanted": 3, "kind": "adversarial", "settings": {"a": 1}}
    first = store.add(Round(number=1, reward_job_id=7, facts={"n": 2}, **given))
    assert store.get(Round, first.id or 0) == first and first.created_at
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.add(Round(number=2, reward_job_id=8, **given))
    closed = rounds.finish(store, first, "ended", "no_separation", accuracy=0.5)
    assert closed.facts == {"n": 2, "accuracy": 0.5} and store.get(Round, first.id or 0) == closed
    assert rounds.open_round(store, 1) is None
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):  # no policy job yet
        store.add(Round(number=2, reward_job_id=8, state="training_policy", **given))
    store.close()


@pytest.fixture
def before_texts(tmp_path: Path) -> Path:
    """A file without documents, with a frozen snapshot and one that is being built, and rows that point at them."""
    path = tmp_path / "feedback.db"
    file_before(path, "m004_documents", 3)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into snapshots(id, project_id, name, version, kind, state, filters, as_of_judgement_id, n, digest, created_at)
          values (3, 1, 's', 1, 'preference', 'frozen', '{}', 9, 4, zeroblob(32), 1),
                 (4, 1, 's', 2, 'prompts', 'building', '{"prompt_ids":[]}', 9, null, null, 2);
        update jobs set snapshot_id = 3 where id = 7;
        update evaluations set snapshot_id = 3;
        """
    )
    conn.close()
    return path


def test_snapshots_and_all_that_points_at_them_survive_the_step_that_brings_texts(before_texts: Path) -> None:
    conn = sqlite3.connect(before_texts)
    before = conn.execute("select * from snapshots order by id").fetchall()
    conn.close()
    store = Store(before_texts)
    assert store.db.conn.execute("select * from snapshots order by id").fetchall() == before
    assert store.rows("pragma foreign_key_check") == []
    assert store.get(Job, 7).snapshot_id == 3 and store.get(Snapshot, 4).state == "building"
    with pytest.raises(sqlite3.IntegrityError, match="snapshot is frozen"):
        store.db.conn.execute("update snapshots set n = 5 where id = 3")
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("delete from snapshots where id = 3")  # rows still point at it
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("update snapshots set kind = 'pictures' where id = 4")
    store.db.conn.execute(
        "update snapshots set kind = 'texts', state = 'frozen', n = 0, digest = zeroblob(32) where id = 4"
    )
    kept = store.add(Document(project_id=1, text="a", source="b.txt", split="val", digest=bytes(32)))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.add(Document(project_id=1, text="b", source="b.txt", split="val", digest=bytes(32)))
    with pytest.raises(sqlite3.IntegrityError, match="documents are not changed"):
        store.db.conn.execute("update documents set text = 'c' where id = ?", [kept.id])
    store.close()


def test_models_survive_the_step_that_brings_remote_engines_and_an_engine_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m007_engines", 5)
    store = Store(path)
    assert store.rows("pragma foreign_key_check") == []
    before = store.get(Model, 1)
    assert (before.name, before.engine_id, before.job_id) == ("m", None, 7)
    kept = store.add(
        RemoteEngine(name="box", base_url="https://a.b/v1", key_reference="env:A_API_KEY", context_tokens=9)
    )
    assert store.get(RemoteEngine, kept.id or 0) == kept
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.add(RemoteEngine(name="box", base_url="https://c.d/v1", context_tokens=9))
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        store.add(RemoteEngine(name="leak", base_url="https://a.b/v1", key_reference="sk-123", context_tokens=9))
    for change in ("base_url = 'https://evil.org'", "key_reference = ''", "context_tokens = 1", "name = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="an engine is not changed"):
            store.db.conn.execute(f"update engines set removed_at = 1, {change} where id = ?", [kept.id])
    with pytest.raises(sqlite3.IntegrityError, match="removed by its date"):
        store.db.conn.execute("delete from engines")
    store.db.conn.execute("update engines set removed_at = 5 where id = ?", [kept.id])
    with pytest.raises(sqlite3.IntegrityError, match="an engine is not changed"):
        store.db.conn.execute("update engines set removed_at = null where id = ?", [kept.id])
    store.add(RemoteEngine(name="box", base_url="https://c.d/v1", context_tokens=9))
    store.add(Model(name="box/m", kind="external", base="m", source="box", engine_id=kept.id))
    store.close()


def test_what_came_back_before_the_queue_offered_it_at_once_is_offered_and_what_was_judged_is_tallied(
    tmp_path: Path,
) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m006_queue", 5)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into people(id, pseudonym, name, role, created_at) values (1, 'a', 'a', 'annotator', 1), (2, 'e', 'e', 'annotator', 1);
        insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);
        insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, queue_key, created_at)
          values (1, 1, 1, 'pair', 2, 1, 1, 3, 1), (2, 1, 1, 'pair', 2, 1, 1, 5, 1);
        insert into assignments(id, comparison_id, person_id, project_id, state, shown, leased_at, expires_at)
          values (1, 1, 1, 1, 'leased', '[0,1]', 1, 2), (2, 2, 1, 1, 'leased', '[0,1]', 1, 2);
        update assignments set state = 'skipped' where id = 1;
        insert into judgements(id, key, assignment_id, revision, comparison_id, person_id, act, shown, ranks, seconds, created_at)
          values (1, zeroblob(16), 2, 0, 2, 1, 'submit', '[0,1]', '[1,2]', 1, 86400000001);
        update assignments set state = 'submitted', head_judgement_id = 1, submitted_at = 86400000001 where id = 2;
        insert into drafts(assignment_id, body, saved_at) values (1, '{}', 1);
        insert into queue_cursors(person_id, project_id, arm, epoch, queue_key, comparison_id) values (2, 1, 'random', 0, 9, 9);
        """
    )
    conn.close()
    store = Store(path)
    assert store.rows("select person_id, day, judged from tallies") == [{"person_id": 1, "day": 1, "judged": 1}]
    found = queue._first_open(store, 2, store.get(Project, 1), 0.0)
    assert found is not None and found.id == 1
    assert store.value("select person_id from drafts") == 1
    store.close()


def test_judgements_from_before_label_forms_keep_their_hash_and_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m008_label_forms", 7)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into people(id, pseudonym, name, role, created_at) values (1, 'a', 'a', 'annotator', 1);
        insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);
        insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, created_at)
          values (1, 1, 1, 'pair', 2, 1, 1, 1);
        insert into assignments(id, comparison_id, person_id, project_id, state, shown, leased_at, expires_at)
          values (1, 1, 1, 1, 'leased', '[0,1]', 1, 2);
        insert into judgements(id, key, assignment_id, revision, comparison_id, person_id, act, shown, ranks, seconds, created_at,
          row_hash) values (1, zeroblob(16), 1, 0, 1, 1, 'submit', '[0,1]', '[1,2]', 1.0, 5,
          x'c991360067d57b3c8db94d3a8cca90d0');
        """
    )
    conn.close()
    store = Store(path)
    kept = store.get(Judgement, 1)
    assert (kept.both_good, kept.confidence, kept.aspects) == (False, None, None)
    for change in ("both_good = 1", "confidence = 2"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.db.conn.execute(f"update judgements set {change} where id = 1")
    assert judgements.row_hash(kept) == kept.row_hash != judgements.row_hash(replace(kept, both_good=True))
    store.close()


def test_cases_from_before_turns_came_from_no_judgement_and_where_one_came_from_stays(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m009_turns", 8)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(
        "insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1)"
    )
    conn.close()
    store = Store(path)
    assert store.get(Case, 1).judgement_id is None
    with pytest.raises(sqlite3.IntegrityError, match="never changes"):
        store.db.conn.execute("update cases set judgement_id = 1 where id = 1")
    store.close()


def test_comparisons_and_their_judgements_survive_the_step_that_sets_some_aside(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m010_reviews", 9)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);
        insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, created_at) values (1, 1, 1, 'pair', 2, 1, 1, 1);
        """
    )
    conn.close()
    store = Store(path)
    found = store.get(Comparison, 1)
    assert (found.status, found.void_reason, found.slots_left) == ("open", None, 1)
    with pytest.raises(sqlite3.IntegrityError, match="retired"):
        store.db.conn.execute("update comparisons set void_reason = 'cut off' where id = 1")
    store.db.conn.execute("update comparisons set void_reason = 'cut off', status = 'retired' where id = 1")
    with pytest.raises(sqlite3.IntegrityError):
        store.db.conn.execute("update comparisons set void_reason = '' where id = 1")
    assert store.rows("pragma foreign_key_check") == []


def test_runs_are_counted_and_comparisons_say_what_they_speak_for_after_the_step_of_own_checks(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m014_checks_of_cases", 13)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);
        insert into templates(id, project_id, name, version, mode, body, variables, few_shot, digest, created_at)
          values (1, 1, 'a', 1, 'plain', 'x', '[]', '{}', <01>, 1), (2, 1, 'b', 1, 'plain', 'y', '[]', '{}', <02>, 1);
        insert into samplings(id, digest, settings) values (1, zeroblob(32), '{}');
        insert into prompts(id, project_id, template_id, case_id, messages, digest, created_at) values
          (1, 1, 1, 1, '[]', <01>, 1), (2, 1, 2, 1, '[]', <02>, 1), (3, 1, 1, 1, '[]', <03>, 1), (4, 1, 2, 1, '[]', <01>, 1);
        insert into completions(id, prompt_id, model_id, sampling_id, seed, text, finish_reason, created_at) values
          (1, 1, 1, 1, 0, 'a', 'stop', 1), (2, 1, 1, 1, 1, 'b', 'stop', 1), (3, 2, 1, 1, 0, 'c', 'stop', 1), (4, 3, 1, 1, 0, 'd', 'stop', 1),
          (5, 4, 1, 1, 0, 'e', 'stop', 1);
        insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, created_at) values
          (1, 1, 1, 'pair', 2, 1, 1, 1), (2, 1, 1, 'pair', 2, 1, 1, 1), (3, 1, 1, 'pair', 2, 1, 1, 1), (4, 1, 1, 'pair', 2, 1, 1, 1),
          (5, 1, 1, 'demonstration', 0, 1, 1, 1);
        insert into comparison_items values (1, 0, 1), (1, 1, 2), (2, 0, 1), (2, 1, 3), (3, 0, 1), (3, 1, 4), (4, 0, 1), (4, 1, 5);
        insert into suites(id, project_id, name, version, case_ids, checks, digest, created_at) values (1, 1, 's', 1, '[1]', '[]', zeroblob(32), 1);
        insert into runs(id, project_id, suite_id, arms, repeats, seed, state, total, created_at) values (1, 1, 1, '[{}]', 3, 0, 'running', 3, 1);
        insert into cells(run_id, arm, case_id, repeat, completion_id, score, passed, results, problem) values
          (1, 0, 1, 0, 1, 1, 1, '[]', ''), (1, 0, 1, 1, null, 0, 0, '[]', 'gone');
        """.replace("<", "x'" + 31 * "00").replace(">", "'")
    )
    conn.close()
    store = Store(path)
    bases = [store.get(Comparison, number).basis for number in range(1, 6)]
    assert bases == ["prompt", "template", "demonstrations", "prompt", "prompt"]
    assert (store.get(Suite, 1).own, store.get(SuiteRun, 1).done, store.get(SuiteRun, 1).failed) == ({}, 2, 1)
    suites.keep_cell(
        store, Cell(run_id=1, arm=0, case_id=1, repeat=2, completion_id=2, score=1, passed=True, results=())
    )
    assert store.rows("select repeat, seq from cells order by repeat") == [
        {"repeat": n, "seq": n + 1} for n in range(3)
    ]
    suites.forget_failed(store, 1)
    run = store.get(SuiteRun, 1)
    assert (run.done, run.failed, run.tries) == (2, 0, 1)
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_a_file_from_before_measurements_takes_them_and_keeps_each_part_once(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m015_measurements", 14)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(
        "insert into templates(id, project_id, name, version, body, variables, few_shot, mode, digest, created_at)"
        " values (1, 1, 't', 1, 'b', '[]', '{}', 'plain', zeroblob(32), 1)"
    )
    conn.close()
    store = Store(path)
    given = {"project_id": 1, "template_id": 1, "model_id": 1, "settings": {"asks": []}, "total": 2}
    one = store.add(Measurement(kind="order", model_digest=bytes(32), **given))
    part = MeasuredPart(measurement_id=one.id or 0, name="search:0", logps=([-1.0, -2.0],), straddling=("good",))
    measurements.keep_part(store, part)
    measurements.keep_part(store, replace(part, logps=([-9.0, -9.0],)))
    kept = measurements.parts(store, one.id or 0)["search:0"]
    assert kept == replace(part, created_at=kept.created_at) and kept.created_at
    measurements.finish(store, one.id or 0)
    assert measurements.set_state(store, one.id or 0, "running").state == "done"
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        store.add(Measurement(kind="taste", model_digest=None, **given))  # type: ignore[arg-type]
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_templates_from_before_rows_stay_as_they_were_and_rows_never_change(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m017_rows", 16)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(
        "insert into templates(id, project_id, name, version, system_text, body, variables, few_shot, mode, digest, created_at)"
        " values (1, 1, 't', 1, 's', 'b', '[]', '{}', 'plain', zeroblob(32), 1)"
    )
    conn.close()
    store = Store(path)
    old = store.get(Template, 1)
    assert (old.system_text, old.body, old.rows) == ("s", "b", ())
    rows = ({"role": "system", "text": "你好"}, {"role": "demonstrations"}, {"role": "user", "text": "{{input}}"})
    made = store.add(replace(old, id=None, version=2, system_text="", body="", rows=rows))
    assert store.get(Template, made.id or 0).rows == rows
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        store.db.conn.execute("update templates set rows = '[]'")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        store.add(replace(old, id=None, version=3, rows=rows))
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_a_file_from_before_embeddings_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m018_features", 17)
    store = Store(path)
    key = features.key_of(bytes(32), "text")
    features.keep(store, {key: b"1234"})
    assert features.known(store, [key]) == {key: b"1234"}
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        features.keep(store, {b"short": b"1234"})
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_a_file_from_before_flags_were_reviewed_has_nothing_cleared(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m019_cleared", 18)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        "insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);"
        "insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, created_at)"
        " values (1, 1, 1, 'pair', 2, 1, 1, 1);"
    )
    conn.close()
    store = Store(path)
    assert (
        store.get(Comparison, 1).cleared_at is None and store.value("pragma user_version") == migrations.SCHEMA_VERSION
    )
    reviews.clear(store, 1)
    assert store.get(Comparison, 1).cleared_at
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_measurements_and_their_parts_survive_the_step_that_asks_for_confidence(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m020_confidence", 19)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        "insert into templates(id, project_id, name, version, body, variables, few_shot, mode, digest, created_at)"
        " values (1, 1, 't', 1, 'b', '[]', '{}', 'plain', zeroblob(32), 1);"
        "insert into measurements(id, project_id, template_id, model_id, kind, settings, state, total, problem, created_at, finished_at)"
        " values (5, 1, 1, 1, 'order', '{\"a\":1}', 'done', 3, 'p', 7, 9);"
        "insert into measured_parts(measurement_id, name, logps, created_at) values (5, 'search:0', '[[-1.0]]', 8);"
    )
    conn.close()
    store = Store(path)
    old = store.get(Measurement, 5)
    assert (old.kind, old.settings, old.state, old.total, old.problem) == ("order", {"a": 1}, "done", 3, "p")
    assert (old.created_at, old.finished_at) == (7, 9) and list(measurements.parts(store, 5)) == ["search:0"]
    made = store.add(replace(old, id=None, kind="confidence", state="running"))
    assert [one.id for one in measurements.running(store)] == [made.id]
    indexes = store.rows("select name from sqlite_master where type = 'index' and tbl_name = 'measurements'")
    assert {row["name"] for row in indexes} == {"measurements_template", "measurements_running"}
    assert store.rows("pragma foreign_key_check") == []
    store.close()


def test_a_file_from_before_reports_takes_them_and_only_their_note_can_go(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    file_before(path, "m021_reports", 20)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript(
        """
        insert into people(id, pseudonym, role, created_at) values (1, 'ann', 'annotator', 1);
        insert into cases(id, project_id, conversation, split, digest, created_at) values (1, 1, '[]', 'train', zeroblob(32), 1);
        insert into comparisons(id, project_id, case_id, kind, size, overlap, slots_left, created_at) values (1, 1, 1, 'pair', 2, 1, 1, 1);
        """
    )
    conn.close()
    store = Store(path)
    given = Report(key=bytes(16), project_id=1, comparison_id=1, person_id=1, category="other", note="typed")
    made = store.add(given)
    for change in ("category = 'broken'", "note = 'else'", "key = x'00'", "created_at = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.db.conn.execute(f"update reports set {change}")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.db.conn.execute("delete from reports")
    for wrong in ({"category": "rude"}, {"note": ""}, {"note": "x" * 2001}):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            store.add(replace(given, key=b"1" * 16, **wrong))
    reviews.close_reports(store, 1)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.db.conn.execute("update reports set closed_at = null")
    store.db.conn.execute("update reports set note = null")
    kept = store.get(Report, made.id or 0)
    assert kept.note is None and kept.closed_at and kept.category == "other"
    assert store.rows("pragma foreign_key_check") == []
    store.close()
