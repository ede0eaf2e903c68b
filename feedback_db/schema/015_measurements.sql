-- What was measured of a few-shot template with a model: orders and numbers of demonstrations, calibration of label words.
CREATE TABLE measurements (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), template_id INTEGER NOT NULL REFERENCES templates(id),
  model_id INTEGER NOT NULL REFERENCES models(id), model_digest BLOB CHECK (length(model_digest)=32),
  kind TEXT NOT NULL CHECK (kind IN ('order','count','calibration')),
  settings TEXT NOT NULL CHECK (json_valid(settings)),                  -- cases, demonstrations and seeds: all that is asked follows from it
  state TEXT NOT NULL CHECK (state IN ('running','stopped','done')), total INTEGER NOT NULL, problem TEXT NOT NULL DEFAULT '',
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, finished_at INTEGER
) STRICT;
CREATE INDEX measurements_template ON measurements(template_id);
CREATE INDEX measurements_running ON measurements(id) WHERE state = 'running';
CREATE TABLE measured_parts (                                           -- what is here is never asked again
  measurement_id INTEGER NOT NULL REFERENCES measurements(id), name TEXT NOT NULL,
  logps TEXT NOT NULL CHECK (json_valid(logps)),                        -- [[nats per token of each label] of each text]
  straddling TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(straddling)), -- labels whose first letters join what stands before them
  created_at INTEGER NOT NULL, PRIMARY KEY (measurement_id, name)
) STRICT, WITHOUT ROWID;
