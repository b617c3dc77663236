"""Events in the shapes that AWS gives them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Literal

from lambda_esm import StreamRecord

type Via = Literal["direct", "http", "ndjson"]
"""How records are posted: by a direct invocation, over HTTP as JSON, or as NDJSON (there in base64)."""


def stream_record(event: dict[str, Any]) -> StreamRecord:
    """An entry of a Kinesis event as the poller has it."""
    about = event["kinesis"]
    return StreamRecord.of(
        about["sequenceNumber"], about["partitionKey"], about["approximateArrivalTimestamp"], event
    )


def post_event(records: list[str], via: Via) -> dict[str, Any]:
    """A request to the producer: a direct invocation, or an event of the HTTP API (payload format 2.0).

    The runtime has parsed what comes with a direct invocation. HTTP bodies are as the caller has written them.
    """
    if via == "direct":
        return {"records": [json.loads(record) for record in records]}
    if via == "http":
        body, kind = f'{{"records": [{", ".join(records)}]}}', "application/json"
    else:
        lines = "".join(f"{record}\n" for record in records)
        body, kind = base64.b64encode(lines.encode()).decode(), "application/x-ndjson"
    return {
        "version": "2.0",
        "routeKey": "POST /records",
        "rawPath": "/records",
        "rawQueryString": "",
        "headers": {"content-type": kind},
        "requestContext": {
            "http": {"method": "POST", "path": "/records"},
            "requestId": "request-1",
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": via == "ndjson",
    }


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
