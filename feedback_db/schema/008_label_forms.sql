-- What a label form may ask beyond ranks: both answers good, and how sure somebody is. The rest has its columns already.
ALTER TABLE judgements ADD COLUMN both_good INTEGER NOT NULL DEFAULT 0 CHECK (both_good IN (0,1));
ALTER TABLE judgements ADD COLUMN confidence INTEGER CHECK (confidence BETWEEN 1 AND 3);
CREATE TRIGGER judgements_no_update_of_the_form BEFORE UPDATE OF both_good, confidence ON judgements
WHEN NEW.both_good <> OLD.both_good OR NEW.confidence IS NOT OLD.confidence
BEGIN SELECT RAISE(ABORT,'judgements are append-only'); END;
CREATE TRIGGER judgements_one_verdict BEFORE INSERT ON judgements WHEN NEW.both_good = 1 AND NEW.both_bad = 1
BEGIN SELECT RAISE(ABORT,'answers cannot be both good and both bad'); END;
CREATE INDEX demonstrations_judgement ON demonstrations(judgement_id) WHERE judgement_id IS NOT NULL;
