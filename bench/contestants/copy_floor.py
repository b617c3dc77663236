"""The floor: COPY of the same rows over a kept connection. The least that decoding and storing a batch can
take here.

No consumer: a batch that comes again violates the key, and so do the records around it.
"""

import csv
import io
import logging
from typing import Any

from bench.contestants.shared import COLUMNS, connect, decode, values

logger = logging.getLogger(__name__)
connection = connect()
connection.autocommit = True


def handler(event: dict[str, Any], context: Any) -> None:
    rows = []
    for stream_record in event["Records"]:
        try:
            rows.append(values(decode(stream_record)))
        except ValueError as error:
            logger.warning("skipped an invalid record: %s", error)
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    lines.seek(0)
    connection.cursor().execute(f"COPY records ({COLUMNS}) FROM STDIN WITH (FORMAT csv)", stream=lines)
