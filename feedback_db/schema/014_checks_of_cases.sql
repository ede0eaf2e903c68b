-- Checks that are one case's own, models that score and judge, runs that are counted as they go, and what a comparison is a vote for.
ALTER TABLE suites ADD COLUMN own TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(own));   -- case id -> {"checks", "threshold"}
ALTER TABLE runs ADD COLUMN graders TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(graders)); -- who scores and judges -> model id
ALTER TABLE runs ADD COLUMN sends TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(sends)); -- what goes to labelling when it is done
ALTER TABLE runs ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN done INTEGER NOT NULL DEFAULT 0;             -- cells there are
ALTER TABLE runs ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;           -- of these, without an answer
ALTER TABLE runs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;            -- cells taken away to be tried again
ALTER TABLE cells ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;             -- in the order in which they came, so that a look reads new ones only
UPDATE cells SET seq = n.place FROM (
  SELECT run_id, case_id, arm, repeat, row_number() OVER (PARTITION BY run_id ORDER BY repeat, case_id, arm) AS place FROM cells
) n WHERE n.run_id = cells.run_id AND n.case_id = cells.case_id AND n.arm = cells.arm AND n.repeat = cells.repeat;
UPDATE runs SET done = (SELECT count(*) FROM cells WHERE run_id = runs.id), failed = (SELECT count(*) FROM cells WHERE run_id = runs.id AND problem <> '');
CREATE INDEX cells_seq ON cells(run_id, seq);
CREATE TRIGGER cells_counted AFTER INSERT ON cells BEGIN
  UPDATE runs SET done = done + 1, failed = failed + (NEW.problem <> '') WHERE id = NEW.run_id; END;
CREATE TRIGGER cells_forgotten AFTER DELETE ON cells BEGIN
  UPDATE runs SET done = done - 1, failed = failed - (OLD.problem <> ''), tries = tries + 1 WHERE id = OLD.run_id; END;
CREATE TABLE verdicts (                                                  -- what a model said of an answer: equal bytes are asked once
  digest BLOB PRIMARY KEY CHECK (length(digest)=32),                     -- of the bytes, the model and its settings
  model_id INTEGER NOT NULL REFERENCES models(id), score REAL NOT NULL, passed INTEGER CHECK (passed IN (0,1)),
  reason TEXT NOT NULL DEFAULT '', created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE comparisons ADD COLUMN basis TEXT NOT NULL DEFAULT 'prompt'  -- what the answers' prompts differ in at most
  CHECK (basis IN ('prompt','demonstrations','template'));
UPDATE comparisons SET basis = (
  SELECT CASE WHEN count(DISTINCT p.digest) < 2 THEN 'prompt' WHEN count(DISTINCT coalesce(p.template_id, 0)) > 1 THEN 'template'
    ELSE 'demonstrations' END
  FROM comparison_items i JOIN completions t ON t.id = i.completion_id JOIN prompts p ON p.id = t.prompt_id WHERE i.comparison_id = comparisons.id);
