"""What Postgres has of an upload."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pg8000.exceptions import DatabaseError

from common.database import Database, describe
from common.errors import TransientError
from uploads.account import Rows

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
SELECT upload_id, upload_chunk, upload_line, record_id, kind, reason, substring(raw FOR :raw_bytes ::integer),
       length(raw), rejected_at
FROM rejected_records
"""
_REJECTED_OF_UPLOAD = f"{_REJECTED} WHERE upload_id = :upload ORDER BY upload_chunk, upload_line LIMIT :limit"
_REJECTED_LAST = f"{_REJECTED} ORDER BY rejected_at DESC, id LIMIT :limit"


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One rejected record, or one in conflict."""

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

    def by_chunk(self, upload: str) -> dict[int, Rows]:
        """How many rows there are of each chunk of an upload, all counted at one moment."""
        counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for name, chunk, count in self._run(_COUNTS, upload=upload):
            counts[chunk][name] = count
        return {chunk: Rows(**found) for chunk, found in counts.items()}

    def last(self, upload: str) -> datetime | None:
        """When the latest row of an upload came."""
        last: datetime | None = self._run(_LAST, upload=upload)[0][0]
        return last

    def rejected(self, upload: str | None, limit: int) -> list[RejectedRow]:
        """The first rejected records of an upload by their place in it; or the last of all, whatever they
        are of."""
        bound = {"raw_bytes": RAW_BYTES, "limit": limit}
        rows = (
            self._run(_REJECTED_LAST, **bound)
            if upload is None
            else self._run(_REJECTED_OF_UPLOAD, upload=upload, **bound)
        )
        return [RejectedRow(*row) for row in rows]

    def _run(self, statement: str, **bound: Any) -> list[list[Any]]:
        try:
            with self._database.transaction() as connection:
                return connection.run(statement, **bound) or []
        except DatabaseError as error:
            raise TransientError(f"Postgres does not answer this: {describe(error)}") from None
