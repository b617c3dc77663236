-- Lines of uploaded files whose data carries its own id, and whose id is that of a record which is there already:
-- another line, or another upload, brought it first. Such a line is no row in records and nothing is wrong with it,
-- so this is where an upload's account finds it. One row per line, however often the line is delivered.
CREATE TABLE repeated_records (
    upload_id       text NOT NULL,
    upload_chunk    integer NOT NULL,
    upload_line     integer NOT NULL,
    record_id       text NOT NULL,
    shard_id        text NOT NULL,
    sequence_number text NOT NULL,
    arrived_at      timestamptz NOT NULL,
    repeated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (upload_id, upload_chunk, upload_line)
);
