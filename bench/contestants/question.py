"""The consumer of the question that started it all: connect, insert the batch in one statement, disconnect.

It is fast, and every batch that Lambda delivers again is stored again. (The question's function was in
JavaScript; this is the same in Python. One thing is kinder: a message that is not JSON is passed over,
where the question's would have thrown.)
"""

import logging
from typing import Any

from bench.contestants.shared import COLUMNS, connect, decode, values

logger = logging.getLogger(__name__)


def handler(event: dict[str, Any], context: Any) -> None:
    rows = []
    for stream_record in event["Records"]:
        try:
            rows.append(values(decode(stream_record)))
        except ValueError as error:
            logger.warning("skipped an invalid record: %s", error)
    connection = connect()
    cursor = connection.cursor()
    cursor.execute(
        f"INSERT INTO plain_records ({COLUMNS}) VALUES "
        + ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)),
        [value for one in rows for value in one],
    )
    connection.commit()
    connection.close()
