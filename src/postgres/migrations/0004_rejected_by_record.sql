-- A batch finds out at once whether a record of its was rejected before, by another version of the code.
CREATE INDEX rejected_records_by_record ON rejected_records (record_id) WHERE record_id IS NOT NULL;
