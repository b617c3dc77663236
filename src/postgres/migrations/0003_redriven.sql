-- When `once redrive` last put a rejected record on the way again. The row is gone as soon as the record has become a
-- row of records or a repeat, in the same transaction; rejected once more, it is an ordinary rejected record again.
ALTER TABLE rejected_records ADD COLUMN redriven_at timestamptz;

-- Of nearly no rows, nearly always: a batch finds out at once that none of its records is awaited.
CREATE INDEX rejected_records_redriven ON rejected_records (id) WHERE redriven_at IS NOT NULL;
