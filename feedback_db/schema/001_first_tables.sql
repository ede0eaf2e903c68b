-- The first tables. All *_at are INTEGER unix microseconds UTC, *_seconds REAL. JSON is TEXT with a json_valid check.
-- Digests are SHA-256 as 32-byte BLOB. What must hold whatever code writes is a constraint or a trigger here.

------------------------------------------------------------------ people
CREATE TABLE people (
  id            INTEGER PRIMARY KEY,
  pseudonym     TEXT NOT NULL UNIQUE,                                  -- opaque, exported instead of the name
  name          TEXT UNIQUE COLLATE NOCASE,                            -- what is typed at sign-in; NULL after erasure
  display_name  TEXT,
  email         TEXT,
  password_hash TEXT,                                                  -- '$argon2id$v=19$m=...' or '$scrypt$n=...'; NULL = no password
  role          TEXT NOT NULL CHECK (role IN ('annotator','engineer','admin')),
  status        TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active','disabled','erased')),
  language      TEXT NOT NULL DEFAULT 'en',
  session_epoch INTEGER NOT NULL DEFAULT 0,                            -- +1 signs out every session
  consent_at    INTEGER, consent_version TEXT,
  source        TEXT,                                                  -- the file an imported person is named after; cannot sign in
  created_at    INTEGER NOT NULL,
  erased_at     INTEGER,
  CHECK (source IS NULL OR password_hash IS NULL),
  CHECK (status <> 'erased' OR (name IS NULL AND email IS NULL AND display_name IS NULL AND password_hash IS NULL))
) STRICT;

CREATE TABLE sessions (
  token_hash   BLOB PRIMARY KEY CHECK (length(token_hash)=32),         -- sha256 of the cookie
  person_id    INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
  epoch        INTEGER NOT NULL,                                       -- = people.session_epoch, or the session has ended
  created_at   INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,                                       -- written at most once a minute
  idle_until   INTEGER NOT NULL, ends_at INTEGER NOT NULL, ip TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_person ON sessions(person_id);
CREATE INDEX sessions_end    ON sessions(ends_at);

CREATE TABLE invites (                                                  -- a one-time link with which a person sets a password
  token_hash BLOB PRIMARY KEY CHECK (length(token_hash)=32), person_id INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
  invited_by INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, ends_at INTEGER NOT NULL, used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX invites_person ON invites(person_id);

CREATE TABLE sign_in_attempts (                                         -- back-off that survives a restart; swept after a day
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, ip TEXT NOT NULL, at INTEGER NOT NULL,
  succeeded INTEGER NOT NULL CHECK (succeeded IN (0,1))
) STRICT;
CREATE INDEX sign_in_attempts_account ON sign_in_attempts(account, at);
CREATE INDEX sign_in_attempts_ip      ON sign_in_attempts(ip, at);

------------------------------------------------------------------ projects
CREATE TABLE projects (
  id            INTEGER PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  label_form    TEXT NOT NULL CHECK (json_valid(label_form)),           -- what is asked: aspects, strength steps, required fields
  settings      TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(settings)), -- repeat_share, random_share, reveal ...
  overlap       INTEGER NOT NULL DEFAULT 1 CHECK (overlap BETWEEN 1 AND 50),
  gold_every    INTEGER NOT NULL DEFAULT 0 CHECK (gold_every >= 0),
  lease_seconds INTEGER NOT NULL DEFAULT 300 CHECK (lease_seconds > 0),
  queue_epoch   INTEGER NOT NULL DEFAULT 0,                             -- +1 sends every queue cursor back to the top
  archived_at   INTEGER, created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE guidelines (                                               -- a version is a row
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), version INTEGER NOT NULL,
  body TEXT NOT NULL, person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, UNIQUE (project_id, version)
) STRICT;

------------------------------------------------------------------ prompt building
CREATE TABLE templates (                                                -- immutable: a version is a row; only retired_at may change
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  name TEXT NOT NULL, version INTEGER NOT NULL, parent_id INTEGER REFERENCES templates(id),
  mode TEXT NOT NULL DEFAULT 'plain' CHECK (mode IN ('plain','logic')),
  system_text TEXT NOT NULL DEFAULT '', body TEXT NOT NULL,
  variables TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(variables)),
  few_shot TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(few_shot)),     -- {k, choose, ids, seed, order, shape, lambda}: changes bytes
  labels TEXT CHECK (labels IS NULL OR json_valid(labels)),             -- closed set of answers, when there is one
  scenario TEXT, language TEXT, note TEXT NOT NULL DEFAULT '',
  digest BLOB NOT NULL CHECK (length(digest)=32),
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, retired_at INTEGER,
  UNIQUE (project_id, name, version)
) STRICT;
CREATE TABLE demonstrations (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  input TEXT NOT NULL, output TEXT NOT NULL, label TEXT, tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)), language TEXT,
  source TEXT NOT NULL CHECK (source IN ('written','imported','winner')),
  judgement_id INTEGER REFERENCES judgements(id), completion_id INTEGER REFERENCES completions(id),   -- where a winner came from
  digest BLOB NOT NULL CHECK (length(digest)=32), person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL,
  UNIQUE (project_id, digest),
  CHECK (source <> 'winner' OR completion_id IS NOT NULL)
) STRICT;
CREATE TABLE cases (                                                    -- what is asked; a prompt's scaffolding is not part of it
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  "values" TEXT CHECK ("values" IS NULL OR json_valid("values")),        -- {variable: text} for a template
  conversation TEXT CHECK (conversation IS NULL OR json_valid(conversation)), -- [{"role","content"},...]
  expected TEXT, scenario TEXT, tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
  split TEXT NOT NULL CHECK (split IN ('train','val','test')),          -- a function of digest, never reassigned
  digest BLOB NOT NULL CHECK (length(digest)=32),                       -- of values, conversation and expected
  source TEXT NOT NULL DEFAULT 'written', person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL,
  UNIQUE (project_id, digest),
  CHECK ("values" IS NOT NULL OR conversation IS NOT NULL)
) STRICT;
CREATE TABLE prompts (                                                  -- template x case x demonstrations: the bytes a model saw; immutable
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  template_id INTEGER REFERENCES templates(id),                         -- NULL: a branch chat or an import, the case alone
  case_id INTEGER NOT NULL REFERENCES cases(id),
  messages TEXT NOT NULL CHECK (json_valid(messages)),                  -- [{"role","content"},...] as sent
  dropped_ids TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(dropped_ids)), -- demonstrations the token budget left out
  tokens INTEGER, digest BLOB NOT NULL CHECK (length(digest)=32),        -- of messages: equal digest = same rendered prompt
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX prompts_once ON prompts(case_id, coalesce(template_id,0), digest);   -- plain UNIQUE lets two NULL templates differ
CREATE INDEX prompts_digest   ON prompts(digest);
CREATE INDEX prompts_template ON prompts(template_id);
CREATE TABLE prompt_demonstrations (prompt_id INTEGER NOT NULL REFERENCES prompts(id), position INTEGER NOT NULL,
  demonstration_id INTEGER NOT NULL REFERENCES demonstrations(id), PRIMARY KEY (prompt_id, position)) STRICT, WITHOUT ROWID;
CREATE INDEX prompt_demonstrations_used ON prompt_demonstrations(demonstration_id);

------------------------------------------------------------------ models and completions
CREATE TABLE models (
  id INTEGER PRIMARY KEY, project_id INTEGER REFERENCES projects(id),   -- NULL = serves every project (the base alone, an API)
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK (kind IN ('policy','reward','external')),    -- the base alone is a policy without adapter
  base TEXT NOT NULL, base_fingerprint BLOB,                            -- the frozen weights under an adapter
  adapter TEXT,                                                         -- folder under models/, named by digest
  parent_id INTEGER REFERENCES models(id),                              -- what training started from
  job_id INTEGER REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED,
  source TEXT NOT NULL, revision TEXT,                                  -- hub id, imported file, or the name of a configured endpoint
  digest BLOB CHECK (digest IS NULL OR length(digest)=32),              -- sha256 of MANIFEST.json
  tokenizer_digest BLOB, chat_template_digest BLOB,
  stage TEXT NOT NULL DEFAULT 'candidate' CHECK (stage IN ('candidate','live','retired')),
  card TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(card)), created_at INTEGER NOT NULL,
  CHECK ((adapter IS NULL) OR (digest IS NOT NULL AND kind <> 'external'))
) STRICT;
CREATE INDEX models_parent ON models(parent_id);
CREATE UNIQUE INDEX models_live ON models(coalesce(project_id,0), kind) WHERE stage='live' AND kind IN ('policy','reward');
CREATE TABLE promotions (                                               -- append-only
  id INTEGER PRIMARY KEY, model_id INTEGER NOT NULL REFERENCES models(id), from_stage TEXT NOT NULL, to_stage TEXT NOT NULL,
  evaluation_id INTEGER REFERENCES evaluations(id), reason TEXT NOT NULL, person_id INTEGER REFERENCES people(id), at INTEGER NOT NULL
) STRICT;

CREATE TABLE samplings (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, settings TEXT NOT NULL CHECK (json_valid(settings))) STRICT;
CREATE TABLE completions (                                              -- immutable, reproducible from its row
  id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompts(id), model_id INTEGER NOT NULL REFERENCES models(id),
  sampling_id INTEGER NOT NULL REFERENCES samplings(id),
  seed INTEGER NOT NULL, repeat INTEGER NOT NULL DEFAULT 0,
  text TEXT NOT NULL, finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop','length','cancelled','error','imported','written')),
  prompt_tokens INTEGER, tokens INTEGER, seconds REAL, first_token_seconds REAL, mean_logp REAL,
  created_at INTEGER NOT NULL,
  UNIQUE (prompt_id, model_id, sampling_id, seed, repeat)
) STRICT;
CREATE INDEX completions_model ON completions(model_id);

------------------------------------------------------------------ comparisons, leases, judgements
CREATE TABLE comparisons (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), case_id INTEGER NOT NULL REFERENCES cases(id),
  kind TEXT NOT NULL CHECK (kind IN ('pair','rank','rate','demonstration')),
  size INTEGER NOT NULL,                                                -- completions in it
  status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open','done','paused','retired')),
  overlap INTEGER NOT NULL CHECK (overlap BETWEEN 1 AND 50),
  slots_left INTEGER NOT NULL CHECK (slots_left >= 0),                  -- starts at overlap; from then on the triggers keep it
  judged INTEGER NOT NULL DEFAULT 0 CHECK (judged >= 0),
  gold TEXT CHECK (gold IS NULL OR json_valid(gold)),                   -- the order of the pairs it names; gold has no slots
  arm TEXT NOT NULL DEFAULT 'random' CHECK (arm IN ('random','priority')), -- fixed at creation; statistics use the random arm
  queue_key INTEGER NOT NULL DEFAULT 0,                                 -- lower is sooner: -round(1e6*priority); random arm: random
  reason TEXT NOT NULL DEFAULT '', score REAL, scored_by INTEGER REFERENCES models(id),   -- why it has that priority
  leaked TEXT CHECK (leaked IS NULL OR json_valid(leaked)),             -- spans masked because a text names its maker
  batch TEXT, created_at INTEGER NOT NULL, done_at INTEGER,
  -- 2..16 as a rule; rating one answer and writing one need fewer
  CHECK (size BETWEEN 2 AND 16 OR (kind = 'rate' AND size = 1) OR (kind = 'demonstration' AND size IN (0,1))),
  CHECK (kind <> 'pair' OR size = 2)
) STRICT;
CREATE INDEX comparisons_queue ON comparisons(project_id, arm, queue_key, id) WHERE status='open' AND slots_left>0 AND gold IS NULL;
CREATE INDEX comparisons_gold  ON comparisons(project_id, queue_key, id)      WHERE status='open' AND gold IS NOT NULL;
CREATE INDEX comparisons_case  ON comparisons(case_id);
CREATE TABLE comparison_items (comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
  position INTEGER NOT NULL CHECK (position BETWEEN 0 AND 15),
  completion_id INTEGER NOT NULL REFERENCES completions(id), PRIMARY KEY (comparison_id, position),
  UNIQUE (comparison_id, completion_id)) STRICT, WITHOUT ROWID;
CREATE INDEX comparison_items_completion ON comparison_items(completion_id);

CREATE TABLE assignments (
  id INTEGER PRIMARY KEY, comparison_id INTEGER NOT NULL REFERENCES comparisons(id), person_id INTEGER NOT NULL REFERENCES people(id),
  project_id INTEGER NOT NULL REFERENCES projects(id),
  purpose TEXT NOT NULL DEFAULT 'label' CHECK (purpose IN ('label','gold','repeat','calibration','review','surplus')),
  state TEXT NOT NULL CHECK (state IN ('leased','submitted','skipped','expired','released')),
  shown TEXT NOT NULL CHECK (json_valid(shown)),                        -- item positions left to right, fixed at lease time
  leased_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, submitted_at INTEGER, revealed_at INTEGER,
  head_judgement_id INTEGER REFERENCES judgements(id) DEFERRABLE INITIALLY DEFERRED,
  UNIQUE (comparison_id, person_id, purpose),                           -- nobody judges a comparison twice for the same purpose
  CHECK (state <> 'submitted' OR (head_judgement_id IS NOT NULL AND submitted_at IS NOT NULL))
) STRICT;
CREATE INDEX assignments_lease ON assignments(expires_at) WHERE state='leased';
CREATE INDEX assignments_mine  ON assignments(person_id, project_id) WHERE state='leased';
CREATE INDEX assignments_done  ON assignments(person_id, submitted_at) WHERE state='submitted';

CREATE TABLE drafts (assignment_id INTEGER PRIMARY KEY REFERENCES assignments(id) ON DELETE CASCADE,
  body TEXT NOT NULL CHECK (json_valid(body)), saved_at INTEGER NOT NULL) STRICT;   -- deleted in the submit's transaction, and at erasure

CREATE TABLE queue_cursors (person_id INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
  project_id INTEGER NOT NULL REFERENCES projects(id),
  arm TEXT NOT NULL, epoch INTEGER NOT NULL, queue_key INTEGER NOT NULL, comparison_id INTEGER NOT NULL,
  PRIMARY KEY (person_id, project_id, arm)) STRICT, WITHOUT ROWID;

CREATE TABLE judgements (                                               -- append-only; the head of each assignment's chain counts
  id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE CHECK (length(key)=16),   -- client-made UUIDv7: retrying a submit is harmless
  assignment_id INTEGER NOT NULL REFERENCES assignments(id), revision INTEGER NOT NULL CHECK (revision >= 0),
  supersedes INTEGER REFERENCES judgements(id),
  comparison_id INTEGER NOT NULL, person_id INTEGER NOT NULL,            -- copied from the assignment, so that reports need no join
  act TEXT NOT NULL CHECK (act IN ('submit','correct','retract')),
  shown TEXT NOT NULL CHECK (json_valid(shown)),
  ranks TEXT CHECK (ranks IS NULL OR json_valid(ranks)),                -- ranks[i] is the rank of shown[i], 1 = best, equal = tie
  both_bad INTEGER NOT NULL DEFAULT 0 CHECK (both_bad IN (0,1)),        -- beside the ranks, not instead of them
  strength INTEGER CHECK (strength BETWEEN 0 AND 3),
  aspects TEXT CHECK (aspects IS NULL OR json_valid(aspects)),          -- {"truthful":{"0":4,"1":2}}
  flags TEXT CHECK (flags IS NULL OR json_valid(flags)),                -- ["unsafe:1","personal:0","bad_prompt"]
  spans TEXT CHECK (spans IS NULL OR json_valid(spans)),                -- code points and the quoted text
  rationale TEXT, edited_position INTEGER, edited_text TEXT,
  seconds REAL NOT NULL CHECK (seconds >= 0), active_seconds REAL, guideline_id INTEGER REFERENCES guidelines(id),
  partial INTEGER NOT NULL DEFAULT 0 CHECK (partial IN (0,1)),          -- a stream was stopped: about what was shown
  after_reveal INTEGER NOT NULL DEFAULT 0 CHECK (after_reveal IN (0,1)), -- kept and shown, never trained on
  client TEXT, redacted_at INTEGER, created_at INTEGER NOT NULL,
  row_hash BLOB CHECK (row_hash IS NULL OR length(row_hash)=16),        -- sha256[:16] of all but rationale, edited_text, client, redacted_at
  verdict TEXT GENERATED ALWAYS AS (CASE                                -- of a pair, in canonical positions: a = position 0
    WHEN ranks IS NULL OR json_array_length(ranks) <> 2 THEN NULL
    WHEN both_bad = 1 THEN 'both_bad'
    WHEN json_extract(ranks,'$[0]') = json_extract(ranks,'$[1]') THEN 'tie'
    WHEN (json_extract(ranks,'$[0]') < json_extract(ranks,'$[1]')) = (json_extract(shown,'$[0]') = 0) THEN 'a' ELSE 'b' END) STORED,
  UNIQUE (assignment_id, revision),
  CHECK ((act = 'retract') = (ranks IS NULL)),
  CHECK ((act = 'submit') = (supersedes IS NULL)), CHECK ((revision = 0) = (supersedes IS NULL)),
  CHECK (ranks IS NULL OR json_array_length(ranks) = json_array_length(shown))
) STRICT;
CREATE INDEX judgements_time       ON judgements(created_at);
CREATE INDEX judgements_comparison ON judgements(comparison_id);

------------------------------------------------------------------ snapshots, jobs, metrics, evaluation
CREATE TABLE snapshots (                                                -- immutable once frozen
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL, version INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('preference','sft','prompts','unpaired')),
  state TEXT NOT NULL CHECK (state IN ('building','frozen','withdrawn')), filters TEXT NOT NULL CHECK (json_valid(filters)),
  as_of_judgement_id INTEGER NOT NULL,                                  -- ids after it were not looked at
  n INTEGER, statistics TEXT CHECK (statistics IS NULL OR json_valid(statistics)),
  digest BLOB CHECK (digest IS NULL OR length(digest)=32), file TEXT, file_bytes INTEGER, withdrawn_reason TEXT,
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, UNIQUE (project_id, name, version),
  CHECK (state = 'building' OR (digest IS NOT NULL AND n IS NOT NULL))
) STRICT;
CREATE INDEX snapshots_digest ON snapshots(digest);
CREATE TABLE snapshot_judgements (snapshot_id INTEGER NOT NULL REFERENCES snapshots(id), position INTEGER NOT NULL,
  judgement_id INTEGER NOT NULL REFERENCES judgements(id), split TEXT NOT NULL CHECK (split IN ('train','val','test')),
  PRIMARY KEY (snapshot_id, position)) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_judgements_judgement ON snapshot_judgements(judgement_id);   -- from a judgement to every model it touched

CREATE TABLE jobs (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
  kind TEXT NOT NULL CHECK (kind IN ('pretrain','sft','reward','dpo','ppo','ift','generate','evaluate','score','export')),
  state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','running','cancelling','done','failed','cancelled','interrupted')),
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
CREATE INDEX jobs_queue ON jobs(priority, id) WHERE state IN ('queued','interrupted');
CREATE INDEX jobs_live  ON jobs(expires_at)   WHERE state IN ('running','cancelling');
CREATE TABLE job_events (id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL REFERENCES jobs(id), at INTEGER NOT NULL,
  kind TEXT NOT NULL, facts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(facts))) STRICT;
CREATE INDEX job_events_job ON job_events(job_id, id);
CREATE TABLE metric_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE metrics (job_id INTEGER NOT NULL REFERENCES jobs(id), name_id INTEGER NOT NULL REFERENCES metric_names(id),
  step INTEGER NOT NULL, attempt INTEGER NOT NULL, value REAL NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (job_id, name_id, step, attempt)) STRICT, WITHOUT ROWID;

CREATE TABLE evaluations (id INTEGER PRIMARY KEY, model_id INTEGER NOT NULL REFERENCES models(id), job_id INTEGER REFERENCES jobs(id),
  kind TEXT NOT NULL, snapshot_id INTEGER REFERENCES snapshots(id),
  settings TEXT NOT NULL CHECK (json_valid(settings)), result TEXT NOT NULL CHECK (json_valid(result)),
  n INTEGER NOT NULL CHECK (n >= 0), created_at INTEGER NOT NULL) STRICT;
CREATE INDEX evaluations_model ON evaluations(model_id);

------------------------------------------------------------------ audit (hash chain)
CREATE TABLE audit_events (
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, person_id INTEGER, role TEXT, ip TEXT,
  action TEXT NOT NULL, object TEXT NOT NULL, object_id INTEGER,
  facts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),           -- never a text somebody typed: erasure cannot reach this table
  before_hash BLOB, after_hash BLOB, previous_hash BLOB NOT NULL, hash BLOB NOT NULL UNIQUE   -- hash = sha256(previous_hash || row)
) STRICT;
CREATE INDEX audit_events_object ON audit_events(object, object_id);
CREATE INDEX audit_events_person ON audit_events(person_id, at);

------------------------------------------------------------------ triggers: what holds whatever code writes
CREATE TRIGGER judgements_no_update BEFORE UPDATE ON judgements
WHEN NOT (OLD.redacted_at IS NULL AND NEW.redacted_at IS NOT NULL      -- the one update allowed, once: redaction
  AND NEW.rationale IS NULL AND NEW.edited_text IS NULL AND NEW.client IS NULL
  AND (NEW.id,NEW.key,NEW.assignment_id,NEW.revision,NEW.comparison_id,NEW.person_id,NEW.act,NEW.created_at,
       NEW.shown,NEW.seconds,NEW.both_bad,NEW.partial,NEW.after_reveal)
    = (OLD.id,OLD.key,OLD.assignment_id,OLD.revision,OLD.comparison_id,OLD.person_id,OLD.act,OLD.created_at,
       OLD.shown,OLD.seconds,OLD.both_bad,OLD.partial,OLD.after_reveal)
  AND NEW.supersedes IS OLD.supersedes AND NEW.ranks IS OLD.ranks AND NEW.strength IS OLD.strength AND NEW.aspects IS OLD.aspects
  AND NEW.flags IS OLD.flags AND NEW.spans IS OLD.spans AND NEW.edited_position IS OLD.edited_position
  AND NEW.active_seconds IS OLD.active_seconds AND NEW.guideline_id IS OLD.guideline_id AND NEW.row_hash IS OLD.row_hash)
BEGIN SELECT RAISE(ABORT,'judgements are append-only'); END;
CREATE TRIGGER judgements_no_delete BEFORE DELETE ON judgements BEGIN SELECT RAISE(ABORT,'judgements are append-only'); END;
CREATE TRIGGER judgements_chain BEFORE INSERT ON judgements WHEN NEW.supersedes IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM judgements WHERE id=NEW.supersedes AND assignment_id=NEW.assignment_id AND revision=NEW.revision-1)
BEGIN SELECT RAISE(ABORT,'a judgement supersedes the one before it'); END;
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT,'audit events are append-only'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT,'audit events are append-only'); END;
CREATE TRIGGER promotions_no_update BEFORE UPDATE ON promotions BEGIN SELECT RAISE(ABORT,'promotions are append-only'); END;
CREATE TRIGGER promotions_no_delete BEFORE DELETE ON promotions BEGIN SELECT RAISE(ABORT,'promotions are append-only'); END;
CREATE TRIGGER templates_no_update BEFORE UPDATE OF id, project_id, name, version, parent_id, mode, system_text, body, variables,
  few_shot, labels, scenario, language, note, digest, person_id, created_at ON templates
BEGIN SELECT RAISE(ABORT,'template versions are immutable'); END;
CREATE TRIGGER templates_no_delete BEFORE DELETE ON templates BEGIN SELECT RAISE(ABORT,'template versions are immutable'); END;
CREATE TRIGGER cases_no_update BEFORE UPDATE OF id, project_id, "values", conversation, expected, split, digest ON cases
BEGIN SELECT RAISE(ABORT,'a case never changes, nor its split'); END;
CREATE TRIGGER prompts_no_update BEFORE UPDATE ON prompts BEGIN SELECT RAISE(ABORT,'prompts are immutable'); END;
CREATE TRIGGER completions_no_update BEFORE UPDATE ON completions BEGIN SELECT RAISE(ABORT,'completions are immutable'); END;
-- a comparison holds completions of its own case, or a pair across cases would reach training
CREATE TRIGGER comparison_items_case BEFORE INSERT ON comparison_items
WHEN (SELECT p.case_id FROM completions c JOIN prompts p ON p.id=c.prompt_id WHERE c.id=NEW.completion_id)
  IS NOT (SELECT case_id FROM comparisons WHERE id=NEW.comparison_id)
BEGIN SELECT RAISE(ABORT,'a comparison holds completions of one case'); END;
CREATE TRIGGER comparison_items_no_update BEFORE UPDATE ON comparison_items
BEGIN SELECT RAISE(ABORT,'the items of a comparison are fixed'); END;
CREATE TRIGGER comparison_items_no_delete BEFORE DELETE ON comparison_items
BEGIN SELECT RAISE(ABORT,'the items of a comparison are fixed'); END;
CREATE TRIGGER assignments_no_delete BEFORE DELETE ON assignments
BEGIN SELECT RAISE(ABORT,'assignments end, they are not deleted: counters follow them'); END;
CREATE TRIGGER snapshots_frozen BEFORE UPDATE ON snapshots WHEN OLD.state<>'building'
  AND NOT (OLD.state='frozen' AND NEW.state='withdrawn' AND NEW.digest IS OLD.digest AND NEW.n IS OLD.n
    AND NEW.filters IS OLD.filters AND NEW.as_of_judgement_id IS OLD.as_of_judgement_id)
BEGIN SELECT RAISE(ABORT,'snapshot is frozen'); END;
CREATE TRIGGER snapshot_judgements_frozen_insert BEFORE INSERT ON snapshot_judgements
WHEN (SELECT state FROM snapshots WHERE id=NEW.snapshot_id)<>'building'
BEGIN SELECT RAISE(ABORT,'snapshot is frozen'); END;
CREATE TRIGGER snapshot_judgements_frozen_update BEFORE UPDATE ON snapshot_judgements BEGIN SELECT RAISE(ABORT,'snapshot is frozen'); END;
CREATE TRIGGER snapshot_judgements_frozen_delete BEFORE DELETE ON snapshot_judgements
WHEN (SELECT state FROM snapshots WHERE id=OLD.snapshot_id)<>'building'
BEGIN SELECT RAISE(ABORT,'snapshot is frozen'); END;
-- a comparison's counters follow its assignments: purpose 'label' counts, leased and submitted both hold a slot,
-- CHECK (slots_left >= 0) refuses the rest
CREATE TRIGGER assignments_insert AFTER INSERT ON assignments WHEN NEW.purpose='label' AND NEW.state IN ('leased','submitted') BEGIN
  UPDATE comparisons SET slots_left = slots_left - (gold IS NULL), judged = judged + (NEW.state='submitted') WHERE id=NEW.comparison_id; END;
CREATE TRIGGER assignments_update AFTER UPDATE OF state, purpose ON assignments WHEN NEW.state<>OLD.state OR NEW.purpose<>OLD.purpose BEGIN
  UPDATE comparisons SET
    slots_left = slots_left + (gold IS NULL)*((OLD.purpose='label' AND OLD.state IN ('leased','submitted'))
                                            - (NEW.purpose='label' AND NEW.state IN ('leased','submitted'))),
    judged     = judged + (NEW.purpose='label' AND NEW.state='submitted') - (OLD.purpose='label' AND OLD.state='submitted')
  WHERE id=NEW.comparison_id; END;
CREATE TRIGGER comparisons_overlap AFTER UPDATE OF overlap ON comparisons WHEN NEW.overlap<>OLD.overlap BEGIN
  UPDATE comparisons SET slots_left = slots_left + NEW.overlap - OLD.overlap WHERE id=NEW.id; END;
CREATE TRIGGER comparisons_done AFTER UPDATE OF judged, overlap ON comparisons
WHEN NEW.gold IS NULL AND NEW.status IN ('open','done') AND (NEW.status='done') <> (NEW.judged >= NEW.overlap) BEGIN
  UPDATE comparisons SET
    status  = CASE WHEN NEW.judged >= NEW.overlap THEN 'done' ELSE 'open' END,
    done_at = CASE WHEN NEW.judged >= NEW.overlap THEN
      (SELECT max(submitted_at) FROM assignments WHERE comparison_id=NEW.id AND state='submitted') END
  WHERE id=NEW.id; END;
-- job states
CREATE TRIGGER jobs_state BEFORE UPDATE OF state ON jobs WHEN NEW.state<>OLD.state AND NOT (
     (OLD.state='queued'      AND NEW.state IN ('running','cancelled'))
  OR (OLD.state='running'     AND NEW.state IN ('done','failed','cancelling','interrupted'))
  OR (OLD.state='cancelling'  AND NEW.state IN ('cancelled','done','failed'))
  OR (OLD.state='interrupted' AND NEW.state IN ('running','failed','cancelled'))
  OR (OLD.state='failed'      AND NEW.state='queued'))
BEGIN SELECT RAISE(ABORT,'illegal job transition'); END;

------------------------------------------------------------------ views
CREATE VIEW current_judgements AS                                       -- what counts now: heads only, corrections applied, retractions gone
  SELECT a.purpose, a.project_id, j.* FROM assignments a JOIN judgements j ON j.id=a.head_judgement_id WHERE a.state='submitted';
