"""Powertools' batch processor, for a batch as a whole.

``BatchProcessor`` calls a handler for each record, one after the other. :class:`BulkProcessor` claims all of them at
once, calls your handler once with what is new, and completes all of it at once. :class:`SinkProcessor` does the same
for a sink of your own (:class:`oncestream.engine.Sink`), and its handler decodes.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from oncestream.engine import Engine, Idempotency, R, Result, Sink, X
from oncestream.errors import OncestreamError
from oncestream.handling import Delivery, HandlerSink, RejectedRecord, unkept
from oncestream.sources import Reader, fifo_groups

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from oncestream.handling import OnConflict, OnRejected
    from oncestream.idempotency import BulkIdempotency

SLICE_RECORDS = 1_000
"""Records that are claimed, processed and completed together."""
LONGEST_MILLISECONDS = 900_000
"""What is left of the time where nobody says so: the longest that an invocation can have."""

_DATA_CLASSES: dict[EventType, Callable[[dict[str, Any]], Any]] = {
    EventType.SQS: SQSRecord,
    EventType.KinesisDataStreams: KinesisStreamRecord,
    EventType.DynamoDBStreams: DynamoDBRecord,
    EventType.Kafka: KafkaEventRecord,
}

logger = logging.getLogger(__name__)


class SinkProcessor(BatchProcessor, Generic[R, X]):
    """Processes a batch by way of a sink. The record handler decodes one record, and does no I/O.

    Parameters
    ----------
    event_type
        The batch's source.
    idempotency
        Claims and completes keys.
    sink
        Where records go.
    reserve_milliseconds
        No further piece of the batch is begun when less than this is left of the invocation's time. What has
        not been begun is reported as failed: better than to be killed with claims in hand.
    slice_records
        Size of a piece.

    Example
    -------
    >>> processor = SinkProcessor(EventType.KinesisDataStreams, BulkIdempotency(...), PostgresSink(database))
    >>> process_partial_response(event, decode, processor, context)
    {'batchItemFailures': []}
    """

    def __init__(
        self,
        event_type: EventType,
        idempotency: Idempotency,
        sink: Sink[R, X] | None,
        *,
        reserve_milliseconds: int = 5_000,
        slice_records: int = SLICE_RECORDS,
        unkept: Callable[[X], OncestreamError] | None = None,
    ) -> None:
        # A batch that fails as a whole is answered with its records, too. Powertools would raise an error by
        # default, and for an error Lambda cuts the batch in half, again and again: an outage would leave a
        # stream of single records. For a list of failures it cuts at the lowest, the first, so the batch
        # stays whole.
        super().__init__(event_type, raise_on_entire_batch_failure=False)
        self.results: list[Result[R, X]] = []
        """The last batch's, in its order."""
        self._engine: Engine[R, X] = Engine(
            idempotency,
            reserve_milliseconds=reserve_milliseconds,
            slice_records=slice_records,
            unkept=unkept,
        )
        self._sink = sink
        self._context: LambdaContext | None = None

    def __call__(
        self,
        records: list[dict[str, Any]],
        handler: Callable[..., Any],
        lambda_context: LambdaContext | None = None,
    ) -> Self:
        """Set the batch to process. Powertools calls it."""
        self._context = lambda_context
        super().__call__(records, handler, lambda_context)
        return self

    def process(self) -> list[tuple[Any, ...]]:
        """Process the batch and return Powertools' entry for each record, in order."""
        if self._sink is None:
            raise RuntimeError("there is no sink: call the processor with records and a handler first")
        return self._process(self.handler, self._sink)

    def _process(self, decode: Callable[..., Any], sink: Sink[R, X]) -> list[tuple[Any, ...]]:
        groups = fifo_groups(self.records) if self.event_type is EventType.SQS else {}
        self.results = self._engine.run(self.records, decode, sink, self._milliseconds_left, groups)
        return [
            self._entry(record, result) for record, result in zip(self.records, self.results, strict=True)
        ]

    def _milliseconds_left(self) -> int:
        return self._context.get_remaining_time_in_millis() if self._context else LONGEST_MILLISECONDS

    def _entry(self, record: dict[str, Any], result: Result[R, X]) -> tuple[Any, ...]:
        if result.error is None:
            return self.success_handler(record=record, result=result.outcome)
        # Powertools takes what Lambda knows the record by from its data class. Not needed for what succeeded.
        failed = _DATA_CLASSES[self.event_type](record)
        return self.failure_handler(record=failed, exception=(type(result.error), result.error, None))


class BulkProcessor(SinkProcessor[Delivery, RejectedRecord]):
    """Processes a batch by one call of your function, with the records that are new, as one list.

    Parameters
    ----------
    event_type
        The batch's source: ``SQS`` (standard or FIFO), ``KinesisDataStreams``, ``DynamoDBStreams`` or ``Kafka``.
    persistence_store
        Claims and completes. Its configuration says what of a record is the key (``event_key_jmespath``; without it,
        all of the record) and what is compared (``payload_validation_jmespath``; without it, nothing).
    model
        A pydantic model that each body is validated as. Your function gets its instances. Keys are found in
        ``model_dump(mode="json")``, as Powertools finds them.
    decode
        Makes a body of a record's bytes. Raises ``ValueError`` if it cannot. By default bodies are JSON. DynamoDB's
        records are no bytes, and are not decoded.
    on_rejected
        Called with a list of :class:`RejectedRecord`: what cannot be decoded, and what your function or
        ``on_conflict`` has rejected. What it keeps is done. If it raises, these records are reported as failed with
        its error. Without it, what is rejected is reported as failed. It may be told of a record again if that is
        delivered again. :func:`oncestream.rejected.to_queue` and :func:`oncestream.rejected.to_table` make one.
    on_conflict
        Called with a list of bodies whose keys were done before with another digest. Returns those that are
        :class:`Rejected`; the others are duplicates. Without it, all of them are rejected.
    reserve_milliseconds, slice_records
        As for :class:`SinkProcessor`: your function gets at most ``slice_records`` at once.

    Example
    -------
    >>> config = IdempotencyConfig(event_key_jmespath="order_id", hash_function="sha256")
    >>> store = BulkIdempotency("idempotency", config=config, key_prefix="orders")
    >>> processor = BulkProcessor(EventType.SQS, store)
    >>> def batch_handler(orders):
    ...     save(orders)
    ...     return [Rejected(order, "no such customer") for order in orders if not known(order["customer"])]
    >>> def lambda_handler(event, context):
    ...     return process_partial_response(event, batch_handler, processor, context)

    What your function raises makes all of its records come again, and none is claimed any longer. A
    :class:`TransientError` is reported as failed records, which keeps the batch of a stream whole. Anything else
    goes on to Lambda, which may cut the batch in half (``BisectBatchOnFunctionError``).
    """

    def __init__(
        self,
        event_type: EventType,
        persistence_store: BulkIdempotency,
        *,
        model: type[Any] | None = None,
        decode: Callable[[bytes], Any] = json.loads,
        on_rejected: OnRejected | None = None,
        on_conflict: OnConflict | None = None,
        reserve_milliseconds: int = 5_000,
        slice_records: int = SLICE_RECORDS,
    ) -> None:
        super().__init__(
            event_type,
            persistence_store,
            None,
            reserve_milliseconds=reserve_milliseconds,
            slice_records=slice_records,
            unkept=unkept if on_rejected is None else None,
        )
        self._reader = Reader(event_type, persistence_store, model, decode)
        self._on_rejected = on_rejected
        self._on_conflict = on_conflict

    def process(self) -> list[tuple[Any, ...]]:
        """Process the batch and return Powertools' entry for each record, in order."""
        handler: Callable[..., Any] = self.handler
        if self._context is not None and "lambda_context" in inspect.signature(handler).parameters:
            handler = _with_context(handler, self._context)
        return self._process(self._reader.read, HandlerSink(handler, self._on_rejected, self._on_conflict))


def _with_context(handler: Callable[..., Any], context: LambdaContext) -> Callable[..., Any]:
    return lambda bodies: handler(bodies, lambda_context=context)
