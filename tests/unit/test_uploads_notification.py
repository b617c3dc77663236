"""S3 notifications: what is an upload, what is ignored, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.uploads_aws import BUCKET, s3_record
from uploads.notification import ObjectCreated, PassedOver, read


@pytest.mark.parametrize(
    ("as_sent", "key"),
    [
        ("plain.ndjson", "plain.ndjson"),
        ("with+spaces+in+it.csv", "with spaces in it.csv"),
        ("a%2Bplus.csv", "a+plus.csv"),
        ("%C3%BCber/%E6%97%A5%E6%9C%AC.json", "über/日本.json"),
        ("50%25.csv", "50%.csv"),
        ("a%0Ab.csv", "a\nb.csv"),
    ],
)
def test_a_key_arrives_url_encoded(as_sent: str, key: str) -> None:
    record = s3_record("x", "etag", 7)
    record["s3"]["object"]["key"] = as_sent
    assert read({"Records": [record]}, BUCKET) == [ObjectCreated(BUCKET, key, '"etag"', None, 7)]


def test_a_version_is_kept() -> None:
    (created,) = read({"Records": [s3_record("a.csv", "e", 1, "v1")]}, BUCKET)
    assert isinstance(created, ObjectCreated)
    assert created.version_id == "v1"


@pytest.mark.parametrize(
    "event", ["ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"]
)
def test_every_way_to_create_an_object_counts(event: str) -> None:
    (created,) = read({"Records": [s3_record("a.csv", "e", 1, event=event)]}, BUCKET)
    assert isinstance(created, ObjectCreated)


def test_a_test_event_is_ignored() -> None:
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET, "RequestId": "1"}
    assert [passed.refused for passed in read(event, BUCKET) if isinstance(passed, PassedOver)] == [False]


def test_a_folder_marker_is_ignored_and_a_file_of_that_name_is_not() -> None:
    marker, file = read({"Records": [s3_record("a/", "e", 0), s3_record("a/", "e", 1)]}, BUCKET)
    assert marker == PassedOver("a folder marker", refused=False, key="a/")
    assert isinstance(file, ObjectCreated)


def changed(**changes: Any) -> dict[str, Any]:
    return s3_record("a.csv", "e", 1) | changes


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"Records": [s3_record("a.csv", "e", 1, bucket="other")]}, "bucket 'other', not"),
        ({"Records": [s3_record("a.csv", "e", 1, event="ObjectRemoved:Delete")]}, "'ObjectRemoved:Delete'"),
        ({"Records": [changed(eventSource="aws:sqs")]}, "eventSource: Input should be 'aws:s3'"),
        ({"Records": [changed(s3={"bucket": {"name": BUCKET}})]}, "s3.object: Field required"),
        ({"Records": ["text"]}, "not an S3 notification"),
        ({"Records": []}, "no records"),
        ({}, "no records"),
        ("text", "no records"),
        (None, "no records"),
    ],
)
def test_anything_else_is_refused_with_the_reason(event: Any, reason: str) -> None:
    (passed,) = read(event, BUCKET)
    assert isinstance(passed, PassedOver)
    assert passed.refused
    assert reason in passed.reason


def test_a_key_that_is_not_utf8_is_refused() -> None:
    record = s3_record("x", "e", 1)
    record["s3"]["object"]["key"] = "%FF.csv"
    assert read({"Records": [record]}, BUCKET) == [PassedOver("the key is not UTF-8", True, "%FF.csv")]


def test_one_refused_record_leaves_the_others() -> None:
    good, bad = s3_record("a.csv", "e", 1), s3_record("a.csv", "e", 1, bucket="other")
    assert [type(each) for each in read({"Records": [bad, good]}, BUCKET)] == [PassedOver, ObjectCreated]


def by_eventbridge(key: str = "a b/ü+%25.csv", **changes: Any) -> dict[str, Any]:
    """As docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html shows it."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2021-11-12T00:00:00Z",
        "region": "ca-central-1",
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {
            "version": "0",
            "bucket": {"name": BUCKET},
            "object": {
                "key": key,
                "size": 5,
                "etag": "e1",
                "version-id": "v1",
                "sequencer": "617f08299329d189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "reason": "PutObject",
        },
    } | changes


def test_an_object_created_event_by_eventbridge_is_taken_and_its_key_is_not_encoded() -> None:
    assert read(by_eventbridge(), BUCKET) == [ObjectCreated(BUCKET, "a b/ü+%25.csv", '"e1"', "v1", 5)]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (
            by_eventbridge(**{"detail-type": "Object Deleted"}),
            "'Object Deleted' of 'aws.s3' by EventBridge, not",
        ),
        (by_eventbridge(source="aws.ec2"), "'Object Created' of 'aws.ec2' by EventBridge, not"),
        (by_eventbridge(detail={"bucket": {"name": BUCKET}}), "detail.object: Field required"),
        (
            by_eventbridge(detail=by_eventbridge()["detail"] | {"bucket": {"name": "other"}}),
            f"bucket 'other', not '{BUCKET}'",
        ),
    ],
)
def test_any_other_event_by_eventbridge_is_refused_with_the_reason(event: Any, reason: str) -> None:
    (passed,) = read(event, BUCKET)
    assert isinstance(passed, PassedOver)
    assert passed.refused
    assert reason in passed.reason


def test_a_folder_marker_by_eventbridge_is_ignored() -> None:
    event = by_eventbridge("a/")
    event["detail"]["object"]["size"] = 0
    assert read(event, BUCKET) == [PassedOver("a folder marker", refused=False, key="a/")]
