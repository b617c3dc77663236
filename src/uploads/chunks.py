"""The queue of chunk jobs: each job's byte range of an uploaded file goes onto the stream.

SQS delivers a message at least once. Two things make that harmless: Powertools' ``idempotent_function`` runs a
job once, as long as the table remembers it; and a job that runs again (it failed half-way, or its memory has
expired) publishes the same record ids, which the consumer knows.

What becomes of a message:

- its job is done, now or earlier: deleted
- its job could not be finished (a service is away, the time ran out, another invocation is at it): back to
  the queue, delivered again after the visibility timeout
- its job can never be done (it is no job, the object is gone, the file is damaged): into the dead-letter queue, at
  once and by this function, and deleted. Left to ``maxReceiveCount``, the file would be read 24 times, and nobody
  would hear of it for two hours. The queue's alarm rings, and ``once redrive chunks`` finds the job there. The ledger
  has the reason, unless the message is no job at all.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
)
from botocore.exceptions import BotoCoreError, ClientError

from common import clients
from common.errors import PermanentError, TransientError
from common.events import require_records
from common.observability import (
    CHUNKS_FAILED,
    CHUNKS_PUBLISHED,
    CHUNKS_RETRIED,
    DUPLICATE_CHUNKS_SKIPPED,
    LINES_REJECTED,
    RECORDS_PUBLISHED,
    logger,
    metrics,
    tracer,
)
from common.settings import ChunksSettings
from common.waiting import Waiting
from producer.publish import Publisher
from uploads.chunk_job import ChunkJob
from uploads.chunk_ledger import ChunkLedger
from uploads.chunk_worker import ChunkWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.batch import ExceptionInfo
    from aws_lambda_powertools.utilities.batch.base import FailureResponse
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

KEY_PREFIX = "chunks"
"""Of the items in the idempotency table: ``chunks#<sha256 of the job id>``."""


@cache
def _settings() -> ChunksSettings:
    return ChunksSettings.from_environment()


@cache
def _waiting() -> Waiting:
    return Waiting(clients.dynamodb_for_notes, _settings().ledger_table, "chunks")


@cache
def _idempotency() -> IdempotencyConfig:
    return IdempotencyConfig(
        event_key_jmespath="job",
        raise_on_no_idempotency_key=True,
        expires_after_seconds=_settings().idempotency_expiry_seconds,
        hash_function="sha256",
        response_hook=_skipped,
    )


def _skipped(response: Any, idempotent_data: DataRecord) -> Any:
    """Powertools calls this instead of the function for a job that is done."""
    logger.info("Duplicate skipped", count=response)
    metrics.add_metric(DUPLICATE_CHUNKS_SKIPPED, MetricUnit.Count, 1)
    return response


@cache
def _publish_once() -> Callable[..., dict[str, int]]:
    """The work on one job, made idempotent. Made on first use: importing touches no environment."""
    settings = _settings()
    dynamodb = clients.dynamodb()
    publisher = Publisher(clients.kinesis(), settings.stream_name, attempts=settings.publish_attempts)
    worker = ChunkWorker(clients.s3(), publisher, ChunkLedger(dynamodb, settings.ledger_table))

    @idempotent_function(  # type: ignore[untyped-decorator]  # Powertools gives it no type
        data_keyword_argument="job",
        persistence_store=DynamoDBPersistenceLayer(settings.idempotency_table, boto3_client=dynamodb),
        config=_idempotency(),
        key_prefix=KEY_PREFIX,
    )
    def publish(*, job: ChunkJob, seconds_left: Callable[[], float]) -> dict[str, int]:
        count = worker.work(job, seconds_left)
        counts: dict[str, int] = count.model_dump(include={"lines", "published", "rejected"})
        logger.info("Chunk published", count=counts)
        metrics.add_metric(CHUNKS_PUBLISHED, MetricUnit.Count, 1)
        metrics.add_metric(RECORDS_PUBLISHED, MetricUnit.Count, count.published)
        metrics.add_metric(LINES_REJECTED, MetricUnit.Count, count.rejected)
        return counts

    return cast("Callable[..., dict[str, int]]", publish)


def _take(record: SQSRecord, lambda_context: LambdaContext) -> dict[str, int]:
    logger.append_keys(message_id=record.message_id, job=None)
    try:
        return _work(record.body, lambda_context)
    except PermanentError as error:
        _set_aside(record.body, error)
        return {}


def _set_aside(body: str, fault: PermanentError) -> None:
    """Put a message into the dead-letter queue: it need not come again to fail again.

    Raises
    ------
    TransientError
        The queue does not take it. SQS puts it there after ``maxReceiveCount`` deliveries.
    """
    metrics.add_metric(CHUNKS_FAILED, MetricUnit.Count, 1)
    logger.error("Chunk failed, for good", reason=str(fault))
    try:
        clients.sqs().send_message(QueueUrl=_settings().chunk_dead_letter_queue_url, MessageBody=body)
    except (BotoCoreError, ClientError) as error:
        raise TransientError(f"the dead-letter queue does not take the job: {error}") from error


def _work(body: str, lambda_context: LambdaContext) -> dict[str, int]:
    job = ChunkJob.from_json(body)
    logger.append_keys(job=job.job)
    reserve = _settings().reserve_milliseconds

    def seconds_left() -> float:
        return (lambda_context.get_remaining_time_in_millis() - reserve) / 1000

    if seconds_left() <= 0:
        raise TransientError("no time is left to begin the chunk")
    _idempotency().register_lambda_context(lambda_context)
    count = _publish_once()(job=job, seconds_left=seconds_left)
    _waiting().clear()
    return count


class _Processor(BatchProcessor):
    """Powertools' processor, which reports failures to SQS; this one also logs of what kind they are."""

    def failure_handler(self, record: Any, exception: ExceptionInfo) -> FailureResponse:
        error = exception[1]
        match error:
            case IdempotencyAlreadyInProgressError():
                logger.info("Chunk is in progress in another invocation, its message goes back")
            case TransientError() | IdempotencyPersistenceLayerError() | IdempotencyInconsistentStateError():
                logger.warning("Chunk not finished, its message goes back", reason=str(error))
                _waiting().note(str(error))
            case _:
                _waiting().note(f"it fails with {type(error).__name__}: see its log")
                logger.error("Defect in the program, the message goes back", exc_info=error)
        metrics.add_metric(CHUNKS_RETRIED, MetricUnit.Count, 1)
        return super().failure_handler(record, exception)


@metrics.log_metrics(raise_on_empty_metrics=False)
@tracer.capture_lambda_handler(capture_response=False)
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Work on the batch's chunk jobs; answers with the ids of the messages that are to be delivered again.

    That all of them are is no error of the function: each says in the log why.

    Raises
    ------
    PermanentError
        The event is not one of an SQS queue.
    """
    require_records(event, "aws:sqs")
    processor = _Processor(EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event, _take, processor, context)
