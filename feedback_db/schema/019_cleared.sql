-- A reviewer has looked at what was flagged or reported until then, and left the comparison as it is.
ALTER TABLE comparisons ADD COLUMN cleared_at INTEGER;
CREATE INDEX judgements_flagged ON judgements(comparison_id) WHERE flags IS NOT NULL;
CREATE INDEX assignments_skipped ON assignments(project_id) WHERE state='skipped';
