"""Events in the shapes that AWS gives them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from local.streams.records import StreamRecord


def stream_record(event: dict[str, Any]) -> StreamRecord:
    """An entry of a Kinesis event as the poller has it."""
    about = event["kinesis"]
    return StreamRecord.of(
        about["sequenceNumber"], about["partitionKey"], about["approximateArrivalTimestamp"], event
    )


def s3_event(key: str, etag: str, size: int) -> dict[str, Any]:
    """A notification of S3."""
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": "uploads"},
                    "object": {"key": key, "size": size, "eTag": etag},
                },
            }
        ]
    }


def sqs_event(message_id: str, body: str) -> dict[str, Any]:
    """A batch of one message."""
    return {
        "Records": [
            {
                "messageId": message_id,
                "receiptHandle": "r",
                "body": body,
                "attributes": {},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:chunks",
                "awsRegion": "us-east-1",
            }
        ]
    }


def claim_key(record_id: str) -> str:
    """The key of a record's claim."""
    return f"records#{hashlib.sha256(json.dumps(record_id).encode()).hexdigest()}"
