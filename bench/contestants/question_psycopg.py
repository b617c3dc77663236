"""The question's consumer with psycopg, whose protocol is in C: how much of the question's time is the driver's."""

import logging
import os
from typing import Any

import psycopg

from bench.contestants.shared import COLUMNS, database, decode, values

logger = logging.getLogger(__name__)


def handler(event: dict[str, Any], context: Any) -> None:
    rows = []
    for stream_record in event["Records"]:
        try:
            rows.append(values(decode(stream_record)))
        except ValueError as error:
            logger.warning("skipped an invalid record: %s", error)
    with psycopg.connect(
        user=os.environ["DATABASE_USER"], dbname=os.environ["DATABASE_NAME"], **database()
    ) as connection:
        connection.execute(
            f"INSERT INTO plain_records ({COLUMNS}) VALUES "
            + ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)),
            [value for one in rows for value in one],
        )
