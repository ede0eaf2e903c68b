"""Schema changes, in order. Append; never edit one that has shipped."""

from collections.abc import Iterator
from pathlib import Path

from sqlite_utils import Database, Migrations
from sqlite_utils.utils import sqlite3

SCHEMA_VERSION = 21  # = number of steps below; written to user_version, so that older code refuses a newer file

migrations = Migrations("whetstone")


@migrations()
def m001_first_tables(db: Database) -> None:
    db.executescript((Path(__file__).parent / "schema" / "001_first_tables.sql").read_text(encoding="utf-8"))


@migrations()
def m002_paused_jobs(db: Database) -> None:
    for statement in _statements("002_paused_jobs.sql"):
        db.conn.execute(statement)


@migrations()
def m003_kto_jobs(db: Database) -> None:
    for statement in _statements("003_kto_jobs.sql"):
        db.conn.execute(statement)


@migrations()
def m004_documents(db: Database) -> None:
    for statement in _statements("004_documents.sql"):
        db.conn.execute(statement)


@migrations()
def m005_rounds(db: Database) -> None:
    for statement in _statements("005_rounds.sql"):
        db.conn.execute(statement)


@migrations()
def m006_queue(db: Database) -> None:
    for statement in _statements("006_queue.sql"):
        db.conn.execute(statement)


@migrations()
def m007_engines(db: Database) -> None:
    for statement in _statements("007_engines.sql"):
        db.conn.execute(statement)


@migrations()
def m008_label_forms(db: Database) -> None:
    for statement in _statements("008_label_forms.sql"):
        db.conn.execute(statement)


@migrations()
def m009_turns(db: Database) -> None:
    for statement in _statements("009_turns.sql"):
        db.conn.execute(statement)


@migrations()
def m010_reviews(db: Database) -> None:
    for statement in _statements("010_reviews.sql"):
        db.conn.execute(statement)


@migrations()
def m011_suites(db: Database) -> None:
    for statement in _statements("011_suites.sql"):
        db.conn.execute(statement)


@migrations()
def m012_studio(db: Database) -> None:
    for statement in _statements("012_studio.sql"):
        db.conn.execute(statement)


@migrations()
def m013_tokens(db: Database) -> None:
    for statement in _statements("013_tokens.sql"):
        db.conn.execute(statement)


@migrations()
def m014_checks_of_cases(db: Database) -> None:
    for statement in _statements("014_checks_of_cases.sql"):
        db.conn.execute(statement)


@migrations()
def m015_measurements(db: Database) -> None:
    for statement in _statements("015_measurements.sql"):
        db.conn.execute(statement)


@migrations()
def m016_bakes(db: Database) -> None:
    for statement in _statements("016_bakes.sql"):
        db.conn.execute(statement)


@migrations()
def m017_rows(db: Database) -> None:
    for statement in _statements("017_rows.sql"):
        db.conn.execute(statement)


@migrations()
def m018_features(db: Database) -> None:
    for statement in _statements("018_features.sql"):
        db.conn.execute(statement)


@migrations()
def m019_cleared(db: Database) -> None:
    for statement in _statements("019_cleared.sql"):
        db.conn.execute(statement)


@migrations()
def m020_confidence(db: Database) -> None:
    for statement in _statements("020_confidence.sql"):
        db.conn.execute(statement)


@migrations()
def m021_reports(db: Database) -> None:
    for statement in _statements("021_reports.sql"):
        db.conn.execute(statement)


def _statements(name: str) -> Iterator[str]:
    """One by one: a script would commit what came before it, and half a step could stay after a crash."""
    statement = ""
    for line in (Path(__file__).parent / "schema" / name).read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
