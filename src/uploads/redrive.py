"""Finds and marks the rejected records to try again. The command line sends them.

There are two kinds, told apart by the row's id:

- a *message* that the consumer rejected. The row has its exact bytes, and its id is their digest: it is put on the
  stream as it was.
- a *line* of a file that uploads/chunks rejected. It never was a message; its chunk job is sent again, which reads
  the file once more. Lines that were stored before are duplicates then.

A row is marked before anything is sent, and removed in the transaction that stores the record (``consumer.sink``). So
the account is exact at every moment, and the next ``once redrive`` finishes what was interrupted. A rejected message
whose id is in ``records`` by now is not sent, nor is a conflict: it would only conflict again.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pg8000.exceptions import DatabaseError

from common.errors import TransientError
from postgres.database import Database, describe
from uploads.chunk_job import job_id
from uploads.jobs import job_of

if TYPE_CHECKING:
    from uploads.ledger import Ledger, UploadEntry

PAGE_BYTES = 3_000_000
"""Of messages in one answer. Lambda's answers have 6 MB at most, and base64 makes four bytes of three."""
PAGE_ROWS = 1_000
REASONS = 10

_MESSAGE = "id = encode(sha256(raw), 'hex')"
_OF = "(:upload ::text IS NULL OR upload_id = :upload)"
_FREE = (
    "kind = 'rejected' AND NOT EXISTS ("
    'SELECT FROM records WHERE records.id = rejected_records.record_id COLLATE "C")'
)
_JOB = "upload_id || ':' || lpad(upload_chunk::text, 6, '0')"

# Names in these statements are the constants above; values are always bound.
_COUNT = f"""
SELECT count(*) FILTER (WHERE {_MESSAGE} AND {_FREE}), count(*) FILTER (WHERE NOT {_MESSAGE}),
       count(DISTINCT (upload_id, upload_chunk)) FILTER (WHERE NOT {_MESSAGE})
FROM rejected_records WHERE {_OF}
"""  # noqa: S608 - constants
_REASONS = f"""
SELECT reason, count(*) FROM rejected_records
WHERE {_OF} AND kind = 'rejected' GROUP BY reason ORDER BY 2 DESC, 1 LIMIT {REASONS}
"""  # noqa: S608 - constants
_SIZES = f"""
SELECT id, length(raw) FROM rejected_records
WHERE {_OF} AND {_MESSAGE} AND {_FREE} AND id > :after ORDER BY id LIMIT {PAGE_ROWS}
"""  # noqa: S608 - constants
_MARK_MESSAGES = """
UPDATE rejected_records SET redriven_at = clock_timestamp() WHERE id = ANY(:ids ::text[]) RETURNING id, raw
"""
_CHUNKS = f"""
SELECT DISTINCT {_JOB} AS job, upload_id, upload_chunk FROM rejected_records
WHERE {_OF} AND NOT {_MESSAGE} AND {_JOB} > :after ORDER BY 1 LIMIT {PAGE_ROWS}
"""  # noqa: S608 - constants
_MARK_CHUNK = f"""
UPDATE rejected_records SET redriven_at = clock_timestamp()
WHERE upload_id = :upload AND upload_chunk = :chunk AND NOT {_MESSAGE}
"""  # noqa: S608 - constants


class Redrive:
    """What there is to redrive. Every method raises TransientError when Postgres does not answer."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._database = database

    def count(self, upload: str | None) -> dict[str, Any]:
        """How much there is, and why it was rejected: ``{"messages", "lines", "chunks", "reasons"}``."""
        [[messages, lines, chunks]] = self._run([(_COUNT, {"upload": upload})])
        reasons = self._run([(_REASONS, {"upload": upload})])
        return {
            "messages": messages,
            "lines": lines,
            "chunks": chunks,
            "reasons": [list(row) for row in reasons],
        }

    def messages(self, upload: str | None, after: str) -> dict[str, Any]:
        """Mark the next messages behind ``after`` and return them.

        ``{"messages": [{"id", "data": base64}], "next": ID}``; ``next`` is null at the end.
        """
        sizes = self._run([(_SIZES, {"upload": upload, "after": after})])
        ids: list[str] = []
        taken = 0
        for each, size in sizes:
            if ids and taken + size > PAGE_BYTES:
                break
            ids.append(each)
            taken += size
        rows = self._run([(_MARK_MESSAGES, {"ids": ids})]) if ids else []
        return {
            "messages": [{"id": each, "data": base64.b64encode(raw).decode()} for each, raw in sorted(rows)],
            "next": ids[-1] if ids else None,
        }

    def chunks(self, upload: str | None, after: str) -> dict[str, Any]:
        """Mark the lines of the next chunks behind ``after`` and return the chunk jobs.

        ``{"jobs": [text of a message], "unknown": [job id], "next": ...}``: unknown is what the ledger does not
        know (any more), which stays as it is.
        """
        rows = self._run([(_CHUNKS, {"upload": upload, "after": after})])
        entries: dict[str, UploadEntry | None] = {}
        found, unknown, marks = [], [], []
        for _, named, chunk in rows:
            if named not in entries:
                entries[named] = self._ledger.entry(named)
            entry = entries[named]
            count = next((each for each in entry.counts if each.chunk == chunk), None) if entry else None
            if entry is None or count is None:
                unknown.append(job_id(named, chunk))
                continue
            found.append(job_of(entry.upload, chunk, count.start, count.end).to_json())
            marks.append((_MARK_CHUNK, {"upload": named, "chunk": chunk}))
        self._run(marks)
        return {"jobs": found, "unknown": unknown, "next": rows[-1][0] if rows else None}

    def _run(self, statements: list[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
        """Run them in one transaction; returns what the last one does."""
        rows: list[list[Any]] = []
        if not statements:
            return rows
        try:
            with self._database.transaction() as connection:
                for statement, bound in statements:
                    rows = connection.run(statement, **bound) or []
        except DatabaseError as error:
            raise TransientError(f"Postgres does not answer this: {describe(error)}") from None
        return rows
