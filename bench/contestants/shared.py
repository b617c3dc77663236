"""What every contestant's function needs and none is measured by: a connection, and the columns of a record."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from typing import Any

import pg8000.dbapi

COLUMNS = "id, partition_key, payload, shard_id, sequence_number, arrived_at"

PLAIN_TABLE = """
CREATE TABLE plain_records (
    number          bigserial PRIMARY KEY,
    id              text NOT NULL,
    partition_key   text NOT NULL,
    payload         jsonb NOT NULL,
    shard_id        text NOT NULL,
    sequence_number text NOT NULL,
    arrived_at      timestamptz NOT NULL,
    loaded_at       timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
"""``records`` without its key: whoever trusts in idempotency alone, or in nothing, has a table like it."""


def database() -> dict[str, Any]:
    """Where Postgres is, from the environment."""
    return {"host": os.environ["DATABASE_HOST"], "port": int(os.environ["DATABASE_PORT"])}


def connect() -> pg8000.dbapi.Connection:
    """A new connection by the driver that Oncestream uses."""
    return pg8000.dbapi.connect(
        os.environ["DATABASE_USER"], database=os.environ["DATABASE_NAME"], **database()
    )


def decode(stream_record: dict[str, Any]) -> dict[str, Any]:
    """The columns of a Kinesis record by name, the payload as an object.

    Raises
    ------
    ValueError
        It is not JSON (``json.JSONDecodeError`` and ``UnicodeDecodeError`` are ValueErrors), or no record.
    """
    return columns(stream_record, json.loads(base64.b64decode(stream_record["kinesis"]["data"])))


def columns(stream_record: dict[str, Any], message: Any) -> dict[str, Any]:
    """The same where the message is decoded already.

    Raises
    ------
    ValueError
        The message is no record.
    """
    kinesis = stream_record["kinesis"]
    try:
        return {
            "id": message["id"],
            "partition_key": message["partition_key"],
            "payload": message["payload"],
            "shard_id": stream_record["eventID"].partition(":")[0],
            "sequence_number": kinesis["sequenceNumber"],
            "arrived_at": datetime.fromtimestamp(kinesis["approximateArrivalTimestamp"], UTC).isoformat(),
        }
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a record: {error}") from error


def values(record: dict[str, Any]) -> list[str]:
    """The columns in order, the payload as JSON text: the parameters of an INSERT."""
    return [*(record | {"payload": json.dumps(record["payload"])}).values()]


def select_from_json() -> str:
    """What turns one JSON parameter, a list of records, into rows (in the order of ``COLUMNS``)."""
    return f"""SELECT {COLUMNS} FROM jsonb_to_recordset(%s::jsonb) AS r ( id text, partition_key text,
    payload jsonb, shard_id text, sequence_number text, arrived_at timestamptz)
    """
