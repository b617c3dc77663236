"""Short ways to say "three records" in the tests of lambda_esm."""

from __future__ import annotations

from collections.abc import Sequence

from lambda_esm.mapping import EventSourceMapping
from lambda_esm.records import Batch, StreamRecord

STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/records"
TABLE_STREAM_ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/ledger/stream/2026-11-21T00:00:00.000"
CONFIGURATION = {
    "UUID": "0f1e2d3c-0000-4000-8000-000000000000",
    "EventSourceArn": STREAM_ARN,
    "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:consumer",
    "StartingPosition": "TRIM_HORIZON",
}


def record(number: int, *, key: str = "k", arrived_at: float = 0.0, size: int = 0) -> StreamRecord:
    """The record with sequence number ``number``; its event is a little larger than ``size`` bytes."""
    return StreamRecord.of(str(number), key, arrived_at, {"number": number, "filling": "x" * size})


def records(*numbers: int, key: str = "k", arrived_at: float = 0.0) -> list[StreamRecord]:
    return [record(number, key=key, arrived_at=arrived_at) for number in numbers]


def numbers(batch: Batch | Sequence[StreamRecord]) -> list[int]:
    """The sequence numbers of a batch, or of records."""
    return [int(each.sequence_number) for each in (batch.records if isinstance(batch, Batch) else batch)]


def mapping(**changes: object) -> EventSourceMapping:
    """A mapping with some of the API's settings."""
    return EventSourceMapping.from_configuration(CONFIGURATION | changes)
