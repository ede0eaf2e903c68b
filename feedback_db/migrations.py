"""Schema changes, in order. Append; never edit one that has shipped."""

from pathlib import Path

from sqlite_utils import Database, Migrations

SCHEMA_VERSION = 1  # = number of steps below; written to user_version, so that older code refuses a newer file

migrations = Migrations("whetstone")


@migrations()
def m001_first_tables(db: Database) -> None:
    db.executescript((Path(__file__).parent / "schema" / "001_first_tables.sql").read_text(encoding="utf-8"))
