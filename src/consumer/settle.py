"""Removes a rejection when its record comes again and is settled in another way.

The transaction that settles the record also removes the old row, so rows and rejections add up at every moment. The
row is found by the record's bytes or by its line. Either the record was redriven (`once redrive` has marked its row:
it is *awaited*), or its batch is delivered again after a deploy that accepts what the last one refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from pg8000.native import Connection

from consumer.decode import Arrived, Rejection, digest
from postgres.columns import column, origin_columns

# Whether there can be any is asked first: 0.7 ms for 1,000 records, and to look for each takes 3.
_ANY_REJECTED = "SELECT FROM rejected_records LIMIT 1"
_SOME_REJECTED = """
SELECT WHERE EXISTS (SELECT FROM rejected_records WHERE redriven_at IS NOT NULL)
    OR EXISTS (SELECT FROM rejected_records WHERE record_id = ANY(string_to_array(:ids, chr(31))))
    OR EXISTS (
        SELECT FROM rejected_records AS old
        JOIN unnest(string_to_array(:uploads, chr(31)), string_to_array(:chunks, chr(31)) ::integer[])
             AS r (upload_id, upload_chunk) USING (upload_id, upload_chunk)
        WHERE old.record_id IS NULL)
"""
_ROWS = """
    unnest(string_to_array(:digests, chr(31)), string_to_array(:ids, chr(31), ''),
           string_to_array(:uploads, chr(31), ''), string_to_array(:chunks, chr(31), '') ::integer[],
           string_to_array(:lines, chr(31), '') ::integer[])
    AS r (digest, record_id, upload_id, upload_chunk, upload_line)
"""
_SAME_LINE = """
    (old.upload_id, old.upload_chunk, old.upload_line) = (r.upload_id, r.upload_chunk, r.upload_line)
    AND (old.record_id IS NULL OR r.record_id IS NULL OR old.record_id = r.record_id)
"""
_SETTLE_STORED = f"""
DELETE FROM rejected_records AS old USING {_ROWS} WHERE old.id = r.digest OR ({_SAME_LINE})
"""  # noqa: S608 - constants
# The line that was rejected last says how. Two of one line that came in one batch both stay.
_SETTLE_REJECTED = f"""
DELETE FROM rejected_records AS old USING {_ROWS}
WHERE {_SAME_LINE} AND old.id <> ALL(string_to_array(:digests, chr(31)))
"""  # noqa: S608 - constants
# Of what has the same content as a row: a message that was rejected once, and a line that is awaited, or that
# uploads/chunks had rejected. It is this very row, or repeats it.
_SETTLE_SAME = f"""
DELETE FROM rejected_records AS old USING {_ROWS}
WHERE old.id = r.digest OR ((old.redriven_at IS NOT NULL OR old.record_id IS NULL) AND {_SAME_LINE})
"""  # noqa: S608 - constants
_SETTLE_MESSAGES = "DELETE FROM rejected_records WHERE id = ANY(string_to_array(:digests, chr(31)))"
# Anything else that is redriven and finds its id taken stays what it is, awaited no more.
_NOT_AWAITED = """
UPDATE rejected_records SET redriven_at = NULL
WHERE redriven_at IS NOT NULL AND id = ANY(string_to_array(:digests, chr(31)))
"""


def settle_rejected(
    connection: Connection,
    *,
    stored: Sequence[Arrived],
    same: Sequence[Arrived],
    compared: Sequence[Arrived],
    rejections: Sequence[Rejection],
    settled: Sequence[Rejection],
) -> None:
    """Remove rejected records that are settled otherwise now: by a row, a repeat, or (a line) by another rejection.

    Parameters
    ----------
    stored
        New rows.
    same
        What says the same as a row.
    compared
        Everything whose id was known, ``same`` included: it is awaited no more.
    rejections
        What is rejected, or in conflict.
    settled
        Messages that are no records (any more) and say the same as a row.
    """
    if _some_rejected(connection, [*stored, *compared]):
        if stored:
            connection.run(_SETTLE_STORED, **_columns(stored))
        if same:
            connection.run(_SETTLE_SAME, **_columns(same))
        if compared:
            connection.run(_NOT_AWAITED, digests=column(digest(each.raw) for each in compared))
    if settled:
        connection.run(_SETTLE_MESSAGES, digests=column(each.id for each in settled))
    lines = [each for each in rejections if each.upload and (each.record_id or each.is_line)]
    if lines:
        connection.run(
            _SETTLE_REJECTED,
            digests=column(each.id for each in rejections),
            ids=column(each.record_id or "" for each in lines),
            **origin_columns([each.upload for each in lines]),
        )


def _some_rejected(connection: Connection, arrived: Sequence[Arrived]) -> bool:
    """Whether records, or lines of their chunks, may have been rejected before."""
    if not arrived or not connection.run(_ANY_REJECTED):
        return False
    chunks = {(upload.id, upload.chunk) for each in arrived if (upload := each.record.upload)}
    rows = connection.run(
        _SOME_REJECTED,
        ids=column(each.record.id for each in arrived),
        uploads=column(upload for upload, _ in chunks),
        chunks=column(str(chunk) for _, chunk in chunks),
    )
    return bool(rows)


def _columns(arrived: Sequence[Arrived]) -> dict[str, str]:
    return {
        "digests": column(digest(each.raw) for each in arrived),
        "ids": column(each.record.id for each in arrived),
        **origin_columns([each.record.upload for each in arrived]),
    }
