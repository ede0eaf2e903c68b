-- A comparison that cannot be judged is set aside with a reason; what was said of it stays, and counts nowhere.
ALTER TABLE comparisons ADD COLUMN void_reason TEXT CHECK (void_reason IS NULL OR length(void_reason) > 0);
CREATE TRIGGER comparisons_void BEFORE UPDATE OF void_reason, status ON comparisons
WHEN NEW.void_reason IS NOT NULL AND NEW.status <> 'retired'
BEGIN SELECT RAISE(ABORT,'a void comparison is retired'); END;
CREATE INDEX assignments_review ON assignments(project_id, comparison_id) WHERE purpose='review';
CREATE INDEX comparisons_set_aside ON comparisons(project_id) WHERE void_reason IS NOT NULL;
