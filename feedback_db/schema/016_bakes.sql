-- A bake: a long prompt's answers are learnt under a short one, and both are tested on cases that neither saw.
CREATE TABLE bakes (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  suite_id INTEGER NOT NULL REFERENCES suites(id),                        -- whose test cases and checks decide
  long_id INTEGER NOT NULL REFERENCES templates(id), short_id INTEGER NOT NULL REFERENCES templates(id),
  model_id INTEGER NOT NULL REFERENCES models(id),                        -- who answers, and what training starts from
  settings TEXT NOT NULL CHECK (json_valid(settings)),                    -- {"passed", "seed", "sampling", "sft"}
  state TEXT NOT NULL CHECK (state IN ('asking','training','testing','done','failed','stopped')), why TEXT NOT NULL DEFAULT '',
  run_id INTEGER NOT NULL REFERENCES runs(id), job_id INTEGER REFERENCES jobs(id), test_run_id INTEGER REFERENCES runs(id),
  facts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),             -- {"probe": {"value", "low", "high", "n"}}
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, finished_at INTEGER,
  CHECK (short_id <> long_id)
) STRICT;
CREATE INDEX bakes_open ON bakes(project_id) WHERE finished_at IS NULL;
