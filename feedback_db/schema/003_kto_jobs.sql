-- A job can learn from single answers that were called good or bad (KTO).
-- SQLite cannot change a CHECK, so the table is made again. Rows that point at a job are checked at the commit.
PRAGMA defer_foreign_keys=ON;
CREATE TEMP TABLE jobs_before AS SELECT * FROM jobs;
DROP TABLE jobs;
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  kind TEXT NOT NULL CHECK (kind IN ('pretrain','sft','reward','dpo','kto','ppo','ift','generate','evaluate','score','export')),
  state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','running','paused','cancelling','done','failed','cancelled','interrupted')),
  settings TEXT NOT NULL CHECK (json_valid(settings)), settings_digest BLOB NOT NULL, seed INTEGER NOT NULL DEFAULT 0,
  key TEXT UNIQUE,                                                      -- one click, one job
  snapshot_id INTEGER REFERENCES snapshots(id), base_model_id INTEGER REFERENCES models(id), start_model_id INTEGER REFERENCES models(id),
  reward_model_id INTEGER REFERENCES models(id), output_model_id INTEGER REFERENCES models(id),
  priority INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 3,
  worker TEXT,                                                          -- pid + process start time, never the pid alone
  heartbeat_at INTEGER, expires_at INTEGER, step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER,
  checkpoint TEXT, checkpoint_step INTEGER, error TEXT, person_id INTEGER REFERENCES people(id),
  created_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
  CHECK (state <> 'failed' OR error IS NOT NULL)
) STRICT;
INSERT INTO jobs (id, project_id, kind, state, settings, settings_digest, seed, key, snapshot_id, base_model_id, start_model_id,
    reward_model_id, output_model_id, priority, attempt, max_attempts, worker, heartbeat_at, expires_at, step, total_steps,
    checkpoint, checkpoint_step, error, person_id, created_at, started_at, finished_at)
  SELECT id, project_id, kind, state, settings, settings_digest, seed, key, snapshot_id, base_model_id, start_model_id,
    reward_model_id, output_model_id, priority, attempt, max_attempts, worker, heartbeat_at, expires_at, step, total_steps,
    checkpoint, checkpoint_step, error, person_id, created_at, started_at, finished_at FROM jobs_before;
DROP TABLE jobs_before;
CREATE INDEX jobs_queue ON jobs(priority, id) WHERE state IN ('queued','interrupted');
CREATE INDEX jobs_live  ON jobs(expires_at)   WHERE state IN ('running','cancelling');
CREATE TRIGGER jobs_state BEFORE UPDATE OF state ON jobs WHEN NEW.state<>OLD.state AND NOT (
     (OLD.state='queued'      AND NEW.state IN ('running','paused','cancelled'))
  OR (OLD.state='running'     AND NEW.state IN ('done','failed','cancelling','interrupted','paused'))
  OR (OLD.state='cancelling'  AND NEW.state IN ('cancelled','done','failed'))
  OR (OLD.state='interrupted' AND NEW.state IN ('running','paused','failed','cancelled'))
  OR (OLD.state='paused'      AND NEW.state IN ('queued','cancelled'))
  OR (OLD.state='failed'      AND NEW.state='queued'))
BEGIN SELECT RAISE(ABORT,'illegal job transition'); END;
