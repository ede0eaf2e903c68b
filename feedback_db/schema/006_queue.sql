-- The queue without waiting: what comes back is offered at once, new work moves the cursors that had passed its place, and what
-- a person has done is kept as a number, not counted again for every desk.
ALTER TABLE projects ADD COLUMN returns INTEGER NOT NULL DEFAULT 0;     -- how often a comparison came back to its queue
ALTER TABLE comparisons ADD COLUMN returned INTEGER;                   -- the number of its last return
ALTER TABLE assignments ADD COLUMN is_ahead INTEGER NOT NULL DEFAULT 0 CHECK (is_ahead IN (0,1));  -- leased before it is needed
CREATE INDEX comparisons_returned ON comparisons(project_id, returned, id)
  WHERE status='open' AND slots_left>0 AND gold IS NULL AND returned IS NOT NULL;
CREATE INDEX queue_cursors_place ON queue_cursors(project_id, arm, queue_key, comparison_id);
DELETE FROM queue_cursors;                                             -- they may have passed what came back before this step
CREATE TRIGGER assignments_returned AFTER UPDATE OF state, purpose ON assignments
WHEN OLD.purpose='label' AND OLD.state IN ('leased','submitted') AND NOT (NEW.purpose='label' AND NEW.state IN ('leased','submitted')) BEGIN
  UPDATE projects SET returns = returns + 1 WHERE id=NEW.project_id;
  UPDATE comparisons SET returned = (SELECT returns FROM projects WHERE id=NEW.project_id) WHERE id=NEW.comparison_id; END;
CREATE TRIGGER comparisons_returned AFTER UPDATE OF status, overlap ON comparisons
WHEN NEW.gold IS NULL AND (NEW.overlap > OLD.overlap OR (NEW.status='open' AND OLD.status<>'open')) BEGIN
  UPDATE projects SET returns = returns + 1 WHERE id=NEW.project_id;
  UPDATE comparisons SET returned = (SELECT returns FROM projects WHERE id=NEW.project_id) WHERE id=NEW.id; END;
CREATE TRIGGER comparisons_new AFTER INSERT ON comparisons BEGIN
  UPDATE queue_cursors SET queue_key = NEW.queue_key, comparison_id = NEW.id - 1
  WHERE project_id=NEW.project_id AND arm = CASE WHEN NEW.gold IS NULL THEN NEW.arm ELSE 'gold' END
    AND (queue_key, comparison_id) >= (NEW.queue_key, NEW.id); END;
CREATE TRIGGER comparisons_moved AFTER UPDATE OF queue_key, arm, gold ON comparisons
WHEN NEW.queue_key <> OLD.queue_key OR NEW.arm <> OLD.arm OR (NEW.gold IS NULL) <> (OLD.gold IS NULL) BEGIN
  UPDATE queue_cursors SET queue_key = NEW.queue_key, comparison_id = NEW.id - 1
  WHERE project_id=NEW.project_id AND arm = CASE WHEN NEW.gold IS NULL THEN NEW.arm ELSE 'gold' END
    AND (queue_key, comparison_id) >= (NEW.queue_key, NEW.id); END;

CREATE TABLE tallies (                                                 -- judgements of a person that count now, by day of submission
  person_id INTEGER NOT NULL REFERENCES people(id), project_id INTEGER NOT NULL REFERENCES projects(id),
  day INTEGER NOT NULL,                                                -- since 1970, UTC
  judged INTEGER NOT NULL DEFAULT 0 CHECK (judged >= 0), PRIMARY KEY (person_id, project_id, day)
) STRICT, WITHOUT ROWID;
INSERT INTO tallies (person_id, project_id, day, judged)
  SELECT person_id, project_id, submitted_at / 86400000000, count(*) FROM assignments WHERE state='submitted' GROUP BY 1, 2, 3;
CREATE TRIGGER assignments_tally_new AFTER INSERT ON assignments WHEN NEW.state='submitted' BEGIN
  INSERT OR IGNORE INTO tallies (person_id, project_id, day) VALUES (NEW.person_id, NEW.project_id, NEW.submitted_at / 86400000000);
  UPDATE tallies SET judged = judged + 1
  WHERE person_id=NEW.person_id AND project_id=NEW.project_id AND day = NEW.submitted_at / 86400000000; END;
CREATE TRIGGER assignments_tally_more AFTER UPDATE OF state ON assignments WHEN NEW.state='submitted' AND OLD.state<>'submitted' BEGIN
  INSERT OR IGNORE INTO tallies (person_id, project_id, day) VALUES (NEW.person_id, NEW.project_id, NEW.submitted_at / 86400000000);
  UPDATE tallies SET judged = judged + 1
  WHERE person_id=NEW.person_id AND project_id=NEW.project_id AND day = NEW.submitted_at / 86400000000; END;
CREATE TRIGGER assignments_tally_less AFTER UPDATE OF state ON assignments WHEN OLD.state='submitted' AND NEW.state<>'submitted' BEGIN
  UPDATE tallies SET judged = judged - 1
  WHERE person_id=OLD.person_id AND project_id=OLD.project_id AND day = OLD.submitted_at / 86400000000; END;
ALTER TABLE drafts ADD COLUMN person_id INTEGER REFERENCES people(id);
UPDATE drafts SET person_id = (SELECT person_id FROM assignments WHERE id=drafts.assignment_id);
CREATE INDEX drafts_person ON drafts(person_id, saved_at);
