"""On-failure destinations: what a mapping gives up on is kept, or at least told about.

Source: docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html and
services-dynamodb-errors.html (the invocation record, the object's key, "For Amazon S3 destinations, Lambda
also sends the entire invocation record"; the payload there is "an escaped JSON string"). What the pages do not say is
as LocalStack's tests recorded it on AWS (localstack/localstack at 8b9a79f): ``functionError: null`` after a partial
failure, and for a record that is too old RecordAgeExceeded, no ``responseContext``, and a count of at least one.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from lambda_esm.clients import Clients, calling
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.records import Answered, Discard, Event, FunctionFailed


@dataclass(frozen=True, slots=True)
class FailureMessage:
    """A discard on its way to its destination. Made once, so that sending it again writes the same object."""

    destination: str
    """ARN of a bucket, a queue or a topic."""
    body: str
    object_key: str
    """Its key in a bucket."""


def failure_message(mapping: EventSourceMapping, shard_id: str, discard: Discard) -> FailureMessage | None:
    """What to send for a discard; ``None`` if the mapping has no on-failure destination."""
    destination = mapping.settings.on_failure_destination
    if destination is None:
        return None
    record = invocation_record(mapping, shard_id, discard)
    if _service(destination) == "s3":
        record["payload"] = discard.batch.payload.decode()
    moment = datetime.fromtimestamp(discard.at, UTC)
    key = f"aws/lambda/{mapping.uuid}/{shard_id}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"
    return FailureMessage(destination, json.dumps(record), key)


def invocation_record(mapping: EventSourceMapping, shard_id: str, discard: Discard) -> Event:
    """The metadata that Lambda sends about a discarded batch."""
    batch = discard.batch
    outcome = batch.last_outcome
    response: Event = {}
    exhausted = discard.condition == "RetryAttemptsExhausted"
    if exhausted and isinstance(outcome, Answered | FunctionFailed):
        response["responseContext"] = {
            "statusCode": 200,
            "executedVersion": outcome.executed_version,
            "functionError": outcome.kind if isinstance(outcome, FunctionFailed) else None,
        }
    kinesis = mapping.service == "kinesis"
    precision = "milliseconds" if kinesis else "seconds"
    return {
        "requestContext": {
            "requestId": getattr(outcome, "request_id", "") or str(uuid.uuid4()),
            "functionArn": mapping.function_arn,
            "condition": discard.condition,
            "approximateInvokeCount": max(1, batch.invocations),
        },
        **response,
        "version": "1.0",
        "timestamp": _iso(discard.at, "milliseconds"),
        "KinesisBatchInfo" if kinesis else "DDBStreamBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": batch.records[0].sequence_number,
            "endSequenceNumber": batch.records[-1].sequence_number,
            "approximateArrivalOfFirstRecord": _iso(batch.records[0].arrived_at, precision),
            "approximateArrivalOfLastRecord": _iso(batch.records[-1].arrived_at, precision),
            "batchSize": len(batch.records),
            "streamArn": mapping.source_arn,
        },
    }


def send(clients: Clients, message: FailureMessage) -> None:
    """Put the message into its bucket, queue or topic.

    Raises
    ------
    UnavailableError
        It could not be sent; try again. A destination that does not exist is such a case too: Lambda drops the record
        then (metric DestinationDeliveryFailures), but nothing is to be lost here because a bucket comes late.
    """
    *_, account, name = message.destination.split(":")
    service = _service(message.destination)
    call = {"s3": "S3 PutObject", "sqs": "SQS SendMessage", "sns": "SNS Publish"}[service]
    with calling(f"{call}, to send to {message.destination} what was given up"):
        match service:
            case "s3":
                clients.s3.put_object(
                    Bucket=name,
                    Key=message.object_key,
                    Body=message.body.encode(),
                    ContentType="application/json",
                )
            case "sqs":
                url = clients.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
                clients.sqs.send_message(QueueUrl=url, MessageBody=message.body)
            case _:
                clients.sns.publish(TopicArn=message.destination, Message=message.body)


def _service(arn: str) -> str:
    return arn.split(":")[2]


def _iso(moment: float, precision: str) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
