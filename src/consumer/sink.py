"""Stores a batch in Postgres: records, rejected records and repeated lines in one transaction.

Which failures are a record's fault is decided here, by SQLSTATE
(postgresql.org/docs/current/errcodes-appendix.html):

- Class 22 (data), 23 (constraints) and 54 (limits, such as too long a value for an index) judge a *value*.
  The batch is halved until the record is found, and that one is rejected with Postgres' own message.
- Class 40 (deadlock, serialisation failure) is chance: the transaction is run again.
- Everything else (no connection, no space, no permission, no table, a server that only reads or is shutting
  down, and whatever we do not know) is the world: nothing is rejected, the batch is retried.

A trigger of yours that refuses a record must therefore say so with one of the first, for example
``RAISE EXCEPTION '...' USING ERRCODE = 'check_violation'``. A plain RAISE EXCEPTION (P0001) is retried.

A line of a file is settled in one of the three tables. Which one depends on what is there when it comes: the
first line with an id is the row, a later one is a repeat. Where the first is refused by Postgres, its id
stays free, and the next line with that id is tried in its own right.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection, PreparedStatement

from common.database import STATEMENT_SECONDS, Database, describe, sqlstate
from common.errors import TransientError
from common.record import Line
from consumer.columns import SEPARATOR, column, places
from consumer.decode import Arrived, Rejection, reject
from consumer.settle import settle_rejected

CHANCE_ATTEMPTS = 4
_RECORD_FAULTS = frozenset({"22", "23", "54"})
_CHANCE = "40"

# The conflict is named: a unique index that a user adds must not make another record vanish without a word.
_INSERT_RECORDS = """
WITH inserted AS (
    INSERT INTO records (id, partition_key, payload, upload_id, upload_chunk, upload_line,
                         shard_id, sequence_number, arrived_at)
    SELECT id, partition_key, payload::jsonb, upload_id, upload_chunk::integer, upload_line::integer,
           shard_id, sequence_number, to_timestamp(arrived_at::float8)
    FROM unnest(
        string_to_array(:ids, chr(31)), string_to_array(:partition_keys, chr(31)),
        string_to_array(:payloads, chr(31)),
        string_to_array(:uploads, chr(31), ''), string_to_array(:chunks, chr(31), ''),
        string_to_array(:lines, chr(31), ''),
        string_to_array(:shards, chr(31)), string_to_array(:sequence_numbers, chr(31)),
        string_to_array(:arrivals, chr(31))
    ) AS r (id, partition_key, payload, upload_id, upload_chunk, upload_line,
            shard_id, sequence_number, arrived_at)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT string_agg(id, chr(31)) FROM inserted
"""

# What was stored stays stored: the same message, or line, may be refused today because the payload's type has
# become stricter since. A line that producer/chunks rejects has no record's id: it is known by its place.
_INSERT_REJECTIONS = """
INSERT INTO rejected_records (id, reason, raw, record_id, upload_id, upload_chunk, upload_line,
                              shard_id, sequence_number, arrived_at)
SELECT id, reason, decode(raw, 'base64'), record_id, upload_id, upload_chunk, upload_line,
       shard_id, sequence_number, to_timestamp(arrived_at)
FROM jsonb_to_recordset(:rows ::jsonb) AS r (
    id text, reason text, raw text, record_id text, upload_id text, upload_chunk integer, upload_line integer,
    is_line boolean, shard_id text, sequence_number text, arrived_at float8)
WHERE NOT EXISTS (
        SELECT FROM records AS known
        WHERE (known.upload_id, known.upload_chunk, known.upload_line)
            = (r.upload_id, r.upload_chunk, r.upload_line)
          AND (known.id = r.record_id OR r.is_line))
  AND NOT EXISTS (
        SELECT FROM repeated_records AS known
        WHERE (known.upload_id, known.upload_chunk, known.upload_line)
            = (r.upload_id, r.upload_chunk, r.upload_line)
          AND (known.record_id = r.record_id OR r.is_line))
ON CONFLICT (id) DO UPDATE SET redriven_at = NULL, reason = excluded.reason
    WHERE rejected_records.redriven_at IS NOT NULL
RETURNING id
"""

# The row of the record says which line was first. It is read by a statement after the insert: that one sees
# what another transaction committed while the insert waited for it. A line that was refused before the other
# one came stays rejected.
_INSERT_REPEATED = """
INSERT INTO repeated_records (upload_id, upload_chunk, upload_line, record_id,
                              shard_id, sequence_number, arrived_at)
SELECT r.upload_id, r.upload_chunk, r.upload_line, r.record_id,
       r.shard_id, r.sequence_number, to_timestamp(r.arrived_at)
FROM jsonb_to_recordset(:rows ::jsonb) AS r (
    upload_id text, upload_chunk integer, upload_line integer, record_id text,
    shard_id text, sequence_number text, arrived_at float8)
JOIN records ON records.id = r.record_id
WHERE (records.upload_id, records.upload_chunk, records.upload_line)
      IS DISTINCT FROM (r.upload_id, r.upload_chunk, r.upload_line)
  AND NOT EXISTS (
        SELECT FROM rejected_records AS known WHERE known.record_id = r.record_id
        AND (known.upload_id, known.upload_chunk, known.upload_line)
          = (r.upload_id, r.upload_chunk, r.upload_line))
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch, committed. Every record's id is in exactly one of the first four sets."""

    inserted: frozenset[str] = frozenset()
    """Ids of records that are rows now."""
    duplicates: frozenset[str] = frozenset()
    """Ids of records that were rows before."""
    refused: dict[str, Rejection] = field(default_factory=dict)
    """Records that Postgres refused, by their ids; they are rejected records now."""
    unsettled: frozenset[str] = frozenset()
    """Ids of records that there was no time for: nothing is known about them."""
    rejected: frozenset[str] = frozenset()
    """Ids of rejections that are rows of rejected_records now and were not before, or were redriven since."""


class PostgresSink:
    """Stores batches through ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert_records: PreparedStatement | None = None

    def store(
        self,
        arrived: Sequence[Arrived],
        rejections: Sequence[Rejection] = (),
        duplicates: Sequence[Arrived] = (),
        *,
        seconds: float = STATEMENT_SECONDS,
    ) -> Stored:
        """Store a batch in one transaction. Doing it again changes nothing.

        Parameters
        ----------
        arrived
            Records to insert; their ids differ from each other.
        rejections
            What could not be decoded; their ids differ from each other.
        duplicates
            More deliveries of records that are rows already or are among ``arrived``. A line of a file that
            came second (:attr:`Arrived.may_repeat`) becomes a row of repeated_records.
        seconds
            How long a statement may take. After this time the search for refused records ends, too.

        Raises
        ------
        TransientError
            Postgres is away, or something is wrong that is no record's fault. Nothing was rejected. Usually
            nothing was stored; where the connection broke at COMMIT, everything may have been.
        """
        # Transactions that insert equal keys in one order wait for each other; in another, they deadlock.
        arrived = sorted(arrived, key=lambda each: each.record.id)
        deadline = time.monotonic() + seconds
        searching = False
        attempts = 0
        while True:
            attempts += 1
            try:
                with self._database.transaction(seconds) as connection:
                    insert = self._insert_searching if searching else self._insert_all
                    settled = insert(connection, arrived, deadline)
                    rejected = [*rejections, *settled.refused.values()]
                    new = _insert_rejections(connection, rejected)
                    known = [each for each in arrived if each.record.id in settled.duplicates]
                    again = [*duplicates, *known]
                    stored = [each for each in arrived if each.record.id in settled.inserted]
                    settle_rejected(connection, stored, again, rejected)
                    _insert_repeated(connection, [each for each in again if each.has_own_id])
                return replace(settled, rejected=new)
            except DatabaseError as error:
                kind = sqlstate(error)[:2]
                if kind in _RECORD_FAULTS and not searching:
                    searching = True
                elif kind != _CHANCE or attempts >= CHANCE_ATTEMPTS or time.monotonic() > deadline:
                    # A new connection next time: after a failover the old one leads to a read-only server.
                    self._database.close()
                    raise TransientError(f"Postgres cannot store the batch: {describe(error)}") from error

    def _insert_all(self, connection: Connection, arrived: Sequence[Arrived], deadline: float) -> Stored:
        del deadline  # one statement; Postgres minds the time
        inserted = self._insert(connection, arrived)
        return Stored(inserted, frozenset(each.record.id for each in arrived) - inserted)

    def _insert_searching(
        self, connection: Connection, arrived: Sequence[Arrived], deadline: float
    ) -> Stored:
        """Insert what Postgres takes, halving what it refuses until the record is found.

        What there is no time for is left unsettled and the rest is committed: so a batch of nothing but bad
        records comes to an end, too, in the next invocations.
        """
        inserted, duplicates, unsettled = set[str](), set[str](), set[str]()
        refused: dict[str, Rejection] = {}
        connection.run("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT piece")
        pieces = [arrived]
        while pieces:
            piece = pieces.pop()
            ids = {each.record.id for each in piece}
            if time.monotonic() > deadline:
                unsettled |= ids
                continue
            try:
                new = self._insert(connection, piece)
                connection.run("RELEASE SAVEPOINT piece; SAVEPOINT piece")
            except DatabaseError as error:
                if sqlstate(error)[:2] not in _RECORD_FAULTS:
                    raise
                connection.run("ROLLBACK TO SAVEPOINT piece")
                if len(piece) > 1:
                    middle = len(piece) // 2
                    pieces += [piece[middle:], piece[:middle]]
                elif connection.run("SELECT FROM records WHERE id = :id", id=piece[0].record.id):
                    duplicates |= ids  # one record is one row, whatever a second message with its id says
                else:
                    refused[piece[0].record.id] = reject(piece[0], f"Postgres: {describe(error)}")
            else:
                inserted |= new
                duplicates |= ids - new
        return Stored(frozenset(inserted), frozenset(duplicates), refused, frozenset(unsettled))

    def _insert(self, connection: Connection, arrived: Sequence[Arrived]) -> frozenset[str]:
        """Insert records and return the ids of those that were not there."""
        if not arrived:
            return frozenset()
        statement = self._insert_records
        if statement is None or statement.con is not connection:
            statement = self._insert_records = connection.prepare(_INSERT_RECORDS)
        records = [each.record for each in arrived]
        [[inserted]] = statement.run(
            ids=column(record.id for record in records),
            partition_keys=column(record.partition_key for record in records),
            payloads=column(record.payload_json for record in records),
            **places([record.upload for record in records]),
            shards=column(each.shard_id for each in arrived),
            sequence_numbers=column(each.sequence_number for each in arrived),
            arrivals=column(str(each.arrived_at) for each in arrived),
        )
        return frozenset(inserted.split(SEPARATOR) if inserted else ())


def _insert_rejections(connection: Connection, rejections: Sequence[Rejection]) -> frozenset[str]:
    """Insert rejections and return the ids of those that were not there."""
    rows = [
        {
            "id": each.id,
            "reason": each.reason,
            "raw": base64.b64encode(each.raw).decode(),
            "record_id": each.record_id,
            **_place(each.upload),
            "is_line": each.is_line,
            "shard_id": each.shard_id,
            "sequence_number": each.sequence_number,
            "arrived_at": each.arrived_at,
        }
        for each in sorted(rejections, key=lambda each: each.id)
    ]
    if not rows:
        return frozenset()
    return frozenset(row[0] for row in connection.run(_INSERT_REJECTIONS, rows=json.dumps(rows)))


def _insert_repeated(connection: Connection, lines: Sequence[Arrived]) -> None:
    rows = [
        {
            **_place(each.record.upload),
            "record_id": each.record.id,
            "shard_id": each.shard_id,
            "sequence_number": each.sequence_number,
            "arrived_at": each.arrived_at,
        }
        for each in lines
    ]
    if rows:
        connection.run(_INSERT_REPEATED, rows=json.dumps(rows))


def _place(upload: Line | None) -> dict[str, Any]:
    return {
        "upload_id": upload.id if upload else None,
        "upload_chunk": upload.chunk if upload else None,
        "upload_line": upload.line if upload else None,
    }
