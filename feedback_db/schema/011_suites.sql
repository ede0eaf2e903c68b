-- Suites: cases with checks, versioned; and runs of a suite: every case answered in every column, as often as wanted.
CREATE TABLE suites (                                                   -- immutable: a version is a row
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL, version INTEGER NOT NULL,
  case_ids TEXT NOT NULL CHECK (json_valid(case_ids)), checks TEXT NOT NULL CHECK (json_valid(checks)),
  threshold REAL, digest BLOB NOT NULL CHECK (length(digest)=32),
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, UNIQUE (project_id, name, version)
) STRICT;
CREATE TRIGGER suites_no_update BEFORE UPDATE ON suites BEGIN SELECT RAISE(ABORT,'a version of a suite never changes'); END;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), suite_id INTEGER NOT NULL REFERENCES suites(id),
  arms TEXT NOT NULL CHECK (json_valid(arms)),                          -- [{"template", "model", "sampling"}] by id, one per column
  repeats INTEGER NOT NULL CHECK (repeats BETWEEN 1 AND 100), seed INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running','stopped','done')), total INTEGER NOT NULL, problem TEXT NOT NULL DEFAULT '',
  follows INTEGER NOT NULL DEFAULT 0 CHECK (follows IN (0,1)),          -- run again, with it, for every policy that is trained
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, finished_at INTEGER
) STRICT;
CREATE INDEX runs_suite ON runs(suite_id);
CREATE INDEX runs_running ON runs(id) WHERE state = 'running';
CREATE TABLE cells (                                                    -- one answer of a run; what is here is never generated again
  run_id INTEGER NOT NULL REFERENCES runs(id), arm INTEGER NOT NULL, case_id INTEGER NOT NULL REFERENCES cases(id),
  repeat INTEGER NOT NULL, completion_id INTEGER REFERENCES completions(id),
  score REAL NOT NULL, passed INTEGER NOT NULL CHECK (passed IN (0,1)),
  results TEXT NOT NULL CHECK (json_valid(results)),                    -- [[score, passed, reason]] in the order of the checks
  problem TEXT NOT NULL DEFAULT '',                                     -- why there is no completion
  PRIMARY KEY (run_id, case_id, arm, repeat),
  CHECK ((completion_id IS NULL) = (problem <> ''))
) STRICT, WITHOUT ROWID;
CREATE INDEX cells_completion ON cells(completion_id) WHERE completion_id IS NOT NULL;
