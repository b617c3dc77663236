-- outside a transaction
-- Where the tables had rows, and so their ids the server's collation: unique indexes that compare byte by byte, made
-- while everybody goes on writing. ON CONFLICT takes them beside the primary keys. A run that was killed half-way left an
-- invalid index behind, which is of no use: it is made anew.
SELECT format('DROP INDEX CONCURRENTLY %s', indexrelid::regclass)
FROM pg_index
WHERE NOT indisvalid
  AND indexrelid IN (to_regclass('records_id_bytes'), to_regclass('rejected_records_id_bytes'),
                     to_regclass('repeated_records_line_bytes'));

SELECT format('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I (%s)', name, on_table, columns)
FROM (VALUES ('records_id_bytes', 'records', 'id', 'id COLLATE "C"'),
             ('rejected_records_id_bytes', 'rejected_records', 'id', 'id COLLATE "C"'),
             ('repeated_records_line_bytes', 'repeated_records', 'upload_id',
              'upload_id COLLATE "C", upload_chunk, upload_line')) AS wanted (name, on_table, key, columns)
JOIN pg_attribute AS a ON a.attrelid = on_table::regclass AND a.attname = key
WHERE a.attcollation <> 'pg_catalog."C"'::regcollation;

ALTER TABLE rejected_records VALIDATE CONSTRAINT rejected_records_kind;
