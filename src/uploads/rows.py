"""What Postgres has of an upload."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pg8000.exceptions import DatabaseError

from common.errors import PermanentError, TransientError
from postgres.database import Database, describe
from uploads.account import RowCounts

if TYPE_CHECKING:
    from datetime import datetime

RAW_BYTES = 1000
"""As much of a rejected record's bytes is shown."""

_TIMES = {"records": "loaded_at", "rejected_records": "rejected_at", "repeated_records": "repeated_at"}

# A line that was rejected twice is one line, and one that was stored or repeats an id is not rejected, whatever else
# somebody said of it: the rows of rejected_records are as many as the messages, and the account is about lines. A line
# that one message calls rejected and another one a conflict is rejected.
_COUNTS = """
SELECT 'inserted', upload_chunk, count(*) FROM records WHERE upload_id = :upload GROUP BY upload_chunk
UNION ALL
SELECT 'repeated', upload_chunk, count(*) FROM repeated_records WHERE upload_id = :upload GROUP BY upload_chunk
UNION ALL
SELECT CASE kind WHEN 'conflict' THEN 'conflicting' ELSE kind END, upload_chunk, count(*)
FROM (SELECT DISTINCT ON (upload_chunk, upload_line) kind, upload_id, upload_chunk, upload_line
      FROM rejected_records WHERE upload_id = :upload
      ORDER BY upload_chunk, upload_line, kind DESC) AS line
WHERE NOT EXISTS (
        SELECT FROM records AS known
        WHERE (known.upload_id, known.upload_chunk, known.upload_line)
            = (line.upload_id, line.upload_chunk, line.upload_line))
  AND NOT EXISTS (
        SELECT FROM repeated_records AS known
        WHERE (known.upload_id, known.upload_chunk, known.upload_line)
            = (line.upload_id, line.upload_chunk, line.upload_line))
GROUP BY kind, upload_chunk
"""
# Names in it are the constants above; values are always bound.
_LAST = "SELECT greatest({})".format(
    ", ".join(
        f"(SELECT max({time}) FROM {table} WHERE upload_id = :upload)"  # noqa: S608 - constants
        for table, time in _TIMES.items()
    )
)
_REJECTED = """
SELECT id, upload_id, upload_chunk, upload_line, record_id, kind, reason, substring(raw FOR :raw_bytes ::integer),
       length(raw), rejected_at
FROM rejected_records
"""
# A page begins behind the last row of the one before. Only orders in which an index can go on are paged.
_REJECTED_OF_UPLOAD = f"""{_REJECTED} WHERE upload_id = :upload
  AND (upload_chunk, upload_line, id) > (:chunk ::integer, :line ::integer, :id)
ORDER BY upload_chunk, upload_line, id LIMIT :limit"""
_REJECTED_BY_ID = f"{_REJECTED} WHERE id > :id ORDER BY id LIMIT :limit"
_REJECTED_LAST = f"{_REJECTED} ORDER BY rejected_at DESC, id LIMIT :limit"
_REASONS = """
SELECT reason, count(*) FROM rejected_records WHERE upload_id = :upload GROUP BY reason ORDER BY 2 DESC, 1 LIMIT :limit
"""

COUNTED_BYTES = 256 * 1024**2
"""A table up to this size is counted; of a larger one Postgres' own estimate is told, which costs nothing."""
_SIZES = """
SELECT relname, pg_relation_size(oid), greatest(reltuples, 0)::bigint FROM pg_class
WHERE oid IN ('records'::regclass, 'rejected_records'::regclass)
"""
_ROWS = "SELECT count(*) FROM records"
_REJECTIONS = """
SELECT count(*) FILTER (WHERE kind = 'rejected'), count(*) FILTER (WHERE kind = 'conflict') FROM rejected_records
"""
# Rows are only ever added, so the latest are in the last pages.
_LATEST = """
SELECT max(loaded_at) FROM records
WHERE ctid >= format('(%s,0)', greatest(pg_relation_size('records') / 8192 - 64, 0))::tid
"""


@dataclass(frozen=True, slots=True)
class StoredTotals:
    """How many records Postgres has, whatever brought them."""

    rows: int
    rejected: int
    """With those in conflict, where it is an estimate."""
    conflicting: int | None
    exact: bool
    """Whether they were counted, and not estimated."""
    last_row_at: datetime | None
    """When the latest row came."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One rejected record, or one in conflict."""

    id: str
    upload: str | None
    chunk: int | None
    line: int | None
    """The line in the chunk, from 1."""
    record_id: str | None
    kind: str
    """``rejected`` or ``conflict``."""
    reason: str
    raw: bytes
    """The first ``RAW_BYTES`` of it."""
    raw_bytes: int
    """Its true length."""
    rejected_at: datetime


class StoredRows:
    """Reads from Postgres. Every method raises TransientError when Postgres does not answer, or not in
    time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_chunk(self, upload: str) -> dict[int, RowCounts]:
        """How many rows there are of each chunk of an upload, all counted at one moment."""
        counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for name, chunk, count in self._run(_COUNTS, upload=upload):
            counts[chunk][name] = count
        return {chunk: RowCounts(**found) for chunk, found in counts.items()}

    def last(self, upload: str) -> datetime | None:
        """When the latest row of an upload came."""
        last: datetime | None = self._run(_LAST, upload=upload)[0][0]
        return last

    def rejected(self, upload: str | None, limit: int, after: str | None = None) -> list[RejectedRow]:
        """Rejected records.

        Parameters
        ----------
        upload
            Of which upload, in the order of the file; None: of all, and of none.
        after
            The place of the last row that is known (:func:`place`), ``""`` for none. Without an upload, None
            is for those rejected last, the newest first; with a place they come in the order of their ids.
        """
        bound: dict[str, Any] = {"raw_bytes": RAW_BYTES, "limit": limit}
        if upload is not None:
            chunk, line, row = _place(after or "")
            rows = self._run(_REJECTED_OF_UPLOAD, upload=upload, chunk=chunk, line=line, id=row, **bound)
        elif after is not None:
            rows = self._run(_REJECTED_BY_ID, id=_place(after)[2], **bound)
        else:
            rows = self._run(_REJECTED_LAST, **bound)
        return [RejectedRow(*row) for row in rows]

    def reasons(self, upload: str, limit: int) -> list[tuple[str, int]]:
        """Why records of an upload were rejected, each reason with its number, the most frequent first."""
        return [(reason, number) for reason, number in self._run(_REASONS, upload=upload, limit=limit)]

    def totals(self) -> StoredTotals:
        """How many rows there are. Of large tables it is an estimate."""
        sizes = {name: (size, about) for name, size, about in self._run(_SIZES)}
        exact = all(size <= COUNTED_BYTES for size, _ in sizes.values())
        if exact:
            rows, (rejected, conflicting) = self._run(_ROWS)[0][0], self._run(_REJECTIONS)[0]
        else:
            rows, rejected, conflicting = sizes["records"][1], sizes["rejected_records"][1], None
        return StoredTotals(rows, rejected, conflicting, exact, self._run(_LATEST)[0][0])

    def _run(self, statement: str, **bound: Any) -> list[list[Any]]:
        try:
            with self._database.transaction() as connection:
                return connection.run(statement, **bound) or []
        except DatabaseError as error:
            raise TransientError(f"Postgres does not answer this: {describe(error)}") from None


def place(row: RejectedRow) -> str:
    """Where a row is: what ``StoredRows.rejected`` goes on behind."""
    return f"{row.chunk if row.upload else ''}:{row.line if row.upload else ''}:{row.id}"


def _place(text: str) -> tuple[int, int, str]:
    """A place read back.

    Raises
    ------
    PermanentError
        The text is none.
    """
    if not text:
        return -1, -1, ""
    found = re.fullmatch(r"(\d*):(\d*):(.+)", text)
    if found is None:
        raise PermanentError(f"not a place to go on from: {text!r}")
    chunk, line, row = found.groups()
    return int(chunk or -1), int(line or -1), row
