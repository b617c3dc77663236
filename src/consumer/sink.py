"""Stores a batch in Postgres: records, rejected records and repeated lines in one transaction.

:mod:`consumer.verdicts` decides which failures are a record's fault. For those the batch is halved until the record is
found, and that one is rejected with Postgres' own message. Deadlocks and the like are run again. For anything else
nothing is rejected, and the batch is retried.

So if your trigger refuses a record, let it raise a code of class 22, 23 or 54, for example
``RAISE EXCEPTION '...' USING ERRCODE = 'check_violation'``. A plain RAISE EXCEPTION (P0001) is retried. If a trigger
returns NULL, the record is missing after the insert, and is rejected as well.

A record whose id is known is compared with the row (:mod:`consumer.compare`): the same content is a duplicate, or a
repeated line; other content is a conflict, and kept in rejected_records. So a line of a file is settled in one of the
three tables. Which one depends on what is there when it comes: the first line with an id is the row. Where the first
is refused by Postgres, its id stays free, and the next line with that id is tried in its own right.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection, PreparedStatement

from common.errors import TransientError
from consumer.compare import Compared, Row, compare, compare_messages
from consumer.decode import REASON_LENGTH, Arrived, Rejection, reject, storable
from consumer.settle import settle_rejected
from consumer.verdicts import advice, unfilled_column, verdict
from oncestream.engine import Stored
from postgres.columns import SEPARATOR, column, origin_columns
from postgres.database import STATEMENT_SECONDS, Database, describe, explain, server_encoding
from records.record import Origin

CHANCE_ATTEMPTS = 4
SWALLOWED = (
    "Postgres: a trigger on records returned NULL, so this record was not inserted, and nobody said why. "
    "A trigger that refuses a record has to raise check_violation with a reason"
)
"""Why a record is rejected that Postgres neither inserts nor has."""
TAKEN = "its id is that of a record with other content ({place})"
FORGOTTEN = "a record with its id and other content was stored before, but its row is gone"

_KNOWN = 'SELECT FROM records WHERE id = :id COLLATE "C"'
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
# become stricter since. A line that uploads/chunks rejects has no record's id: it is known by its place.
_INSERT_REJECTIONS = """
INSERT INTO rejected_records (id, kind, reason, raw, record_id, upload_id, upload_chunk, upload_line,
                              shard_id, sequence_number, arrived_at)
SELECT id, kind, reason, decode(raw, 'base64'), record_id, upload_id, upload_chunk, upload_line,
       shard_id, sequence_number, to_timestamp(arrived_at)
FROM jsonb_to_recordset(:rows ::jsonb) AS r (
    id text, kind text, reason text, raw text, record_id text,
    upload_id text, upload_chunk integer, upload_line integer,
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
ON CONFLICT (id) DO UPDATE SET redriven_at = NULL, kind = excluded.kind, reason = excluded.reason
    WHERE rejected_records.redriven_at IS NOT NULL
RETURNING id
"""

# The row of the record says which line was first. It is read by a statement after the insert: that one sees
# what another transaction committed while the insert waited for it.
_INSERT_REPEATED = """
INSERT INTO repeated_records (upload_id, upload_chunk, upload_line, record_id,
                              shard_id, sequence_number, arrived_at)
SELECT r.upload_id, r.upload_chunk, r.upload_line, r.record_id,
       r.shard_id, r.sequence_number, to_timestamp(r.arrived_at)
FROM jsonb_to_recordset(:rows ::jsonb) AS r (
    upload_id text, upload_chunk integer, upload_line integer, record_id text,
    shard_id text, sequence_number text, arrived_at float8)
JOIN records ON records.id = r.record_id COLLATE "C"
WHERE (records.upload_id, records.upload_chunk, records.upload_line)
      IS DISTINCT FROM (r.upload_id, r.upload_chunk, r.upload_line)
  AND NOT EXISTS (
        SELECT FROM rejected_records AS known WHERE known.record_id = r.record_id
        AND (known.upload_id, known.upload_chunk, known.upload_line)
          = (r.upload_id, r.upload_chunk, r.upload_line))
ON CONFLICT DO NOTHING
"""


@dataclass(slots=True)
class _Tried:
    """What came of inserting records. Of those that are in none of these there are rows, or a trigger took them."""

    inserted: set[str] = field(default_factory=set)
    refused: dict[str, Rejection] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)

    def add(self, more: _Tried) -> None:
        """What came of some of them when they were tried again."""
        self.inserted |= more.inserted
        self.refused |= more.refused
        self.unsettled |= more.unsettled

    def left(self, arrived: Sequence[Arrived]) -> list[Arrived]:
        """Those of ``arrived`` that were neither inserted nor refused."""
        if len(self.inserted) == len(arrived):
            return []
        settled = self.inserted | self.refused.keys() | self.unsettled
        return [each for each in arrived if each.record.id not in settled]


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of the records of a batch, and what there is of everything whose id was known."""

    tried: _Tried
    left: Compared[Arrived]
    again: Compared[Arrived]
    suspects: Compared[Arrived]
    broken: Compared[Rejection]


class PostgresSink:
    """Stores batches through ``database``. ``monotonic`` tells the time, in seconds."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._insert_records: PreparedStatement | None = None

    def store(
        self,
        arrived: Sequence[Arrived],
        rejections: Sequence[Rejection] = (),
        again: Sequence[Arrived] = (),
        suspects: Sequence[Arrived] = (),
        *,
        seconds: float = STATEMENT_SECONDS,
    ) -> Stored[Rejection]:
        """Store a batch in one transaction. Doing it again changes nothing.

        Parameters
        ----------
        arrived
            Records to insert; their ids differ from each other.
        rejections
            What could not be decoded; their ids differ from each other.
        again
            More deliveries of records that are rows already or are among ``arrived``. They are compared with the
            rows: other content is a conflict, and a line of a file with the same content becomes a row of
            repeated_records. Where there is no row, nothing is done.
        suspects
            Deliveries of which it is said that they are done already, with other content. They are compared and
            never inserted; where there is no row, they are conflicts, too.
        seconds
            How long a statement may take, ``STATEMENT_SECONDS`` at most. After this time the search for refused
            records ends, too.

        Raises
        ------
        TransientError
            Postgres is away, or something is wrong that is no record's fault. Nothing was rejected. Usually
            nothing was stored; where the connection broke at COMMIT, everything may have been. The message quotes
            nothing of the records.
        """
        # Transactions that insert equal keys in one order wait for each other; in another, they deadlock.
        seconds = min(seconds, STATEMENT_SECONDS)
        arrived = sorted(arrived, key=lambda each: each.record.id)
        deadline = self._monotonic() + seconds
        searching = False
        attempts = 0
        encoding = ""
        while True:
            attempts += 1
            try:
                with self._database.transaction(seconds) as connection:
                    encoding = server_encoding(connection)
                    tried, left = self._insert_and_verify(connection, arrived, deadline, searching=searching)
                    found = _Found(
                        tried,
                        left,
                        again=compare(connection, again, searching=searching),
                        suspects=compare(connection, suspects, searching=searching),
                        broken=compare_messages(connection, rejections, searching=searching),
                    )
                    new = [each for each in arrived if each.record.id in tried.inserted]
                    return _write(connection, new, found)
            except DatabaseError as error:
                judged = verdict(error, encoding)
                if judged == "record" and not searching:
                    searching = True
                elif judged != "chance" or attempts >= CHANCE_ATTEMPTS or self._monotonic() > deadline:
                    # A new connection next time: after a failover the old one leads to a read-only server.
                    self._database.close()
                    raise _cannot_store(error, advice(error, encoding)) from None

    def _insert_and_verify(
        self, connection: Connection, arrived: Sequence[Arrived], deadline: float, *, searching: bool
    ) -> tuple[_Tried, Compared[Arrived]]:
        """Insert records, and compare those that were not inserted with what is there.

        What is not there either is tried once more: its row may have been deleted in between. If it was not, a
        trigger has taken the record, and it is refused.
        """
        tried = self._try(connection, arrived, deadline, searching=searching)
        left = compare(connection, tried.left(arrived), searching=searching)
        if left.gone:
            tried.add(self._try(connection, left.gone, deadline, searching=searching))
            left = compare(connection, tried.left(arrived), searching=searching)
            tried.refused |= {each.record.id: reject(each, SWALLOWED) for each in left.gone}
        return tried, left

    def _try(
        self, connection: Connection, arrived: Sequence[Arrived], deadline: float, *, searching: bool
    ) -> _Tried:
        """Insert records in one statement; when ``searching``, halve what Postgres refuses until it is found.

        What there is no time for is left unsettled and the rest is committed: so a batch of nothing but bad
        records comes to an end, too, in the next invocations.
        """
        if not searching:
            return _Tried(self._insert(connection, arrived))
        tried = _Tried()
        connection.run("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT piece")
        pieces = [arrived]
        while pieces:
            piece = pieces.pop()
            if self._monotonic() > deadline:
                tried.unsettled |= {each.record.id for each in piece}
                continue
            try:
                tried.inserted |= self._insert(connection, piece)
                connection.run("RELEASE SAVEPOINT piece; SAVEPOINT piece")
            except DatabaseError as error:
                if verdict(error, server_encoding(connection)) != "record":
                    raise
                connection.run("ROLLBACK TO SAVEPOINT piece")
                if len(piece) > 1:
                    middle = len(piece) // 2
                    pieces += [piece[middle:], piece[:middle]]
                elif not connection.run(_KNOWN, id=piece[0].record.id):
                    # One record is one row, whatever a second message with its id says: that one is compared.
                    tried.refused[piece[0].record.id] = _refuse(connection, piece[0], error)
        return tried

    def _insert(self, connection: Connection, arrived: Sequence[Arrived]) -> set[str]:
        """Insert records and return the ids of those that were not there."""
        if not arrived:
            return set()
        statement = self._insert_records
        if statement is None or statement.con is not connection:
            statement = self._insert_records = connection.prepare(_INSERT_RECORDS)
        records = [each.record for each in arrived]
        [[inserted]] = statement.run(
            ids=column(record.id for record in records),
            partition_keys=column(record.partition_key for record in records),
            payloads=column(record.payload_json for record in records),
            **origin_columns([record.upload for record in records]),
            shards=column(each.shard_id for each in arrived),
            sequence_numbers=column(each.sequence_number for each in arrived),
            arrivals=column(str(each.arrived_at) for each in arrived),
        )
        return set(inserted.split(SEPARATOR)) if inserted else set()


def _write(connection: Connection, new: Sequence[Arrived], found: _Found) -> Stored[Rejection]:
    """Write what becomes of everything that is no new row, and say what became of the batch."""
    left, again, suspects, broken = found.left, found.again, found.suspects, found.broken
    conflicts = [
        *(_conflict(each, row) for each, row in [*left.other, *again.other, *suspects.other]),
        *(reject(each, FORGOTTEN, kind="conflict") for each in suspects.gone),
        *(_broken_conflict(each, row) for each, row in broken.other),
    ]
    kept = {each.id: each for each in [*broken.gone, *found.tried.refused.values(), *conflicts]}
    rejected = _insert_rejections(connection, kept.values())
    same = [*left.same, *again.same, *suspects.same]
    settle_rejected(
        connection,
        stored=new,
        same=same,
        compared=[*left.all, *again.all, *suspects.all],
        rejections=list(kept.values()),
        settled=broken.same,
    )
    _insert_repeated(connection, [each for each in same if each.has_own_id], broken.same)
    return Stored(
        processed=frozenset(found.tried.inserted),
        duplicates=frozenset(each.record.id for each in left.same),
        taken={each.record.id: row.digest for each, row in left.other},
        refused=found.tried.refused,
        unsettled=frozenset(found.tried.unsettled),
        rejected=rejected,
        conflicts={each.id: each for each in conflicts},
    )


def _conflict(arrived: Arrived, row: Row) -> Rejection:
    return reject(arrived, TAKEN.format(place=row.place), kind="conflict")


def _broken_conflict(rejection: Rejection, row: Row) -> Rejection:
    """A message that is no record (any more) and has the id of one."""
    reason = f"{TAKEN.format(place=row.place)}. And by itself: {rejection.reason}"
    return replace(rejection, kind="conflict", reason=storable(reason, REASON_LENGTH))


def _refuse(connection: Connection, arrived: Arrived, error: DatabaseError) -> Rejection:
    """The rejection of a record that Postgres refuses, now that it is known to be the one.

    Raises
    ------
    TransientError
        Postgres would refuse every record in this way.
    """
    if what_to_do := unfilled_column(connection, error):
        raise _cannot_store(error, what_to_do) from None
    return reject(arrived, f"Postgres: {explain(error)}", loggable=f"Postgres: {describe(error)}")


def _cannot_store(error: DatabaseError, what_to_do: str) -> TransientError:
    # Raised without its cause, which holds the values: whoever logs this with its traceback would log them.
    hint = f". {what_to_do}" if what_to_do else ""
    return TransientError(f"Postgres cannot store the batch: {describe(error)}{hint}")


def _insert_rejections(connection: Connection, rejections: Iterable[Rejection]) -> frozenset[str]:
    """Insert rejections and return the ids of those that were not there."""
    rows = [
        {
            "id": each.id,
            "kind": each.kind,
            "reason": each.reason,
            "raw": base64.b64encode(each.raw).decode(),
            "record_id": each.record_id,
            "is_line": each.is_line,
            **_origin(each, each.upload),
        }
        for each in sorted(rejections, key=lambda each: each.id)
    ]
    if not rows:
        return frozenset()
    return frozenset(row[0] for row in connection.run(_INSERT_REJECTIONS, rows=json.dumps(rows)))


def _insert_repeated(connection: Connection, lines: Sequence[Arrived], messages: Sequence[Rejection]) -> None:
    """Note lines that say what a row says already."""
    rows = [_origin(each, each.record.upload) | {"record_id": each.record.id} for each in lines]
    rows += [_origin(each, each.upload) | {"record_id": each.record_id} for each in messages if each.upload]
    if rows:
        connection.run(_INSERT_REPEATED, rows=json.dumps(rows))


def _origin(each: Arrived | Rejection, upload: Origin | None) -> dict[str, Any]:
    return {
        "upload_id": upload.id if upload else None,
        "upload_chunk": upload.chunk if upload else None,
        "upload_line": upload.line if upload else None,
        "shard_id": each.shard_id,
        "sequence_number": each.sequence_number,
        "arrived_at": each.arrived_at,
    }
