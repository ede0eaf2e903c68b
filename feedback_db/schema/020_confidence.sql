-- A model may be asked how sure it is of cases that nobody has answered.
-- SQLite cannot change a CHECK, so the table is made again. Parts that point at a measurement are checked at the commit.
PRAGMA defer_foreign_keys=ON;
CREATE TEMP TABLE measurements_before AS SELECT * FROM measurements;
DROP TABLE measurements;
CREATE TABLE measurements (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), template_id INTEGER NOT NULL REFERENCES templates(id),
  model_id INTEGER NOT NULL REFERENCES models(id), model_digest BLOB CHECK (length(model_digest)=32),
  kind TEXT NOT NULL CHECK (kind IN ('order','count','calibration','confidence')),
  settings TEXT NOT NULL CHECK (json_valid(settings)),                  -- cases, demonstrations and seeds: all that is asked follows from it
  state TEXT NOT NULL CHECK (state IN ('running','stopped','done')), total INTEGER NOT NULL, problem TEXT NOT NULL DEFAULT '',
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, finished_at INTEGER
) STRICT;
INSERT INTO measurements (id, project_id, template_id, model_id, model_digest, kind, settings, state, total, problem, person_id, created_at,
    finished_at)
  SELECT id, project_id, template_id, model_id, model_digest, kind, settings, state, total, problem, person_id, created_at, finished_at
    FROM measurements_before;
DROP TABLE measurements_before;
CREATE INDEX measurements_template ON measurements(template_id);
CREATE INDEX measurements_running ON measurements(id) WHERE state = 'running';
