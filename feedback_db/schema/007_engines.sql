-- Remote engines: servers of others that speak OpenAI's protocol, and the models an admin takes from them.
CREATE TABLE engines (                                                  -- never changed, only removed: answers name it for ever
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, base_url TEXT NOT NULL,
  key_reference TEXT NOT NULL DEFAULT '' CHECK (key_reference = '' OR key_reference GLOB 'env:?*' OR key_reference GLOB 'file:?*'),
  context_tokens INTEGER NOT NULL CHECK (context_tokens > 0),           -- what its models hold, as the admin says
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, removed_at INTEGER
) STRICT;
CREATE UNIQUE INDEX engines_name ON engines(name) WHERE removed_at IS NULL;
CREATE TRIGGER engines_fixed BEFORE UPDATE ON engines WHEN OLD.removed_at IS NOT NULL OR NEW.removed_at IS NULL
  OR NEW.name IS NOT OLD.name OR NEW.base_url IS NOT OLD.base_url OR NEW.key_reference IS NOT OLD.key_reference
  OR NEW.context_tokens IS NOT OLD.context_tokens
BEGIN SELECT RAISE(ABORT,'an engine is not changed; remove it and add another'); END;
CREATE TRIGGER engines_stay BEFORE DELETE ON engines BEGIN SELECT RAISE(ABORT,'an engine is removed by its date'); END;
-- Whose model an external one is; models that only stand for imported answers have none.
ALTER TABLE models ADD COLUMN engine_id INTEGER REFERENCES engines(id);
