"""Compares what arrives with what is stored under the same id. Postgres decides.

Two payloads are the same if Postgres writes them alike: ``payload::jsonb::text``. Spaces and the order of keys do not
count; every digit does. A line of a file that is the row itself is always the same.

The comparison is a statement of its own, after the insert. So it sees what another transaction committed while the
insert waited for it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from consumer.decode import Arrived, Rejection
from consumer.verdicts import verdict
from postgres.columns import column, origin_columns
from postgres.database import server_encoding

# One text says of each "s": the same, "o": other, "g": gone. Only what is other needs more words.
_COMPARE = """
SELECT string_agg(state, '' ORDER BY at),
       json_agg(json_build_array(at, place, digest) ORDER BY at) FILTER (WHERE state = 'o')
FROM (
    SELECT r.at,
           CASE WHEN known.id IS NULL THEN 'g'
                WHEN (known.upload_id, known.upload_chunk, known.upload_line)
                   = (r.upload_id, r.upload_chunk, r.upload_line) THEN 's'
                WHEN known.payload::text = ({payload})::text COLLATE "C" THEN 's'
                ELSE 'o' END AS state,
           concat_ws(', ', to_char(known.loaded_at AT TIME ZONE 'UTC', '"stored at" YYYY-MM-DD HH24:MI:SS "UTC"'),
                     'upload ' || known.upload_id, 'chunk ' || known.upload_chunk,
                     'line ' || known.upload_line) AS place,
           encode(sha256(convert_to(known.payload::text, 'UTF8')), 'hex') AS digest
    FROM unnest(string_to_array(:ids, chr(31)), string_to_array(:payloads, chr(31)),
                string_to_array(:uploads, chr(31), ''), string_to_array(:chunks, chr(31), '') ::integer[],
                string_to_array(:lines, chr(31), '') ::integer[])
         WITH ORDINALITY AS r (id, payload, upload_id, upload_chunk, upload_line, at)
    LEFT JOIN records AS known ON known.id = r.id COLLATE "C"
) AS compared
"""
_OF_RECORDS = _COMPARE.format(payload="r.payload::jsonb")
# The message as a whole is no record, so its payload is read here, where all digits are kept.
_OF_MESSAGES = _COMPARE.format(
    payload="""(
        SELECT (message -> 'payload')::jsonb
        FROM (SELECT convert_from(decode(r.payload, 'base64'), 'UTF8')::json AS message) AS read
        WHERE message ->> 'id' = known.id)"""
)


class Row(NamedTuple):
    """A row with a record's id and other content."""

    place: str
    """When it was stored, and of which line of a file it is: for a person."""
    digest: str
    """The SHA-256 of its payload, as Postgres writes it."""


@dataclass(frozen=True, slots=True)
class Compared[Each]:
    """What there is under the ids of records, or of messages that are none."""

    same: list[Each] = field(default_factory=list)
    other: list[tuple[Each, Row]] = field(default_factory=list)
    gone: list[Each] = field(default_factory=list)
    """There is no row with their id."""

    @property
    def all(self) -> list[Each]:
        """All of them."""
        return [*self.same, *(each for each, _ in self.other), *self.gone]


def compare(connection: Connection, arrived: Sequence[Arrived], *, searching: bool) -> Compared[Arrived]:
    """Compare records with the rows that have their ids.

    A payload that jsonb cannot hold makes the statement fail, and a transaction with it. When ``searching``, such a
    payload is found, and is other content than any row's.

    Raises
    ------
    pg8000.exceptions.DatabaseError
        Postgres refused.
    """

    def columns(some: Sequence[Arrived]) -> dict[str, str]:
        return {
            "ids": column(each.record.id for each in some),
            "payloads": column(each.record.payload_json for each in some),
            **origin_columns([each.record.upload for each in some]),
        }

    return _compare(connection, _OF_RECORDS, arrived, columns, searching=searching)


def compare_messages(
    connection: Connection, rejections: Sequence[Rejection], *, searching: bool
) -> Compared[Rejection]:
    """Compare messages that are no records (any more) with the rows whose ids they name.

    Of those that name none it says ``gone``. It fails as :func:`compare` does.
    """

    def columns(some: Sequence[Rejection]) -> dict[str, str]:
        return {
            "ids": column(each.record_id or "" for each in some),
            "payloads": column(base64.b64encode(each.raw).decode() for each in some),
            **origin_columns([each.upload for each in some]),
        }

    named = [each for each in rejections if each.record_id and not each.is_line]
    compared = _compare(connection, _OF_MESSAGES, named, columns, searching=searching)
    compared.gone.extend(each for each in rejections if not each.record_id or each.is_line)
    return compared


def _compare[Each](
    connection: Connection,
    statement: str,
    wanted: Sequence[Each],
    columns: Callable[[Sequence[Each]], dict[str, str]],
    *,
    searching: bool,
) -> Compared[Each]:
    compared = Compared[Each]()
    pieces = [wanted] if wanted else []
    while pieces:
        piece = pieces.pop()
        if not searching:
            _note(piece, connection.run(statement, **columns(piece)), compared)
            continue
        connection.run("SAVEPOINT compared")
        try:
            rows = connection.run(statement, **columns(piece))
            connection.run("RELEASE SAVEPOINT compared")
        except DatabaseError as error:
            if verdict(error, server_encoding(connection)) != "record":
                raise
            connection.run("ROLLBACK TO SAVEPOINT compared")
            if len(piece) > 1:
                middle = len(piece) // 2
                pieces += [piece[middle:], piece[:middle]]
                continue
            # Without its payload: unnest has a NULL for it, which is like nothing.
            rows = connection.run(statement, **columns(piece) | {"payloads": ""})
        _note(piece, rows, compared)
    return compared


def _note[Each](piece: Sequence[Each], rows: list[list[Any]], compared: Compared[Each]) -> None:
    [[states, others]] = rows
    found = {at: Row(place, digest) for at, place, digest in others or ()}
    for at, (each, state) in enumerate(zip(piece, states, strict=True), 1):
        if state == "s":
            compared.same.append(each)
        elif state == "o":
            compared.other.append((each, found[at]))
        else:
            compared.gone.append(each)
