"""What AWS may send twice, sent again: an S3 notification, the chunk jobs of an upload."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from uploads.jobs import ChunkQueue
from uploads.ledger import Ledger
from uploads.plan import jobs

if TYPE_CHECKING:
    from local.stack import Stack


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that is in the bucket."""

    key: str
    upload: str
    """The id of the upload that it is."""


def notify(stack: Stack, uploaded: Uploaded) -> int:
    """Invoke register as S3 does: without waiting for it. Returns how many notifications were sent.

    The structure: docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    bucket = stack.outputs["UploadBucketName"]
    head = stack.client("s3").head_object(Bucket=bucket, Key=uploaded.key)
    entity = {
        "key": quote_plus(uploaded.key),
        "size": head["ContentLength"],
        "eTag": head["ETag"].strip('"'),
        "sequencer": "00000660C61D1C6E9F",
    }
    if "VersionId" in head:
        entity["versionId"] = head["VersionId"]
    record = {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": entity},
    }
    stack.client("lambda").invoke(
        FunctionName=stack.outputs["RegisterFunctionName"],
        InvocationType="Event",
        Payload=json.dumps({"Records": [record]}).encode(),
    )
    return 1


def queue_jobs(stack: Stack, uploaded: Uploaded) -> int:
    """Put an upload's chunk jobs on the queue again, as plan does when it is retried. Returns how many.

    None as long as it is not planned.
    """
    ledger = Ledger(stack.client("dynamodb"), stack.outputs["LedgerTableName"])
    upload = ledger.upload(uploaded.upload)
    if upload is None or upload.chunks is None:
        return 0
    plan = ledger.open_plan(uploaded.upload, upload.size)  # it is there: the one that the upload was cut by
    starts = [0] if upload.size <= plan.chunk_bytes else list(range(0, upload.size, plan.chunk_bytes))
    queue = ChunkQueue(stack.client("sqs"), stack.outputs["ChunkQueueUrl"])
    return queue.send(jobs(upload, starts), lambda: False)
