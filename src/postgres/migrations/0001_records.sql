-- One row per record, for ever. The primary key is the last line of defence: whatever happens to the claims in
-- DynamoDB, a record that is inserted twice is one row.
CREATE TABLE records (
    id              text PRIMARY KEY,
    partition_key   text NOT NULL,
    payload         jsonb NOT NULL,
    upload_id       text,
    upload_chunk    integer,
    upload_line     integer,
    shard_id        text NOT NULL,
    sequence_number text NOT NULL,
    arrived_at      timestamptz NOT NULL,
    loaded_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX records_by_upload ON records (upload_id, upload_chunk, upload_line) WHERE upload_id IS NOT NULL;

-- One row per bad record. `id` is derived from the bytes (or, for a line of a file, from its place there), so the
-- same bad record rejected again is the same row.
CREATE TABLE rejected_records (
    id              text PRIMARY KEY,
    reason          text NOT NULL,
    raw             bytea NOT NULL,
    record_id       text,
    upload_id       text,
    upload_chunk    integer,
    upload_line     integer,
    shard_id        text NOT NULL,
    sequence_number text NOT NULL,
    arrived_at      timestamptz NOT NULL,
    rejected_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX rejected_records_by_upload ON rejected_records (upload_id, upload_chunk, upload_line)
    WHERE upload_id IS NOT NULL;
