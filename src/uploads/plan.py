"""The ledger's stream: each new upload is cut into byte ranges, each range becomes a chunk job.

A stream's batch is retried from its first failure on, so what succeeded comes again. Only the INSERT of an upload
counts. (The template filters, and so does the code, because a deploy can lose a filter.) The cuts follow from the
upload and the plan in the ledger, the jobs' ids from the upload. So planning twice asks for the same jobs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import (
    DynamoDBRecord,
    DynamoDBRecordEventName,
)
from botocore.exceptions import BotoCoreError, ClientError

from common import clients
from common.errors import PermanentError, TransientError
from common.events import require_records
from common.observability import CHUNK_JOBS_SENT, UPLOADS_FAILED, logger, metrics, tracer
from common.settings import PlanSettings
from common.waiting import Waiting
from uploads.formats.csv_cuts import CsvCuts
from uploads.jobs import ChunkQueue, job_of
from uploads.ledger import ChunkPlan, Ledger
from uploads.objects import ObjectGoneError, Objects
from uploads.upload import UPLOAD_ITEM, Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from uploads.chunk_job import ChunkJob

MAX_CHUNKS = 10_000
"""A file that would have more gets larger chunks: so the plan fits into one item (400 KB) and the account of
all chunks into one answer of Lambda (6 MB)."""


class Planner:
    """Cuts uploads and sends their chunk jobs."""

    def __init__(
        self,
        objects: Objects,
        ledger: Ledger,
        queue: ChunkQueue,
        chunk_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects = objects
        self._ledger = ledger
        self._queue = queue
        self._chunk_bytes = chunk_bytes
        self._now = now

    def plan(self, upload_id: str, time_is_short: Callable[[], bool]) -> int:
        """Send the chunk jobs of an upload and note their number in the ledger; returns it.

        The jobs are sent before they are noted: whatever happens in between, they are sent again, and not
        never.

        Raises
        ------
        TransientError
            The time ran short, or SQS did not take all jobs. What has been found out is kept.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
            An AWS service does not answer, or does not let us.
        """
        upload = self._ledger.upload(upload_id)
        if upload is None or upload.failed is not None:
            logger.info("Nothing to plan", upload=upload_id, failed=upload.failed if upload else "removed")
            return 0
        if upload.chunks is not None:
            logger.info("Duplicate skipped", upload=upload_id)
            return 0
        try:
            starts = self._starts(upload, time_is_short)
        except ObjectGoneError as gone:
            self._ledger.mark_failed(upload, f"{gone}, and it was not planned before")
            metrics.add_metric(UPLOADS_FAILED, MetricUnit.Count, 1)
            logger.warning("Upload failed", upload=upload_id, reason=str(gone))
            return 0
        sent = self._queue.send(jobs(upload, starts), time_is_short)
        self._ledger.mark_planned(upload, sent, self._now())
        logger.info("Planned", upload=upload_id, chunks=sent)
        return sent

    def _starts(self, upload: Upload, time_is_short: Callable[[], bool]) -> list[int]:
        """Where the chunks begin."""
        if upload.size == 0:
            return []
        # -(-a // b) is a / b rounded up.
        plan = self._ledger.open_plan(upload.upload, max(self._chunk_bytes, -(-upload.size // MAX_CHUNKS)))
        if upload.gzip or upload.format == "json" or upload.size <= plan.chunk_bytes:
            return [0]
        if upload.format == "ndjson":
            return list(range(0, upload.size, plan.chunk_bytes))
        return [0, *self._csv_cuts(upload, plan, time_is_short)]

    def _csv_cuts(self, upload: Upload, plan: ChunkPlan, time_is_short: Callable[[], bool]) -> list[int]:
        cuts = list(plan.cuts)
        if plan.complete:
            return cuts
        search = CsvCuts(plan.chunk_bytes, plan.place, upload.delimiter or ",")
        for block in self._objects.blocks(upload, search.place.position):
            if time_is_short():
                found = {"cuts": tuple(cuts), "searched": search.place}
                self._ledger.save_plan(upload.upload, plan.model_copy(update=found))
                raise TransientError(
                    f"the time ran short at byte {search.place.position}; the search goes on from there"
                )
            cuts += search.feed(block)
            if search.over:
                break
        self._ledger.save_plan(upload.upload, plan.model_copy(update={"cuts": tuple(cuts), "complete": True}))
        return cuts


def jobs(upload: Upload, starts: list[int]) -> Iterator[ChunkJob]:
    """The chunk jobs of an upload whose chunks begin at ``starts``."""
    ends = [*starts, upload.size][1:]
    for chunk, (start, end) in enumerate(zip(starts, ends, strict=True)):
        yield job_of(upload, chunk, start, end)


def inserted_upload(record: DynamoDBRecord) -> str | None:
    """The id of the upload whose INSERT this is, or None: anything else in the ledger is not for plan.

    Raises
    ------
    PermanentError
        The record is not the ledger's: its keys are others. It is not passed over in silence. Whoever has wired plan to
        another table hears of it, and the record is kept as any that fails.
    """
    keys = (record.dynamodb.keys if record.dynamodb else None) or {}
    if set(keys) != {"upload", "item"} or not all(isinstance(key, str) for key in keys.values()):
        raise PermanentError(
            f"not a record of the ledger: its keys are {', '.join(sorted(keys)) or 'none'}, and not item, upload;"
            f" it comes from {record.event_source_arn}"
        )
    if record.event_name != DynamoDBRecordEventName.INSERT or keys.get("item") != UPLOAD_ITEM:
        return None
    return str(keys["upload"])


_WORLD = (TransientError, BotoCoreError, ClientError)


@cache
def _waiting() -> Waiting:
    return Waiting(clients.dynamodb_for_notes, _settings().ledger_table, "plan")


@cache
def _settings() -> PlanSettings:
    return PlanSettings.from_environment()


@cache
def _planner() -> Planner:
    settings = _settings()
    return Planner(
        Objects(clients.s3()),
        Ledger(clients.dynamodb(), settings.ledger_table),
        ChunkQueue(clients.sqs(), settings.chunk_queue_url),
        settings.chunk_bytes,
    )


@tracer.capture_method(capture_response=False)
def _plan_record(record: DynamoDBRecord, lambda_context: LambdaContext) -> None:
    upload = None
    sent = 0
    try:
        upload = inserted_upload(record)
        if upload is None:
            logger.info(
                "Ignored",
                event_name=record.raw_event.get("eventName"),
                keys=record.raw_event["dynamodb"]["Keys"],
            )
            return
        reserve = _settings().reserve_milliseconds
        sent = _planner().plan(upload, lambda: lambda_context.get_remaining_time_in_millis() < reserve)
    except Exception as error:
        logger.exception("Not planned", upload=upload)  # Powertools only notes that the record failed
        _waiting().note(
            str(error) if isinstance(error, _WORLD) else f"it fails with {type(error).__name__}: see its log"
        )
        raise
    else:
        _waiting().clear()
    finally:
        metrics.add_metric(CHUNK_JOBS_SENT, MetricUnit.Count, sent)


@metrics.log_metrics
@tracer.capture_lambda_handler(capture_response=False)
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Plan the batch's new uploads; answers with the sequence numbers of those that failed.

    That all fail is no error of the function: bisecting the batch would not help, as each is retried by
    itself.

    Raises
    ------
    PermanentError
        The event is not one of a DynamoDB stream.
    """
    require_records(event, "aws:dynamodb")
    processor = BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)
    return process_partial_response(event, _plan_record, processor, context)
