"""Whose fault it is when Postgres refuses a statement, by SQLSTATE.

Classes 22 (data), 23 (constraints) and 54 (limits, such as too long a value for an index) judge a *value*: the record's
fault. Class 40 (deadlock, serialisation failure) is chance. Everything else (no connection, no space, no permission,
no table, a server that is read-only or shutting down, and every code we do not know) is the world's fault.

Some codes of these three classes do not judge a value. They are listed here, each with what to do about it.

Source: postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from typing import Literal

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from postgres.database import error_fields, sqlstate

type Verdict = Literal["record", "chance", "world"]

_RECORD_CLASSES = frozenset({"22", "23", "54"})
_CHANCE_CLASS = "40"

_WORLD = {
    "2200H": "a sequence has reached its end: ALTER SEQUENCE ... AS bigint MAXVALUE ..., and its column to bigint",
    "22P03": "a parameter has a wrong binary format: a defect of the program or of its driver",
    "22P04": "a COPY in a trigger failed: mend the trigger",
    "54011": "a table has too many columns",
    "54023": "a function is called with too many arguments: mend the trigger or the index that calls it",
}
"""Codes of the record's classes that are the world's fault, whatever the record says."""
_NOT_UTF8 = (
    "the database's encoding is {encoding}, which does not have every character: "
    "move to a database with ENCODING 'UTF8'"
)
_NO_PARTITION = "a partitioned table has no partition for the row: create it, or a DEFAULT partition"
_NOTHING_FILLS = (
    'column "{column}" of table "records" is NOT NULL and nothing gives it a value: '
    "give it a DEFAULT, or drop NOT NULL"
)

# A column that the payload decides is generated, or a trigger fills it.
_FILLED = """
SELECT FROM pg_attribute AS a
WHERE a.attrelid = 'records'::regclass AND a.attname = :column
  AND (a.attgenerated <> ''
       OR a.attname IN ('id', 'partition_key', 'payload', 'shard_id', 'sequence_number', 'arrived_at')
       OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal
                  AND t.tgtype & 7 = 7))
"""


def verdict(error: DatabaseError, encoding: str = "UTF8") -> Verdict:
    """Whose fault ``error`` is. ``encoding`` is the server's (``server_encoding``)."""
    code = sqlstate(error)
    if code[:2] == _CHANCE_CLASS:
        return "chance"
    if code[:2] not in _RECORD_CLASSES or advice(error, encoding):
        return "world"
    return "record"


def advice(error: DatabaseError, encoding: str = "UTF8") -> str:
    """What to do about an error of the record's classes that is the world's fault; empty for any other error."""
    code = sqlstate(error)
    if code in _WORLD:
        return _WORLD[code]
    if code in {"22P05", "22021"} and encoding != "UTF8":
        return _NOT_UTF8.format(encoding=encoding)
    fields = error_fields(error)
    # A row without a partition names the table and no constraint. A trigger that raises check_violation names neither,
    # and a constraint names itself.
    if code == "23514" and "t" in fields and "n" not in fields:
        return _NO_PARTITION
    return ""


def unfilled_column(connection: Connection, error: DatabaseError) -> str:
    """What to do where no record can be stored at all, because a NOT NULL column gets no value; empty if it is not so.

    A column that is generated from the payload, or that a trigger may fill, is the record's matter.
    """
    fields = error_fields(error)
    if sqlstate(error) != "23502" or fields.get("t") != "records" or "c" not in fields:
        return ""
    if connection.run(_FILLED, column=fields["c"]):
        return ""
    return _NOTHING_FILLS.format(column=fields["c"])
