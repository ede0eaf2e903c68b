-- Chat templates: a free list of rows instead of a system text and one body.
ALTER TABLE templates ADD COLUMN "rows" TEXT NOT NULL DEFAULT '[]'      -- [{"role","text"},...]; [] is a text template
  CHECK (json_valid("rows") AND ("rows" = '[]' OR (system_text = '' AND body = '')));
CREATE TRIGGER templates_no_update_of_rows BEFORE UPDATE OF "rows" ON templates
BEGIN SELECT RAISE(ABORT,'template versions are immutable'); END;
