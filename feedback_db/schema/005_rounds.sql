-- Training in rounds: a reward job, then a policy job that follows it, again and again. A row is a round; the table is the log.
CREATE TABLE rounds (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  series TEXT NOT NULL,                                                 -- the click that started it; its rounds share it
  number INTEGER NOT NULL CHECK (number >= 1), wanted INTEGER NOT NULL CHECK (wanted >= number),
  kind TEXT NOT NULL CHECK (kind IN ('cooperative','adversarial')),
  settings TEXT NOT NULL CHECK (json_valid(settings)), seed INTEGER NOT NULL DEFAULT 0,
  reward_job_id INTEGER NOT NULL UNIQUE REFERENCES jobs(id), policy_job_id INTEGER UNIQUE REFERENCES jobs(id),
  state TEXT NOT NULL CHECK (state IN ('training_reward','training_policy','waiting_for_people','done','ended','stopped','failed')),
  reason TEXT NOT NULL DEFAULT '',                                      -- why the series went no further, as a code
  facts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),           -- accuracy, separation, gain, KL, each with n and interval
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, finished_at INTEGER,
  UNIQUE (series, number),
  CHECK (state = 'training_reward' OR policy_job_id IS NOT NULL OR finished_at IS NOT NULL),
  CHECK ((finished_at IS NULL) = (state IN ('training_reward','training_policy','waiting_for_people')))
) STRICT;
CREATE UNIQUE INDEX rounds_open ON rounds(project_id) WHERE finished_at IS NULL;   -- one series at a time
-- The policy whose answers a reward job sets against good ones, or whose newest answers its report looks at.
ALTER TABLE jobs ADD COLUMN policy_model_id INTEGER REFERENCES models(id);
