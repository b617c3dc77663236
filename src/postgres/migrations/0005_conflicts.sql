-- A message with a record's id and other content than its row has: kept here, counted as conflicting and not as
-- rejected, and never redriven. Validated by the next migration, which does not keep anybody waiting.
ALTER TABLE rejected_records ADD COLUMN kind text NOT NULL DEFAULT 'rejected';
ALTER TABLE rejected_records ADD CONSTRAINT rejected_records_kind CHECK (kind IN ('rejected', 'conflict')) NOT VALID;

-- Ids are compared byte by byte, whatever the server's collation: its order of text may change with the operating
-- system, and an index that is in the old order does not find what is there. In a table with rows this would rebuild the
-- indexes and keep everybody waiting, so those get indexes of their own by the next migration.
DO $$
DECLARE
    filled boolean;
    here record;
BEGIN
    FOR here IN
        SELECT * FROM (VALUES ('records', ARRAY['id', 'upload_id']),
                              ('rejected_records', ARRAY['id', 'record_id', 'upload_id']),
                              ('repeated_records', ARRAY['upload_id', 'record_id'])) AS t (name, columns)
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', here.name) INTO filled;
        IF NOT filled THEN
            BEGIN
                EXECUTE format('ALTER TABLE %I ', here.name) || (
                    SELECT string_agg(format('ALTER COLUMN %I TYPE text COLLATE "C"', name), ', ')
                    FROM unnest(here.columns) AS name);
            EXCEPTION WHEN feature_not_supported THEN
                NULL;  -- a view of yours uses the column
            END;
        END IF;
    END LOOP;
END $$;

-- Releases before this one kept a record that was stored, and that a stricter type refused when it was delivered again,
-- in both tables. What says the same as the row goes; a line of another place repeats the row; the rest is a conflict.
DO $$
DECLARE
    old record;
    same boolean;
BEGIN
    FOR old IN
        SELECT rejected.*, known.payload::text AS stored,
               (known.upload_id, known.upload_chunk, known.upload_line)
                   IS NOT DISTINCT FROM (rejected.upload_id, rejected.upload_chunk, rejected.upload_line) AS is_row
        FROM rejected_records AS rejected JOIN records AS known ON known.id = rejected.record_id
    LOOP
        BEGIN
            same := ((convert_from(old.raw, 'UTF8')::json -> 'payload')::jsonb)::text = old.stored;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            same := false;
        END;
        IF same THEN
            IF NOT old.is_row AND old.upload_id IS NOT NULL THEN
                INSERT INTO repeated_records (upload_id, upload_chunk, upload_line, record_id,
                                              shard_id, sequence_number, arrived_at)
                VALUES (old.upload_id, old.upload_chunk, old.upload_line, old.record_id,
                        old.shard_id, old.sequence_number, old.arrived_at)
                ON CONFLICT DO NOTHING;
            END IF;
            DELETE FROM rejected_records WHERE id = old.id;
        ELSE
            UPDATE rejected_records SET kind = 'conflict', redriven_at = NULL WHERE id = old.id;
        END IF;
    END LOOP;
END $$;
