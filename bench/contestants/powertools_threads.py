"""Powertools with a pool of threads over the records: the first thing a good engineer tries when it is too
slow.

Each thread keeps a connection of its own (pg8000's connections are not for sharing), and the DynamoDB
client has a connection a thread.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pg8000.dbapi
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from botocore.config import Config

from bench.contestants.shared import COLUMNS, columns, connect, values

THREADS = 16


class Connections(threading.local):
    """A connection for each thread."""

    connection: pg8000.dbapi.Connection | None = None

    def get(self) -> pg8000.dbapi.Connection:
        if self.connection is None:
            self.connection = connect()
            self.connection.autocommit = True
        return self.connection


class ThreadedBatchProcessor(BatchProcessor):
    def process(self) -> list[Any]:
        return list(pool.map(self._process_record, self.records))


pool = ThreadPoolExecutor(THREADS)
connections = Connections()
processor = ThreadedBatchProcessor(event_type=EventType.KinesisDataStreams)
persistence = DynamoDBPersistenceLayer(
    table_name=os.environ["IDEMPOTENCY_TABLE"], boto_config=Config(max_pool_connections=THREADS)
)
config = IdempotencyConfig(event_key_jmespath="id", expires_after_seconds=14 * 24 * 3600)


@idempotent_function(data_keyword_argument="message", config=config, persistence_store=persistence)  # type: ignore[untyped-decorator]
def store(stream_record: KinesisStreamRecord, message: dict[str, Any]) -> None:
    connections.get().cursor().execute(
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
