"""Places to keep rejected records in, for ``on_rejected`` of :class:`oncestream.BulkProcessor`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from oncestream.errors import TransientError
from oncestream.handling import RejectedRecord

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBServiceResource
    from mypy_boto3_sqs import SQSClient

A_CALL = 10
BYTES_A_CALL = 250_000
"""docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html: what every queue takes."""


def to_queue(queue_url: str, client: SQSClient | None = None) -> Callable[[list[RejectedRecord]], None]:
    """Keep rejected records in an SQS queue, as JSON: ``id``, ``reason``, ``raw`` (base64), ``conflict``, ``source``.

    Needs ``sqs:SendMessage``. A record too large for a message is not kept, and is reported as failed.

    Example
    -------
    >>> processor = BulkProcessor(EventType.SQS, store, on_rejected=to_queue(os.environ["REJECTED_QUEUE_URL"]))
    """
    sqs = client or boto3.client("sqs")

    def keep(rejected: list[RejectedRecord]) -> None:
        for group in _groups(rejected):
            entries: Any = []
            for number, (each, body) in enumerate(group):
                entry = {"Id": str(number), "MessageBody": body}
                if queue_url.endswith(".fifo"):
                    entry |= {"MessageGroupId": each.id, "MessageDeduplicationId": each.id}
                entries.append(entry)
            try:
                answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                raise TransientError(f"queue {queue_url}: {error}") from error
            if failed := answer.get("Failed"):
                raise TransientError(
                    f"queue {queue_url} did not take {len(failed)} of {len(entries)} rejected records: "
                    f"{failed[0].get('Code')}: {failed[0].get('Message')}"
                )

    return keep


def to_table(
    table_name: str, resource: DynamoDBServiceResource | None = None
) -> Callable[[list[RejectedRecord]], None]:
    """Keep rejected records in a DynamoDB table with the partition key ``id`` (text).

    Items have ``reason``, ``raw`` (binary), ``conflict`` and ``source``. Needs ``dynamodb:BatchWriteItem``. A record
    too large for an item (400 KB) is not kept, and is reported as failed.

    Example
    -------
    >>> processor = BulkProcessor(EventType.SQS, store, on_rejected=to_table("rejected"))
    """
    table = (resource or boto3.resource("dynamodb")).Table(table_name)

    def keep(rejected: list[RejectedRecord]) -> None:
        try:
            with table.batch_writer(overwrite_by_pkeys=["id"]) as writer:
                for each in rejected:
                    item = {"id": each.id, "reason": each.reason, "raw": each.raw}
                    writer.put_item(Item=item | {"conflict": each.conflict, "source": _source(each)})
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"table {table_name}: {error}") from error

    return keep


def _groups(rejected: list[RejectedRecord]) -> Iterator[list[tuple[RejectedRecord, str]]]:
    group: list[tuple[RejectedRecord, str]] = []
    size = 0
    for each in rejected:
        body = json.dumps(
            {
                "id": each.id,
                "reason": each.reason,
                "raw": base64.b64encode(each.raw).decode(),
                "conflict": each.conflict,
                "source": _source(each),
            }
        )
        if group and (len(group) == A_CALL or size + len(body) > BYTES_A_CALL):
            yield group
            group, size = [], 0
        group.append((each, body))
        size += len(body)
    if group:
        yield group


def _source(rejected: RejectedRecord) -> str:
    """The ARN of the source; Kafka's records name their topic only."""
    return str(rejected.record.get("eventSourceARN") or rejected.record.get("topic") or "")
