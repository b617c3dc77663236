"""The consumer of the question that started this project, kept as it is asked: it makes duplicates.

    "I send 20,000 records into Kinesis, a Lambda function inserts each batch into Postgres, and I end up with
    42,000 rows."

It connects, inserts the batch in one statement, and closes. A batch that is delivered again is inserted again.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pg8000.native

TABLE = "CREATE TABLE IF NOT EXISTS naive_records (id text, payload jsonb)"


class NaiveConsumer:
    """Does with every delivery what the question's function did with it."""

    def __init__(self, connect: Callable[[], pg8000.native.Connection]) -> None:
        self._connect = connect
        connection = connect()
        connection.run(TABLE)
        connection.close()

    def __call__(self, event: dict[str, Any]) -> None:
        """Insert the records of one Kinesis event, whatever has been inserted before."""
        rows = []
        for stream_record in event["Records"]:
            try:
                record = json.loads(base64.b64decode(stream_record["kinesis"]["data"]))
                rows.append({"id": record["id"], "payload": record["payload"]})
            except (ValueError, TypeError, KeyError):
                continue  # the question's function would have crashed here; be kind
        connection = self._connect()
        connection.run(
            "INSERT INTO naive_records "
            "SELECT id, payload FROM jsonb_to_recordset(:rows ::jsonb) AS r (id text, payload jsonb)",
            rows=json.dumps(rows),
        )
        connection.close()
