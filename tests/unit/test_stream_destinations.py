"""What a mapping gives up on, and the records it leaves behind."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws

from lambda_esm.clients import Clients, UnavailableError
from lambda_esm.destinations import failure_message, invocation_record, send
from lambda_esm.records import Answered, Batch, Discard, FunctionFailed, NotInvoked, Outcome
from tests.unit.stream_records import TABLE_STREAM_ARN, mapping, record

AT = datetime(2026, 11, 21, 8, 30, 5, 250_000, tzinfo=UTC).timestamp()
BATCH = Batch(
    (record(1, arrived_at=AT - 10), record(2, arrived_at=AT - 5)),
    retries=2,
    invocations=3,
    last_outcome=FunctionFailed("boom", "Unhandled", "request-7", "12"),
)
DISCARD = Discard(BATCH, "RetryAttemptsExhausted", AT)


def to(destination: str, **changes: Any) -> Any:
    return mapping(DestinationConfig={"OnFailure": {"Destination": destination}}, **changes)


def test_the_invocation_record_of_a_kinesis_batch_is_the_documented_one() -> None:
    assert invocation_record(mapping(), "shardId-000000000001", DISCARD) == {
        "requestContext": {
            "requestId": "request-7",
            "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:consumer",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "12", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2026-11-21T08:30:05.250Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000001",
            "startSequenceNumber": "1",
            "endSequenceNumber": "2",
            "approximateArrivalOfFirstRecord": "2026-11-21T08:29:55.250Z",
            "approximateArrivalOfLastRecord": "2026-11-21T08:30:00.250Z",
            "batchSize": 2,
            "streamArn": "arn:aws:kinesis:us-east-1:000000000000:stream/records",
        },
    }


def test_that_of_a_dynamodb_batch_has_whole_seconds_and_its_own_name() -> None:
    info = invocation_record(mapping(EventSourceArn=TABLE_STREAM_ARN), "s0", DISCARD)["DDBStreamBatchInfo"]

    assert info["approximateArrivalOfFirstRecord"] == "2026-11-21T08:29:55Z"
    assert info["streamArn"] == TABLE_STREAM_ARN


@pytest.mark.parametrize(
    ("outcome", "context"),
    [
        (Answered({}), {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}),
        (NotInvoked("throttled"), None),
        (None, None),
    ],
)
def test_without_a_function_error_none_is_told(outcome: Outcome | None, context: object) -> None:
    discard = Discard(Batch((record(1),), last_outcome=outcome), "RetryAttemptsExhausted", AT)
    told = invocation_record(mapping(), "s0", discard)

    assert told.get("responseContext") == context
    assert told["requestContext"]["requestId"]


@pytest.mark.parametrize("outcome", [FunctionFailed("error"), Answered({}), None])
@pytest.mark.parametrize(("invocations", "count"), [(0, 1), (8, 8)])
def test_of_a_record_that_is_too_old_no_response_is_told(
    outcome: Outcome | None, invocations: int, count: int
) -> None:
    batch = Batch((record(1),), invocations=invocations, last_outcome=outcome)
    told = invocation_record(mapping(), "s0", Discard(batch, "RecordAgeExceeded", AT))

    assert "responseContext" not in told
    assert told["requestContext"]["condition"] == "RecordAgeExceeded"
    assert told["requestContext"]["approximateInvokeCount"] == count
    assert told["requestContext"]["requestId"]


def test_without_a_destination_there_is_nothing_to_send() -> None:
    assert failure_message(mapping(), "s0", DISCARD) is None


def test_a_bucket_gets_the_whole_event_as_an_escaped_string_under_the_documented_key() -> None:
    message = failure_message(to("arn:aws:s3:::discarded"), "s0", DISCARD)

    assert message is not None
    payload = json.loads(message.body)["payload"]
    assert json.loads(payload) == BATCH.event
    assert re.fullmatch(
        r"aws/lambda/0f1e2d3c-0000-4000-8000-000000000000/s0/2026/11/21/2026-11-21T08\.30\.05-[0-9a-f-]{36}",
        message.object_key,
    )


@pytest.mark.parametrize("service", ["sqs", "sns"])
def test_a_queue_and_a_topic_get_metadata_only(service: str) -> None:
    message = failure_message(to(f"arn:aws:{service}:us-east-1:123456789012:failed"), "s0", DISCARD)

    assert message is not None
    assert "payload" not in json.loads(message.body)


class TestSend:
    def test_to_a_bucket(self) -> None:
        with mock_aws():
            s3 = boto3.client("s3")
            s3.create_bucket(Bucket="discarded")
            message = failure_message(to("arn:aws:s3:::discarded"), "s0", DISCARD)
            assert message is not None
            send(Clients(), message)
            send(Clients(), message)

            [kept] = s3.list_objects_v2(Bucket="discarded")["Contents"]
            assert kept["Key"] == message.object_key
            body = s3.get_object(Bucket="discarded", Key=kept["Key"])["Body"].read()
            assert body.decode() == message.body

    def test_to_a_queue(self) -> None:
        with mock_aws():
            sqs = boto3.client("sqs")
            url = sqs.create_queue(QueueName="failed")["QueueUrl"]
            message = failure_message(to("arn:aws:sqs:us-east-1:123456789012:failed"), "s0", DISCARD)
            assert message is not None
            send(Clients(), message)

            [received] = sqs.receive_message(QueueUrl=url)["Messages"]
            assert received["Body"] == message.body

    def test_to_a_topic(self) -> None:
        with mock_aws():
            sns, sqs = cast("Any", boto3).client("sns"), boto3.client("sqs")
            topic = sns.create_topic(Name="failed")["TopicArn"]
            url = sqs.create_queue(QueueName="listener")["QueueUrl"]
            sns.subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint="arn:aws:sqs:us-east-1:123456789012:listener",
                Attributes={"RawMessageDelivery": "true"},
            )
            message = failure_message(to(topic), "s0", DISCARD)
            assert message is not None
            send(Clients(), message)

            [received] = sqs.receive_message(QueueUrl=url)["Messages"]
            assert received["Body"] == message.body

    @pytest.mark.parametrize(
        "destination", ["arn:aws:s3:::missing", "arn:aws:sqs:us-east-1:123456789012:missing"]
    )
    def test_a_missing_destination_is_worth_another_try(self, destination: str) -> None:
        with mock_aws():
            message = failure_message(to(destination), "s0", DISCARD)
            assert message is not None

            with pytest.raises(UnavailableError, match=f"send to {destination}"):
                send(Clients(), message)
