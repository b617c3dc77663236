"""Powertools as its documentation puts the two together: BatchProcessor, and ``idempotent_function`` on
what it calls.

docs.aws.amazon.com/powertools/python/latest/utilities/idempotency ("Integrating with batch processing").
The connection to Postgres is kept between invocations.
"""

import os
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

from bench.contestants.shared import COLUMNS, columns, connect, values

processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
persistence = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
config = IdempotencyConfig(event_key_jmespath="id", expires_after_seconds=14 * 24 * 3600)
connection = connect()
connection.autocommit = True


@idempotent_function(data_keyword_argument="message", config=config, persistence_store=persistence)  # type: ignore[untyped-decorator]
def store(stream_record: KinesisStreamRecord, message: dict[str, Any]) -> None:
    connection.cursor().execute(
        f"INSERT INTO plain_records ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)",
        values(columns(stream_record.raw_event, message)),
    )


def record_handler(record: KinesisStreamRecord) -> None:
    store(record, message=record.kinesis.data_as_json())


def handler(event: dict[str, Any], context: Any) -> Any:
    config.register_lambda_context(context)
    return process_partial_response(
        event=event, record_handler=record_handler, processor=processor, context=context
    )
