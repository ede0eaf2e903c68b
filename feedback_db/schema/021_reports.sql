-- A report: something is wrong with a comparison, told to those who look after the project, whatever becomes of the judgement.
CREATE TABLE reports (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE CHECK (length(key)=16),  -- client-made: retrying a report is harmless
  project_id INTEGER NOT NULL REFERENCES projects(id), comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
  person_id INTEGER NOT NULL REFERENCES people(id),
  category TEXT NOT NULL CHECK (category IN ('unclear','broken','personal','harmful','guidelines','other')),
  note TEXT CHECK (length(note) BETWEEN 1 AND 2000),                      -- typed by hand: the one thing a redaction takes
  created_at INTEGER NOT NULL,
  closed_at INTEGER                                                       -- when a reviewer decided what it is about
) STRICT;
CREATE INDEX reports_comparison ON reports(comparison_id, id);
CREATE INDEX reports_open ON reports(project_id, id) WHERE closed_at IS NULL;
CREATE TRIGGER reports_no_update BEFORE UPDATE ON reports
WHEN NOT ((NEW.id,NEW.key,NEW.project_id,NEW.comparison_id,NEW.person_id,NEW.category,NEW.created_at)
    = (OLD.id,OLD.key,OLD.project_id,OLD.comparison_id,OLD.person_id,OLD.category,OLD.created_at)
  AND (NEW.note IS OLD.note OR NEW.note IS NULL) AND (NEW.closed_at IS OLD.closed_at OR OLD.closed_at IS NULL))
BEGIN SELECT RAISE(ABORT,'reports are append-only'); END;
CREATE TRIGGER reports_no_delete BEFORE DELETE ON reports BEGIN SELECT RAISE(ABORT,'reports are append-only'); END;
