"""Postgres alone: the whole batch in one statement, and a unique key that makes a repetition harmless. No
DynamoDB.

Right for one table in one database; how much it is faster than Oncestream is the price of the claim.
"""

import json
import logging
from typing import Any

from bench.contestants.shared import COLUMNS, connect, decode, select_from_json

logger = logging.getLogger(__name__)
connection = connect()
connection.autocommit = True


def handler(event: dict[str, Any], context: Any) -> None:
    records = []
    for stream_record in event["Records"]:
        try:
            records.append(decode(stream_record))
        except ValueError as error:
            logger.warning("skipped an invalid record: %s", error)
    connection.cursor().execute(
        f"INSERT INTO records ({COLUMNS}) {select_from_json()} ON CONFLICT (id) DO NOTHING",
        (json.dumps(records),),
    )
