-- The studio: names that point at template versions, what people say about a version, demonstrations taken out of the bank.
CREATE TABLE aliases (                                                  -- "production" -> one version of a template; a move is audited
  project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL, alias TEXT NOT NULL,
  template_id INTEGER NOT NULL REFERENCES templates(id), PRIMARY KEY (project_id, name, alias)
) STRICT, WITHOUT ROWID;
CREATE TABLE comments (
  id INTEGER PRIMARY KEY, template_id INTEGER NOT NULL REFERENCES templates(id), text TEXT NOT NULL CHECK (length(text) > 0),
  person_id INTEGER REFERENCES people(id), created_at INTEGER NOT NULL, retired_at INTEGER
) STRICT;
CREATE INDEX comments_template ON comments(template_id);
ALTER TABLE demonstrations ADD COLUMN retired_at INTEGER;               -- out of the bank; versions that name it still show it
