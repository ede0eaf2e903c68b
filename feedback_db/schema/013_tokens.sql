-- Tokens with which programs ask the prompt endpoint; only their hash is here.
CREATE TABLE tokens (
  id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL CHECK (length(name) > 0),
  token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash)=32), hint TEXT NOT NULL,   -- its last letters, to tell tokens apart
  keeps INTEGER NOT NULL DEFAULT 0 CHECK (keeps IN (0,1)),                -- whether its answers are stored, so that they can be judged
  person_id INTEGER NOT NULL REFERENCES people(id), created_at INTEGER NOT NULL, last_used_at INTEGER, revoked_at INTEGER
) STRICT;
CREATE INDEX tokens_project ON tokens(project_id);
