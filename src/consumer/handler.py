"""The consumer function: settles a batch of the stream and answers with the records that it could not settle."""

from __future__ import annotations

import gc
from functools import cache
from typing import TYPE_CHECKING, Any

# First, before anything imports pydantic: once that is there, Powertools' batch module loads the models of
# its parser as well. Nothing here uses them, and they take 80 ms.
from aws_lambda_powertools.utilities.batch import EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig

from common import clients
from common.events import require_records
from common.observability import logger, metrics, tracer
from common.settings import ConsumerSettings, NotesSettings
from common.waiting import Waiting
from consumer.decode import Arrived, Rejection, decode
from consumer.report import note, report
from consumer.sink import PostgresSink
from oncestream.idempotency import BulkIdempotency
from oncestream.processor import SinkProcessor
from postgres.database import Database

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

KEY_PREFIX = "records"
"""Comes before each key in the idempotency table, which other functions use as well."""
GARBAGE_THRESHOLD = 100_000
"""Objects that are made, and not freed, before the garbage collector looks for cycles."""


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Settle a batch of a Kinesis stream. The answer names the records that Lambda has to deliver again.

    Of a tumbling window nothing is needed, but an answer without ``state`` counts as a failure
    (docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html): it is handed back as it came. A window's
    last invocation may have no records.

    Raises
    ------
    PermanentError
        The event is not one of a Kinesis stream.
    pydantic.ValidationError
        The function's environment is wrong; the message names the variable.
    """
    state = {"state": event.get("state") or {}} if isinstance(event, dict) and "window" in event else {}
    if state and not event.get("Records"):
        return {"batchItemFailures": [], **state}
    require_records(event, "aws:kinesis")
    try:
        processor = _processor()
        answer = process_partial_response(event, decode, processor, context)
    except Exception as error:  # a defect, or a wrong setting: not settled here, only told
        # Without its message, which may quote a record; the log has it.
        _waiting().note(f"it fails with {type(error).__name__}, which is no outage: see its log")
        raise
    report(processor.results)
    note(processor.results, _waiting())
    return {**answer, **state}


@cache
def _waiting() -> Waiting:
    return Waiting(clients.dynamodb_for_notes, NotesSettings.from_environment().ledger_table, "consumer")


@cache
def _processor() -> SinkProcessor[Arrived, Rejection]:
    """Made at the first invocation and kept: with it, the connections to DynamoDB and Postgres."""
    # A batch makes some 15 objects a record, in no cycles, and they live until it is done: by the usual
    # threshold the collector walks them again and again, and finds nothing. It still comes, every few batches.
    gc.set_threshold(GARBAGE_THRESHOLD)
    settings = ConsumerSettings.from_environment()
    idempotency = BulkIdempotency(
        settings.idempotency_table,
        config=IdempotencyConfig(
            expires_after_seconds=settings.idempotency_expiry_seconds, hash_function="sha256"
        ),
        key_prefix=KEY_PREFIX,
        boto3_client=clients.dynamodb(),
        transport=clients.dynamodb_transport(),
        in_flight=settings.idempotency_requests_in_flight,
        # Completing and releasing may both fall into the reserve.
        patience_seconds=max(1.0, settings.reserve_milliseconds / 2_000),
    )
    return SinkProcessor(
        EventType.KinesisDataStreams,
        idempotency,
        PostgresSink(Database(settings)),
        reserve_milliseconds=settings.reserve_milliseconds,
    )
