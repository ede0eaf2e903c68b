-- A conversation goes on from a judgement: the case of the next turn names the one it came from, so that from a later answer every
-- judgement before it is reached. Append-only like all of a case.
ALTER TABLE cases ADD COLUMN judgement_id INTEGER REFERENCES judgements(id);
CREATE INDEX cases_judgement ON cases(judgement_id) WHERE judgement_id IS NOT NULL;
CREATE TRIGGER cases_no_update_of_origin BEFORE UPDATE OF judgement_id ON cases
BEGIN SELECT RAISE(ABORT,'a case never changes, nor where it came from'); END;
