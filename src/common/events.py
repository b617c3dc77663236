"""Checks which service an event comes from, so that a function wired to the wrong one says so."""

from __future__ import annotations

from typing import Any

from common.errors import PermanentError

_NAMES = {
    "aws:dynamodb": "a DynamoDB stream",
    "aws:kinesis": "a Kinesis stream",
    "aws:s3": "an S3 notification",
    "aws:sns": "SNS",
    "aws:sqs": "an SQS queue",
}


def require_records(event: Any, source: str) -> None:
    """Check that an event is a list of records of one source.

    Parameters
    ----------
    source
        What each record names as its ``eventSource``, such as ``aws:sqs``.

    Raises
    ------
    PermanentError
        It is not. The message names what came.
    """
    wanted = f"not an event of {_NAMES[source]}"
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not records:
        raise PermanentError(f'{wanted}: it has no list "Records"{_guess(event)}')
    for record in records:
        found = record.get("eventSource", record.get("EventSource")) if isinstance(record, dict) else None
        if found != source:
            named = f" ({_NAMES[found]})" if isinstance(found, str) and found in _NAMES else ""
            raise PermanentError(f"{wanted}: a record's eventSource is {found!r}{named}")


def _guess(event: Any) -> str:
    """What an event without records seems to be, as the end of a sentence."""
    if not isinstance(event, dict):
        return f", and is no object but of type {type(event).__name__}"
    if "deliveryStreamArn" in event:
        return f"; it comes from Firehose, {event['deliveryStreamArn']}"
    if "detail-type" in event:
        return f"; it comes from EventBridge: {event['detail-type']!r} of {event.get('source')!r}"
    if event.get("eventSource") in ("aws:kafka", "SelfManagedKafka"):
        return "; it comes from Kafka"
    if "requestContext" in event:
        return "; it is a request over HTTP"
    return f"; its keys are {', '.join(sorted(map(str, event))[:10]) or 'none'}"
