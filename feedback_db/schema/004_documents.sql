-- Plain texts to learn from, and snapshots of them.
-- SQLite cannot change a CHECK, so snapshots are made again. Rows that point at one are checked at the commit.
PRAGMA defer_foreign_keys=ON;
CREATE TABLE documents (                                                -- a plain text; a correction is a new row
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  text TEXT NOT NULL, source TEXT NOT NULL,                             -- the file it came from
  split TEXT NOT NULL CHECK (split IN ('train','val','test')),          -- a function of digest, never reassigned
  digest BLOB NOT NULL CHECK (length(digest)=32), created_at INTEGER NOT NULL,
  UNIQUE (project_id, digest)
) STRICT;
CREATE TRIGGER documents_no_update BEFORE UPDATE ON documents BEGIN SELECT RAISE(ABORT,'documents are not changed'); END;
CREATE TEMP TABLE snapshots_before AS SELECT * FROM snapshots;
DROP TABLE snapshots;
CREATE TABLE snapshots (                                                -- immutable once frozen
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL, version INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('preference','sft','prompts','unpaired','texts')),
  state TEXT NOT NULL CHECK (state IN ('building','frozen','withdrawn')), filters TEXT NOT NULL CHECK (json_valid(filters)),
  as_of_judgement_id INTEGER NOT NULL,                                  -- ids after it were not looked at
  n INTEGER, statistics TEXT CHECK (statistics IS NULL OR json_valid(statistics)),
  digest BLOB CHECK (digest IS NULL OR length(digest)=32), file TEXT, file_bytes INTEGER, withdrawn_reason TEXT,
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, UNIQUE (project_id, name, version),
  CHECK (state = 'building' OR (digest IS NOT NULL AND n IS NOT NULL))
) STRICT;
INSERT INTO snapshots (id, project_id, name, version, kind, state, filters, as_of_judgement_id, n, statistics, digest, file,
    file_bytes, withdrawn_reason, person_id, created_at)
  SELECT id, project_id, name, version, kind, state, filters, as_of_judgement_id, n, statistics, digest, file,
    file_bytes, withdrawn_reason, person_id, created_at FROM snapshots_before;
DROP TABLE snapshots_before;
CREATE INDEX snapshots_digest ON snapshots(digest);
CREATE TRIGGER snapshots_frozen BEFORE UPDATE ON snapshots WHEN OLD.state<>'building'
  AND NOT (OLD.state='frozen' AND NEW.state='withdrawn' AND NEW.digest IS OLD.digest AND NEW.n IS OLD.n
    AND NEW.filters IS OLD.filters AND NEW.as_of_judgement_id IS OLD.as_of_judgement_id)
BEGIN SELECT RAISE(ABORT,'snapshot is frozen'); END;
