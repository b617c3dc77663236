"""Powertools with AsyncBatchProcessor: the documentation's own way to work on records concurrently.

Powertools' idempotency and boto3 block. Called straight from the coroutine they would block the event loop,
and the batch would take as long as one record after the other; so they run in threads, as asyncio's
documentation advises. The threads are kept between invocations, each with its connection to Postgres.
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pg8000.dbapi
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    EventType,
    async_process_partial_response,
)
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


pool = ThreadPoolExecutor(THREADS)
connections = Connections()
processor = AsyncBatchProcessor(event_type=EventType.KinesisDataStreams)
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


async def record_handler(record: KinesisStreamRecord) -> None:
    message = record.kinesis.data_as_json()
    await asyncio.get_running_loop().run_in_executor(pool, partial(store, record, message=message))


def handler(event: dict[str, Any], context: Any) -> Any:
    config.register_lambda_context(context)
    return async_process_partial_response(
        event=event, record_handler=record_handler, processor=processor, context=context
    )
